"""Packed rows come back as they were, one by one and in any order."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from scvae_data.processing.sort.packed import pack_rows, place_rows, take_rows, total_rows, unpack_rows

N_GENES = 300  # gaps of one byte and of two
ENTRIES = st.dictionaries(
    st.integers(0, N_GENES - 1),
    st.one_of(st.integers(1, 300), st.sampled_from([127, 128, 16_384, 2**32 - 1])),
    max_size=5,
)
ROWS = st.lists(ENTRIES, max_size=5)


def matrix_of(rows: list[dict[int, int]]) -> sp.csr_matrix:
    matrix = sp.lil_matrix((len(rows), N_GENES), dtype=np.uint32)
    for number, row in enumerate(rows):
        for gene, count in row.items():
            matrix[number, gene] = count
    return matrix.tocsr()


def packed_of(matrix: sp.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
    return pack_rows(matrix.indptr.astype(np.int64), matrix.indices.astype(np.uint16), matrix.data)


@given(ROWS)
@settings(deadline=None, max_examples=60)
def test_rows_come_back(rows: list[dict[int, int]]) -> None:
    matrix = matrix_of(rows)
    starts, packed = packed_of(matrix)
    assert starts[-1] == len(packed)
    found_rows = unpack_rows(starts, packed, N_GENES)
    for found, wanted in zip(found_rows, (matrix.indptr, matrix.indices, matrix.data), strict=True):
        np.testing.assert_array_equal(found, wanted)


@given(ROWS, st.data())
@settings(deadline=None, max_examples=40)
def test_rows_are_placed_over_kept_genes(rows: list[dict[int, int]], data: st.DataObject) -> None:
    matrix = matrix_of(rows)
    kept = data.draw(hnp.arrays(np.bool_, N_GENES))
    alive = data.draw(hnp.arrays(np.bool_, len(rows)))
    order = np.array(data.draw(st.permutations(range(len(rows)))), np.int64)
    expected = matrix[order][alive[order]][:, kept]
    targets = np.full(len(rows), -1, np.int64)
    targets[order[alive[order]]] = expected.indptr[:-1]
    indices, values = np.zeros(expected.nnz, np.uint16), np.zeros(expected.nnz, np.uint32)
    gene_map = np.where(kept, np.cumsum(kept) - 1, -1).astype(np.int32)
    place_rows(*packed_of(matrix), targets, gene_map, indices, values)
    np.testing.assert_array_equal(indices, expected.indices)
    np.testing.assert_array_equal(values, expected.data)


@given(ROWS, st.data())
@settings(deadline=None, max_examples=30)
def test_rows_are_taken_in_any_order(rows: list[dict[int, int]], data: st.DataObject) -> None:
    matrix = matrix_of(rows)
    order = np.array(data.draw(st.permutations(range(len(rows)))), np.int64)
    for found, wanted in zip(take_rows(*packed_of(matrix), order), packed_of(matrix[order]), strict=True):
        np.testing.assert_array_equal(found, wanted)


@given(ROWS, st.data())
@settings(deadline=None, max_examples=40)
def test_totals_over_kept_genes(rows: list[dict[int, int]], data: st.DataObject) -> None:
    matrix = matrix_of(rows)
    kept, wanted = (data.draw(hnp.arrays(np.bool_, n)) for n in (N_GENES, len(rows)))
    totals, lengths, largest = (np.full(len(rows), 7, kind) for kind in (np.int64, np.int32, np.uint32))
    total_rows(*packed_of(matrix), wanted, kept, totals, lengths, largest)
    dense = matrix.toarray().astype(np.int64)[:, kept]
    np.testing.assert_array_equal(totals, np.where(wanted, dense.sum(1), 7))
    np.testing.assert_array_equal(lengths, np.where(wanted, (dense > 0).sum(1), 7))
    np.testing.assert_array_equal(largest, np.where(wanted, dense.max(1, initial=0), 7))


@pytest.mark.parametrize(("gene", "n_bytes"), [(127, 1), (128, 2), (16_383, 2), (16_384, 3), (2_000_000, 3)])
def test_far_genes_take_more_bytes(gene: int, n_bytes: int) -> None:
    one = np.array([0, 1])
    starts, packed = pack_rows(one, np.array([gene], np.uint32), np.array([1], np.uint32))
    assert len(packed) == n_bytes + 1
    assert unpack_rows(starts, packed, gene + 1)[1].tolist() == [gene]
