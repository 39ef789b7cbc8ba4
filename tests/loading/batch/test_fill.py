from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import scanpy as sc
import scipy.sparse as sp
from anndata import AnnData

from scvae_data.loading.batch.fill import fill_rows
from scvae_data.loading.fetch.window import DecodedRowGroup, Window
from scvae_data.loading.select.rows import ChunkRows
from scvae_data.loading.select.values import RowFacts
from scvae_data.store import CompactCsr

N_OBS, N_VARS = 12, 9


def counts(largest: int = 50_000) -> np.ndarray:
    """x[i, j] is 0 or tells i and j; some counts exceed the table of small logarithms, one the type uint16."""
    row, column = np.divmod(np.arange(N_OBS * N_VARS), N_VARS)
    x = np.where((row + column) % 3 == 0, 10 * row + column + 1, 0).reshape(N_OBS, N_VARS)
    x[3, 4] = largest
    return x


def parts_of(x: np.ndarray, *borders: int) -> list[tuple[int, CompactCsr]]:
    edges = [0, *borders, len(x)]
    return [(a, CompactCsr.from_scipy(sp.csr_matrix(x[a:b]))) for a, b in pairwise(edges)]


def gather_twin(x: np.ndarray, slots: np.ndarray, size_factor: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """The kernels in NumPy."""
    rows = x[slots]
    values = rows if size_factor is None else np.log1p((rows / size_factor[:, None]).astype(np.float32))
    return values.astype(np.float32), rows.sum(axis=1).astype(np.float32)


@pytest.mark.parametrize("borders", [(), (5,), (1, 2, 7)])
@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("largest", [60_000, 70_000, 2**33])
def test_rows_equal_the_numpy_twin(borders: tuple[int, ...], normalized: bool, largest: int) -> None:
    slots = np.array([11, 0, 3, 3, 5, 7])
    size_factor = np.linspace(0.3, 4, slots.size) if normalized else None
    x = np.full((slots.size, N_VARS), np.nan, np.float32)
    library_size = np.full(slots.size, np.nan, np.float32)
    fill_rows(parts_of(counts(largest), *borders), slots, size_factor, x, library_size)
    expected, expected_size = gather_twin(counts(largest), slots, size_factor)
    np.testing.assert_allclose(x, expected, rtol=1e-6)
    if not normalized:
        np.testing.assert_array_equal(x, expected)
    np.testing.assert_array_equal(library_size, expected_size)


@pytest.mark.parametrize("target_sum", [1e4, 1e6])
def test_normalised_rows_equal_scanpy(target_sum: float) -> None:
    rng = np.random.default_rng(0)
    x = rng.poisson(rng.gamma(0.3, 20, size=(200, 300)))
    adata = AnnData(sp.csr_matrix(x.astype(np.float32)))
    sc.pp.normalize_total(adata, target_sum=target_sum)
    sc.pp.log1p(adata)
    made = np.empty(x.shape, np.float32)
    fill_rows(parts_of(x, 60), np.arange(200), x.sum(axis=1) / target_sum, made, np.empty(200, np.float32))
    np.testing.assert_allclose(made, adata.X.toarray(), rtol=1e-6)


def test_a_window_counts_through_its_row_groups() -> None:
    x = counts()
    scattered = np.array([0, 2, 3], np.int32)
    row_groups = [
        (ChunkRows(1, 100, 2, 4, None), DecodedRowGroup((parts_of(x[2:4])[0][1],))),
        (ChunkRows(0, 20, 0, 4, scattered), DecodedRowGroup(tuple(part for _, part in parts_of(x[scattered], 2)))),
    ]
    window = Window(row_groups)
    slots = np.array([4, 0, 2, 1, 3])
    assert window.global_rows(slots).tolist() == [23, 102, 20, 103, 22]
    made, library_size = np.empty((5, N_VARS), np.float32), np.empty(5, np.float32)
    fill_rows(window.parts, slots, None, made, library_size)
    np.testing.assert_array_equal(made, x[[3, 2, 0, 3, 2]])


def test_facts_of_a_window_are_in_the_order_of_its_slots() -> None:
    x = counts(100)
    facts = RowFacts(np.arange(6) / 2, np.arange(6, dtype=np.int32) % 2, {"donor": np.arange(6, dtype=np.int32) * 3})
    first, second = facts.take(slice(0, 2)), facts.take(np.array([5, 4, 3, 2]))
    row_groups = [
        (ChunkRows(1, 100, 2, 4, None), DecodedRowGroup((parts_of(x[2:4])[0][1],), first)),
        (ChunkRows(0, 20, 0, 4, None), DecodedRowGroup((parts_of(x[:4])[0][1],), second)),
    ]
    found = Window(row_groups).facts(np.array([4, 0, 5, 1]))
    assert found.obs["donor"].tolist() == [9, 0, 6, 3]
    served = found.served()
    assert served["size_factor"].tolist() == [1.5, 0.0, 1.0, 0.5] and served["size_factor"].dtype == np.float32
    assert served["obs"]["donor"].dtype == served["gene_set"].dtype == np.int64
    assert served["gene_set"].tolist() == [1, 0, 0, 1]
