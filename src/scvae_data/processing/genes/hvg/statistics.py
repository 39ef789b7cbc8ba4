"""Sums per gene of one batch in, how variable each gene is out.

The numbers are scanpy's (1.11). A batch that is too small to be fitted (one
cell, too few different means for the bins, a loess that fails) is `Unfit`:
it leaves the ranking as if its cells were not there, and is reported.

References
----------
``seurat``: Satija et al. 2015, https://doi.org/10.1038/nbt.3192.
``cell_ranger``: Zheng et al. 2017, https://doi.org/10.1038/ncomms14049.
``seurat_v3``: Stuart et al. 2019, https://doi.org/10.1016/j.cell.2019.05.031.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scvae_data.processing.settings.genes import HvgRules

__all__ = ["Unfit", "dispersions", "fit_variance", "mean_variance", "normalized_variance"]

# The 75 % quantile of the normal distribution: makes a median absolute deviation estimate a standard deviation.
NORMAL_QUARTILE = 0.6744897501960817


class Unfit(Exception):
    """A batch whose genes cannot be ranked; the text says why."""


def mean_variance(
    n_cells: int, sums: NDArray[Any], squares: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and unbiased variance of each gene from its sum and sum of squares over ``n_cells`` cells."""
    mean = sums / n_cells
    variance = squares / n_cells - mean**2
    if n_cells > 1:
        variance *= n_cells / (n_cells - 1)
    return mean, variance


def dispersions(
    rules: HvgRules, n_cells: int, sums: NDArray[np.float64], squares: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    """Rank one batch by dispersion, as the flavors ``seurat`` and ``cell_ranger`` do.

    Parameters
    ----------
    sums, squares
        Sums over the batch's cells of each gene's value and its square; for
        ``seurat`` values without the logarithm. With a batch key, genes
        without a count in the batch take no part: all their numbers are 0.

    Returns
    -------
    ``means``, ``dispersions``, ``dispersions_norm`` and ``highly_variable`` (0 or 1), each (n_genes,).

    Raises
    ------
    Unfit
        Too few cells, or means that cannot be binned.
    """
    if n_cells < 2:
        raise Unfit("one cell has no variance")
    taking_part = sums > 0 if rules.batch_key is not None else np.ones(len(sums), bool)
    if not taking_part.any():
        raise Unfit("no gene has a count")
    found = binned_dispersions(rules, *mean_variance(n_cells, sums[taking_part], squares[taking_part]))
    table = {name: np.zeros(len(sums)) for name in found}
    for name, values in found.items():
        table[name][taking_part] = values
    return table


def binned_dispersions(
    rules: HvgRules, mean: NDArray[np.float64], variance: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    """Return dispersions, scaled within bins of the mean, and which are among the highest."""
    mean[mean == 0] = 1e-12
    dispersion = variance / mean
    if rules.flavor == "seurat":
        dispersion[dispersion == 0] = np.nan
        with np.errstate(invalid="ignore"):
            dispersion = np.log(dispersion)
        mean = np.log1p(mean)
    scaled = scaled_in_bins(rules, mean, dispersion)
    ranked = np.sort(scaled[~np.isnan(scaled)])[::-1]
    if not ranked.size:
        raise Unfit("no gene varies")
    last = ranked[min(rules.n_top_genes, ranked.size) - 1]
    chosen = np.nan_to_num(scaled, nan=-np.inf) >= last
    return {
        "means": mean,
        "dispersions": dispersion,
        "dispersions_norm": scaled,
        "highly_variable": chosen.astype(np.float64),
    }


def scaled_in_bins(rules: HvgRules, mean: NDArray[np.float64], dispersion: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (dispersion - centre) / spread, both taken over the genes in the same bin of the mean."""
    edges: int | list[float] = rules.n_bins
    if rules.flavor == "cell_ranger":
        edges = [-np.inf, *np.percentile(mean, np.arange(10, 105, 5)), np.inf]
    try:
        bins = pd.cut(pd.Series(mean), bins=edges, labels=False)
    except ValueError as error:
        raise Unfit("its genes have too few different means for the bins") from error
    grouped = pd.Series(dispersion).groupby(bins)
    if rules.flavor == "cell_ranger":
        centre, spread = grouped.transform("median"), grouped.transform(scaled_deviation)
    else:
        centre, spread = grouped.transform("mean"), grouped.transform("std")
        # A gene that is alone in its bin has no spread: its scaled dispersion becomes 1.
        alone = spread.isna()
        spread, centre = spread.where(~alone, centre), centre.where(~alone, 0.0)
    return ((pd.Series(dispersion) - centre) / spread).to_numpy(np.float64)


def scaled_deviation(values: pd.Series) -> float:
    """Return the median absolute deviation, scaled to a standard deviation."""
    numbers = values.to_numpy()
    return float(np.median(np.abs(numbers - np.median(numbers)) / NORMAL_QUARTILE))


def fit_variance(
    rules: HvgRules, n_cells: int, sums: NDArray[np.int64], squares: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return each gene's mean, and the standard deviation that a loess over all genes expects at that mean.

    Raises
    ------
    Unfit
        Too few genes vary, or the fit fails.
    """
    mean, variance = mean_variance(n_cells, sums, squares)
    varies = variance > 0
    n_genes = int(varies.sum())
    # A local quadratic needs three genes; with none in reach the library ends the process.
    if int(n_genes * rules.span) < 3:
        raise Unfit(f"only {n_genes} genes vary")
    from skmisc.loess import loess

    model = loess(np.log10(mean[varies]), np.log10(variance[varies]), span=rules.span, degree=2)
    try:
        model.fit()
    except ValueError as error:
        text = error.args[0] if error.args else ""
        raise Unfit(f"loess: {text.decode() if isinstance(text, bytes) else text}") from error
    expected = np.zeros(len(mean))
    expected[varies] = model.outputs.fitted_values
    deviation = np.sqrt(10**expected)
    if not np.isfinite(deviation).all():
        raise Unfit("loess gave no finite value")
    return mean, deviation


def normalized_variance(
    n_cells: int,
    mean: NDArray[np.float64],
    deviation: NDArray[np.float64],
    sums: NDArray[np.float64],
    squares: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the variance of counts standardised by the expected deviation; the sums are of clipped counts."""
    scale = 1 / ((n_cells - 1) * np.square(deviation))
    return np.asarray(scale * (n_cells * np.square(mean) + squares - 2 * sums * mean))
