"""A table of scored experiments in, one picture out: their ELBO against depth and against what is expected of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scvae_data.report.colours import BLUE, VERMILION
from scvae_data.store.files import write_atomic
from scvae_data.training.plots import new_figure, png_bytes, shortened

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["experiment_picture"]

NAMED = 3


def experiment_picture(table: pd.DataFrame, png: Path) -> None:
    """Draw a point for each experiment; flagged ones are crosses, and the legend names the worst of them.

    Parameters
    ----------
    table
        Of :func:`~scvae_data.training.experiment_scores.score_table`, with something expected.
    png
        The picture; replaced when the new one is whole.
    """
    from matplotlib.ticker import NullFormatter, StrMethodFormatter

    figure, (against_depth, against_expected) = new_figure(2)
    depth = 10 ** table["mean_log10_counts"]
    _points(against_depth, table, depth)
    against_depth.set(title="ELBO of experiments", xlabel="counts of a cell", ylabel="nats per cell")
    if depth.max() < 10 * depth.min():
        against_depth.locator_params(axis="x", nbins=5)  # long numbers
    else:
        against_depth.set_xscale("log")
        against_depth.xaxis.set_minor_formatter(NullFormatter())
    against_depth.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    _points(against_expected, table, table["expected"])
    ends = [table["expected"].min(), table["expected"].max()]
    against_expected.plot(ends, ends, color="0.6", lw=0.8, ls="--", zorder=0)
    against_expected.set(title="Beside what is expected", xlabel="expected of their depth", ylabel="nats per cell")
    against_expected.locator_params(axis="x", nbins=5)
    if table["flagged"].any():
        for number in np.flatnonzero(table["flagged"])[:NAMED].tolist():
            name = shortened(table["srx_accession"].iloc[number])
            against_expected.scatter([], [], color="black", marker=f"${number + 1}$", linewidths=0, label=name)
        against_expected.legend(frameon=False, fontsize=8)
    write_atomic(png, png_bytes(figure))


def _points(axis: Axes, table: pd.DataFrame, x: pd.Series[float]) -> None:
    flagged = table["flagged"]
    size = float(np.clip(20_000 / max(len(table), 1), 2.0, 25.0))
    axis.scatter(x[~flagged], table["elbo"][~flagged], s=size, color=BLUE, linewidths=0)
    axis.scatter(x[flagged], table["elbo"][flagged], s=2 * size, color=VERMILION, marker="x", label="flagged")
    for number in np.flatnonzero(flagged)[:NAMED].tolist():
        place = (x.iloc[number], table["elbo"].iloc[number])
        axis.annotate(str(number + 1), place, (5, -9), textcoords="offset points", fontsize=8)
