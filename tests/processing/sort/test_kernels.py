"""Each compiled kernel against a plain NumPy twin."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from scvae_data.processing.scan.metrics import row_sums
from scvae_data.processing.sort.kernels import remap_rows, row_totals
from scvae_data.processing.survey.counts import FAULTS, first_fault

COUNTS = hnp.arrays(
    np.int64,
    st.tuples(st.integers(0, 6), st.integers(1, 9)),
    elements=st.one_of(st.just(0), st.integers(0, 5), st.integers(900, 5000), st.just(70_000)),
)


@pytest.mark.parametrize(
    ("value", "fault"),
    [(np.nan, "not_finite"), (np.inf, "not_finite"), (-1, "negative"), (1.5, "fractional"), (2.0**33, "too_large")],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_first_fault_names_the_first_offender(value: float, fault: str, dtype: type) -> None:
    data = np.array([0, 1, 65_536, value, -5], dtype)
    position, code = first_fault(data)
    assert (position, FAULTS[code]) == (3, fault)


def test_first_fault_accepts_counts() -> None:
    assert first_fault(np.array([0, 1, 2.0**31, 4294967295.0])) == (-1, 0)


@given(COUNTS, st.sets(st.integers(1, 12), max_size=3))
@settings(deadline=None, max_examples=60)
def test_row_sums(dense: np.ndarray, tops: set[int]) -> None:
    matrix = sp.csr_matrix(dense)
    n_rows, n_genes = dense.shape
    flags = (np.arange(n_genes) % 8).astype(np.uint8)
    levels = np.array(sorted(tops), np.int64)
    total, genes = np.zeros(n_rows, np.int64), np.zeros(n_rows, np.int64)
    by_class, top = np.zeros((n_rows, 3), np.int64), np.zeros((n_rows, len(levels)), np.int64)
    row_sums(matrix.indptr.astype(np.int64), matrix.indices, matrix.data, flags, levels, total, genes, by_class, top)
    ranked = -np.sort(-dense, axis=1)
    np.testing.assert_array_equal(total, dense.sum(1))
    np.testing.assert_array_equal(genes, (dense > 0).sum(1))
    for bit in range(3):
        np.testing.assert_array_equal(by_class[:, bit], dense[:, (flags >> bit) & 1 == 1].sum(1))
    for column, level in enumerate(levels):
        np.testing.assert_array_equal(top[:, column], ranked[:, :level].sum(1))


@given(COUNTS, st.data())
@settings(deadline=None, max_examples=60)
def test_remap_rows_sums_columns_of_one_gene_and_sorts(dense: np.ndarray, data: st.DataObject) -> None:
    n_rows, n_columns = dense.shape
    n_genes = 150  # more than two words of the bitmap
    gene_map = data.draw(hnp.arrays(np.int32, n_columns, elements=st.integers(0, n_genes - 1)))
    if data.draw(st.booleans(), label="columns are in the order of their genes"):
        gene_map.sort()
    keep = data.draw(hnp.arrays(np.bool_, n_rows))
    matrix = sp.csr_matrix(dense)
    counts, bits = np.zeros(n_genes, np.int64), np.zeros(3, np.uint64)
    indices, values = np.zeros(matrix.nnz, np.uint16), np.zeros(matrix.nnz, np.uint32)
    indptr = np.zeros(int(keep.sum()) + 1, np.int64)
    cells, totals = np.zeros(n_genes, np.int64), np.zeros(n_genes, np.int64)
    end = remap_rows(
        matrix.indptr.astype(np.int64), matrix.indices, matrix.data, keep, gene_map, counts, bits,
        indices, values, indptr, cells, totals,
    )  # fmt: skip
    expected = np.zeros((int(keep.sum()), n_genes), np.int64)
    for column, gene in enumerate(gene_map):
        expected[:, gene] += dense[keep, column]
    result = sp.csr_matrix((values[:end], indices[:end], indptr), shape=expected.shape)
    np.testing.assert_array_equal(result.toarray(), expected)
    assert result.has_sorted_indices
    np.testing.assert_array_equal(cells, (expected > 0).sum(0))
    np.testing.assert_array_equal(totals, expected.sum(0))
    assert not counts.any()
    assert not bits.any()


def test_remap_rows_refuses_a_sum_beyond_uint32() -> None:
    big = np.array([4_000_000_000, 4_000_000_000], np.uint32)
    end = remap_rows(
        np.array([0, 2]), np.array([0, 1]), big, np.array([True]), np.zeros(2, np.int32), np.zeros(1, np.int64),
        np.zeros(1, np.uint64), np.zeros(2, np.uint16), np.zeros(2, np.uint32), np.zeros(2, np.int64),
        np.zeros(1, np.int64), np.zeros(1, np.int64),
    )  # fmt: skip
    assert end == -1


@given(COUNTS, st.data())
@settings(deadline=None, max_examples=40)
def test_totals_over_kept_genes(dense: np.ndarray, data: st.DataObject) -> None:
    n_rows, n_genes = dense.shape
    kept, alive = data.draw(hnp.arrays(np.bool_, n_genes)), data.draw(hnp.arrays(np.bool_, n_rows))
    matrix = sp.csr_matrix(dense.astype(np.uint32))
    totals, lengths = np.zeros(n_rows, np.int64), np.zeros(n_rows, np.int32)
    largest = row_totals(matrix.indptr.astype(np.int64), matrix.indices, matrix.data, alive, kept, totals, lengths)
    living = dense * alive[:, None]
    np.testing.assert_array_equal(totals, living[:, kept].sum(1))
    np.testing.assert_array_equal(lengths, (living[:, kept] > 0).sum(1))
    assert largest == living[:, kept].max(initial=0)
