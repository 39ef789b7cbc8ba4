"""Quality control of cells: limits on their metrics in, a verdict on each cell out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scvae_data.errors import ConfigError
from scvae_data.processing.settings.gene_classes import GENE_CLASSES
from scvae_data.processing.settings.genes import common_name

__all__ = [
    "DOUBLET_RULE",
    "PREDICTED",
    "SCALES",
    "SCORE",
    "SPECIES_METRIC",
    "Bounds",
    "Judgement",
    "Metrics",
    "QcRules",
    "Rule",
    "at_least",
    "at_most",
    "n_cells",
]

SPECIES_METRIC = "pct_counts_species"
# As it is, or times 1 / Phi^-1(3/4): the standard deviation where values are normal.
SCALES = (1.0, 1.4826)
DOUBLETS = ("none", "score", "drop")
DOUBLET_RULE, SCORE, PREDICTED = "doublet", "doublet_score", "predicted_doublet"

Metrics = Mapping[str, Any]
"""Name to the values of some cells, one array each: NumPy's, or pandas' where a value may be neither true nor false."""
Bounds = Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]]
"""Metric to the least and the most allowed, one of each per row, float64."""


@dataclass(frozen=True)
class Rule:
    """What cells must be.

    Parameters
    ----------
    name
        As in reports.
    metric
        The column of metrics it looks at.
    least, most
        What it allows, inclusive: a number, or one of each cell, shape (n,).
    """

    name: str
    metric: str
    least: Any = -np.inf
    most: Any = np.inf


def at_least(metric: str, default: float | None) -> Any:
    """Make a setting of `QcRules` that is the least that a metric may be."""
    return field(default=default, metadata={"metric": metric, "side": "least"})


def at_most(metric: str, default: float | None) -> Any:
    """Make a setting of `QcRules` that is the most that a metric may be."""
    return field(default=default, metadata={"metric": metric, "side": "most"})


def n_cells(metrics: Metrics) -> int:
    """Return how many cells have these metrics."""
    return len(next(iter(metrics.values())))


@dataclass(frozen=True)
class Judgement:
    """The verdict on some cells, and why.

    Parameters
    ----------
    verdict
        0 for kept, or 1 + the position in `QcRules.rules` of the first rule broken, int64, shape (n,).
    value, threshold
        What the broken rule looked at and what it asked for, float64; NaN for kept cells.
    """

    verdict: NDArray[np.int64]
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
        inclusive. A file in which no gene of a class is recognised passes,
        with a warning.
    percent_top
        Report the percentage of counts in the N largest genes of a cell.
    nmads
        Metric to a number of median absolute deviations: a cell whose metric
        lies further from the median of its file and accession is dropped; a
        metric set to None is left out.
    mad_scale
        1.0: the deviation as it is, as in scanpy's tutorials; 1.4826: scaled
        to the standard deviation of a normal distribution, as in R.
    require_rules
        A rule that cannot be applied to a file stops the run.
    doublets
        ``"score"``: the cells of each experiment that pass all other rules get the scores of
        ``scanpy.pp.scrublet``, with the run's seed; ``"drop"``: those that it predicts to be doublets are dropped;
        ``"none"``: neither.
    species
        That of ``genes.species``: then the share of a cell's counts in its
        genes, among all genes of a species, is a metric of files of several.
    min_pct_counts_species
        What a cell of that species has of it, inclusive. One with less is a
        doublet of species, and one with as little as such a cell has of the
        others is of another species. None keeps cells with half or more.

    A limit is a field made by `at_least` or `at_most`: a subclass with one
    more has one more rule.
    """

    min_genes: int | None = at_least("n_genes_by_counts", 200)
    max_genes: int | None = at_most("n_genes_by_counts", None)
    min_counts: int | None = at_least("total_counts", 500)
    max_counts: int | None = at_most("total_counts", None)
    max_pct_counts_mt: float | None = at_most("pct_counts_mt", 20.0)
    max_pct_counts_ribo: float | None = at_most("pct_counts_ribo", None)
    max_pct_counts_hb: float | None = at_most("pct_counts_hb", None)
    percent_top: Sequence[int] = (50,)
    nmads: Mapping[str, float | None] | None = None
    mad_scale: float = 1.0
    require_rules: bool = False
    doublets: str = "none"
    species: str | None = None
    min_pct_counts_species: float | None = 90.0

    def __post_init__(self) -> None:
        if self.doublets not in DOUBLETS:
            raise ConfigError(f"qc.doublets={self.doublets!r} must be one of {', '.join(DOUBLETS)}")
        if self.doublets != "none" and find_spec("skimage") is None:
            needs = f"qc.doublets={self.doublets} needs scikit-image: "
            raise ConfigError(f"{needs}pip install 'scvae-data[doublets]'")
        if any(top < 1 for top in self.percent_top):
            raise ConfigError(f"qc.percent_top={list(self.percent_top)} must hold numbers of genes, 1 or more")
        self._settle_species()
        self._check_limits()
        if self.mad_scale not in SCALES:
            raise ConfigError(f"qc.mad_scale={self.mad_scale} must be 1.0 (unscaled) or 1.4826 (as a normal deviation)")
        for metric, n in self.outlier_metrics.items():
            self._check_metric(f"nmads.{metric}", metric)
            if not n > 0:
                raise ConfigError(f"qc.nmads.{metric}={n} must be above 0, or null to leave the rule out")
        # 20 and 20.0 are one setting, and make the same bytes.
        for name in (*self.percentages, "mad_scale"):
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else float(value))
        if self.nmads is not None:
            nmads = {metric: None if n is None else float(n) for metric, n in self.nmads.items()}
            object.__setattr__(self, "nmads", nmads)

    def _settle_species(self) -> None:
        """Give the species the name that it has in messages; refuse a share that half the counts would meet."""
        share = self.min_pct_counts_species
        if share is not None and not (isinstance(share, int | float) and 50 <= share < 100):
            raise ConfigError(
                f"qc.min_pct_counts_species={share} must be a percentage from 50 to below 100, or null for half or more"
            )
        object.__setattr__(self, "min_pct_counts_species", None if share is None else float(share))
        object.__setattr__(self, "species", None if self.species is None else common_name(self.species))

    def _check_limits(self) -> None:
        """Refuse limits that are no numbers, out of range, or leave nothing between them."""
        for name, metric in ((limit.name, limit.metadata["metric"]) for limit in self._limits()):
            value = getattr(self, name)
            if value is None:
                continue
            self._check_metric(name, metric)
            if not isinstance(value, int | float) or value < 0 or (name in self.percentages and value > 100):
                kind = "a percentage from 0 to 100" if name in self.percentages else "0 or more"
                raise ConfigError(f"qc.{name}={value} must be {kind}, or null to leave the rule out")
        limits = self.fixed_rules[len(self.species_rules) + 1 :]
        for low in limits:
            for high in limits:
                if low.metric == high.metric and low.least > high.most:
                    raise ConfigError(
                        f"qc.{low.name}={low.least} exceeds qc.{high.name}={high.most}; no cell could pass"
                    )

    def _check_metric(self, name: str, metric: str) -> None:
        if metric not in self.metrics:
            wanted = re.fullmatch(r"pct_counts_in_top_(\d+)_genes", metric)
            remedy = f"add {wanted[1]} to qc.percent_top" if wanted else f"there are {', '.join(self.metrics)}"
            raise ConfigError(f"qc.{name}: no such metric is measured; {remedy}")

    @classmethod
    def _limits(cls) -> list[Any]:
        """Return the fields that are limits of one metric each."""
        return [limit for limit in fields(cls) if "metric" in limit.metadata]

    @property
    def percentages(self) -> list[str]:
        """Names of the limits that are percentages of counts."""
        return [limit.name for limit in self._limits() if limit.metadata["metric"].startswith("pct_counts_")]

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics that are measured."""
        names = ["total_counts", "n_genes_by_counts", "log1p_total_counts", "log1p_n_genes_by_counts"]
        names += [f"pct_counts_{gene_class.name}" for gene_class in GENE_CLASSES]
        names += [f"pct_counts_in_top_{top}_genes" for top in sorted(set(self.percent_top))]
        return names + ([SPECIES_METRIC] if self.species else [])

    @property
    def columns(self) -> list[str]:
        """Names of all that is measured or predicted of a cell, in order."""
        return self.metrics + ([] if self.doublets == "none" else [SCORE, PREDICTED])

    @property
    def outlier_metrics(self) -> dict[str, float]:
        """The metrics whose outliers are dropped, with their number of deviations."""
        return {metric: n for metric, n in (self.nmads or {}).items() if n is not None}

    @property
    def species_rules(self) -> list[Rule]:
        """Those of cells of other species, and of doublets of species; none where all species are kept."""
        least = self.min_pct_counts_species
        if not self.species:
            return []
        if least is None:
            return [Rule("other_species", SPECIES_METRIC, least=50.0)]
        other = Rule("other_species", SPECIES_METRIC, least=100.0 - least)
        return [other, Rule("species_doublet", SPECIES_METRIC, least=least)]

    @property
    def fixed_rules(self) -> list[Rule]:
        """The rules in force, without those of outliers: what a cell lacks comes before what it has too much of."""
        rules = [*self.species_rules, Rule("zero_counts", "total_counts", least=1)]
        for side in ("least", "most"):
            for limit in self._limits():
                value = getattr(self, limit.name)
                if limit.metadata["side"] == side and value is not None:
                    rules.append(Rule(limit.name, limit.metadata["metric"], **{side: value}))
        return rules

    def rules(self, bounds: Bounds | None = None) -> list[Rule]:
        """Return the rules in force, in the order a cell meets them.

        Parameters
        ----------
        bounds
            Of some cells, for the rules of outliers and doublets; without them those rules allow everything.
        """
        names = {f"mad_{metric}": metric for metric in self.outlier_metrics}
        if self.doublets == "drop":
            names[DOUBLET_RULE] = SCORE
        bounded = [Rule(name, metric, *(() if bounds is None else bounds[metric])) for name, metric in names.items()]
        return self.fixed_rules + bounded

    def passes_minima(self, metrics: Metrics) -> NDArray[np.bool_]:
        """Return which rows are cells at all by the minimum rules: empty droplets say nothing about outliers."""
        passes = np.ones(n_cells(metrics), bool)
        for rule in self.fixed_rules:
            passes &= ~(metrics[rule.metric] < rule.least)
        return passes

    def judge(self, metrics: Metrics, bounds: Bounds | None = None) -> Judgement:
        """Hold the rules against some cells.

        Parameters
        ----------
        metrics
            Their metrics.
        bounds
            As of `rules`.
        """
        verdict = np.zeros(n_cells(metrics), np.int64)
        value, threshold = (np.full(len(verdict), np.nan) for _ in range(2))
        for number, rule in enumerate(self.rules(bounds), start=1):
            values = metrics[rule.metric]
            below = values < rule.least
            broken = (below | (values > rule.most)) & (verdict == 0)
            verdict[broken] = number
            value[broken] = values[broken]
            threshold[broken] = np.where(below, rule.least, rule.most)[broken]
        return Judgement(verdict, value, threshold)
