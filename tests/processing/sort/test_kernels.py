"""Each compiled kernel against a plain NumPy twin."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from scvae_data.processing.scan.metrics import add_columns, row_sums
from scvae_data.processing.survey.counts import FAULTS, first_fault

COUNTS = hnp.arrays(
    np.int64,
    st.tuples(st.integers(0, 6), st.integers(1, 9)),
    elements=st.one_of(st.just(0), st.integers(0, 5), st.integers(900, 5000), st.sampled_from([70_000, 2**32 - 1])),
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
@settings(deadline=None, max_examples=30)
def test_columns_are_added_up_over_kept_and_dropped_rows(dense: np.ndarray, data: st.DataObject) -> None:
    matrix = sp.csr_matrix(dense)
    keep = data.draw(hnp.arrays(np.bool_, len(dense)))
    totals = np.ones((2, dense.shape[1]), np.int64)
    add_columns(matrix.indptr.astype(np.int64), matrix.indices, matrix.data, keep, totals)
    np.testing.assert_array_equal(totals, 1 + np.stack([dense[~keep].sum(0), dense[keep].sum(0)]))
