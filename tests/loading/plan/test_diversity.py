from __future__ import annotations

import numpy as np
import pytest

from scvae_data.loading.plan.diversity import label_counts, measure_diversity
from scvae_data.loading.plan.epoch import Plan
from scvae_data.loading.select.rows import to_row_groups


def measured(codes: np.ndarray, chunk: int, batch_size: int, window: int = 1):
    row_groups = to_row_groups(None, np.arange(0, codes.size + 1, chunk))
    plan, codes = Plan((chunk,) * len(row_groups), batch_size, window=window), codes.astype(np.int32)
    return measure_diversity(plan, row_groups, codes, label_counts(plan, row_groups, codes))


def test_random_order_is_as_diverse_as_random_draws() -> None:
    codes = np.random.default_rng(0).integers(0, 20, 20_000)
    found = measured(codes, 1_000, 200)
    assert found.share == pytest.approx(1, abs=0.01)
    assert found.random_entropy == pytest.approx(np.log2(20) - 19 / (2 * 200 * np.log(2)), abs=0.02)  # Miller-Madow
    assert found.labels == found.random_labels == 20
    assert found.variation == pytest.approx(found.random_variation, abs=0.02)


def test_one_label_per_chunk_is_no_diversity_without_mixing() -> None:
    codes = np.repeat(np.arange(20), 1_000)
    alone, mixed, all_mixed = (measured(codes, 1_000, 200, window) for window in (1, 4, 20))
    assert alone.entropy == 0 and alone.labels == 1 and alone.variation == pytest.approx(0.95)
    assert 0.4 < mixed.share < 0.6
    assert all_mixed.share == pytest.approx(1, abs=0.03)


def test_one_label_in_all_is_as_diverse_as_can_be() -> None:
    assert measured(np.zeros(2_000), 500, 100).share == 1
