"""The bound on ambient counts lies above the truth, and near it where some genes are of the soup alone."""

from __future__ import annotations

import numpy as np
import pytest

from scvae_data.processing.evidence.ambient import ambient_share


@pytest.mark.parametrize("share", [0.02, 0.1, 0.4])
@pytest.mark.parametrize("n_empty", [20_000, 2_000_000])
def test_a_known_share_is_found(share: float, n_empty: int) -> None:
    rng = np.random.default_rng(1)
    soup = rng.dirichlet(np.full(2_000, 0.3))
    own = rng.dirichlet(np.full(2_000, 0.3)) * (rng.random(2_000) < 0.7)  # a third of the genes is not expressed
    cells = rng.poisson(5e6 * ((1 - share) * own / own.sum() + share * soup))
    found = ambient_share(cells, rng.poisson(n_empty * soup))
    assert found == pytest.approx(share, rel=0.3)
    assert found > 0.95 * share


def test_cells_that_are_like_the_soup_may_be_all_soup() -> None:
    rng = np.random.default_rng(2)
    soup = rng.dirichlet(np.ones(500))
    assert ambient_share(rng.poisson(1e5 * soup), rng.poisson(1e4 * soup)) > 0.9


def test_no_profile_no_share() -> None:
    cells = np.full(10, 1_000)
    assert ambient_share(cells, np.full(10, 99)) is None
    assert ambient_share(np.zeros(10, int), cells) is None
