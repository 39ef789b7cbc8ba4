from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scvae_data.errors import StoreError
from scvae_data.training.latents import with_split, write_latents

N = 10


@pytest.fixture
def parquet(tmp_path: Path) -> Path:
    """Ten cells in row groups of four, a column of every kind, with and without missing entries."""
    frame = pd.DataFrame(
        {
            "obs_name": [f"cell{i}" for i in range(N)],
            "batch": pd.Categorical([None if i == 3 else f"b{i % 3}" for i in range(N)]),
            "depth": np.arange(N, dtype=np.float32) + 0.5,
            "age": pd.array([None if i == 2 else i for i in range(N)], dtype="Int64"),
            "rank": np.arange(N, dtype=np.int32),
            "note": [None if i == 4 else f"note {i}" for i in range(N)],
            "name/with slash": [f"n{i}" for i in range(N)],
            "kept": pd.array([None if i == 5 else i % 2 == 0 for i in range(N)], dtype="boolean"),
            "control": [i % 2 == 1 for i in range(N)],
        }
    )
    path = tmp_path / "obs.parquet"
    schema = pa.Schema.from_pandas(frame, preserve_index=False)
    with pq.ParquetWriter(path, schema) as writer:
        for first in range(0, N, 4):
            part = frame.iloc[first : first + 4].copy()
            part["batch"] = part["batch"].cat.remove_unused_categories()  # every row group has its own dictionary
            writer.write_table(pa.Table.from_pandas(part, preserve_index=False).cast(schema))
    return path


def obs_tables(parquet: Path, rows: np.ndarray) -> list[pa.Table]:
    """The rows ``rows`` (ascending), a table for each row group that holds any."""
    with pq.ParquetFile(parquet) as file:
        parts = [np.flatnonzero((rows >= first) & (rows < first + 4)) for first in range(0, N, 4)]
        return [file.read_row_group(k).take(pa.array(rows[part] - 4 * k)) for k, part in enumerate(parts) if part.size]


def batches(rows: list[int]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Latents whose values encode row and dimension, three cells at a time."""
    parts = [np.array(rows[first : first + 3]) for first in range(0, len(rows), 3)]
    return [(part, (10 * part[:, None] + np.arange(2)).astype(np.float32)) for part in parts]


@pytest.mark.parametrize("rows", [list(range(N)), [1, 2, 3, 9], [4]], ids=["all", "some", "one"])
def test_anndata_reads_what_was_written(tmp_path: Path, parquet: Path, rows: list[int]) -> None:
    path = tmp_path / "latents.h5ad"
    n_cells = write_latents(path, batches(rows), 2, lambda wanted: obs_tables(parquet, wanted), {"run": "r1", "n": 3})
    assert n_cells == len(rows)
    adata = anndata.read_h5ad(path)  # a warning would be an error
    assert adata.shape == (len(rows), 0)
    assert adata.obs_names.tolist() == [f"cell{row}" for row in rows]
    np.testing.assert_array_equal(adata.obsm["X_scvae"][:, 1], [10 * row + 1 for row in rows])
    assert adata.obs["batch"].astype(object).where(adata.obs["batch"].notna(), None).tolist() == [
        None if row == 3 else f"b{row % 3}" for row in rows
    ]
    assert adata.obs["depth"].tolist() == [row + 0.5 for row in rows]
    assert adata.obs["rank"].dtype == np.int32
    assert [None if pd.isna(age) else int(age) for age in adata.obs["age"]] == [None if r == 2 else r for r in rows]
    assert [None if pd.isna(note) else note for note in adata.obs["note"]] == [
        None if row == 4 else f"note {row}" for row in rows
    ]
    assert adata.obs["name_with slash"].tolist() == [f"n{row}" for row in rows]
    assert [None if pd.isna(kept) else bool(kept) for kept in adata.obs["kept"]] == [
        None if row == 5 else row % 2 == 0 for row in rows
    ]
    assert adata.obs["control"].dtype == bool
    assert adata.uns["scvae_data"]["run"] == "r1"


def test_categories_that_no_cell_has_are_left_out(tmp_path: Path, parquet: Path) -> None:
    path = tmp_path / "latents.h5ad"
    write_latents(path, batches([1, 4, 8]), 2, lambda wanted: obs_tables(parquet, wanted), {})
    batch = anndata.read_h5ad(path).obs["batch"]
    assert batch.tolist() == ["b1", "b1", "b2"]
    assert batch.cat.categories.tolist() == ["b1", "b2"]


def test_written_file_can_be_written_again(tmp_path: Path, parquet: Path) -> None:
    path = tmp_path / "latents.h5ad"
    write_latents(path, batches([0, 1, 2, 3]), 2, lambda wanted: obs_tables(parquet, wanted), {})
    adata = anndata.read_h5ad(path)[[2, 0]].copy()
    adata.obs = adata.obs.drop(columns="note")  # anndata asks before it writes missing strings
    adata.write_h5ad(tmp_path / "again.h5ad")
    assert anndata.read_h5ad(tmp_path / "again.h5ad").obs_names.tolist() == ["cell2", "cell0"]


def test_rows_out_of_order_are_refused_and_nothing_is_left(tmp_path: Path, parquet: Path) -> None:
    path = tmp_path / "latents.h5ad"
    with pytest.raises(StoreError, match="row 1 follows row 2"):
        write_latents(path, batches([0, 2, 1]), 2, lambda wanted: obs_tables(parquet, wanted), {})
    assert [found.name for found in tmp_path.iterdir()] == ["obs.parquet"]


def test_obs_of_another_length_is_refused(tmp_path: Path, parquet: Path) -> None:
    with pytest.raises(StoreError, match="obs has 3 rows for 4 cells"):
        write_latents(tmp_path / "l.h5ad", batches([0, 1, 2, 3]), 2, lambda wanted: obs_tables(parquet, wanted[:3]), {})


def test_a_column_of_the_name_stays_beside_ours() -> None:
    tables = [pa.table({"obs_name": ["a", "b"], "split": ["x", "y"]}), pa.table({"obs_name": ["c"], "split": ["z"]})]
    found = list(with_split(tables, np.array([0, -1, 2], np.int8)))
    assert [table["split"].to_pylist() for table in found] == [["x", "y"], ["z"]]
    assert [table["scvae_split"].to_pylist() for table in found] == [["train", None], ["test"]]
