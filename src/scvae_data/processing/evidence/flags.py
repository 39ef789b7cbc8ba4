"""A table of all experiments in; what is odd about each, by names that have a remedy each, out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = ["REMEDIES", "add_outliers", "flags_of", "remedy_of"]

REMEDIES = {
    "no_cells": "relax the rules that lost_… count, or leave it out",
    "raw_droplets": "give the filtered matrix, or raise qc.min_counts to its inflection if that is more",
    "wrong_modality": "give the matrix of gene expression, or leave it out",
    "not_raw": "give the raw counts, not what normalising and rounding, or asking for presence, has made of them",
    "few_genes": "give the matrix of all genes; a panel does not go with whole transcriptomes",
    "unknown_genes": "name ids by genes.mapping=FILE.csv (columns id, symbol)",
    "no_mt_genes": "its cells are not judged by mitochondrial counts; give a matrix that has these genes",
    "near_duplicate": "leave it or near_duplicate_of out; keep_duplicates=first drops equal cells",
    "few_cells": "look at the rules that lost_… count; a limit may not suit it",
    "high_ambient": "remove ambient RNA before (CellBender, SoupX), or leave it out",
    "many_doublets": "look for overloading or mixed samples; qc.doublets=drop drops them",
    "outlier": "look at z_…: it is unlike the other experiments; another protocol, or a fault",
}
"""What to do where a flag is set; the worst first."""

FEW_CELLS, FEW_GENES, FEW_OF_MANY = 0.1, 1000, 5000
MOST_OTHERS, LEAST_KNOWN = 0.5, 0.8
LEAST_SPREAD, LEAST_MEDIAN = 0.02, 200
HIGH_AMBIENT, MANY_DOUBLETS = 0.2, 0.2

MEASURES = {
    "z_counts": ("median_counts", True, 0.1),
    "z_genes": ("median_genes", True, 0.1),
    "z_mt": ("median_pct_counts_mt", False, 0.5),
    "z_in_columns": ("share_in_columns", False, 0.01),
}
"""Column that is compared over the corpus, whether by its decimal logarithm, and the least spread that counts."""
LEAST_EXPERIMENTS, FAR = 10, 5.0
TO_SIGMA = 1.4826


def remedy_of(flag: str, inflection: float, min_counts: float | None) -> str:
    """Return what to do about a flag of one experiment.

    Parameters
    ----------
    inflection
        Of its counts; NaN where they have none.
    min_counts
        The limit of the run.

    Examples
    --------
    >>> print(remedy_of("raw_droplets", 812, 500))
    give the filtered matrix, or raise qc.min_counts to its inflection, 812
    >>> print(remedy_of("raw_droplets", 489, 500))
    give the filtered matrix; qc.min_counts=500 is above its inflection, 489, already
    """
    if flag != "raw_droplets":
        return REMEDIES[flag]
    if np.isnan(inflection):
        return "give the filtered matrix"
    if min_counts is None or inflection > min_counts:
        return f"give the filtered matrix, or raise qc.min_counts to its inflection, {inflection:.0f}"
    place = "at" if inflection == min_counts else "above"
    return (
        f"give the filtered matrix; qc.min_counts={min_counts:g} is {place} its inflection, {inflection:.0f}, already"
    )


def add_outliers(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with robust z-scores: deviations from the median of all, by the scaled median deviation.

    Null where fewer than `LEAST_EXPERIMENTS` experiments have a value.
    """
    scores: dict[str, NDArray[np.float64]] = {}
    for name, (column, logarithm, least) in MEASURES.items():
        values = table[column].to_numpy(np.float64)
        values = np.log10(np.maximum(values, 1)) if logarithm else values
        scores[name] = np.full(len(values), np.nan)
        if (~np.isnan(values)).sum() >= LEAST_EXPERIMENTS:
            centred = values - np.nanmedian(values)
            scores[name] = centred / max(TO_SIGMA * np.nanmedian(np.abs(centred)), least)
    return table.assign(**{name: pd.Series(score, table.index) for name, score in scores.items()})


def flags_of(table: pd.DataFrame) -> list[list[str]]:
    """Return the flags of each experiment, the worst first."""
    judged = table["n_obs"] - table["lost_zero_counts"] - table.get("lost_not_control", 0)
    n_genes = table["n_features"] - table["n_not_genes"]
    raw, kept = table["raw_droplets"].to_numpy(bool), table["n_kept"] > 0
    masks: Mapping[str, Any] = {
        "no_cells": ~kept,
        "raw_droplets": raw,
        "wrong_modality": (table["n_not_genes"] > MOST_OTHERS * table["n_features"]) & (n_genes < FEW_OF_MANY),
        "not_raw": (table["median_counts"] >= LEAST_MEDIAN)
        & ((table["counts_spread"] < LEAST_SPREAD) | (table["median_counts"] == table["median_genes"])),
        "few_genes": n_genes < FEW_GENES,
        "unknown_genes": table["share_known"] < LEAST_KNOWN,
        "no_mt_genes": kept & table["median_pct_counts_mt"].isna(),
        "near_duplicate": table["near_duplicate_of"].notna(),
        "few_cells": kept & ~raw & (table["n_kept"] < FEW_CELLS * judged),
        "high_ambient": table["ambient_share"] > HIGH_AMBIENT,
        "many_doublets": table["doublet_rate"] > MANY_DOUBLETS,
        "outlier": (table[list(MEASURES)].abs() > FAR).any(axis=1),
    }
    columns = np.column_stack([np.asarray(masks[name], bool) for name in REMEDIES])
    names = np.array(list(REMEDIES), object)
    return [names[row].tolist() for row in columns]
