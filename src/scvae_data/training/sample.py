"""``latents.h5ad`` in, latents and obs columns of a bounded random choice of its cells out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scvae_data.training.latents import KEY

__all__ = ["sample_cells"]

BLOCK = 65_536  # rows read at once


def sample_cells(
    latents: Path, columns: Sequence[str], max_cells: int, seed: int
) -> tuple[NDArray[np.float32], pd.DataFrame]:
    """Latents and some obs columns of at most ``max_cells`` cells, in the order of the file.

    Parameters
    ----------
    latents
        A file of :func:`~scvae_data.training.latents.write_latents`.
    columns
        obs columns; those the file lacks are left out.
    max_cells
        Cells to choose at random if there are more.
    seed
        Of the choice.

    Returns
    -------
    (n, n_latent) float32, and the columns of these cells, without categories that none of them has.
    """
    from anndata.io import read_elem

    with h5py.File(latents, "r") as file:
        dataset = file["obsm"][KEY]
        n_obs = len(dataset)
        rows = np.sort(np.random.default_rng(seed).choice(n_obs, size=min(n_obs, max_cells), replace=False))
        parts = [np.zeros((0, dataset.shape[1]), np.float32)]
        for start in range(0, n_obs, BLOCK):
            first, last = np.searchsorted(rows, [start, start + BLOCK])
            parts.append(dataset[start : start + BLOCK][rows[first:last] - start])
        present = [name for name in dict.fromkeys(columns) if name in file["obs"]]
        obs = pd.DataFrame(
            {name: pd.Series(read_elem(file["obs"][name])).iloc[rows].reset_index(drop=True) for name in present}
        )
    for name in obs.select_dtypes("category"):
        obs[name] = obs[name].cat.remove_unused_categories()
    return np.concatenate(parts), obs
