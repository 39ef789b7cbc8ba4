"""Latents, cell types and batches in; how well types are apart and batches together out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SCORES", "absent_scores", "latent_scores"]

SCORES = "cell_type_separation", "batch_mixing"
WORKING_MEMORY = 64  # MiB of distances at once


def latent_scores(
    latents: NDArray[np.float32], cell_types: pd.Series[Any] | None, batches: pd.Series[Any] | None
) -> dict[str, float]:
    """Average silhouette widths of cell types and of batches, scaled as scIB does (Luecken et al., 2022).

    Distances between all pairs of cells are computed: give some thousand cells.

    Parameters
    ----------
    latents
        (n, n_latent).
    cell_types, batches
        Of the cells, (n,); None, or missing for some cells, where unknown.

    Returns
    -------
    ``cell_type_separation``, 0 to 1: silhouette of cell types; 0.5 where they
    are not apart. ``batch_mixing``, 0 to 1: one minus the absolute silhouette
    of batches, averaged within each cell type, then over types (over all cells
    where types are unknown). Higher is better. A score that has fewer than two
    categories to tell apart is left out.
    """
    import pandas as pd  # here: a start of training needs none of it

    scores: dict[str, float] = {}
    if cell_types is not None:
        widths = silhouettes(latents, cell_types)
        if widths.size:
            scores["cell_type_separation"] = float((widths.mean() + 1) / 2)
    if batches is not None:
        types = pd.Series(0, index=batches.index) if cell_types is None else cell_types
        groups = types.groupby(types, observed=True).indices.values()
        found = [silhouettes(latents[group], batches.iloc[group]) for group in groups]
        mixed = [float(1 - np.abs(widths).mean()) for widths in found if widths.size]
        if mixed:
            scores["batch_mixing"] = float(np.mean(mixed))
    return scores


def absent_scores(
    cell_types: pd.Series[Any] | None, batches: pd.Series[Any] | None, scores: Mapping[str, float]
) -> dict[str, str]:
    """Why a score of :func:`latent_scores` is not among ``scores``, by its name; for the same labels."""
    reasons = {
        "cell_type_separation": _why_none("cell type", cell_types, "set outputs.cell_type_key")
        or "each cell is of a cell type of its own",
        "batch_mixing": _why_none("batch", batches, "set model.batch_key")
        or "no cell type is in several batches, with more than one cell in some",
    }
    return {name: reason for name, reason in reasons.items() if name not in scores}


def _why_none(what: str, labels: pd.Series[Any] | None, remedy: str) -> str:
    """Why labels tell nothing apart; an empty text where they do."""
    names = [] if labels is None else labels.dropna().unique().tolist()
    if labels is None:
        return f"no obs column of a {what} is known; {remedy}"
    if not names:
        return f"no cell has a {what}"
    return f"all cells are of one {what}, {names[0]}" if len(names) == 1 else ""


def silhouettes(latents: NDArray[np.float32], labels: pd.Series[Any]) -> NDArray[np.float64]:
    """Silhouette width of each cell with a label; empty where there are too few labels, or as many as cells."""
    import pandas as pd
    from sklearn import config_context
    from sklearn.metrics import silhouette_samples

    known = labels.notna().to_numpy()
    codes, names = pd.factorize(labels[known])
    if not 2 <= len(names) < len(codes):
        return np.zeros(0)
    with config_context(working_memory=WORKING_MEMORY):
        widths: NDArray[np.float64] = silhouette_samples(latents[known], codes)
    return widths
