"""Weights of values of an obs column in, how often each cell is drawn in an epoch out.

A weight changes how often the rows of a row group enter the stream, never which
are read or in which order: reading stays chunk by chunk. Expected draws are
fractions; they are laid end to end, in units of 2**-32, and a row is drawn once
for every whole number that its stretch covers::

    rows      a    b       c          d           c drawn 2 times, b not
    stretch  |0.8 |0.4 |   1.9        | 1.1   |
    numbers     1         2     3        4        shifted at random in every epoch

So each epoch has the same number of draws, a row is drawn the number expected
rounded down or up, and over epochs exactly as often as its weight says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scvae_data.errors import ConfigError, SelectionError
from scvae_data.loading.select.parts import RowGroups, group_counts
from scvae_data.loading.select.rows import RowGroup
from scvae_data.loading.select.values import CellValues
from scvae_data.store import CellIndex
from scvae_data.wording import named

__all__ = ["DEFAULT_SAMPLING", "Draws", "Sampling", "parse_sampling", "weighted"]


DEFAULT_SAMPLING: Mapping[str, Any] = MappingProxyType(
    {"column": None, "alpha": 0.0, "weights": None, "replacement": True, "n_obs": None}
)
UNIT_BITS = 32
UNIT = 1 << UNIT_BITS
# Separates these random streams from those of the plan, which has the same seed.
SHIFT, SHUFFLE = 200, 201


@dataclass(frozen=True)
class Sampling:
    """How large a share of an epoch each value of an obs column gets.

    Parameters
    ----------
    column
        Categorical obs column. Cells without a value count as one more value.
    alpha
        Share ∝ (cells of the value) ** alpha: 1 leaves the shares as they are, 0 makes them equal.
    weights
        Share ∝ weight, for every value that has cells, instead of ``alpha``; 0
        leaves the cells of a value out, as are cells without a value.
    replacement
        Cells of a value may be drawn several times in an epoch; false: at most
        once, so that values with more cells than their share lose some.
    n_obs
        Draws in an epoch. None: with replacement as many as there are cells to draw,
        without it as many as the shares allow. Without replacement, a value that
        has too few cells for its share of ``n_obs`` gives all it has, and the others more.
    """

    column: str
    alpha: float = 0.0
    weights: tuple[tuple[str, float], ...] | None = None
    replacement: bool = True
    n_obs: int | None = None

    def rates(self, sizes: NDArray[np.int64], names: Sequence[str]) -> NDArray[np.float64]:
        """Expected draws in an epoch of one cell of every value, (n_values + 1,), the last for cells without one.

        Parameters
        ----------
        sizes
            Selected cells of every value, and of none; (n_values + 1,).
        names
            The values.

        Raises
        ------
        SelectionError
            If weights are missing or too many, nothing is left to draw, or ``n_obs`` asks for more than there is.
        """
        shares = self._shares(sizes, names)
        sizes = np.where(shares > 0, sizes, 0)
        total = int(sizes.sum())
        if not total:
            raise SelectionError(f"sampling: no cell has a value of {self.column} with a weight above 0; give it one")
        there = sizes > 0
        rates = np.zeros(sizes.size)
        rates[there] = shares[there] / shares.sum() / sizes[there]  # of one draw
        if self.replacement:
            rates *= total if self.n_obs is None else self.n_obs
            return rates
        if self.n_obs is None:
            rates /= rates.max()
            return rates
        if self.n_obs > total:
            raise SelectionError(
                f"sampling.n_obs={self.n_obs} exceeds the {total:,} cells to draw from; lower it, or set "
                "sampling.replacement=true"
            )
        return _capped(rates, sizes, self.n_obs)

    def _shares(self, sizes: NDArray[np.int64], names: Sequence[str]) -> NDArray[np.float64]:
        """Relative share of an epoch of every value; 0 for those without cells."""
        if self.weights is None:
            there = sizes > 0
            return np.where(there, np.where(there, sizes, 1).astype(np.float64) ** self.alpha, 0.0)
        given = dict(self.weights)
        if unknown := [name for name in given if name not in names]:
            raise SelectionError(f"sampling.weights: {self.column} has no value {unknown[0]!r}; it has {named(names)}")
        if missing := [name for name, size in zip(names, sizes, strict=False) if size and name not in given]:
            raise SelectionError(
                f"sampling.weights has no weight for {missing[0]!r} of {self.column} ({len(missing)} such values); "
                "give one to each, 0 to leave its cells out"
            )
        weights = np.array([*(given.get(name, 0.0) for name in names), 0.0])
        return np.where(sizes > 0, weights, 0.0)


def _capped(rates: NDArray[np.float64], sizes: NDArray[np.int64], n_obs: int) -> NDArray[np.float64]:
    """Rates for ``n_obs`` draws of which none exceeds 1: what a value cannot give, the others share."""
    full = np.zeros(rates.size, np.bool_)
    while True:
        open_share = float((rates * sizes)[~full].sum())
        left = n_obs - int(sizes[full].sum())
        scaled = np.where(full, 1.0, rates * (left / open_share) if open_share else 0.0)
        over = (scaled >= 1) & ~full & (sizes > 0)
        if not over.any():
            return np.where(sizes > 0, scaled, 0.0)
        full |= over


@dataclass(frozen=True, eq=False)
class Draws:
    """How often each row of each row group is drawn, epoch by epoch."""

    row_groups: Sequence[RowGroup]
    """What is decoded at once."""
    values: CellValues
    """Reads ``column`` of the cells of row groups."""
    column: str
    """What the rates go by."""
    rates: NDArray[np.float64]
    """Expected draws of a cell by value, all above 0 for rows of ``row_groups``; see :meth:`Sampling.rates`."""
    seed: int
    """Decides what is drawn, together with the epoch."""

    @cached_property
    def units(self) -> NDArray[np.int64]:
        """Expected draws by value, in units of 2**-32."""
        return np.rint(self.rates * UNIT).astype(np.int64)

    @cached_property
    def borders(self) -> NDArray[np.int64]:
        """Where the stretch of each row group begins, in units; (n_groups + 1,)."""
        return np.cumsum([0, *(int(self.units[self._values(group)].sum()) for group in self.row_groups)])

    @property
    def n_draws(self) -> int:
        """Draws in every epoch."""
        return (int(self.borders[-1]) + UNIT // 2) >> UNIT_BITS

    def of_groups(self, epoch: int) -> NDArray[np.int64]:
        """Draws from each row group, (n_groups,)."""
        return np.diff((self.borders + self._shift(epoch)) >> UNIT_BITS)

    def of_rows(self, epoch: int, group: int) -> NDArray[np.int64]:
        """Draws of each row of a row group, (n_rows,)."""
        values = self._values(self.row_groups[group])
        # Value after value, so that each gets its share; in a new order each time, so that all cells get their turn.
        order = np.random.default_rng([self.seed, SHUFFLE, epoch, group]).permutation(values.size)
        order = order[np.argsort(values[order], kind="stable")]
        start = int(self.borders[group]) + self._shift(epoch)
        ends = np.cumsum(self.units[values[order]]) + start
        draws = np.empty(values.size, np.int64)
        draws[order] = np.diff(ends >> UNIT_BITS, prepend=start >> UNIT_BITS)
        return draws

    def _values(self, group: RowGroup) -> NDArray[np.int32]:
        return self.values.of(group)[self.column]

    def _shift(self, epoch: int) -> int:
        """Units by which everything is shifted, within what leaves the number of draws as it is."""
        over = int(self.borders[-1]) - (self.n_draws << UNIT_BITS)
        return int(np.random.default_rng([self.seed, SHIFT, epoch]).integers(max(0, -over), UNIT - max(0, over)))


def weighted(
    index: CellIndex, row_groups: RowGroups, sampling: Sampling, batch_size: int
) -> tuple[RowGroups, NDArray[np.float64]]:
    """Leave out training cells that are never drawn.

    Returns
    -------
    The row groups, and the expected draws in an epoch of a cell by its value of
    the sampling's column; see :meth:`Sampling.rates`.

    Raises
    ------
    SelectionError
        If the sampling does not fit the cells, or an epoch has less than a batch.
    """
    column, train = sampling.column, row_groups["train"]
    sizes = group_counts(index, column, train)
    rates = sampling.rates(sizes, index.categories(column))
    n_draws = round(float(rates @ sizes))
    if batch_size > n_draws:
        raise SelectionError(
            f"batch_size={batch_size} exceeds the {n_draws:,} cells that sampling draws in an epoch; "
            "lower batch_size or raise sampling.n_obs"
        )
    if (rates[sizes > 0] > 0).all():
        return row_groups, rates
    drawn = (group.where(rates[index.codes(column, group.chunk_id)[group.within_chunk()]] > 0) for group in train)
    return {**row_groups, "train": tuple(group for group in drawn if group is not None)}, rates


def parse_sampling(given: Mapping[str, Any] | None) -> Sampling | None:
    """Make weighted sampling of a mapping; None, or no ``column`` in it, for every cell once.

    Raises
    ------
    ConfigError
        If a key or value is not one of :class:`Sampling`'s.
    """
    if given is None:
        return None
    if not isinstance(given, Mapping):
        raise ConfigError(f"sampling={given!r} must be a mapping, e.g. {{column: cell_type, alpha: 0.5}}")
    known = DEFAULT_SAMPLING
    if unknown := sorted(set(map(str, given)) - set(known)):
        raise ConfigError(f"sampling has unknown keys {unknown}; it has {', '.join(known)}")
    column, alpha, weights, replacement, n_obs = (given.get(name, default) for name, default in known.items())
    if column is None:
        if changed := [name for name in given if given[name] != known[name]]:
            raise ConfigError(f"sampling.{changed[0]} is set, but sampling.column is null; name an obs column")
        return None
    if not isinstance(column, str):
        raise ConfigError(f"sampling.column={column!r} must be the name of an obs column")
    if not _is_number(alpha):
        raise ConfigError(f"sampling.alpha={alpha!r} must be a number, 0 for equal shares to 1 for shares as they are")
    if not isinstance(replacement, bool):
        raise ConfigError(f"sampling.replacement={replacement!r} must be true or false")
    if n_obs is not None and (isinstance(n_obs, bool) or not isinstance(n_obs, int) or not 1 <= n_obs < 10**9):
        raise ConfigError(f"sampling.n_obs={n_obs!r} must be a whole number of cells above 0, or null")
    if weights is None:
        return Sampling(column, float(alpha), None, replacement, n_obs)
    if alpha:
        raise ConfigError(f"sampling.alpha={alpha} and sampling.weights both say how large the shares are; give one")
    usable = isinstance(weights, Mapping) and all(_is_number(weight) and weight >= 0 for weight in weights.values())
    if not usable or not any(weights.values()):
        raise ConfigError(f"sampling.weights={weights!r} must give numbers of 0 or more, e.g. {{B cell: 1, T cell: 2}}")
    pairs = tuple(sorted((str(name), float(weight)) for name, weight in weights.items()))
    return Sampling(column, 0.0, pairs, replacement, n_obs)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))
