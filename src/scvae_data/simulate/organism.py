"""The organism behind all files of one seed: its cell types, states, programmes and perturbed genes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scvae_data.simulate.genes import CELL_TYPES, Genes, make_genes

__all__ = ["N_BLENDED", "N_STATES", "Organism", "make_organism"]

SD_LOG10_GENE_MEAN = 0.85  # standard deviation of log10 mean expression between genes, close to normal; 0.73–0.98
SD_TYPE = 0.5  # standard deviation of a cell type's effect on ln expression, per gene
MARKERS_PER_TYPE = 60  # genes raised in one cell type beyond that, about 8-fold
RIBO_FRACTION = 0.26  # of UMIs, in ribosomal protein genes; 0.16–0.41
MALAT1_FRACTION = 0.04
ERYTHROID_HB_FRACTION, AMBIENT_HB_FRACTION = 0.15, 1e-4
# Median negative-binomial dispersion within a cell type; with the types it comes to the 0.34–0.86 seen over all cells,
# in genes with more than 0.05 UMIs a cell.
DISPERSION = 0.25
SD_LOG_DISPERSION = 1.3  # standard deviation of ln dispersion between genes; 1.0–1.6
# Expression states; each cell blends three, which spreads the genes of one type as far as their dispersion says.
N_STATES, N_BLENDED = 12, 3
BLEND_SPREAD = 2.0  # a blend with uniform weights halves the variance of its states
N_PERTURBATIONS = 8  # perturbed genes; each loses most of its own UMIs and raises a programme of others
GENES_PER_PROGRAMME = 100


@dataclass(frozen=True)
class Organism:
    """What is the same in every file; rows sum to 1 over the genes that are not mitochondrial."""

    seed: int
    genes: Genes
    shared_g: NDArray[np.bool_]
    """Genes that every file measures."""
    types_kg: NDArray[np.float64]
    states_sg: NDArray[np.float64]
    mito_g: NDArray[np.float64]
    programmes_pg: NDArray[np.float64]
    targets_p: NDArray[np.int64]
    """The perturbed genes."""
    counts_factor_k: NDArray[np.float64]


def make_organism(n_genes: int, seed: int, shared_genes: float) -> Organism:
    """Draw everything that depends on the seed alone.

    Parameters
    ----------
    n_genes
        Genes of the organism.
    seed
        The same seed gives the same organism.
    shared_genes
        Share of the genes without a role that every file measures, as it does all those with one.
    """
    genes = make_genes(n_genes)
    is_ordinary = genes.role == ""
    ordinary = np.flatnonzero(is_ordinary)
    shared = (np.random.default_rng([seed, 2]).random(n_genes) < shared_genes) | ~is_ordinary
    shared[ordinary[0]] = True  # the abundant one
    rng = np.random.default_rng([seed, 0])
    base = 10 ** rng.normal(0.0, SD_LOG10_GENE_MEAN, n_genes)
    base[genes.marker_of >= 0] = np.quantile(base, 0.9)
    types = _type_profiles(base, genes, rng)
    dispersion = DISPERSION * np.exp(rng.normal(0.0, SD_LOG_DISPERSION, n_genes))
    spread = BLEND_SPREAD * np.clip(dispersion, 1e-2, 5.0)
    states = rng.gamma(1 / spread, spread, (N_STATES, n_genes))
    mito = np.where(genes.role == "mito", 10 ** rng.normal(0.0, 0.4, n_genes), 0.0)
    candidates = np.flatnonzero(is_ordinary & shared)
    candidates = candidates[np.argsort(base[candidates], kind="stable")][-max(len(candidates) // 5, 1) :]
    targets = rng.choice(candidates, min(N_PERTURBATIONS, len(candidates)), replace=False)
    programmes = np.zeros((len(targets), n_genes))
    for programme in programmes:
        chosen = rng.choice(ordinary, min(GENES_PER_PROGRAMME, len(ordinary)), replace=False)
        programme[chosen] = base[chosen]
    factor = np.exp(rng.normal(0.0, 0.2, len(CELL_TYPES)))
    return Organism(seed, genes, shared, types, states, mito, programmes, targets, factor)


def _type_profiles(base: NDArray[np.float64], genes: Genes, rng: np.random.Generator) -> NDArray[np.float64]:
    """Expression of each cell type, with the known shares of ribosomal, haemoglobin and one very abundant gene."""
    types = np.tile(base, (len(CELL_TYPES), 1))
    ordinary = np.flatnonzero(genes.role == "")
    types[:, ordinary] *= np.exp(rng.normal(0.0, SD_TYPE, (len(types), len(ordinary))))
    for k, profile in enumerate(types):
        markers = rng.choice(ordinary, min(MARKERS_PER_TYPE, len(ordinary)), replace=False)
        profile[markers] *= 2 ** rng.normal(3.0, 1.0, len(markers))
        profile[genes.marker_of == k] *= 16
        profile[(genes.marker_of >= 0) & (genes.marker_of != k)] /= 16
    types[:, genes.role == "mito"] = 0
    abundant = ordinary[0]  # plays the part of MALAT1
    for name, profile in zip(CELL_TYPES, types, strict=True):
        hb = ERYTHROID_HB_FRACTION if name == "erythroid cell" else AMBIENT_HB_FRACTION
        _rescale(profile, genes.role == "hb", hb)
        _rescale(profile, genes.role == "ribo", RIBO_FRACTION)
        _rescale(profile, np.arange(len(base)) == abundant, MALAT1_FRACTION)
    return types


def _rescale(profile: NDArray[np.float64], mask: NDArray[np.bool_], share: float) -> None:
    """Give the genes in ``mask`` this share of a profile and let it sum to 1."""
    profile[mask] *= share / profile[mask].sum()
    profile[~mask] *= (1 - share) / profile[~mask].sum()
