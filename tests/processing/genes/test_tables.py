from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from scvae_data.errors import DamagedFileError
from scvae_data.processing.genes import tables
from scvae_data.processing.genes.names import CleanTable, clean_table
from scvae_data.processing.genes.tables import load_clean_table, load_table, names_of_columns, store_table, table_file
from scvae_data.readers.base import GeneTable

IDS = ["ENSG00000141510.18", "ENSMUSG00000064341", "ENSG00000182378.14_PAR_Y"]
SYMBOLS = ["GRCh38_TP53", " GRCm39_mt-Nd1", "GRCh38_PLCXD1"]
COLUMNS = {
    "versions": (IDS, IDS, SYMBOLS),
    "no versions": ([name.partition(".")[0] for name in IDS], None, None),
    "ids beside names": (SYMBOLS, IDS, SYMBOLS),
    "a name among ids": ([*IDS[:2], "GFP"], [*IDS[:2], "GFP"], None),
    "symbols alone": (["TP53", "b'ACTB'", ""], None, ["TP53", "b'ACTB'", ""]),
    "no rows": ([], [], []),
}


def table(names: Sequence[str], *others: Sequence[str] | None) -> GeneTable:
    return GeneTable(np.array(names, object), *(None if one is None else np.array(one, object) for one in others))


def told(clean: CleanTable) -> dict[str, object]:
    columns = {name: getattr(clean, name) for name in ("names", "ids", "symbols")}
    return {name: one and (one.names, one.letters, one.genomes, one is clean.names) for name, one in columns.items()}


@pytest.mark.parametrize("columns", COLUMNS.values(), ids=COLUMNS)
def test_a_table_keeps_its_columns_and_what_is_clean_of_them(
    columns: tuple[Sequence[str], Sequence[str] | None, Sequence[str] | None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = table(*columns)
    key = store_table(given, tmp_path)
    found = load_table(tmp_path, key)
    for column, other in zip(columns, (found.names, found.ids, found.symbols), strict=True):
        assert (other is None) if column is None else other.tolist() == column
    there = [name for name, column in zip(("names", "ids", "symbols"), columns, strict=True) if column is not None]
    assert names_of_columns(tmp_path, key) == there
    with monkeypatch.context() as patch:
        patch.setattr(tables, "clean_table", lambda _: pytest.fail("it is kept"))
        clean = load_clean_table(tmp_path, key)
    assert told(clean) == told(clean_table(given))


def test_what_another_version_made_of_names_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = table(IDS, IDS, SYMBOLS)
    with monkeypatch.context() as patch:
        patch.setattr(tables, "CLEANED", 0)
        patch.setattr(tables, "clean_table", lambda _: clean_table(table(["A"] * 3, ["A"] * 3, ["A"] * 3)))
        key = store_table(given, tmp_path)
        assert load_clean_table(tmp_path, key).names.names == ["A"] * 3
    assert told(load_clean_table(tmp_path, key)) == told(clean_table(given))


@pytest.mark.parametrize("damage", [b"ENSMUSG", None])
def test_what_was_told_of_names_is_not_used_where_it_is_damaged(damage: bytes | None, tmp_path: Path) -> None:
    given = table(IDS, IDS, SYMBOLS)
    key = store_table(given, tmp_path)
    path = table_file(tmp_path, key)
    arrow = pq.read_table(path)
    facts = arrow.schema.metadata[b"clean"]
    metadata = {} if damage is None else {b"clean": facts.replace(damage, b"ENSMUSX")}
    assert metadata != {b"clean": facts}
    pq.write_table(arrow.replace_schema_metadata(metadata), path)
    assert told(load_clean_table(tmp_path, key)) == told(clean_table(given))


@pytest.mark.parametrize("read", [load_table, load_clean_table, names_of_columns])
def test_a_table_that_cannot_be_read_is_told_with_a_remedy(read: Callable[[Path, str], Any], tmp_path: Path) -> None:
    key = store_table(table(IDS, IDS, SYMBOLS), tmp_path)
    path = table_file(tmp_path, key)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DamagedFileError, match=rf"{key}\.parquet: is damaged \(.*\); delete it, then resume=true"):
        read(tmp_path, key)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        read(tmp_path, key)
