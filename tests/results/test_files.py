"""Files of cells: the same content in each form, in the order of the rows."""

from __future__ import annotations

import json
import weakref
from collections.abc import Iterator
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from scvae_data import ConfigError, StoreError, open_index
from scvae_data.results import files, frames
from scvae_data.results.files import Content, pieces, write_cells, write_genes

ROWS = [0, 3, 19, 20, 41, 59]  # of three chunks
GENES = ["a", "b/c"]


def blocks(rows: list[int] = ROWS) -> list[tuple[np.ndarray, np.ndarray]]:
    """Values that encode row and column, four cells at a time."""
    parts = [np.array(rows[first : first + 4]) for first in range(0, len(rows), 4)]
    return [(part, (10 * part[:, None] + np.arange(2)).astype(np.float32)) for part in parts]


def content(place: str) -> Content:
    var = pd.DataFrame({"gene_symbol": ["A", "B"]}, index=pd.Index(GENES, dtype=str))
    empty = pd.DataFrame(index=pd.Index([], dtype=str))
    return Content(place, "X_z", GENES, var if place == "X" else empty, {"samples": 3, "run": "r"})


def read(path: Path) -> anndata.AnnData:
    return anndata.read_zarr(path) if path.suffix == ".zarr" else anndata.read_h5ad(path)


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
@pytest.mark.parametrize("place", ["X", "obsm", "obs"])
def test_anndata_has_values_where_they_belong(
    place: str, suffix: str, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "BLOCK", 4)
    monkeypatch.setattr(frames, "BLOCK", 4)
    index, path = open_index(directory), tmp_path / f"found{suffix}"
    assert write_cells(path, blocks(), index.cells.obs_tables, content(place)) == len(ROWS)
    adata = read(path)
    assert adata.obs_names.tolist() == index.obs(rows=ROWS).index.tolist()
    columns = ["cell_type", "total_counts", "pct_counts_hb"]
    pd.testing.assert_frame_equal(
        adata.obs[columns], index.obs(columns, ROWS), check_categorical=False, check_index_type=False, check_names=False
    )
    values = {"X": adata.X, "obsm": adata.obsm.get("X_z"), "obs": adata.obs.get(["a", "b_c"])}[place]
    np.testing.assert_array_equal(values, [[10 * row, 10 * row + 1] for row in ROWS])
    assert adata.uns["scvae_data"]["run"] == "r"
    if place == "X":
        assert adata.var_names.tolist() == GENES
        assert adata.var["gene_symbol"].tolist() == ["A", "B"]
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


def test_parquet_has_a_column_for_each_value(directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PIECE_BYTES", 8 * 2)
    index, path = open_index(directory), tmp_path / "found.parquet"
    assert write_cells(path, blocks(), index.cells.obs_tables, content("X")) == len(ROWS)
    found = pd.read_parquet(path)
    assert found["obs_name"].tolist() == index.obs(rows=ROWS).index.tolist()
    assert (
        found["cell_type"]
        .astype(object)
        .equals(index.obs(["cell_type"], ROWS)["cell_type"].astype(object).reset_index(drop=True))
    )
    assert found["b/c"].tolist() == [10 * row + 1 for row in ROWS]
    with pq.ParquetFile(path) as file:
        assert file.num_row_groups == 3  # of two blocks, the first cut where a chunk ends
        assert json.loads(file.schema_arrow.metadata[b"scvae_data"]) == {"samples": 3, "run": "r"}


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr", ".parquet"])
def test_tables_of_genes_are_read_back(suffix: str, tmp_path: Path) -> None:
    table = pd.DataFrame({"proba_de": [0.5, 1.0], "is_de": [False, True]}, index=pd.Index(["g1", "g2"], name="gene"))
    path = tmp_path / f"genes{suffix}"
    write_genes(path, table)
    found = pd.read_parquet(path) if suffix == ".parquet" else read(path).var
    pd.testing.assert_frame_equal(found, table, check_names=False, check_index_type=False)


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr", ".parquet"])
def test_nothing_is_left_of_what_fails(suffix: str, directory: Path, tmp_path: Path) -> None:
    tables = open_index(directory).cells.obs_tables
    with pytest.raises(StoreError, match="row 1 follows row 2"):
        write_cells(tmp_path / f"found{suffix}", blocks([0, 2, 1]), tables, content("X"))
    assert list(tmp_path.iterdir()) == []


def test_mistakes_are_named(directory: Path, tmp_path: Path) -> None:
    tables = open_index(directory).cells.obs_tables
    with pytest.raises(ConfigError, match=r"found\.csv: the suffix says .* one of \.h5ad, \.zarr, \.parquet"):
        write_cells(tmp_path / "found.csv", blocks(), tables, content("X"))
    taken = Content("X", "expression", ["a", "cell_type"])
    with pytest.raises(StoreError, match="obs has a column 'cell_type' already"):
        write_cells(tmp_path / "found.parquet", blocks(), tables, taken)


def test_values_that_are_written_are_held_no_longer(tmp_path: Path) -> None:
    seen: list[weakref.ref[np.ndarray]] = []

    def cells() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for number in range(4):
            assert all(one() is None for one in seen[:-1])
            values = np.full((2, 3), number, np.float32)
            seen.append(weakref.ref(values))
            yield np.array([2 * number, 2 * number + 1]), values

    with h5py.File(tmp_path / "matrix.h5", "w") as file:
        matrix = file.create_dataset("X", (0, 3), np.float32, maxshape=(None, 3))
        ((rows, rest),) = pieces(cells(), 100, matrix)
        assert matrix[:, 0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert (rows.tolist(), rest.shape) == (list(range(8)), (8, 0))
