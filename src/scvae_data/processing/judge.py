"""The metrics of a file's cells in; which are kept out, and an account of every other one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scvae_data.processing.cells import FileCells
from scvae_data.processing.dropped import DroppedWriter, dropped_table
from scvae_data.processing.outliers import OutlierBounds, bounds_of_rows
from scvae_data.processing.qc import Judgement, QcRules

__all__ = ["Judge"]


class Judge:
    """Keeps or drops the cells of one file, by the first rule that they break.

    Parameters
    ----------
    folder
        Where the table of dropped cells goes.
    """

    def __init__(self, qc: QcRules, cells: FileCells, folder: Path) -> None:
        self.qc, self.cells = qc, cells
        self.rules = (["not_control"] if cells.control is not None else []) + qc.rules
        self.lost = dict.fromkeys(self.rules, 0)
        self.bounds: Sequence[OutlierBounds] = []
        self.dropped = DroppedWriter(folder)

    def keep(self, first_row: int, metrics: pd.DataFrame) -> NDArray[np.bool_]:
        """Return which rows are kept; count and list the others."""
        rows = slice(first_row, first_row + len(metrics))
        bounds = bounds_of_rows(self.bounds, self.cells.accessions[rows]) if self.bounds else None
        judged = self.qc.judge(metrics, bounds)
        verdict = judged.verdict.astype(np.int64)
        if self.cells.control is not None:
            other = ~self.cells.control[rows]
            verdict = np.where(verdict > 0, verdict + 1, 0)
            verdict[other] = 1
            judged.value[other] = judged.threshold[other] = np.nan
        self._account(first_row, metrics, judged, verdict)
        return np.asarray(verdict == 0)

    def _account(self, first_row: int, metrics: pd.DataFrame, judged: Judgement, verdict: NDArray[np.int64]) -> None:
        """Count and list the rows that are dropped; a verdict is the number of a rule, from 1 on."""
        for number, count in enumerate(np.bincount(verdict, minlength=len(self.rules) + 1)[1:]):
            self.lost[self.rules[number]] += int(count)
        out = np.flatnonzero(verdict)
        if not len(out):
            return
        at = first_row + out
        rules = np.array(self.rules, object)[verdict[out] - 1]
        table = dropped_table(
            at, self.cells.names(at), self.cells.accessions[at].tolist(), rules.tolist(), metrics.iloc[out],
            value=judged.value[out], threshold=judged.threshold[out],
        )  # fmt: skip
        self.dropped.append(table)

    def close(self) -> None:
        """Finish the table of dropped cells."""
        self.dropped.close()
