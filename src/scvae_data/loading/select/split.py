"""Per-cell hashes in, train, validation and test masks out: a split that is a property of the cells.

A cell's part depends on its own ``split_hash`` alone, so it stays the same when
cells are added, and whatever the filter, the seed of the order or the chunk
size. Rows of a chunk are stored in the order of this hash, which makes each
part one contiguous range per chunk: reading 10 % of the cells reads about 10 %
of the bytes.

A split may also go by an obs column: whole groups (experiments, donors) to one
part, chosen by a hash of their names until a part has its share of cells; or
the values of a column named for each part. Beside named values the other part
may have a share of the cells that are left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from scvae_data.errors import ConfigError, SelectionError
from scvae_data.store.row_table import split_limit
from scvae_data.wording import named

__all__ = ["PARTS", "ColumnSplit", "GroupSplit", "HashSplit", "Part", "Split", "parse_split"]

Part = Literal["train", "val", "test"]
PARTS: tuple[Part, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class HashSplit:
    """Fractions of cells for validation and test; the rest is for training."""

    val: float = 0.1
    """Fraction of cells with the lowest hashes."""
    test: float = 0.0
    """Fraction of cells with the next lowest hashes."""

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

    @property
    def limits(self) -> tuple[int, int]:
        """Hashes below the first are for validation, others below the second for test; at most 2**32."""
        return split_limit(self.val), split_limit(self.val + self.test)

    @property
    def hash_end(self) -> int:
        """Hash that training cells have at least."""
        return self.limits[1]

    def mask(self, split_hash: NDArray[np.uint32], part: Part) -> NDArray[np.bool_]:
        """Cells of ``part``, shape (n_obs,)."""
        val_end, test_end = self.limits
        # The bounds may equal 2**32, so compare in 64 bits.
        position = split_hash.astype(np.int64)
        if part == "val":
            return position < val_end
        if part == "test":
            return (position >= val_end) & (position < test_end)
        return position >= test_end


@dataclass(frozen=True)
class GroupSplit:
    """Whole groups of cells for validation and test.

    Groups are taken in the order of a hash of their names, first for
    validation, then for test, each time until the part has its share of cells
    and at least one group. Cells without a group are for training.
    """

    by: str
    """Categorical obs column."""
    val: float = 0.1
    """Share of the cells."""
    test: float = 0.0
    """Likewise."""

    def __post_init__(self) -> None:
        HashSplit(self.val, self.test)

    def fraction(self, part: Part) -> float:
        """Expected fraction of cells in ``part``."""
        return HashSplit(self.val, self.test).fraction(part)

    @property
    def hash_end(self) -> int:
        """Hash that training cells have at least: they have any."""
        return 0

    def parts_of(self, sizes: NDArray[np.int64], names: Sequence[str]) -> NDArray[np.int8]:
        """Part of the cells of every group, and last of those of none, as its position in :data:`PARTS`.

        Parameters
        ----------
        sizes
            Selected cells of every group, and last of none; (n_groups + 1,).
        names
            The groups.
        """
        groups = sorted(np.flatnonzero(sizes[:-1]).tolist(), key=lambda group: _name_hash(names[group]))
        part_of = np.zeros(len(names) + 1, np.int8)
        for place, share in ((1, self.val), (2, self.test)):
            taken = 0
            # Up to the number of cells that comes closest to the share.
            while share > 0 and groups and (taken == 0 or taken + sizes[groups[0]] / 2 <= share * sizes.sum()):
                taken += int(sizes[groups[0]])
                part_of[groups.pop(0)] = place
        if not groups and not sizes[-1]:
            raise SelectionError(
                f"split.by={self.by} has {np.count_nonzero(sizes[:-1])} groups, too few for val={self.val} and "
                f"test={self.test} beside training; lower them or split by another column"
            )
        return part_of


@dataclass(frozen=True)
class ColumnSplit:
    """Cells for validation and test by their values of an obs column; the rest, or without one, are for training."""

    column: str
    """Categorical obs column."""
    val: tuple[str, ...] = ()
    """Values."""
    test: tuple[str, ...] = ()
    """Likewise."""
    rest: HashSplit = HashSplit(0.0, 0.0)
    """Shares of the cells of other values, for parts that have no values."""

    def __post_init__(self) -> None:
        both = sorted(set(self.val) & set(self.test))
        if both:
            raise ConfigError(f"split gives {both} of {self.column} to both val and test; give each value to one")
        if not self.val and not self.test:
            raise ConfigError(f"split.column={self.column} has no values in val or test; name some, e.g. test: [A, B]")

    def fraction(self, part: Part) -> float:
        """Above 0 for a part that must not be empty."""
        named = {"train": True, "val": bool(self.val), "test": bool(self.test)}[part]
        return 1.0 if named else self.rest.fraction(part)

    @property
    def hash_end(self) -> int:
        """Hash that training cells have at least."""
        return self.rest.hash_end

    def parts_of(self, sizes: NDArray[np.int64], names: Sequence[str]) -> NDArray[np.int8]:
        """Part of the cells of every value; see :meth:`GroupSplit.parts_of`."""
        part_of = np.zeros(len(names) + 1, np.int8)
        for place, values in ((1, self.val), (2, self.test)):
            for value in values:
                if value not in names:
                    raise SelectionError(f"split: {self.column} has no value {value!r}; it has {named(names)}")
                part_of[names.index(value)] = place
        return part_of


Split = HashSplit | GroupSplit | ColumnSplit


def parse_split(split: Mapping[str, object] | None) -> Split:
    """Make a split of a mapping.

    ``{val: 0.1, test: 0.1}`` by cells, ``{val: 0.1, by: donor}`` by groups,
    ``{column: study, val: [A], test: [B, C]}`` by values, ``{column: study,
    val: 0.1, test: [B, C]}`` with a share of the cells of other studies; None
    trains on every cell.

    Raises
    ------
    ConfigError
        If it is none of these.
    """
    if isinstance(split, Mapping):
        split = {key: value for key, value in split.items() if value is not None or key not in ("by", "column")}
    if not isinstance(split, Mapping) or not {"by", "column"} & set(split):
        return HashSplit.parse(split)  # type: ignore[arg-type]
    kind = "by" if "by" in split else "column"
    unknown = sorted(set(map(str, split)) - {"val", "test", kind})
    if unknown or not isinstance(split[kind], str):
        raise ConfigError(
            f"split={dict(split)!r} must be val and test beside one of by and column, which name a column"
        )
    name, given = str(split[kind]), {part: split[part] for part in ("val", "test") if split.get(part) is not None}
    if kind == "by":
        return GroupSplit(name, **({"val": 0.0, "test": 0.0, **given} if given else {}))  # type: ignore[arg-type]
    values, shares = {}, {"val": 0.0, "test": 0.0}
    for part, asked in given.items():
        if isinstance(asked, int | float) and not isinstance(asked, bool):
            shares[part] = asked
        elif isinstance(asked, str | Sequence):
            values[part] = (asked,) if isinstance(asked, str) else tuple(map(str, asked))
        else:
            raise ConfigError(f"split.{part}={asked!r} must be values of {name}, e.g. [A, B], or a share of the others")
    return ColumnSplit(name, values.get("val", ()), values.get("test", ()), HashSplit(**shares))


def _name_hash(name: str) -> bytes:
    return blake2b(name.encode(), digest_size=8).digest()
