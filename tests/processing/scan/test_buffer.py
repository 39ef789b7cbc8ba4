"""Kept rows come out of the buffer in the order of the genes, summed, counted and hashed, against NumPy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from scvae_data.errors import InputError
from scvae_data.processing.scan.buffer import RowBuffer
from scvae_data.processing.scan.cell_hash import hash_rows
from scvae_data.processing.sort.packed import unpack_rows
from scvae_data.processing.sort.sorted_run import RARE_CELLS
from scvae_data.readers.base import CsrBlock

N_GENES = 150  # more than two words of the bitmap
KEYS = np.random.default_rng(0).integers(0, 2**63, (N_GENES, 2)).astype(np.uint64)
COUNTS = hnp.arrays(
    np.float32,
    st.tuples(st.integers(0, 6), st.integers(1, 9)),
    elements=st.one_of(st.just(0), st.integers(0, 5), st.sampled_from([127, 128, 70_000, 2**31])),
)


def block_of(dense: np.ndarray) -> CsrBlock:
    """Rows with all their zeros, as files may have them."""
    n_rows, n_columns = dense.shape
    starts = np.arange(n_rows + 1, dtype=np.int64) * n_columns
    return CsrBlock(0, starts, np.tile(np.arange(n_columns, dtype=np.int32), n_rows), dense.ravel(), n_columns)


@given(st.lists(COUNTS, min_size=1, max_size=3), st.data())
@settings(deadline=None, max_examples=60)
def test_rows_are_kept_in_the_order_of_their_genes(blocks: list[np.ndarray], data: st.DataObject) -> None:
    buffer = RowBuffer(KEYS, "file.h5ad")
    expected, hashes, lengths, numbers = [np.zeros((0, N_GENES), np.int64)], [], [], np.zeros(0, np.int64)
    for dense in blocks:
        gene_map = data.draw(hnp.arrays(np.int32, dense.shape[1], elements=st.integers(0, N_GENES - 1)))
        if data.draw(st.booleans(), label="columns are in the order of their genes"):
            gene_map.sort()
        keep = data.draw(hnp.arrays(np.bool_, len(dense)))
        rows = np.zeros((int(keep.sum()), N_GENES), np.int64)
        for column, gene in enumerate(gene_map):
            rows[:, gene] += dense[keep, column].astype(np.int64)
        if (rows >= 2**32).any():
            with pytest.raises(InputError, match=r"exceeds 4,294,967,295"):
                buffer.append(block_of(dense), keep, gene_map)
            return
        first = 100 * len(lengths)
        found = buffer.append(replace(block_of(dense), first_row=first), keep, gene_map)
        numbers = np.append(numbers, first + np.flatnonzero(keep))
        lengths.append(found[0])
        hashes.append(found[1])
        expected.append(rows)
    dense = np.concatenate(expected)
    indptr, genes, counts = unpack_rows(*buffer.packed(), N_GENES)
    result = sp.csr_matrix((counts, genes, indptr), shape=dense.shape)
    np.testing.assert_array_equal(result.toarray(), dense)
    assert result.has_sorted_indices
    np.testing.assert_array_equal(buffer.cells, (dense > 0).sum(0))
    np.testing.assert_array_equal(np.concatenate(lengths), np.diff(indptr))
    np.testing.assert_array_equal(buffer.row_sums(), np.column_stack([dense.sum(1), np.diff(indptr), dense.max(1)]))
    few = ((dense > 0).sum(0) > 0) & ((dense > 0).sum(0) <= RARE_CELLS)
    assert buffer.rare_rows().tolist() == [row for gene in np.flatnonzero(few) for row in numbers[dense[:, gene] > 0]]
    assert buffer.n_entries == (dense > 0).sum()
    wanted = np.empty((len(dense), 2), np.uint64)
    hash_rows(indptr, genes, counts, KEYS, wanted)
    np.testing.assert_array_equal(np.concatenate(hashes), wanted)


def test_a_row_may_name_a_column_many_times() -> None:
    buffer = RowBuffer(KEYS[:2], "file.h5ad")
    block = CsrBlock(0, np.array([0, 5]), np.array([1, 0, 1, 1, 1], np.int32), np.ones(5, np.float32), 2)
    buffer.append(block, np.ones(1, bool), np.arange(2, dtype=np.int32))
    assert [part.tolist() for part in unpack_rows(*buffer.packed(), 2)] == [[0, 2], [0, 1], [1, 4]]


def test_a_buffer_is_used_again() -> None:
    buffer, block = RowBuffer(KEYS, "file.h5ad"), block_of(np.ones((2, 3), np.float32))
    for first in (0, 7):
        buffer.append(block, np.ones(2, bool), np.arange(first, first + 3, dtype=np.int32))
        starts, packed = buffer.packed()
        assert unpack_rows(starts, packed, N_GENES)[1].tolist() == 2 * [first, first + 1, first + 2]
        buffer.clear()
    assert buffer.cells.sum() == 12
