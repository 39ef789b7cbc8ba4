"""What simulated cells are like, with defaults taken from real data sets."""

from __future__ import annotations

from dataclasses import dataclass, fields

from scvae_data.errors import ConfigError

__all__ = ["CellParameters"]

FRACTIONS = (
    "ribo_fraction",
    "low_quality_fraction",
    "doublet_fraction",
    "ambient_fraction",
    "control_fraction",
    "donor_fraction",
    "perturbation_fraction",
    "mito_fraction",
    "low_quality_mito_fraction",
)


@dataclass(frozen=True)
class CellParameters:
    """Distributions behind the simulated counts.

    The ranges given with the defaults are those of fourteen public 10x data
    sets of human and mouse cells (225 to 5,000 cells each, chemistries v1 to
    v3): values of single-cell experiments as deposited, before cell filters.
    """

    median_counts: float = 5500.0
    """UMIs of a typical cell; medians were 1,500–4,400 (v1, v2) and 6,100–6,800 (v3)."""
    sd_log_counts: float = 0.45
    """Standard deviation of ln UMIs between cells; 0.35–0.66."""
    sd_log10_gene_mean: float = 0.85
    """Standard deviation of log10 mean expression between genes, close to normal; 0.73–0.98."""
    dispersion: float = 0.25
    """Median negative-binomial dispersion within a cell type; with the types it comes to the
    0.34–0.86 seen over all cells, in genes with more than 0.05 UMIs a cell."""
    sd_log_dispersion: float = 1.3
    """Standard deviation of ln dispersion between genes; 1.0–1.6."""
    ribo_fraction: float = 0.26
    """Share of UMIs in ribosomal protein genes; 0.16–0.41."""
    mito_fraction: float = 0.06
    """Mean share of UMIs in mitochondrial genes; 0.02–0.14."""
    mito_concentration: float = 60.0
    """Concentration of the beta distribution of that share; larger is narrower (95th percentiles 0.03–0.29)."""
    low_quality_fraction: float = 0.05
    """Share of damaged cells: few UMIs, many of them mitochondrial."""
    low_quality_counts: float = 400.0
    """Median UMIs of a damaged cell; first percentiles were 220–1,600."""
    low_quality_mito_fraction: float = 0.4
    """Mean mitochondrial share of a damaged cell."""
    doublet_fraction: float = 0.04
    """Share of doublets of two cell types; 10x states 0.8 % per 1,000 cells."""
    ambient_fraction: float = 0.02
    """Share of a cell's UMIs that come from the soup, the average of all cells."""
    control_fraction: float = 0.3
    """Share of cells labelled non-targeting."""
    n_perturbations: int = 8
    """Perturbed genes; each loses most of its own UMIs and raises a programme of others."""
    perturbation_fraction: float = 0.03
    """Share of a perturbed cell's UMIs that come from that programme."""
    n_donors: int = 2
    """Donors per file."""
    donor_fraction: float = 0.05
    """Share of a cell's UMIs that come from its donor's own profile."""
    sd_batch: float = 0.25
    """Standard deviation of a file's effect on ln expression, per gene."""
    sd_type: float = 0.5
    """Standard deviation of a cell type's effect on ln expression, per gene."""
    markers_per_type: int = 60
    """Genes raised in one cell type beyond that, about 8-fold."""
    shared_genes: float = 0.9
    """Share of genes that every file measures; each file measures half of the others."""

    def __post_init__(self) -> None:
        for name in FRACTIONS:
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} must lie in 0…1, got {getattr(self, name)}; set it there")
        for field in fields(self):
            if getattr(self, field.name) < 0:
                raise ConfigError(f"{field.name} must not be negative, got {getattr(self, field.name)}; raise it")
        if self.median_counts <= 0 or self.n_donors < 1 or not 0 <= self.shared_genes <= 1:
            raise ConfigError(
                "median_counts and n_donors must be positive and shared_genes in 0…1, got "
                f"{self.median_counts}, {self.n_donors}, {self.shared_genes}; change them"
            )
