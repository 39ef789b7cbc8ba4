"""Metrics of a training run in, tables in CSV files out: a row an epoch, a row a step; and read again."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from scvae_data.store.files import write_atomic

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["METRICS_FILE", "STEPS_FILE", "MetricsTable", "read_metrics", "read_rows", "take_for_steps", "write_rows"]

METRICS_FILE = "metrics.csv"
STEPS_FILE = "steps.csv"

Row = Mapping[str, float]


def read_metrics(metrics: Path) -> pd.DataFrame:
    """Return what a run has measured, of epochs and of steps, in order of the steps; a column per metric.

    Parameters
    ----------
    metrics
        ``metrics.csv`` of the run; ``steps.csv`` is looked for beside it. Of older runs ``metrics.csv`` has both.
    """
    import pandas as pd  # here: training starts without it

    paths = [path for path in (metrics, metrics.with_name(STEPS_FILE)) if path.is_file()]
    return pd.concat([pd.read_csv(path) for path in paths], ignore_index=True).sort_values("step", kind="stable")


def read_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file; none where there is no file."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write_rows(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, str]]) -> None:
    """Write a CSV file; the old one stays until the new one is whole."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(path, text.getvalue().encode())


def take_for_steps(folder: Path) -> None:
    """Let the ``metrics.csv`` of an older run, which has rows of steps too, be the table of its steps."""
    metrics, steps = folder / METRICS_FILE, folder / STEPS_FILE
    if metrics.is_file() and not steps.exists():
        with metrics.open(newline="") as file:
            if next(csv.reader(file), [""])[0] == "step":
                metrics.rename(steps)


class MetricsTable:
    """A CSV file that grows by rows and, where a metric is new, by columns.

    A file that is there is continued: what it has from the first new row on belongs to a part of the run that is done
    anew, and goes.

    Parameters
    ----------
    path
        The file.
    key
        Column that grows from row to row.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path = path
        self.key = key
        self._columns: list[str] | None = None

    def add(self, rows: Sequence[Row]) -> None:
        """Write rows."""
        if not rows:
            return
        if self._columns is None:
            self._columns = self._continue_before(rows[0])
        new = list(dict.fromkeys(name for row in rows for name in row if name not in self._columns))
        if new:
            self._rewrite([*self._columns, *new], read_rows(self.path))
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self._columns).writerows(rows)

    def _continue_before(self, first: Row) -> list[str]:
        """Forget the rows of a part of the run that is done anew; return the columns."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not self.path.is_file():
            return []
        text = self.path.read_text()
        whole = text[: text.rfind("\n") + 1]  # who was killed may have left half a row
        reader = csv.DictReader(io.StringIO(whole, newline=""))
        kept = [row for row in reader if not float(row[self.key] or "nan") >= first[self.key]]
        columns = list(reader.fieldnames or ())
        self._rewrite(columns, kept)
        return columns

    def _rewrite(self, columns: list[str], rows: Sequence[Mapping[str, str]]) -> None:
        write_rows(self.path, columns, rows)
        self._columns = columns
