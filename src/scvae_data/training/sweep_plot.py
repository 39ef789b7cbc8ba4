"""Rows of a sweep table in, one picture out: objective or cache, speed and waiting against the swept value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from scvae_data.report.colours import BLUE, ORANGE, VERMILION
from scvae_data.store.files import write_atomic
from scvae_data.training.plots import new_figure, png_bytes
from scvae_data.training.sweep_jobs import settings_in

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["best_row", "is_about_loading", "sweep_figure", "sweep_plot", "swept_values"]

Row = Mapping[str, str]

NOT_COMPLETED = ("failed", "interrupted", "killed")

# Panels: title, unit, factor, series as (column, label, line style).
OBJECTIVE = ("Objective: val/elbo", "nats per cell", 1, (("val_elbo", None, "-"),))
SPEED = ("Speed", "cells per second", 1, (("cells_per_s", None, "-"),))
WAITING = ("Waiting on data", "% of training time", 100, (("wait_share", None, "-"),))
CACHE = (
    "Chunks found in cache",
    "% of requests",
    100,
    (("hit_rate", "measured", "-"), ("predicted_hit_rate", "predicted", "--")),
)
# Settings of the loader that change how fast cells come, and not which.
LOADING = {
    f"data.{name}"
    for name in (
        "memory_gb", "chunk_cache_size", "cache_bytes", "max_chunks_in_memory", "range_rows", "num_workers",
        "multiprocessing_context", "num_threads", "x_format",
    )
}  # fmt: skip
MOST_LETTERS = 120
"""Where the values of all jobs are longer together and are no numbers, numbers tell the jobs apart."""
MOST_TICKS = 12


def sweep_plot(rows: Sequence[Row], png: Path) -> None:
    """Draw the jobs into ``png``, which is replaced when the new picture is whole."""
    write_atomic(png, png_bytes(sweep_figure(rows)))


def sweep_figure(rows: Sequence[Row]) -> Figure:
    """Draw the jobs: their objective first, or what loading costs where only that is swept.

    The best job has a star; one that was not completed is a red cross below the axis.

    Parameters
    ----------
    rows
        Of a sweep table, one per job.
    """
    name, values = swept_values(rows)
    x, numeric = _places(values)
    if not numeric and sum(map(len, values)) > MOST_LETTERS:
        name, values = "job", [row["job"] for row in rows]
    panels = (SPEED, WAITING, CACHE) if is_about_loading(rows) else (OBJECTIVE, SPEED, WAITING)
    best = best_row(rows)
    figure, axes = new_figure(len(panels))
    for axis, (title, unit, factor, series) in zip(axes, panels, strict=True):
        for column, label, style in series:
            points = sorted((at, factor * float(row[column])) for at, row in zip(x, rows, strict=True) if row[column])
            if points:
                joined = style if numeric else "none"  # nothing lies between one choice and the next
                axis.plot(*zip(*points, strict=True), ls=joined, color=BLUE, marker="o", markersize=4, label=label)
        axis.set(title=title, xlabel=name, ylabel=unit)
        highest = max(
            (factor * float(row[column]) for column, _, _ in series for row in rows if row[column]), default=0
        )
        if title != OBJECTIVE[0]:
            axis.set_ylim(0, 1.08 * highest or 1)
        elif best is not None:
            axis.plot([x[best]], [float(rows[best]["val_elbo"])], "*", color=ORANGE, markersize=14, label="best")
        if not axis.lines:
            axis.set_yticks([])
            axis.text(0.5, 0.5, "nothing measured", transform=axis.transAxes, ha="center", va="center", color="0.35")
        _label_jobs(axis, x, values, numeric)
        _mark_failures(axis, [at for at, row in zip(x, rows, strict=True) if row["status"] in NOT_COMPLETED])
        if axis.get_legend_handles_labels()[1]:
            axis.legend(frameon=False)
    return figure


def _places(values: Sequence[str]) -> tuple[list[float], bool]:
    """Where jobs stand on the axis, and whether that is at their values: numbers that all differ."""
    with suppress(ValueError):
        x = [float(value) for value in values]
        if len(set(x)) == len(x):
            return x, True
    return [float(position) for position in range(len(values))], False


def is_about_loading(rows: Sequence[Row]) -> bool:
    """Whether the jobs differ in settings of the loader alone, all of which lead to the same objective.

    >>> is_about_loading([{"job": "0", "overrides": "data.num_threads=1"}, {"job": "1", "overrides": "seed=3"}])
    False
    """
    names = differing_settings(rows)
    return bool(names) and set(names) <= LOADING


def best_row(rows: Sequence[Row]) -> int | None:
    """Return which completed job has the highest objective, of several that differ in more than loading."""
    objectives = {
        number: float(row["val_elbo"])
        for number, row in enumerate(rows)
        if row["status"] == "completed" and row["val_elbo"] not in ("", "nan")
    }
    if len(rows) < 2 or not objectives or is_about_loading(rows):
        return None
    return max(objectives, key=objectives.__getitem__)


def swept_values(rows: Sequence[Row]) -> tuple[str, list[str]]:
    """What the jobs differ in: its name, and its value in each job.

    The value of one setting if only that differs, else all settings that
    differ; the number of the job where none does.

    >>> swept_values([{"job": "0", "overrides": "lr=1 seed=3"}, {"job": "1", "overrides": "lr=2 seed=3"}])
    ('lr', ['1', '2'])
    """
    settings = [settings_in(row) for row in rows]
    differing = differing_settings(rows)
    if not differing:
        return "job", [row["job"] for row in rows]
    if len(differing) == 1:
        return differing[0], [one.get(differing[0], "default") for one in settings]
    return "settings", [", ".join(f"{name}={one[name]}" for name in differing if name in one) for one in settings]


def differing_settings(rows: Sequence[Row]) -> list[str]:
    """Return the settings that not all jobs have with the same value."""
    settings = [settings_in(row) for row in rows]
    names = dict.fromkeys(name for one in settings for name in one)
    return [name for name in names if len({one.get(name) for one in settings}) > 1]


def _mark_failures(axis: Axes, x: Sequence[float]) -> None:
    """Crosses between the axis and its labels, where nothing can be read as measured."""
    if x:
        below = axis.get_xaxis_transform()
        axis.plot(
            x, [-0.05] * len(x), "x", transform=below, color=VERMILION, markersize=7, markeredgewidth=2,
            label="not completed", clip_on=False,
        )  # fmt: skip
        axis.tick_params(axis="x", pad=18)


def _label_jobs(axis: Axes, x: list[float], values: Sequence[str], numeric: bool) -> None:
    """Ticks where the jobs are, or some of many; a logarithmic axis where values span more than a factor of ten."""
    if numeric and min(x) > 0 and max(x) > 10 * min(x):
        axis.set_xscale("log")
        axis.minorticks_off()
    every = -(-len(x) // MOST_TICKS)
    order = sorted(range(len(x)), key=x.__getitem__)[::every]
    x, values = [x[number] for number in order], [values[number] for number in order]
    long = max(map(len, values)) > 8
    axis.set_xticks(x, values, rotation=30 if long else 0, ha="right" if long else "center")
