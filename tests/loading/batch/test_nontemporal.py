from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from scvae_data.loading.batch import fill as batch
from scvae_data.loading.batch.fill import fill_dense
from scvae_data.loading.batch.kernels import NO_GENES
from scvae_data.loading.batch.nontemporal import LINE, aligned_zeros, misplaced, move_row
from scvae_data.store import CompactCsr


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("n", [0, 1, LINE - 1, LINE, LINE + 1, 5 * LINE, 5 * LINE + 7])
def test_a_row_is_moved_wherever_it_begins(n: int, streamed: bool) -> None:
    for at in range(LINE + 1):
        x = np.full(n + 3 * LINE, -1, np.float32)
        expected = x.copy()
        expected[at : at + n] = np.arange(1, n + 1)
        line = aligned_zeros(n)[misplaced(x, at) :]
        line[:n] = np.arange(1, n + 1)
        move_row(line[:n], x, at, streamed)
        np.testing.assert_array_equal(x, expected)
        assert not line.any()


@pytest.mark.parametrize("n", [0, 1, LINE, 100])
def test_zeros_begin_a_cache_line_and_leave_room(n: int) -> None:
    zeros = aligned_zeros(n)
    assert misplaced(zeros, 0) == 0
    assert zeros.size >= n + LINE - 1
    assert not zeros.any()


@pytest.mark.parametrize("n_vars", [LINE, 61, 128])
@pytest.mark.parametrize("normalized", [False, True])
def test_streamed_rows_equal_others(monkeypatch: pytest.MonkeyPatch, n_vars: int, normalized: bool) -> None:
    counts = np.arange(40 * n_vars).reshape(40, n_vars) * (np.arange(n_vars) % 3 == 0)
    pieces = [([(0, CompactCsr.from_scipy(sp.csr_matrix(counts)))], np.random.default_rng(0).permutation(40))]
    size_factor = np.linspace(0.3, 4, 40) if normalized else None
    made = []
    for limit in (0, 1 << 40):
        monkeypatch.setattr(batch, "STREAMED_BYTES", limit)
        x, library_size = np.full((40, n_vars), np.nan, np.float32), np.empty(40, np.float32)
        fill_dense(pieces, NO_GENES, size_factor, x, library_size)
        made.append(x)
        np.testing.assert_array_equal(library_size, counts[pieces[0][1]].sum(axis=1))
    np.testing.assert_array_equal(*made)
    assert made[0].any() and not np.isnan(made[0]).any()
