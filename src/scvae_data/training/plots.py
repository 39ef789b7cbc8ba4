"""Tables and latents in, PNG files out. Drawn without a display."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scvae_data.store.files import write_atomic
from scvae_data.training.latents import KEY
from scvae_data.training.metrics import read_metrics
from scvae_data.training.sample import sample_cells

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Method", "curves_figure", "latent_picture", "new_figure", "png_bytes", "training_curves"]

Method = str  # "umap" or "pca"
DPI = 130
MAX_LEGEND = 20  # categories; more would hide the picture

Series = tuple[str, str, str]  # column, label, colour

BATCHES = "tab:gray"


def _loss_series(name: str) -> tuple[Series, ...]:
    """One term of the loss: of single batches, and as means over training and validation cells."""
    return (
        (f"train/{name}", "single batches", BATCHES),
        (f"train/{name}_epoch", "training", "tab:blue"),
        (f"val/{name}", "validation", "tab:orange"),
    )


# Panels of the training curves: title, unit, series.
PANELS: tuple[tuple[str, str, tuple[Series, ...]], ...] = (
    ("ELBO", "nats per cell", (*_loss_series("elbo"), ("val/elbo_unseen", "validation, unseen", "tab:red"))),
    ("Reconstruction", "nats per cell", _loss_series("recon")),
    ("KL divergence", "nats per cell", _loss_series("kl")),
    ("Speed", "cells per second", (("throughput/cells_per_s", "training", "tab:blue"),)),
)


def training_curves(metrics: Path, png: Path) -> bool:
    """Draw the losses and the speed over steps, from the tables of metrics; False if it has none of them."""
    figure = curves_figure(read_metrics(metrics))
    if figure is None:
        return False
    _save(figure, png)
    return True


def curves_figure(table: pd.DataFrame) -> Figure | None:
    """The curves of a table with a column ``step``; None if it has none of their columns."""
    panels = [panel for panel in PANELS if any(column in table for column, *_ in panel[2])]
    if not panels:
        return None
    from matplotlib.ticker import MaxNLocator

    figure, axes = new_figure(len(panels))
    for axis, (title, unit, series) in zip(axes, panels, strict=True):
        for column, label, colour in series:
            if column in table:
                points = table[["step", column]].dropna().drop_duplicates("step", keep="last").sort_values("step")
                steps = points["step"]
                if column.endswith("_epoch"):  # a mean is of the weights half an epoch ago
                    steps = (steps + steps.shift(fill_value=-1)) / 2
                faint = colour == BATCHES
                few = len(points) < (2 if faint else 30)
                axis.plot(
                    steps, points[column], label=label, color=colour, alpha=0.6 if faint else 1.0,
                    lw=0.8 if faint else 1.4, marker="o" if few else None, markersize=4,
                )  # fmt: skip
        if title == "Speed":
            axis.set_ylim(0, 1.08 * axis.dataLim.y1 or 1)
        else:
            _trim(axis, [table[column] for column, *_ in series if column in table])
        axis.set(title=title, xlabel="step", ylabel=unit)
        axis.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        if axis.dataLim.width < 1:  # one step only: no room for whole numbers
            axis.set_xlim(axis.dataLim.x0 - 1, axis.dataLim.x0 + 1)
        if len(axis.lines) > 1:
            axis.legend(frameon=False)
    return figure


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
        ``"umap"``, or ``"pca"``, which takes a fraction of a second.
    max_cells
        Cells drawn; a random choice of so many if there are more.
    seed
        Of the choice and of UMAP.

    Returns
    -------
    The columns drawn.
    """
    z, obs = sample_cells(latents, colours, max_cells, seed)
    xy = _embed(z, method, seed)
    order = np.random.default_rng(seed).permutation(len(xy))  # no category lies on top of the others throughout
    names = list(map(str, obs.columns)) or [""]
    figure, axes = new_figure(len(names))
    for axis, name in zip(axes, names, strict=True):
        if name:
            _scatter(axis, xy[order], obs[name].iloc[order])
        else:
            axis.scatter(xy[:, 0], xy[:, 1], s=_size(len(xy)), linewidths=0)
        axis.set(
            title=name or f"{len(xy):,} cells",
            xlabel=f"{method.upper()} 1",
            ylabel=f"{method.upper()} 2",
            xticks=[],
            yticks=[],
        )
    _save(figure, png)
    return list(map(str, obs.columns))


def _embed(z: NDArray[np.float32], method: Method, seed: int) -> NDArray[np.float32]:
    """Two dimensions of each cell."""
    if method == "umap" and len(z) > 15:
        return _umap(z, seed)
    centred = z - z.mean(axis=0)
    _, _, axes = np.linalg.svd(np.cov(centred, rowvar=False).reshape(z.shape[1], -1))
    projected: NDArray[np.float32] = centred @ axes[:2].T
    return projected if projected.shape[1] == 2 else np.column_stack([projected, np.zeros_like(projected)])


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


def _scatter(axis: Axes, xy: NDArray[np.float32], values: pd.Series[Any]) -> None:
    size = _size(len(xy))
    if pd.api.types.is_numeric_dtype(values) and values.nunique() > MAX_LEGEND:
        points = axis.scatter(xy[:, 0], xy[:, 1], c=values.to_numpy(dtype=float), s=size, linewidths=0, cmap="viridis")
        axis.figure.colorbar(points, ax=axis, shrink=0.7)
        return
    categories = values.astype("category").cat
    axis.scatter(xy[:, 0], xy[:, 1], c=_palette(len(categories.categories))[categories.codes], s=size, linewidths=0)
    if len(categories.categories) <= MAX_LEGEND:
        for colour, name in zip(_palette(len(categories.categories)), categories.categories, strict=False):
            axis.scatter([], [], color=colour, label=str(name), s=20)
        axis.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _palette(n_colours: int) -> NDArray[np.float64]:
    """Distinct colours, and light grey at the end for missing values (code -1)."""
    import matplotlib as mpl

    tab = mpl.colormaps["tab10" if n_colours <= 10 else "tab20" if n_colours <= 20 else "gist_ncar"]
    picks = range(n_colours) if n_colours <= 20 else np.linspace(0, 0.95, n_colours)
    return np.array([*(tab(pick) for pick in picks), (0.85, 0.85, 0.85, 1.0)])


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
        axis.set_ylim(max(low - margin, values.min() - 0.05 * margin), min(high + margin, values.max() + 0.05 * margin))


def new_figure(n_panels: int) -> tuple[Figure, list[Axes]]:
    """A figure of its own with panels side by side; pyplot's global state and display are not touched."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.8 * n_panels, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(np.atleast_1d(figure.subplots(1, n_panels)))


def png_bytes(figure: Figure) -> bytes:
    """The figure as the content of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=DPI)
    return buffer.getvalue()


def _save(figure: Figure, png: Path) -> None:
    png.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(png, png_bytes(figure))
