"""Knee and inflection of barcode ranks, of counts whose curve is known."""

from __future__ import annotations

import numpy as np
import pytest

from scvae_data.processing.scan.experiments import ranked
from scvae_data.processing.scan.knee import find_knee


def raw_matrix(n_cells: int, depth: float, n_droplets: int, ambient: float, seed: int = 0) -> np.ndarray:
    """Counts of cells around one depth, and of empty droplets."""
    rng = np.random.default_rng(seed)
    cells = rng.poisson(depth * np.exp(rng.normal(0, 0.3, n_cells)))
    return rng.permutation(np.concatenate([cells, rng.poisson(ambient * np.exp(rng.normal(0, 1, n_droplets)))]))


@pytest.mark.parametrize("depth", [2_000, 20_000])
@pytest.mark.parametrize("n_cells", [500, 5_000])
def test_cells_and_droplets_are_told_apart(n_cells: int, depth: float) -> None:
    totals = raw_matrix(n_cells, depth, 100_000, 5)
    found = find_knee(totals)
    assert found is not None
    assert 100 < found.inflection < found.knee < 2 * depth
    assert (totals >= found.inflection).sum() == pytest.approx(n_cells, rel=0.1)
    facts = ranked(totals)
    assert facts["raw_droplets"]
    assert facts["share_far_below"] > 0.9
    assert facts["n_above_knee"] <= facts["n_above_inflection"]


def test_a_filtered_matrix_is_none_of_droplets() -> None:
    facts = ranked(raw_matrix(2_000, 5_000, 0, 0))
    assert not facts["raw_droplets"]
    assert facts["share_far_below"] == 0


def test_barcodes_without_a_second_count_are_droplets() -> None:
    facts = ranked(np.array([0, 0, 1, 1, 1, 40, 60, 80, 0, 1]))
    assert facts == {"share_one_umi": 0.4, "raw_droplets": True}


@pytest.mark.parametrize(("depths", "spread"), [([0, *range(90, 111)], 0.05), ([10_000] * 19 + [10_001] * 2, 0.0)])
def test_spread_of_the_counts_of_cells(depths: list[int], spread: float) -> None:
    assert ranked(np.array(depths))["counts_spread"] == spread


def test_by_hand() -> None:
    # Beyond the first 50 ranks: a plateau down to 910, and a fall to 110.
    totals = np.concatenate([np.full(60, 1_000), np.arange(990, 900, -10), [110, 109, 108]])
    found = find_knee(totals)
    assert found is not None
    assert found.inflection == 910
    assert 910 <= found.knee <= 990


@pytest.mark.parametrize("totals", [[], [0, 0], [50, 60, 70], [101, 101, 102]])
def test_too_few_counts_have_no_knee(totals: list[int]) -> None:
    assert find_knee(np.array(totals, np.int64)) is None
