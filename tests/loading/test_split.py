from __future__ import annotations

import numpy as np
import pytest

from scvae_data.errors import ConfigError
from scvae_data.loading.split import HashSplit

HASHES = np.linspace(0, 2**32 - 1, 1001).astype(np.uint32)


@pytest.mark.parametrize(("val", "test"), [(0.1, 0.0), (0.25, 0.5), (0.0, 0.3), (0.0, 0.0)])
def test_parts_are_disjoint_ranges_that_cover_all(val: float, test: float) -> None:
    split = HashSplit(val, test)
    masks = {part: split.mask(HASHES, part) for part in ("val", "test", "train")}
    assert (sum(mask.astype(int) for mask in masks.values()) == 1).all()
    for part, mask in masks.items():
        assert mask.mean() == pytest.approx(split.fraction(part), abs=0.002)
        assert np.count_nonzero(np.diff(mask)) <= 2


def test_the_largest_hash_is_for_training() -> None:
    assert HashSplit(0.5, 0.4).mask(np.array([2**32 - 1], np.uint32), "train").all()


def test_parse() -> None:
    assert HashSplit.parse(None) == HashSplit(0.0, 0.0)
    assert HashSplit.parse({"val": 0.2}) == HashSplit(0.2, 0.0)


@pytest.mark.parametrize(
    ("split", "message"),
    [
        pytest.param({"val": 1.0}, r"split.val=1.0 must be a fraction", id="all"),
        pytest.param({"test": -0.1}, r"split.test=-0.1 must be a fraction", id="negative"),
        pytest.param({"val": "10%"}, r"split.val='10%' must be a fraction", id="text"),
        pytest.param({"val": 0.6, "test": 0.4}, "leave nothing to train on", id="sum"),
        pytest.param({"valid": 0.1}, r"unknown keys \['valid'\]", id="typo"),
        pytest.param(0.1, "split=0.1 must give fractions", id="number"),
    ],
)
def test_impossible_splits(split: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        HashSplit.parse(split)  # type: ignore[arg-type]
