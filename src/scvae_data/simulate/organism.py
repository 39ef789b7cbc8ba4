"""The organism behind all files of one seed: its cell types, states, programmes and perturbed genes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scvae_data.simulate.genes import CELL_TYPES, Universe
from scvae_data.simulate.parameters import CellParameters

__all__ = ["N_BLENDED", "N_STATES", "Organism", "make_organism", "shared_genes"]

N_STATES = 12
"""Expression states; each cell blends three, which spreads the genes of one type as far as their dispersion says."""
N_BLENDED = 3
BLEND_SPREAD = 2.0
"""A blend with uniform weights halves the variance of its states."""
MALAT1_FRACTION = 0.04
ERYTHROID_HB_FRACTION = 0.15
AMBIENT_HB_FRACTION = 1e-4
GENES_PER_PROGRAMME = 100


@dataclass(frozen=True)
class Organism:
    """Expression that is the same in every file; rows sum to 1 over the genes that are not mitochondrial."""

    types_kg: NDArray[np.float64]
    states_sg: NDArray[np.float64]
    mito_g: NDArray[np.float64]
    programmes_pg: NDArray[np.float64]
    targets_p: NDArray[np.int64]
    counts_factor_k: NDArray[np.float64]


def shared_genes(universe: Universe, seed: int, parameters: CellParameters) -> NDArray[np.bool_]:
    """Genes that every file measures: all with a role and a share of the others."""
    chosen = np.random.default_rng([seed, 2]).random(universe.n_genes) < parameters.shared_genes
    chosen[np.flatnonzero(universe.ordinary)[0]] = True  # the abundant one
    return np.asarray(chosen | ~universe.ordinary)


def make_organism(universe: Universe, seed: int, parameters: CellParameters) -> Organism:
    """Draw everything that depends on the seed alone."""
    rng = np.random.default_rng([seed, 0])
    n_genes = universe.n_genes
    base = 10 ** rng.normal(0.0, parameters.sd_log10_gene_mean, n_genes)
    base[universe.marker_of >= 0] = np.quantile(base, 0.9)
    types = _type_profiles(base, universe, rng, parameters)
    ordinary = np.flatnonzero(universe.ordinary)
    dispersion = parameters.dispersion * np.exp(rng.normal(0.0, parameters.sd_log_dispersion, n_genes))
    spread = BLEND_SPREAD * np.clip(dispersion, 1e-2, 5.0)
    states = rng.gamma(1 / spread, spread, (N_STATES, n_genes))
    mito = np.where(universe.mito, 10 ** rng.normal(0.0, 0.4, n_genes), 0.0)
    candidates = np.flatnonzero(universe.ordinary & shared_genes(universe, seed, parameters))
    candidates = candidates[np.argsort(base[candidates], kind="stable")][-max(len(candidates) // 5, 1) :]
    targets = rng.choice(candidates, min(parameters.n_perturbations, len(candidates)), replace=False)
    programmes = np.zeros((len(targets), n_genes))
    for programme in programmes:
        chosen = rng.choice(ordinary, min(GENES_PER_PROGRAMME, len(ordinary)), replace=False)
        programme[chosen] = base[chosen]
    factor = np.exp(rng.normal(0.0, 0.2, len(CELL_TYPES)))
    return Organism(types, states, mito, programmes, targets, factor)


def _type_profiles(
    base: NDArray[np.float64], universe: Universe, rng: np.random.Generator, parameters: CellParameters
) -> NDArray[np.float64]:
    """Expression of each cell type, with the known shares of ribosomal, haemoglobin and one very abundant gene."""
    types = np.tile(base, (len(CELL_TYPES), 1))
    ordinary = np.flatnonzero(universe.ordinary)
    types[:, ordinary] *= np.exp(rng.normal(0.0, parameters.sd_type, (len(types), len(ordinary))))
    for k, profile in enumerate(types):
        markers = rng.choice(ordinary, min(parameters.markers_per_type, len(ordinary)), replace=False)
        profile[markers] *= 2 ** rng.normal(3.0, 1.0, len(markers))
        profile[universe.marker_of == k] *= 16
        profile[(universe.marker_of >= 0) & (universe.marker_of != k)] /= 16
    types[:, universe.mito] = 0
    abundant = ordinary[0]  # plays the part of MALAT1
    for k, profile in enumerate(types):
        hb = ERYTHROID_HB_FRACTION if list(CELL_TYPES)[k] == "erythroid cell" else AMBIENT_HB_FRACTION
        _rescale(profile, universe.hb, hb)
        _rescale(profile, universe.ribo, parameters.ribo_fraction)
        _rescale(profile, np.arange(universe.n_genes) == abundant, MALAT1_FRACTION)
    return types


def _rescale(profile: NDArray[np.float64], mask: NDArray[np.bool_], share: float) -> None:
    """Give the genes in ``mask`` this share of a profile and let it sum to 1."""
    inside, outside = profile[mask].sum(), profile[~mask].sum()
    if inside > 0:
        profile[mask] *= share / inside
        profile[~mask] *= (1 - share) / outside
    else:
        profile /= outside
