from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from scvae_data.errors import StoreError
from scvae_data.store import CompactCsr, count_dtype, index_dtype


@pytest.mark.parametrize(("n_vars", "kind"), [(1, "u2"), (65_536, "u2"), (65_537, "u4")])
def test_index_dtype(n_vars, kind):
    assert index_dtype(n_vars) == np.dtype(kind)


@pytest.mark.parametrize(("largest", "kind"), [(0, "u2"), (65_535, "u2"), (65_536, "u4"), (2**32, "u8")])
def test_count_dtype(largest, kind):
    assert count_dtype(largest) == np.dtype(kind)


def test_from_scipy_is_canonical_and_leaves_its_source_alone():
    matrix = sp.csr_matrix((np.array([1.0, 2, 0, 3]), np.array([2, 0, 1, 2]), np.array([0, 4])), shape=(1, 3))
    before = matrix.copy()
    compact = CompactCsr.from_scipy(matrix)
    assert compact.check_canonical() == 4
    assert compact.indices.tolist() == [0, 2]
    assert compact.data.tolist() == [2, 4]
    assert np.array_equal(matrix.indices, before.indices) and np.array_equal(matrix.data, before.data)
    assert compact.to_scipy().toarray().tolist() == [[2, 0, 4]]


def rows(indptr, indices, data, n_vars=5):
    return CompactCsr(np.array(indptr, np.int64), np.array(indices, np.int32), np.array(data, np.int32), n_vars)


@pytest.mark.parametrize(
    ("compact", "message"),
    [
        pytest.param(rows([0, 2], [1, 1], [1, 1]), "row 0 .* not canonical", id="duplicate"),
        pytest.param(rows([0, 1, 3], [1, 3, 2], [1, 1, 1]), "row 1 .* not canonical", id="unsorted"),
        pytest.param(rows([0, 1], [5], [1]), "row 0 .* below 5", id="column too high"),
        pytest.param(rows([0, 1], [-1], [1]), "row 0", id="negative column"),
        pytest.param(rows([0, 1], [0], [0]), "row 0 .* above zero", id="stored zero"),
        pytest.param(rows([0, 1], [0], [-3]), "row 0", id="negative count"),
        pytest.param(rows([0, 1], [0, 1], [1, 1]), "ascends from 0 to 2", id="short indptr"),
        pytest.param(rows([0, 2, 1, 2], [0, 1], [1, 1]), "ascends", id="indptr goes back"),
        pytest.param(rows([0, 1], [0], [1, 1]), "whole numbers in CSR", id="lengths differ"),
        pytest.param(
            CompactCsr(np.array([0, 1]), np.array([0]), np.array([1.0]), 5), "whole numbers in CSR", id="floats"
        ),
    ],
)
def test_what_is_not_canonical(compact, message):
    with pytest.raises(StoreError, match=message):
        compact.check_canonical()


def test_totals_of_rows_some_of_which_are_empty() -> None:
    counts = np.array([[0, 0, 0], [1, 0, 70_000], [0, 0, 0], [5, 6, 7], [0, 0, 0]])
    assert CompactCsr.from_scipy(sp.csr_matrix(counts)).totals().tolist() == [0, 70_001, 0, 18, 0]
    assert CompactCsr.from_scipy(sp.csr_matrix((2, 3), dtype=np.int64)).totals().tolist() == [0, 0]
