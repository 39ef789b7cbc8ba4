from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import scipy.sparse as sp

from scvae_data.loading.batch.fill import count_elements, fill_csr, fill_dense
from scvae_data.loading.batch.kernels import NO_FACTORS, NO_GENES, scatter_rows
from scvae_data.store import CompactCsr

N_OBS, N_VARS = 12, 9
CHOSEN = np.array([7, 0, 4])  # not in the order of the directory


def counts(largest: int) -> np.ndarray:
    """x[i, j] is 0 or tells i and j; one exceeds the table of small counts and perhaps uint16."""
    row, column = np.divmod(np.arange(N_OBS * N_VARS), N_VARS)
    x = np.where((row + column) % 3 == 0, 10 * row + column + 1, 0).reshape(N_OBS, N_VARS)
    x[3, 4] = largest
    x[5] = 0
    x[6, CHOSEN] = 0
    return x


def pieces_of(x: np.ndarray, *borders: int) -> list:
    """Two windows: the rows before 6 in parts cut at ``borders``, and the rest; slots jump between the parts."""
    edges = [0, *borders, 6]
    parts = [(a, CompactCsr.from_scipy(sp.csr_matrix(x[a:b]))) for a, b in pairwise(edges)]
    rest = [(0, CompactCsr.from_scipy(sp.csr_matrix(x[6:])))]
    return [(parts, np.array([5, 0, 3, 4, 1])), (rest, np.array([0, 5, 2]))]


WANTED = np.array([5, 0, 3, 4, 1, 6, 11, 8])


def place_of(chosen: np.ndarray | None) -> tuple[np.ndarray, int]:
    if chosen is None:
        return NO_GENES, N_VARS
    place = np.full(N_VARS, chosen.size, np.int32)
    place[chosen] = np.arange(chosen.size)
    return place, chosen.size


def twin(x: np.ndarray, chosen: np.ndarray | None, size_factor: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """The kernels in NumPy."""
    rows = x[WANTED]
    values = rows if size_factor is None else np.log1p((rows / size_factor[:, None]).astype(np.float32))
    values = values if chosen is None else values[:, chosen]
    return values.astype(np.float32), rows.sum(axis=1).astype(np.float32)


@pytest.mark.parametrize("borders", [(), (2,), (1, 2, 4)])
@pytest.mark.parametrize("chosen", [None, CHOSEN], ids=["all genes", "some genes"])
@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("largest", [60_000, 70_000, 2**33])
def test_dense_and_csr_rows_equal_the_numpy_twin(borders, chosen, normalized, largest) -> None:
    x = counts(largest)
    pieces = pieces_of(x, *borders)
    size_factor = np.linspace(0.3, 4, WANTED.size) if normalized else None
    genes, n_columns = place_of(chosen)
    expected, expected_size = twin(x, chosen, size_factor)

    dense = np.full((WANTED.size, n_columns), np.nan, np.float32)
    library_size = np.full(WANTED.size, np.nan, np.float32)
    fill_dense(pieces, genes, size_factor, dense, library_size)
    np.testing.assert_allclose(dense, expected, rtol=1e-6)
    np.testing.assert_array_equal(library_size, expected_size)

    starts = count_elements(pieces, genes, n_columns)
    columns, values = np.full(starts[-1] + 1, 99, np.int32), np.full(starts[-1] + 1, np.nan, np.float32)
    library_size[:] = np.nan
    fill_csr(pieces, genes, n_columns, size_factor, starts, columns, values, library_size)
    made = sp.csr_matrix((values[:-1], columns[:-1], starts), shape=expected.shape)
    np.testing.assert_array_equal(made.toarray(), dense)
    np.testing.assert_array_equal(library_size, expected_size)

    back = np.full_like(dense, np.nan)
    scatter_rows(starts, columns, values, NO_FACTORS, False, back)
    np.testing.assert_array_equal(back, dense)


@pytest.mark.parametrize("kind", [np.uint16, np.int64])
def test_compact_rows_become_normalised_when_made_dense(kind) -> None:
    x = counts(60_000)
    size_factor = np.linspace(0.3, 4, WANTED.size)
    starts = count_elements(pieces_of(x, 3), NO_GENES, N_VARS)
    columns, values = np.empty(starts[-1] + 1, np.uint16), np.empty(starts[-1] + 1, kind)
    fill_csr(pieces_of(x, 3), NO_GENES, N_VARS, None, starts, columns, values, np.empty(WANTED.size, np.float32))
    made = np.empty((WANTED.size, N_VARS), np.float32)
    scatter_rows(starts, columns, values, size_factor, False, made)
    np.testing.assert_allclose(made, twin(x, None, size_factor)[0], rtol=1e-6)


@pytest.mark.parametrize("largest", [2**24 + 1, 2**31 - 1])
def test_integer_counts_stay_integers(largest: int) -> None:
    x = counts(largest)
    pieces = pieces_of(x, 2)
    for chosen in (None, CHOSEN):
        place, width = place_of(chosen)
        starts = count_elements(pieces, place, width)
        columns, values = np.zeros(starts[-1] + 1, np.uint16), np.zeros(starts[-1] + 1, np.int32)
        fill_csr(pieces, place, width, None, starts, columns, values, np.empty(WANTED.size, np.float32))
        assert values.max() == largest


def test_a_sum_of_more_genes_than_16_bits_number() -> None:
    x = sp.csr_matrix(np.full((1, 70_000), 65_535))
    pieces = [([(0, CompactCsr.from_scipy(x))], np.array([0]))]
    library_size, dense = np.empty(1, np.float32), np.empty((1, 70_000), np.float32)
    fill_dense(pieces, NO_GENES, None, dense, library_size)
    assert library_size[0] == np.float32(70_000 * 65_535)
