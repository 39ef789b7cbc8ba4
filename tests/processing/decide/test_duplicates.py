"""Cells equal in every count are found whatever their names, files and gene order, and dropped as asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from scvae_data import open_index
from scvae_data.errors import ConfigError
from scvae_data.processing.decide import duplicates
from scvae_data.processing.engine.local import LocalEngine
from scvae_data.processing.settings.genes import GeneRules

Write = Callable[..., Path]
Process = Callable[..., Any]
N_GENES = 60
GENES = [f"g{n:02d}" for n in range(N_GENES)]


def cells(*numbers: int) -> np.ndarray:
    """Cell k has the count k + 1 in every gene but gene k."""
    counts = np.repeat(np.array(numbers)[:, None] + 1, N_GENES, axis=1)
    counts[np.arange(len(numbers)), np.array(numbers)] = 0
    return counts


@pytest.fixture
def files(write_raw: Write) -> list[Path]:
    """Cells 0 to 9 in three files; 1 and 2 recur in the second, with its genes reversed, and 1 twice in the third."""
    first = write_raw("SRX1.h5ad", cells(0, 1, 2, 3), GENES)
    second = write_raw("SRX2.h5ad", cells(4, 2, 5, 1)[:, ::-1], GENES[::-1])
    third = write_raw("SRX3.h5ad", np.concatenate([cells(6, 1, 7, 1), np.eye(2, N_GENES, dtype=int)[[0, 0]]]), GENES)
    return [first, second, third]


def stored(directory: Path) -> set[tuple[str, int]]:
    obs = open_index(directory).obs(["source_file", "source_row"])
    return {(str(file), int(row)) for file, row in zip(obs["source_file"], obs["source_row"], strict=True)}


DROPPED = {
    "all": set(),
    "first": {("SRX2.h5ad", 1), ("SRX2.h5ad", 3), ("SRX3.h5ad", 1), ("SRX3.h5ad", 3)},
}
DROPPED["none"] = DROPPED["first"] | {("SRX1.h5ad", 1), ("SRX1.h5ad", 2)}


@pytest.mark.parametrize("keep", ["all", "first", "none"])
def test_policies(keep: str, files: list[Path], process: Process, tmp_path: Path) -> None:
    summary = process(files, keep_duplicates=keep)
    everything = {(f"SRX{file}.h5ad", row) for file, n in ((1, 4), (2, 4), (3, 6)) for row in range(n)}
    assert everything - stored(tmp_path / "out") == DROPPED[keep]
    report = json.loads((tmp_path / "out" / "chunk_summary.json").read_text())["duplicates"]
    assert (report["n_cells_with_copies"], report["n_copies"], report["n_pairs_of_files"]) == (2, 4, 2)
    assert report["pairs"] == {
        "first_file": ["SRX1.h5ad", "SRX1.h5ad"],
        "file": ["SRX2.h5ad", "SRX3.h5ad"],
        "n_copies": [2, 2],
        "example_first_row": [1, 1],
        "example_row": [3, 1],
    }
    assert f"4 cells have the counts of another cell; {'all are' if keep == 'all' else ''}" in str(summary)
    assert summary.lost.get("duplicate", 0) == len(DROPPED[keep])
    assert summary.n_obs_in == summary.n_obs + sum(summary.lost.values())


def test_shallow_cells_are_never_copies(files: list[Path], process: Process, tmp_path: Path) -> None:
    process(files, keep_duplicates="none")
    assert {("SRX3.h5ad", 4), ("SRX3.h5ad", 5)} <= stored(tmp_path / "out")


def test_gene_sums_and_counts_are_those_of_the_cells_kept(
    files: list[Path], process: Process, tmp_path: Path, write_raw: Write
) -> None:
    process(files, keep_duplicates="first", genes=GeneRules(min_cells=8))
    counts = np.concatenate([cells(0, 1, 2, 3, 4, 5, 6, 7), np.eye(2, N_GENES, dtype=int)[[0, 0]]])
    n_cells = (counts > 0).sum(axis=0)
    chunks = [ad.read_h5ad(path) for path in sorted((tmp_path / "out").glob("chunk_*.h5"))]
    expected = [gene for gene, n in zip(GENES, n_cells, strict=True) if n >= 8]
    assert chunks[0].var_names.tolist() == expected
    for chunk in chunks:
        for row, obs in zip(chunk.X.toarray(), chunk.obs.to_dict("records"), strict=True):
            source = ad.read_h5ad(files[int(obs["source_file"][3]) - 1]).to_df().iloc[obs["source_row"]]
            np.testing.assert_array_equal(row, source[expected])


@pytest.mark.parametrize("variant", ["input order", "workers", "parts", "groups", "small blocks", "resumed"])
def test_the_choice_depends_on_nothing_but_the_cells(
    variant: str, files: list[Path], process: Process, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process(files, keep_duplicates="first", chunking=chunks_of(20))
    settings: dict[str, Any] = {"keep_duplicates": "first", "chunking": chunks_of(20)}
    paths = files[::-1] if variant == "input order" else files
    again = tmp_path / "again"
    if variant == "workers":
        settings["engine"] = LocalEngine(2)
    elif variant == "parts":
        monkeypatch.setattr(duplicates, "PART_CELLS", 3)
    elif variant == "groups":
        monkeypatch.setattr(duplicates, "PART_CELLS", 3)
        monkeypatch.setattr(duplicates, "GROUP_CELLS", 1)
    elif variant == "small blocks":
        monkeypatch.setattr("scvae_data.processing.sort.sorted_run.PIECE_BYTES", 70)
    elif variant == "resumed":
        for keep in ("none", "first", "all"):
            with monkeypatch.context() as patch:
                patch.setattr("scvae_data.processing.pipeline.publish", interrupt)
                with pytest.raises(KeyboardInterrupt):
                    process(paths, again, **(settings | {"keep_duplicates": keep}), resume=keep != "none")
        settings["resume"] = True
    process(paths, again, **settings)
    for path in (tmp_path / "out").glob("*"):
        if path.suffix in (".h5", ".parquet") or path.name in ("chunk_index.json", "gene_list.json"):
            assert (again / path.name).read_bytes() == path.read_bytes(), path.name


def chunks_of(size: int) -> Any:
    from scvae_data.store import Chunking

    return Chunking(chunk_size=size)


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_the_others_in_a_run_change_no_hash(files: list[Path], process: Process, tmp_path: Path) -> None:
    summary = process(files[:2])
    assert summary.duplicates["n_copies"] == 2
    summary = process(files[1:], tmp_path / "b")
    assert summary.duplicates["n_copies"] == 2


def test_impossible_settings(files: list[Path], process: Process, tmp_path: Path, write_raw: Write) -> None:
    with pytest.raises(ConfigError, match="keep_duplicates='last' must be one of all, first, none"):
        process(files, keep_duplicates="last")
    twins = write_raw("SRX9.h5ad", cells(1, 1), GENES)
    with pytest.raises(ConfigError, match="keep_duplicates=none leaves no cell"):
        process([twins], tmp_path / "b", keep_duplicates="none")


def test_dropped_copies_are_listed_with_what_they_equal(files: list[Path], process: Process, tmp_path: Path) -> None:
    process(files, keep_duplicates="none")
    table = pd.read_parquet(tmp_path / "out" / "dropped_cells.parquet")
    copies = table[table["rule"] == "duplicate"]
    found = dict(zip(zip(copies["source_file"], copies["source_row"], strict=True), copies["copy_of"], strict=True))
    assert found == {
        ("SRX1.h5ad", 1): "SRX2.h5ad row 3",
        ("SRX1.h5ad", 2): "SRX2.h5ad row 1",
        ("SRX2.h5ad", 1): "SRX1.h5ad row 2",
        ("SRX2.h5ad", 3): "SRX1.h5ad row 1",
        ("SRX3.h5ad", 1): "SRX1.h5ad row 1",
        ("SRX3.h5ad", 3): "SRX1.h5ad row 1",
    }
