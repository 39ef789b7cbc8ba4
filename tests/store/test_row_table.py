from __future__ import annotations

import pickle
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from scvae_data.errors import DamagedFileError
from scvae_data.store import FileFacts, ObsColumn
from scvae_data.store.row_table import LIMITS, RowTable, RowTableWriter, n_bytes_of, split_limit, stored_types
from scvae_data.store.source import LocalFile

SIZES = (3, 1, 4)
FIRST_ROWS = np.cumsum([0, *SIZES])
COLUMNS = {
    "kind": ObsColumn("categorical", ("a", "b")),
    "note": ObsColumn("string"),
    "flag": ObsColumn("bool"),
    "maybe": ObsColumn("Int64"),
    "ratio": ObsColumn("float32"),
    "split_hash": ObsColumn("uint32"),
}
TYPES = stored_types(COLUMNS)
VALUES = {
    "kind": np.array([0, 1, -1, 1, 0, 0, -1, 1], np.int32),
    "flag": np.arange(8) % 3 == 0,
    "ratio": np.array([0, 0.5, np.nan, 1, 2, -1, np.inf, 3], np.float32),
    "split_hash": np.array([0, 5, 2**32 - 1, 7, *(split_limit(share) for share in (0.1, 0.2, 0.3, 0.4))], np.uint32),
}


def write(path: Path) -> FileFacts:
    with RowTableWriter(path, TYPES) as writer:
        for low, high in pairwise(FIRST_ROWS.tolist()):
            writer.append({name: values[low:high] for name, values in VALUES.items()})
        return writer.close()


def table(path: Path, facts: FileFacts) -> RowTable:
    return RowTable(path, facts, TYPES, FIRST_ROWS, LocalFile)


def test_columns_of_fixed_width_in_the_smallest_type_that_holds_the_codes() -> None:
    assert TYPES == {"kind": "uint8", "flag": "bool", "ratio": "float32", "split_hash": "uint32"}
    for n_categories, kind in ((0, "uint8"), (255, "uint8"), (256, "uint16"), (65_535, "uint16"), (65_536, "uint32")):
        names = tuple(f"{number:06d}" for number in range(n_categories))
        assert stored_types({"x": ObsColumn("categorical", names)}) == {"x": kind}


def test_each_column_of_each_chunk_comes_back(tmp_path: Path) -> None:
    facts = write(tmp_path / "rows.bin")
    assert facts.bytes == n_bytes_of(TYPES, 8, 3)
    read = pickle.loads(pickle.dumps(table(tmp_path / "rows.bin", facts)))
    for name, values in VALUES.items():
        found = np.concatenate([read.read(name, chunk) for chunk in range(3)])
        assert found.dtype == read.types[name]
        assert np.array_equal(found, values.astype(found.dtype), equal_nan=name == "ratio")
    assert read.read("kind", 0).tolist() == [0, 1, 255]


def test_bounds_are_the_number_of_hashes_below_each_hundredth(tmp_path: Path) -> None:
    bounds = table(tmp_path / "rows.bin", write(tmp_path / "rows.bin")).split_bounds
    for chunk, hashes in enumerate(np.split(VALUES["split_hash"].astype(np.int64), FIRST_ROWS[1:-1])):
        assert bounds[chunk].tolist() == [int((hashes < limit).sum()) for limit in LIMITS.tolist()]


def test_any_flipped_bit_is_found_where_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.bin"
    facts = write(path)
    content = path.read_bytes()
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        with pytest.raises(DamagedFileError, match=r"rows\.bin: .*checksum"):
            [table(path, facts).read(name, chunk) for name in TYPES for chunk in range(3)]


def test_nothing_is_left_of_a_table_whose_writer_was_stopped(tmp_path: Path) -> None:
    with pytest.raises(KeyError), RowTableWriter(tmp_path / "rows.bin", TYPES) as writer:
        writer.append({"kind": VALUES["kind"]})
    assert list(tmp_path.iterdir()) == []
