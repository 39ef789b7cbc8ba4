"""Quality control of cells: integer row sums in, scanpy's metrics and a verdict per cell out.

Metrics are those of ``scanpy.pp.calculate_qc_metrics`` on the float32 counts
of one file, bit for bit, computed from exact integer sums.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scvae_data.errors import ConfigError

__all__ = ["GENE_CLASSES", "SCALES", "Bounds", "Judgement", "QcRules"]

GENE_CLASSES = ("mt", "ribo", "hb")


@dataclass(frozen=True)
class Judgement:
    """The verdict on some cells, and why.

    Parameters
    ----------
    verdict
        0 for kept, or 1 + the position in `QcRules.rules` of the first rule broken, uint8, shape (n,).
    value, threshold
        What the broken rule looked at and what it asked for, float64; NaN for kept cells.
    """

    verdict: NDArray[np.uint8]
    value: NDArray[np.float64]
    threshold: NDArray[np.float64]


@dataclass(frozen=True)
class QcRules:
    """Thresholds a cell must meet; None leaves a rule out.

    Parameters
    ----------
    min_genes, max_genes
        Genes with a count, inclusive.
    min_counts, max_counts
        Total counts, inclusive.
    max_pct_counts_mt, max_pct_counts_ribo, max_pct_counts_hb
        Percentage of counts in mitochondrial (``MT-…``, with MT-RNR1 and
        MT-RNR2), ribosomal (``RPS…``, ``RPL…``) and haemoglobin genes,
        inclusive. A file that measured no gene of a class passes.
    percent_top
        Report the percentage of counts in the N largest genes of a cell.
    nmads
        Metric to a number of median absolute deviations: a cell whose metric
        lies further from the median of its file and accession is dropped; a
        metric set to None is left out.
    mad_scale
        1.0: the deviation as it is, as in scanpy's tutorials; 1.4826: scaled
        to the standard deviation of a normal distribution, as in R.
    """

    min_genes: int | None = 200
    max_genes: int | None = None
    min_counts: int | None = 500
    max_counts: int | None = None
    max_pct_counts_mt: float | None = 20.0
    max_pct_counts_ribo: float | None = None
    max_pct_counts_hb: float | None = None
    percent_top: Sequence[int] = (50,)
    nmads: Mapping[str, float | None] | None = None
    mad_scale: float = 1.0

    def __post_init__(self) -> None:
        for name in ("min_genes", "max_genes", "min_counts", "max_counts"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int | float) or value < 0):
                raise ConfigError(f"qc.{name}={value} must be 0 or more, or null to leave the rule out")
        for name in ("max_pct_counts_mt", "max_pct_counts_ribo", "max_pct_counts_hb"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int | float) or not 0 <= value <= 100):
                raise ConfigError(
                    f"qc.{name}={value} must be a percentage from 0 to 100, or null to leave the rule out"
                )
        if any(top < 1 for top in self.percent_top):
            raise ConfigError(f"qc.percent_top={list(self.percent_top)} must hold numbers of genes, 1 or more")
        for low, high in (("min_genes", "max_genes"), ("min_counts", "max_counts")):
            least, most = getattr(self, low), getattr(self, high)
            if least is not None and most is not None and least > most:
                raise ConfigError(f"qc.{low}={least} exceeds qc.{high}={most}; no cell could pass")
        if self.mad_scale not in SCALES:
            raise ConfigError(f"qc.mad_scale={self.mad_scale} must be 1.0 (unscaled) or 1.4826 (as a normal deviation)")
        for metric, n in self.outlier_metrics.items():
            if metric not in self.metrics:
                wanted = re.fullmatch(r"pct_counts_in_top_(\d+)_genes", metric)
                remedy = f"add {wanted[1]} to qc.percent_top" if wanted else f"there are {', '.join(self.metrics)}"
                raise ConfigError(f"qc.nmads.{metric}: no such metric is measured; {remedy}")
            if not n > 0:
                raise ConfigError(f"qc.nmads.{metric}={n} must be above 0, or null to leave the rule out")
        # 20 and 20.0 are one setting, and make the same bytes.
        for name in ("max_pct_counts_mt", "max_pct_counts_ribo", "max_pct_counts_hb", "mad_scale"):
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else float(value))
        if self.nmads is not None:
            nmads = {metric: None if n is None else float(n) for metric, n in self.nmads.items()}
            object.__setattr__(self, "nmads", nmads)

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics that are measured."""
        names = ["total_counts", "n_genes_by_counts", "log1p_total_counts", "log1p_n_genes_by_counts"]
        names += [f"pct_counts_{name}" for name in GENE_CLASSES]
        return names + [f"pct_counts_in_top_{top}_genes" for top in sorted(set(self.percent_top))]

    @property
    def outlier_metrics(self) -> dict[str, float]:
        """The metrics whose outliers are dropped, with their number of deviations."""
        return {metric: n for metric, n in (self.nmads or {}).items() if n is not None}

    @property
    def rules(self) -> list[str]:
        """Names of the rules in force, in the order a cell meets them."""
        names = ["min_genes", "min_counts", "max_genes", "max_counts"]
        names += [f"max_pct_counts_{name}" for name in GENE_CLASSES]
        fixed = ["zero_counts"] + [name for name in names if getattr(self, name) is not None]
        return fixed + [f"mad_{metric}" for metric in self.outlier_metrics]

    def passes_minima(self, metrics: pd.DataFrame) -> NDArray[np.bool_]:
        """Return which rows are cells at all by the minimum rules: empty droplets say nothing about outliers."""
        rules = [rule for rule in self.rules if rule == "zero_counts" or rule.startswith("min_")]
        passes = np.ones(len(metrics), bool)
        for rule in rules:
            values, low, _ = self._limits(rule, metrics, None)
            passes &= values >= low
        return np.asarray(passes, dtype=bool)

    def verdict(self, metrics: pd.DataFrame) -> NDArray[np.uint8]:
        """Return per cell 0 for kept, or 1 + the position in `rules` of the first rule it breaks."""
        return self.judge(metrics).verdict

    def judge(self, metrics: pd.DataFrame, bounds: Bounds | None = None) -> Judgement:
        """Hold the rules against some cells.

        Parameters
        ----------
        metrics
            Their metrics.
        bounds
            Bounds of each of these cells for the outlier rules; without them those rules keep every cell.
        """
        verdict = np.zeros(len(metrics), np.uint8)
        value, threshold = (np.full(len(metrics), np.nan) for _ in range(2))
        for number, rule in enumerate(self.rules, start=1):
            values, low, high = self._limits(rule, metrics, bounds)
            below = values < low
            broken = (below | (values > high)) & (verdict == 0)
            verdict[broken] = number
            value[broken] = values[broken]
            threshold[broken] = np.where(below, low, high)[broken]
        return Judgement(verdict, value, threshold)

    def _limits(self, rule: str, metrics: pd.DataFrame, bounds: Bounds | None) -> tuple[NDArray[Any], Any, Any]:
        """Return the values a rule looks at, and the least and most it allows."""
        if rule == "zero_counts":
            return metrics["total_counts"].to_numpy(), 1, np.inf
        if rule.startswith("mad_"):
            metric = rule[4:]
            low, high = (-np.inf, np.inf) if bounds is None else bounds[metric]
            return metrics[metric].to_numpy(np.float64), low, high
        column = {"genes": "n_genes_by_counts", "counts": "total_counts"}.get(rule[4:], rule[4:])
        limit = getattr(self, rule)
        return metrics[column].to_numpy(), *((limit, np.inf) if rule.startswith("min_") else (-np.inf, limit))


# As it is, or times 1 / Phi^-1(3/4): the standard deviation where values are normal.
SCALES = (1.0, 1.4826)
Bounds = Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]]
"""Metric to the least and the most allowed, one of each per row, float64."""
