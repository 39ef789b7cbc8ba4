"""Quality control of cells: integer row sums in, scanpy's metrics and a verdict per cell out.

Metrics are those of ``scanpy.pp.calculate_qc_metrics`` on the float32 counts
of one file, bit for bit, computed from exact integer sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scvae_data.errors import ConfigError

__all__ = ["GENE_CLASSES", "QcRules", "RowSums", "gene_class_flags", "qc_metrics"]

GENE_CLASSES = ("mt", "ribo", "hb")

# An explicit list: the common pattern ^HB[^(P)] also counts HBEGF and HBS1L.
HAEMOGLOBIN = frozenset(
    [
        "HBA1",
        "HBA2",
        "HBB",
        "HBD",
        "HBE1",
        "HBG1",
        "HBG2",
        "HBM",
        "HBQ1",
        "HBZ",
        "Hba-a1",
        "Hba-a2",
        "Hba-x",
        "Hbb-b1",
        "Hbb-b2",
        "Hbb-bs",
        "Hbb-bt",
        "Hbb-bh1",
        "Hbb-bh2",
        "Hbb-y",
        "Hbq1a",
        "Hbq1b",
    ]
)
# Mitochondrial protein-coding and rRNA genes, for files that carry ids without symbols.
MITOCHONDRIAL_IDS = frozenset(
    [f"ENSG00000{n}" for n in (198888, 198763, 198804, 198712, 228253, 198899, 198938, 198840, 212907, 198886)]
    + [f"ENSG00000{n}" for n in (198786, 198695, 198727, 211459, 210082)]
    + [f"ENSMUSG000000{n}" for n in (64341, 64345, 64351, 64354, 64356, 64357, 64358, 64360, 65947, 64363)]
    + [f"ENSMUSG000000{n}" for n in (64367, 64368, 64370, 64337, 64339)]
)


@dataclass(frozen=True)
class RowSums:
    """Exact integer sums of some rows.

    Parameters
    ----------
    total, n_genes
        Sum of counts and number of genes above zero, int64, shape (n,).
    by_class
        Sum of counts over each gene class, int64, shape (n, 3), in the order of `GENE_CLASSES`.
    top
        Sum of the largest counts, int64, shape (n, len(percent_top)).
    """

    total: NDArray[np.int64]
    n_genes: NDArray[np.int64]
    by_class: NDArray[np.int64]
    top: NDArray[np.int64]


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
        Percentage of counts in mitochondrial, ribosomal and haemoglobin
        genes, inclusive. A file that measured no gene of a class passes.
    percent_top
        Report the percentage of counts in the N largest genes of a cell.
    """

    min_genes: int | None = 200
    max_genes: int | None = None
    min_counts: int | None = 500
    max_counts: int | None = None
    max_pct_counts_mt: float | None = 20.0
    max_pct_counts_ribo: float | None = None
    max_pct_counts_hb: float | None = None
    percent_top: Sequence[int] = (50,)

    def __post_init__(self) -> None:
        for name in ("min_genes", "max_genes", "min_counts", "max_counts"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ConfigError(f"qc.{name}={value} must be 0 or more, or null to leave the rule out")
        for name in ("max_pct_counts_mt", "max_pct_counts_ribo", "max_pct_counts_hb"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 100:
                raise ConfigError(
                    f"qc.{name}={value} must be a percentage from 0 to 100, or null to leave the rule out"
                )
        if any(top < 1 for top in self.percent_top):
            raise ConfigError(f"qc.percent_top={list(self.percent_top)} must hold numbers of genes, 1 or more")
        for low, high in (("min_genes", "max_genes"), ("min_counts", "max_counts")):
            least, most = getattr(self, low), getattr(self, high)
            if least is not None and most is not None and least > most:
                raise ConfigError(f"qc.{low}={least} exceeds qc.{high}={most}; no cell could pass")

    @property
    def rules(self) -> list[str]:
        """Names of the rules in force, in the order a cell meets them."""
        names = ["min_genes", "min_counts", "max_genes", "max_counts"]
        names += [f"max_pct_counts_{name}" for name in GENE_CLASSES]
        return ["zero_counts"] + [name for name in names if getattr(self, name) is not None]

    def verdict(self, metrics: pd.DataFrame) -> NDArray[np.uint8]:
        """Return per cell 0 for kept, or 1 + the position in `rules` of the first rule it breaks."""
        verdict = np.zeros(len(metrics), np.uint8)
        for number, rule in enumerate(self.rules, start=1):
            broken = self._broken(rule, metrics)
            verdict[broken & (verdict == 0)] = number
        return verdict

    def _broken(self, rule: str, metrics: pd.DataFrame) -> NDArray[np.bool_]:
        if rule == "zero_counts":
            return np.asarray(metrics["total_counts"] == 0)
        column = {"genes": "n_genes_by_counts", "counts": "total_counts"}.get(rule[4:], rule[4:])
        values, limit = metrics[column].to_numpy(), getattr(self, rule)
        return np.asarray(values < limit if rule.startswith("min_") else values > limit)


def gene_class_flags(symbols: NDArray[np.object_], keys: NDArray[np.object_]) -> NDArray[np.uint8]:
    """Return a bit per gene class for each gene, uint8, shape (n_genes,).

    Parameters
    ----------
    symbols
        Symbols; a genome prefix such as ``hg19_`` is ignored.
    keys
        Gene ids without version, for mitochondrial genes that have no symbol.
    """
    flags = np.zeros(len(symbols), np.uint8)
    for position, (symbol, key) in enumerate(zip(symbols, keys, strict=True)):
        name = symbol.split("_", 1)[1] if symbol.startswith(("hg19_", "hg38_", "GRCh38_", "mm10_", "mm9_")) else symbol
        upper = name.upper()
        if upper.startswith("MT-") or key in MITOCHONDRIAL_IDS:
            flags[position] |= 1
        if upper.startswith(("RPS", "RPL")):
            flags[position] |= 2
        if name in HAEMOGLOBIN:
            flags[position] |= 4
    return flags


def qc_metrics(sums: RowSums, measured: Sequence[bool], percent_top: Sequence[int]) -> pd.DataFrame:
    """Return scanpy's per-cell metrics.

    Parameters
    ----------
    sums
        Integer sums of n rows.
    measured
        Per gene class, whether the file has a gene of it; if not, the
        percentage is NaN: not measured is not 0 %.
    percent_top
        The N behind ``sums.top``.
    """
    # scanpy divides float32 sums by float32 totals; sums below 2**24 are exact in float32.
    total = sums.total.astype(np.float32)
    columns: dict[str, NDArray[np.generic]] = {
        "total_counts": sums.total,
        "n_genes_by_counts": sums.n_genes.astype(np.int32),
        "log1p_total_counts": np.log1p(total),
        "log1p_n_genes_by_counts": np.log1p(sums.n_genes.astype(np.float64)),
    }
    with np.errstate(invalid="ignore", divide="ignore"):
        for number, name in enumerate(GENE_CLASSES):
            part = sums.by_class[:, number].astype(np.float32)
            percent = part / total * np.float32(100)
            columns[f"pct_counts_{name}"] = percent if measured[number] else np.full_like(total, np.nan)
        for number, top in enumerate(percent_top):
            columns[f"pct_counts_in_top_{top}_genes"] = sums.top[:, number] / sums.total * 100.0
    return pd.DataFrame(columns)
