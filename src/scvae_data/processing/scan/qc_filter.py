"""The metrics of a file's cells in; which are kept out, and an account of every other one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scvae_data.processing.scan.cells import FileCells
from scvae_data.processing.scan.dropped import DroppedWriter, dropped_table
from scvae_data.processing.scan.metrics import join_metrics
from scvae_data.processing.settings.qc import Bounds, Judgement, Metrics, QcRules, n_cells

__all__ = ["OutlierBounds", "QcFilter", "bounds_of_rows", "find_bounds"]

PIECE_ROWS = 10_000
"""Dropped cells that are written at once."""


class QcFilter:
    """Keeps or drops the cells of one file, by the first rule that they break.

    Parameters
    ----------
    dropped
        Where the table of dropped cells goes.
    """

    def __init__(self, qc: QcRules, cells: FileCells, dropped: Path) -> None:
        self.qc, self.cells = qc, cells
        self.rules = ([cells.control_rule] if cells.control is not None else []) + [rule.name for rule in qc.rules()]
        self._lost = np.zeros((len(cells.experiments), len(self.rules)), np.int64)
        self.bounds: Sequence[OutlierBounds] = []
        self.dropped = DroppedWriter(dropped)
        self._pending: list[tuple[NDArray[Any], ...]] = []
        self._pending_metrics: list[Metrics] = []
        self._n_pending = 0

    @property
    def lost(self) -> dict[str, int]:
        """How many cells each rule dropped."""
        return {rule: int(counts.sum()) for rule, counts in self.lost_by_experiment.items()}

    @property
    def lost_by_experiment(self) -> dict[str, NDArray[np.int64]]:
        """How many cells each rule dropped of each experiment, in the order of `FileCells.experiments`."""
        return dict(zip(self.rules, self._lost.T, strict=True))

    def keep(self, first_row: int, metrics: Metrics) -> NDArray[np.bool_]:
        """Return which rows are kept; count and list the others."""
        judged, verdict = self.judge(first_row, metrics)
        self._account(first_row, metrics, judged, verdict)
        return np.asarray(verdict == 0)

    def judge(self, first_row: int, metrics: Metrics) -> tuple[Judgement, NDArray[np.int64]]:
        """Return the judgement of some rows by quality, and their verdicts: 0, or the number of a rule, from 1 on."""
        rows = slice(first_row, first_row + n_cells(metrics))
        bounds = bounds_of_rows(self.bounds, self.cells.accessions[rows]) if self.bounds else None
        judged = self.qc.judge(metrics, bounds)
        verdict = judged.verdict
        if self.cells.control is not None:
            other = ~self.cells.control[rows]
            verdict = np.where(verdict > 0, verdict + 1, 0)
            verdict[other] = 1
            judged.value[other] = judged.threshold[other] = np.nan
        return judged, verdict

    def _account(self, first_row: int, metrics: Metrics, judged: Judgement, verdict: NDArray[np.int64]) -> None:
        """Count and list the rows that are dropped."""
        out = np.flatnonzero(verdict)
        if not len(out):
            return
        at = first_row + out
        np.add.at(self._lost, (self.cells.codes[at], verdict[out] - 1), 1)
        self._pending.append((at, verdict[out], judged.value[out], judged.threshold[out]))
        self._pending_metrics.append({name: values[out] for name, values in metrics.items()})
        self._n_pending += len(out)
        if self._n_pending >= PIECE_ROWS:
            self._flush()

    def _flush(self) -> None:
        """Write the dropped cells that are listed."""
        if not self._pending:
            return
        at, verdict, value, threshold = map(np.concatenate, zip(*self._pending, strict=True))
        rules = np.array(self.rules, object)[verdict - 1]
        table = dropped_table(
            at, self.cells.names(at), self.cells.accessions[at].tolist(), rules.tolist(),
            join_metrics(self._pending_metrics), value=value, threshold=threshold,
        )  # fmt: skip
        self.dropped.append(table)
        self._pending.clear()
        self._pending_metrics.clear()
        self._n_pending = 0

    def close(self) -> None:
        """Finish the table of dropped cells."""
        self._flush()
        self.dropped.close()


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
