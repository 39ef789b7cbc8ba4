from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import scanpy as sc
from tests.loading.conftest import Directory
from tests.support.datasets import TARGET_SUM

from scvae_data import ChunkedDataset, SelectionError


def test_a_cell_is_a_row_of_a_batch(hashed: Directory) -> None:
    cells = ChunkedDataset(hashed.path, normalized=False, obs_keys=["SRX_accession", "cell_type"])
    assert len(cells) == 300
    assert repr(cells) == f"<ChunkedDataset of {hashed.path}: 300 cells × 20 genes>"
    for row in (0, 29, 30, 299, -1, np.int64(5)):
        cell = cells[row]
        np.testing.assert_array_equal(cell["x"], hashed.counts[row])
        assert cell["x"].dtype == np.float32
        assert cell["library_size"] == hashed.counts[row].sum()
        assert cell["index"] == row % 300
        assert cell["size_factor"] == np.float32(hashed.obs["size_factor"].iloc[row])
        categories = cells.index.obs_columns["SRX_accession"].categories
        assert categories[cell["obs"]["SRX_accession"]] == hashed.obs["SRX_accession"].iloc[row]
        expected = hashed.obs["cell_type"].cat.codes.iloc[row]
        assert cell["obs"]["cell_type"] == (3 if expected < 0 else expected)


def test_neighbours_are_served_from_the_cache(hashed: Directory) -> None:
    cells = ChunkedDataset(hashed.path, chunk_cache_size=2)
    for row in (0, 1, 29, 30, 0, 60, 31):
        _ = cells[row]
    counters = cells.counters()
    assert (counters.misses, counters.hits, counters.evictions) == (4, 3, 2)


def test_locate(hashed: Directory) -> None:
    cells = ChunkedDataset(hashed.path)
    assert [cells.locate(row) for row in (0, 29, 30, -1)] == [(0, 0), (0, 29), (1, 0), (9, 29)]
    for row in (300, -301):
        with pytest.raises(IndexError, match=f"row {row} is not within the 300 cells"):
            cells.locate(row)
        with pytest.raises(IndexError, match="300 cells"):
            _ = cells[row]


def test_iteration_ends(hashed: Directory) -> None:
    assert [int(cell["index"]) for cell in ChunkedDataset(hashed.path)] == list(range(300))


def test_obs_of_some_rows(hashed: Directory) -> None:
    found = ChunkedDataset(hashed.path).obs(["total_counts"], rows=[250, 3])
    assert found.index.tolist() == hashed.obs.index[[250, 3]].tolist()
    assert found["total_counts"].tolist() == hashed.counts[[250, 3]].sum(axis=1).tolist()


@pytest.mark.parametrize("rows", [None, [7, 250, 31, 30], range(28, 33), 5], ids=["all", "any order", "range", "one"])
def test_to_anndata(hashed: Directory, rows: object) -> None:
    cells = ChunkedDataset(hashed.path, chunk_cache_size=1)
    adata = cells.to_anndata(rows)
    wanted = np.arange(300) if rows is None else np.atleast_1d(np.array(rows))
    assert adata.X.dtype == np.float32
    np.testing.assert_array_equal(adata.X.toarray(), hashed.counts[wanted])
    assert adata.obs_names.tolist() == hashed.obs.index[wanted].tolist()
    assert adata.obs["SRX_accession"].tolist() == hashed.obs["SRX_accession"].iloc[wanted].tolist()
    assert adata.var["gene_symbol"].tolist() == [f"GENE{j}" for j in range(20)]
    assert adata.uns["scvae_data"]["target_sum"] == TARGET_SUM
    assert cells.counters().misses == 0


def test_scanpy_normalisation_of_to_anndata_equals_x(hashed: Directory) -> None:
    cells = ChunkedDataset(hashed.path)
    adata = cells.to_anndata(range(40))
    sc.pp.normalize_total(adata, target_sum=adata.uns["scvae_data"]["target_sum"])
    sc.pp.log1p(adata)
    np.testing.assert_allclose(np.stack([cells[row]["x"] for row in range(40)]), adata.X.toarray(), rtol=1e-6)


def test_an_empty_selection_is_an_empty_anndata(hashed: Directory) -> None:
    assert ChunkedDataset(hashed.path).to_anndata([]).shape == (0, 20)


@pytest.mark.parametrize("srx", ["SRX2", ["SRX2"], ["SRX3", "SRX1"]], ids=str)
@pytest.mark.parametrize("n", [None, 7, 0, 10_000])
def test_to_anndata_of_experiments(hashed: Directory, srx: str | list[str], n: int | None) -> None:
    adata = ChunkedDataset(hashed.path).to_anndata(srx=srx, n=n)
    names = [srx] if isinstance(srx, str) else srx
    wanted = np.flatnonzero(hashed.obs["SRX_accession"].isin(names))[:n]
    assert adata.obs_names.tolist() == hashed.obs.index[wanted].tolist()
    np.testing.assert_array_equal(adata.X.toarray(), hashed.counts[wanted])


def test_to_anndata_of_the_first_cells(hashed: Directory) -> None:
    cells = ChunkedDataset(hashed.path)
    assert cells.to_anndata(n=3).obs_names.tolist() == hashed.obs.index[:3].tolist()
    assert cells.to_anndata([5, 250, 1], n=2).obs_names.tolist() == hashed.obs.index[[5, 250]].tolist()


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ({"srx": "SRX99"}, "SRX99"),
        ({"n": -1}, "n=-1 must be 0 or more cells"),
        ({"rows": [1], "srx": "SRX1"}, "rows and srx both say which cells"),
    ],
)
def test_selections_that_cannot_be(hashed: Directory, selection: dict[str, Any], message: str) -> None:
    with pytest.raises(SelectionError, match=message):
        ChunkedDataset(hashed.path).to_anndata(**selection)


def test_blocks_pass_in_order(hashed: Directory) -> None:
    seen = [(first, group.n_obs) for first, group in ChunkedDataset(hashed.path).blocks()]
    assert seen == [(30 * number, 30) for number in range(10)]


def test_pickles_without_what_it_holds(hashed: Directory) -> None:
    cells = ChunkedDataset(hashed.path)
    _ = cells[0]
    other = pickle.loads(pickle.dumps(cells))
    assert other.counters().misses == 0
    np.testing.assert_array_equal(other[250]["x"], cells[250]["x"])


def test_unknown_obs_key(hashed: Directory) -> None:
    with pytest.raises(SelectionError, match=r"donor not in .*did you mean"):
        ChunkedDataset(hashed.path, obs_keys="donor")
