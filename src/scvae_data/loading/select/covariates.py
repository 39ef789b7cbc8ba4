"""Row groups and obs columns in, what a model must know of its covariates out: read chunk by chunk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scvae_data.errors import SelectionError
from scvae_data.loading.select.rows import RowGroup
from scvae_data.loading.select.values import CellValues
from scvae_data.store import CellIndex

__all__ = ["check_covariates", "covariate_facts"]


def check_covariates(index: CellIndex, categorical: Sequence[str], continuous: Sequence[str]) -> None:
    """Raise SelectionError unless columns of both kinds exist, and are of their kind."""
    for name in categorical:
        index.categories(name)  # refuses numbers, whose every value would be a category
    for name in continuous:
        known = index.obs_columns.get(name)
        if known is not None and known.categories is not None:
            raise SelectionError(f"obs column {name!r} is categorical, not numbers; name it in categorical_covariates")


def covariate_facts(
    index: CellIndex, groups: Sequence[RowGroup], categorical: Sequence[str], continuous: Sequence[str]
) -> dict[str, Any]:
    """What is known of covariates over the cells of row groups, as plain values.

    Returns
    -------
    ``categorical`` and ``continuous``, by column: ``categories`` of the one,
    ``mean`` and ``sd`` (that of the cells themselves) of the other, and
    ``n_missing``, the cells that have no value.

    Raises
    ------
    SelectionError
        For numbers that are infinite, or the same in all cells.
    """
    known = {name: index.categories(name) for name in categorical}
    missing, sums = dict.fromkeys(categorical, 0), {name: Sums(name) for name in continuous}
    values = CellValues(index, (*categorical, *continuous))
    for group in groups:
        found = values.of(group)
        for name, names in known.items():
            missing[name] += int((found[name] == len(names)).sum())
        for name, one in sums.items():
            one.add(found[name].astype(np.float64))
    return {
        "categorical": {name: {"categories": list(known[name]), "n_missing": missing[name]} for name in categorical},
        "continuous": {name: one.facts() for name, one in sums.items()},
    }


class Sums:
    """Number, mean and sum of squares around it of some cells after others (Chan, Golub and LeVeque 1983).

    Parameters
    ----------
    name
        Of the column, for messages.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.n_missing = self.n_known = 0
        self.mean = self.squares = 0.0

    def add(self, values: NDArray[np.float64]) -> None:
        """Take in more cells; NaN is a missing value."""
        known = values[~np.isnan(values)]
        self.n_missing += values.size - known.size
        if not known.size:
            return
        if np.isinf(known).any():
            raise SelectionError(f"obs column {self.name!r} has infinite values; exclude their cells by data.filter")
        n_before, self.n_known = self.n_known, self.n_known + known.size
        share, apart = known.size / self.n_known, float(known.mean()) - self.mean
        self.squares += float(np.square(known - known.mean()).sum()) + apart**2 * n_before * share
        self.mean += apart * share

    def facts(self) -> dict[str, float]:
        """What they come to."""
        sd = (self.squares / max(1, self.n_known)) ** 0.5
        if not sd > 0:
            what = f"is {self.mean:g} in all" if self.n_known else "is missing in all"
            raise SelectionError(
                f"obs column {self.name!r} {what} training cells, so it explains nothing; leave it out"
            )
        return {"mean": self.mean, "sd": sd, "n_missing": self.n_missing}
