"""Tables and latents in, PNG files out. Drawn without a display."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scvae_data.report.colours import BLUE, CATEGORIES, GREEN, GREY, MISSING, OTHER, VERMILION
from scvae_data.store.files import write_atomic
from scvae_data.training.latents import KEY
from scvae_data.training.metrics import read_metrics
from scvae_data.training.sample import sample_cells
from scvae_data.wording import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Method", "curves_figure", "latent_picture", "new_figure", "png_bytes", "shortened", "training_curves"]

Method = str  # "umap" or "pca"
DPI = 130
COLUMNS = 2
"""Panels side by side: at the width of a page their text is as large as the page's."""
LONGEST = 30
"""Letters of a category in a legend; more would leave no room for the cells."""

Series = tuple[str, str, str]  # column, label, colour


def _loss_series(name: str) -> tuple[Series, ...]:
    """One term of the loss: of single batches, and as means over training and validation cells."""
    return (
        (f"train/{name}", "single batches", GREY),
        (f"train/{name}_epoch", "training", BLUE),
        (f"val/{name}", "validation", VERMILION),
    )


# Panels of the training curves: title, unit, series. Reconstruction is the ELBO but for the KL divergence, some
# hundredths of it, and would look the same.
PANELS: tuple[tuple[str, str, tuple[Series, ...]], ...] = (
    ("ELBO (higher is better)", "nats per cell",
     (*_loss_series("elbo"), ("val/elbo_unseen", "validation, unseen", GREEN))),
    ("KL divergence", "nats per cell", _loss_series("kl")),
    ("Active latent dimensions", "dimensions", (("val/active_units", "validation", VERMILION),)),
    ("Speed", "cells per second", (("throughput/cells_per_s", "training", BLUE),)),
)  # fmt: skip
FROM_ZERO = "Active latent dimensions", "Speed"


def training_curves(metrics: Path, png: Path) -> bool:
    """Draw the losses and the speed over epochs, from the tables of metrics; False if they have none of them."""
    figure = curves_figure(read_metrics(metrics))
    if figure is None:
        return False
    _save(figure, png)
    return True


def curves_figure(table: pd.DataFrame) -> Figure | None:
    """The curves of a table with a column ``step``; None if it has none of their columns.

    Where it has ``epoch`` as well they are over epochs, with steps as a second axis.
    """
    panels = [panel for panel in PANELS if any(column in table for column, *_ in panel[2])]
    if not panels:
        return None
    from matplotlib.ticker import MaxNLocator

    n_steps = _steps_per_epoch(table)
    figure, axes = new_figure(len(panels))
    for axis, (title, unit, series) in zip(axes, panels, strict=True):
        for column, label, colour in series:
            if column in table:
                _draw_series(axis, table, column, n_steps, label=label, color=colour)
        if title in FROM_ZERO:
            axis.set_ylim(0, 1.08 * axis.dataLim.y1 or 1)
            axis.yaxis.set_major_locator(MaxNLocator(integer=True))
        else:
            _trim(axis, [table[column] for column, *_ in series if column in table])
        axis.set(title=title, xlabel="step" if n_steps is None else "epoch", ylabel=unit)
        axis.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        if axis.dataLim.width < 1:  # one step only: no room for whole numbers
            axis.set_xlim(axis.dataLim.x0 - 1, axis.dataLim.x0 + 1)
        if n_steps is not None:
            axis.set_xlim(0, 1.04 * max(1.0, (table["step"].max() + 1) / n_steps))  # one scale for all panels
            _add_steps(axis, n_steps)
        if len(axis.lines) > 1:
            axis.legend(frameon=False)
    return figure


def _draw_series(
    axis: Axes, table: pd.DataFrame, column: str, n_steps: float | None, *, label: str, color: str
) -> None:
    points = table[["step", column]].dropna().drop_duplicates("step", keep="last").sort_values("step")
    x = points["step"] if n_steps is None else (points["step"] + 1) / n_steps
    if column.endswith("_epoch"):  # a mean is of the weights half an epoch ago
        x = (x + x.shift(fill_value=-1 if n_steps is None else 0)) / 2
    faint = color == GREY
    few = len(points) < (2 if faint else 30)
    axis.plot(
        x, points[column], label=label, color=color, alpha=0.7 if faint else 1.0, lw=0.8 if faint else 1.6,
        marker=("s" if color == VERMILION else "o") if few else None, markersize=4,
    )  # fmt: skip


def _steps_per_epoch(table: pd.DataFrame) -> float | None:
    """Steps of an epoch, as the ends of epochs tell; None where no row is of one."""
    ends = [name for name in table if str(name).endswith("_epoch")] or [name for name in table if name == "val/elbo"]
    if "epoch" not in table or not ends:
        return None
    rows = table[table["epoch"].notna() & table[ends].notna().any(axis=1)]
    return None if rows.empty else float(((rows["step"] + 1) / (rows["epoch"] + 1)).median())


def _add_steps(axis: Axes, n_steps: float) -> None:
    """Name the steps of the epochs at the top."""
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    functions = (lambda epochs: np.multiply(epochs, n_steps), lambda steps: np.divide(steps, n_steps))
    steps = axis.secondary_xaxis("top", functions=functions)
    steps.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    steps.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    steps.tick_params(labelsize=8, colors="0.35")
    steps.set_xlabel("step", fontsize=8, color="0.35")


def latent_picture(
    latents: Path, png: Path, *, colours: Sequence[str], method: Method, max_cells: int, seed: int
) -> list[str]:
    """Draw the cells of ``latents.h5ad`` in two dimensions, one panel per obs column.

    Parameters
    ----------
    latents
        A file of :func:`~scvae_data.training.latents.write_latents`.
    png
        The picture.
    colours
        obs columns to colour by; those the file lacks are left out.
    method
        ``"pca"``, which takes a fraction of a second, or ``"umap"``.
    max_cells
        Cells drawn; a random choice of so many if there are more.
    seed
        Of the choice and of UMAP.

    Returns
    -------
    The columns drawn.
    """
    z, obs = sample_cells(latents, colours, max_cells, seed)
    xy, labels = _embed(z, method, seed)
    order = np.random.default_rng(seed).permutation(len(xy))  # no category lies on top of the others throughout
    names = list(map(str, obs.columns)) or [""]
    figure, axes = new_figure(len(names))
    for axis, name in zip(axes, names, strict=True):
        if name:
            _scatter(axis, xy[order], obs[name].iloc[order])
        else:
            axis.scatter(xy[:, 0], xy[:, 1], s=_size(len(xy)), linewidths=0, color=BLUE)
        axis.set(title=name or f"{len(xy):,} cells", xlabel=labels[0], ylabel=labels[1], xticks=[], yticks=[])
    _save(figure, png)
    return list(map(str, obs.columns))


def _embed(z: NDArray[np.float32], method: Method, seed: int) -> tuple[NDArray[np.float32], list[str]]:
    """Two dimensions of each cell, and what they are."""
    if method == "umap" and len(z) > 15:
        return _umap(z, seed), ["UMAP 1", "UMAP 2"]
    centred = z - z.mean(axis=0)
    _, variances, axes = np.linalg.svd(np.cov(centred, rowvar=False).reshape(z.shape[1], -1))
    shares = 100 * variances / (variances.sum() or 1)
    labels = [f"PC {number} ({share:.0f} % of variance)" for number, share in enumerate([*shares[:2], 0][:2], 1)]
    projected: NDArray[np.float32] = centred @ axes[:2].T
    return (projected if projected.shape[1] == 2 else np.column_stack([projected, np.zeros_like(projected)])), labels


def _umap(z: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """UMAP of the graph of neighbours; the same latents and seed give the same picture."""
    import scanpy as sc
    import torch
    from anndata import AnnData

    n_threads = torch.get_num_threads()
    adata = AnnData(obsm={KEY: z})
    # In ten dimensions exact neighbours are found sooner than the search for approximate ones is compiled, which
    # every process does anew.
    sc.pp.neighbors(adata, use_rep=KEY, transformer="sklearn", random_state=seed)
    # UMAP's own distance: scanpy's 0.5 draws groups into one another; and its steps for many cells, which suffice.
    sc.tl.umap(adata, min_dist=0.1, maxiter=200, random_state=seed)
    torch.set_num_threads(n_threads)  # numba has set them for the whole process, in which a sweep goes on training
    embedded: NDArray[np.float32] = adata.obsm["X_umap"]
    return embedded


@dataclass(frozen=True)
class _Group:
    """Cells of one colour."""

    label: str
    """What the legend calls them."""
    colour: str
    cells: NDArray[np.bool_]
    """Which they are, bool."""


def _groups(values: pd.Series[Any]) -> list[_Group]:
    """Categories with their colours: all where there are at most 20, else the largest 19 and the others as one.

    Missing values are a group of their own, the first, so that it lies beneath.
    """
    categories = values.astype("category").cat
    codes, names = categories.codes.to_numpy(), [str(name) for name in categories.categories]
    sizes = np.bincount(codes[codes >= 0], minlength=len(names))
    shown = list(range(len(names)))
    groups = [_Group("missing", MISSING, codes < 0)] if (codes < 0).any() else []
    if len(names) > len(CATEGORIES):
        shown = sorted(np.argsort(-sizes, kind="stable")[: len(CATEGORIES) - 1].tolist())
        rest = (codes >= 0) & ~np.isin(codes, shown)
        groups.append(_Group(f"other ({counted(len(names) - len(shown), 'value')})", OTHER, rest))
    return groups + [
        _Group(names[code], colour, codes == code) for code, colour in zip(shown, CATEGORIES, strict=False)
    ]


def _scatter(axis: Axes, xy: NDArray[np.float32], values: pd.Series[Any]) -> None:
    size = _size(len(xy))
    if _is_measured(values):
        known = values.notna().to_numpy()
        if not known.all():
            axis.scatter(xy[~known, 0], xy[~known, 1], color=MISSING, s=size, linewidths=0, label="missing")
            axis.legend(frameon=False, fontsize=8, markerscale=(20 / size) ** 0.5)
        shades = values[known].to_numpy(dtype=float)
        points = axis.scatter(xy[known, 0], xy[known, 1], c=shades, s=size, linewidths=0, cmap="viridis")
        axis.figure.colorbar(points, cax=axis.inset_axes((1.03, 0.1, 0.04, 0.8)))
        return
    groups = _groups(values)
    beneath = [group for group in groups if group.colour in (MISSING, OTHER)]
    for group in beneath:
        axis.scatter(xy[group.cells, 0], xy[group.cells, 1], color=group.colour, s=size, linewidths=0)
    above = [group for group in groups if group not in beneath]
    colour = np.full(len(xy), "", object)
    for group in above:
        colour[group.cells] = group.colour
    axis.scatter(xy[colour != "", 0], xy[colour != "", 1], c=colour[colour != ""].tolist(), s=size, linewidths=0)
    for group in [*above, *beneath]:
        axis.scatter([], [], color=group.colour, label=shortened(group.label), s=20)
    small = 8 if len(groups) < 12 else 7
    axis.legend(frameon=False, fontsize=small, loc="center left", bbox_to_anchor=(1.0, 0.5), borderpad=0)


def _is_measured(values: pd.Series[Any]) -> bool:
    """Whether numbers are shades, and not names of few groups."""
    if not pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
        return False
    known = values.dropna().to_numpy(dtype=float)
    return len(np.unique(known)) > len(CATEGORIES) or bool((known % 1 != 0).any())


def shortened(label: str) -> str:
    """A long label without its middle: names that differ often do so at their ends."""
    return label if len(label) <= LONGEST else f"{label[: LONGEST // 2]}…{label[1 - LONGEST // 2 :]}"


def _size(n_cells: int) -> float:
    """Marker area in points² that keeps dense pictures legible."""
    return float(np.clip(30_000 / max(n_cells, 1), 1.0, 20.0))


def _trim(axis: Axes, series: Sequence[pd.Series[Any]]) -> None:
    """Keep the first steps, often off by orders of magnitude, from flattening the rest of the curve."""
    values = pd.concat(series).dropna().to_numpy()
    values = values[np.isfinite(values)]
    if len(values) >= 10:
        low, high = np.percentile(values, [5, 95])
        margin = 0.5 * (high - low) or 1.0
        low, high = max(low - margin, values.min()), min(high + margin, values.max())
        room = 0.05 * (high - low) or 1.0
        axis.set_ylim(low - room, high + room)


def new_figure(n_panels: int) -> tuple[Figure, list[Axes]]:
    """A figure of its own with panels, two a row; pyplot's global state and display are not touched."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    n_columns = min(n_panels, COLUMNS)
    n_rows = -(-n_panels // n_columns)
    figure = Figure(figsize=(4.8 * n_columns, 3.6 * n_rows), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, [figure.add_subplot(n_rows, n_columns, number + 1) for number in range(n_panels)]


def png_bytes(figure: Figure) -> bytes:
    """The figure as the content of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=DPI)
    return buffer.getvalue()


def _save(figure: Figure, png: Path) -> None:
    png.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(png, png_bytes(figure))
