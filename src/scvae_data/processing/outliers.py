"""Metrics of one file in, bounds per accession out: what lies too many median absolute deviations from the median.

The bounds belong to one accession of one file: experiments differ in depth,
so that a common bound would drop whole ones and spare the outliers of others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = ["SCALES", "Bounds", "OutlierBounds", "bounds_of_rows", "find_bounds"]

# As it is, or times 1 / Phi^-1(3/4): the standard deviation where values are normal.
SCALES = (1.0, 1.4826)

Bounds = Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]]
"""Metric to the least and the most allowed, one of each per row, float64."""


@dataclass(frozen=True)
class OutlierBounds:
    """The bounds of one metric in one accession of a file.

    Parameters
    ----------
    n_obs
        Cells behind the median: those with a value that pass the minimum rules.
    median, mad
        Of their values; the deviation is unscaled. None without a value.
    lower, upper
        Least and most allowed, inclusive. None where nothing is known to be
        an outlier: the metric is not measured, or at least half of the cells
        have the same value, whose deviation of 0 measures no spread.
    """

    accession: str
    metric: str
    n_obs: int
    median: float | None
    mad: float | None
    lower: float | None
    upper: float | None


def find_bounds(
    metrics: pd.DataFrame, accessions: NDArray[np.object_], nmads: Mapping[str, float], scale: float
) -> list[OutlierBounds]:
    """Return the bounds of every accession and metric.

    Parameters
    ----------
    metrics
        Metrics of the cells that count, in any order.
    accessions
        Their accessions, shape (n,).
    nmads
        Metric to the number of deviations allowed on either side.
    scale
        What a deviation is multiplied with.
    """
    found = []
    groups = pd.Series(np.arange(len(metrics))).groupby(np.asarray(accessions, str), sort=True).indices
    for accession, rows in groups.items():
        for metric, n in nmads.items():
            values = metrics[metric].to_numpy(np.float64)[rows]
            found.append(bounds_of(str(accession), metric, values[~np.isnan(values)], n * scale))
    return found


def bounds_of(accession: str, metric: str, values: NDArray[np.float64], width: float) -> OutlierBounds:
    """Return the bounds of one metric in one accession; ``width`` is in unscaled deviations."""
    if not len(values):
        return OutlierBounds(accession, metric, 0, None, None, None, None)
    median = float(np.median(values))
    mad = float(np.median(np.abs(values - median)))
    lower, upper = (median - width * mad, median + width * mad) if mad > 0 else (None, None)
    return OutlierBounds(accession, metric, len(values), median, mad, lower, upper)


def bounds_of_rows(bounds: Sequence[OutlierBounds], accessions: NDArray[np.object_]) -> Bounds:
    """Spread bounds over rows; an accession without bounds has none to break.

    Parameters
    ----------
    accessions
        Accession of each row, shape (n,).
    """
    codes, distinct = pd.factorize(accessions)
    table: dict[str, dict[str, OutlierBounds]] = {}
    for bound in bounds:
        table.setdefault(bound.metric, {})[bound.accession] = bound
    return {
        metric: (
            side([getattr(of_metric.get(name), "lower", None) for name in distinct], -np.inf)[codes],
            side([getattr(of_metric.get(name), "upper", None) for name in distinct], np.inf)[codes],
        )
        for metric, of_metric in table.items()
    }


def side(values: Sequence[Any], absent: float) -> NDArray[np.float64]:
    """Return one side's bounds as an array, ``absent`` for None."""
    return np.array([absent if value is None else value for value in values], np.float64)
