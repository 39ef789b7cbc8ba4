"""Per-cell hashes in, train, validation and test masks out: a split that is a property of the cells.

A cell's part depends on its own ``split_hash`` alone, so it stays the same when
cells are added, and whatever the filter, the seed of the order or the chunk
size. Rows of a chunk are stored in the order of this hash, which makes each
part one contiguous range per chunk: reading 10 % of the cells reads about 10 %
of the bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from scvae_data.errors import ConfigError

__all__ = ["HashSplit", "Part"]

Part = Literal["train", "val", "test"]
HASH_RANGE = 1 << 32


@dataclass(frozen=True)
class HashSplit:
    """Fractions of cells for validation and test; the rest is for training.

    Parameters
    ----------
    val
        Fraction of cells with the lowest hashes.
    test
        Fraction of cells with the next lowest hashes.
    """

    val: float = 0.1
    test: float = 0.0

    def __post_init__(self) -> None:
        for name, fraction in (("val", self.val), ("test", self.test)):
            if isinstance(fraction, bool) or not isinstance(fraction, int | float) or not 0 <= fraction < 1:
                raise ConfigError(f"split.{name}={fraction!r} must be a fraction of cells, at least 0 and below 1")
        if self.val + self.test >= 1:
            raise ConfigError(
                f"split.val={self.val} and split.test={self.test} leave nothing to train on; "
                "lower them until their sum is below 1"
            )

    @classmethod
    def parse(cls, split: Mapping[str, float] | None) -> HashSplit:
        """Make a split of a mapping with the keys ``val`` and ``test``; None trains on every cell."""
        if split is None:
            return cls(0.0, 0.0)
        if not isinstance(split, Mapping):
            raise ConfigError(f"split={split!r} must give fractions, e.g. {{val: 0.1, test: 0.0}}")
        unknown = sorted(set(map(str, split)) - {"val", "test"})
        if unknown:
            raise ConfigError(f"split has unknown keys {unknown}; allowed are val and test, the rest is for training")
        return cls(split.get("val", 0.0), split.get("test", 0.0))

    def fraction(self, part: Part) -> float:
        """Expected fraction of cells in ``part``."""
        return {"val": self.val, "test": self.test, "train": 1 - self.val - self.test}[part]

    def mask(self, split_hash: NDArray[np.uint32], part: Part) -> NDArray[np.bool_]:
        """Cells of ``part``, shape (n_obs,)."""
        val_end = round(self.val * HASH_RANGE)
        test_end = round((self.val + self.test) * HASH_RANGE)
        # The bounds may equal 2**32, so compare in 64 bits.
        position = split_hash.astype(np.int64)
        if part == "val":
            return position < val_end
        if part == "test":
            return (position >= val_end) & (position < test_end)
        return position >= test_end
