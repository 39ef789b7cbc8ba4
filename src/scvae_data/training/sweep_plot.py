"""Rows of a sweep table in, one picture out: speed, waiting and cache against the swept value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from scvae_data.store.files import write_atomic
from scvae_data.training.plots import new_figure, png_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["sweep_plot", "swept_values"]

Row = Mapping[str, str]

# Panels: title, unit, factor, series as (column, label, line style).
PANELS = (
    ("Speed", "cells per second", 1, (("cells_per_s", "measured", "-"),)),
    ("Waiting on data", "% of training time", 100, (("wait_share", "measured", "-"),)),
    (
        "Chunks found in cache",
        "% of requests",
        100,
        (("hit_rate", "measured", "-"), ("predicted_hit_rate", "predicted", "--")),
    ),
)


def sweep_plot(rows: Sequence[Row], png: Path) -> None:
    """Draw the jobs that ended so far; a failed one is a red cross where its values would be.

    Parameters
    ----------
    rows
        Of a sweep table, one per job.
    png
        The picture; replaced when the new one is whole.
    """
    name, values = swept_values(rows)
    try:
        x = [float(value) for value in values]
        numeric = len(set(x)) == len(x)
    except ValueError:
        numeric = False
    if not numeric:
        x = [float(position) for position in range(len(rows))]
    figure, axes = new_figure(len(PANELS))
    for axis, (title, unit, factor, series) in zip(axes, PANELS, strict=True):
        for column, label, style in series:
            points = sorted((at, factor * float(row[column])) for at, row in zip(x, rows, strict=True) if row[column])
            if points:
                axis.plot(*zip(*points, strict=True), style, marker="o", markersize=4, label=label)
        axis.set(title=title, xlabel=name, ylabel=unit)
        highest = max(
            (factor * float(row[column]) for column, _, _ in series for row in rows if row[column]), default=0
        )
        axis.set_ylim(0, 1.08 * highest or 1)
        _mark_failures(axis, [at for at, row in zip(x, rows, strict=True) if row["status"] == "failed"])
        _label_jobs(axis, x, values, numeric)
        if len(axis.lines) > 1:
            axis.legend(frameon=False)
    write_atomic(png, png_bytes(figure))


def swept_values(rows: Sequence[Row]) -> tuple[str, list[str]]:
    """What the jobs differ in: its name, and its value in each job.

    The value of one setting if only that differs, else all settings that
    differ; the number of the job where none does.

    >>> swept_values([{"job": "0", "overrides": "lr=1 seed=3"}, {"job": "1", "overrides": "lr=2 seed=3"}])
    ('lr', ['1', '2'])
    """
    settings = [dict(part.partition("=")[::2] for part in row["overrides"].split(" ")) for row in rows]
    names = dict.fromkeys(name for one in settings for name in one)
    differing = [name for name in names if len({one.get(name) for one in settings}) > 1]
    if not differing:
        return "job", [row["job"] for row in rows]
    if len(differing) == 1:
        return differing[0], [one.get(differing[0], "default") for one in settings]
    return "settings", [", ".join(f"{name}={one[name]}" for name in differing if name in one) for one in settings]


def _mark_failures(axis: Axes, x: Sequence[float]) -> None:
    if x:
        low, high = axis.get_ylim()
        y = [low + 0.04 * (high - low)] * len(x)
        axis.plot(x, y, "x", color="tab:red", markersize=8, markeredgewidth=2, label="failed", clip_on=False)
        axis.set_ylim(low, high)


def _label_jobs(axis: Axes, x: Sequence[float], values: Sequence[str], numeric: bool) -> None:
    """Ticks where the jobs are; a logarithmic axis where values span more than a factor of ten."""
    if numeric and min(x) > 0 and max(x) > 10 * min(x):
        axis.set_xscale("log")
        axis.minorticks_off()
    long = max(map(len, values)) > 8
    axis.set_xticks(list(x), values, rotation=30 if long else 0, ha="right" if long else "center")
