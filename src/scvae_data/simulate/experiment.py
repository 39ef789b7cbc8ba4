"""One simulated experiment: its cells and profiles, planned before any count is drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scvae_data.simulate.genes import CELL_TYPES, Universe
from scvae_data.simulate.organism import N_BLENDED, N_STATES, Organism, make_organism
from scvae_data.simulate.parameters import CellParameters
from scvae_data.simulate.sampler import alias_tables

__all__ = ["CONTROL", "Experiment", "plan_experiment"]

CONTROL = "non-targeting"


@dataclass(frozen=True)
class Experiment:
    """Cells of one file and the profiles they draw from."""

    obs: pd.DataFrame
    """Labels, indexed by barcode."""
    genes: NDArray[np.int64]
    """Genes of the universe that this file measures, in file order."""
    tables: NDArray[np.uint32]
    profiles_nk: NDArray[np.int32]
    draws_nk: NDArray[np.int64]
    knocked_down_n: NDArray[np.int64]
    seeds_n: NDArray[np.uint64]

    @property
    def n_obs(self) -> int:
        """Number of cells."""
        return len(self.obs)


def plan_experiment(
    universe: Universe, n_cells: int, seed: int, number: int, parameters: CellParameters, genes: NDArray[np.int64]
) -> Experiment:
    """Decide the cells of file ``number``: types, quality, donors, perturbations, depth and profiles.

    Parameters
    ----------
    universe
        All genes.
    n_cells
        Cells in the file.
    seed
        The organism depends on it alone; the file on it and ``number``.
    number
        Which file, from 0.
    parameters
        Distributions.
    genes
        Genes of the universe that the file measures, in file order.
    """
    organism = make_organism(universe, seed, parameters)
    rng = np.random.default_rng([seed, number, 1])
    cells = _draw_cells(n_cells, rng, number, parameters, organism, universe)
    tables = alias_tables(_file_profiles(organism, universe, rng, parameters)[:, genes] + 1e-15)
    profiles_nk, draws_nk = _draw_components(cells, rng, parameters)
    place = np.full(universe.n_genes, -1, dtype=np.int64)
    place[genes] = np.arange(len(genes))
    target = cells["target"].to_numpy()
    knocked_down = (
        np.where(target >= 0, place[organism.targets_p[np.maximum(target, 0)]], -1)
        if len(organism.targets_p)
        else np.full(n_cells, -1)
    )
    labels = ["cell_type", "perturbation", "donor", "is_doublet", "is_low_quality"]
    obs = cells[labels].set_index(pd.Index(_barcodes(n_cells, rng), dtype=object))
    seeds = rng.integers(0, 2**64, size=n_cells, dtype=np.uint64)
    return Experiment(obs, genes, tables, profiles_nk, draws_nk, knocked_down.astype(np.int64), seeds)


def _file_profiles(
    organism: Organism, universe: Universe, rng: np.random.Generator, parameters: CellParameters
) -> NDArray[np.float64]:
    """All profiles of one file: types × states, mitochondrial, ambient, donors, programmes; shape (n, n_genes)."""
    blends = (organism.types_kg[:, None, :] * organism.states_sg[None, :, :]).reshape(-1, universe.n_genes)
    ambient = organism.types_kg.mean(axis=0, keepdims=True) + 0.05 * organism.mito_g / organism.mito_g.sum()
    donors = organism.types_kg.mean(axis=0) * np.exp(rng.normal(0.0, 1.0, (parameters.n_donors, universe.n_genes)))
    profiles = np.vstack([blends, organism.mito_g[None, :], ambient, donors, organism.programmes_pg])
    return np.asarray(profiles * np.exp(rng.normal(0.0, parameters.sd_batch, universe.n_genes)), dtype=np.float64)


def _draw_cells(
    n_cells: int,
    rng: np.random.Generator,
    number: int,
    parameters: CellParameters,
    organism: Organism,
    universe: Universe,
) -> pd.DataFrame:
    """Labels and depth of each cell, with the codes behind the labels."""
    names = np.array(list(CELL_TYPES), dtype=object)
    shares = rng.dirichlet(np.full(len(names), 4.0))
    kind = rng.choice(len(names), n_cells, p=shares)
    other = rng.choice(len(names), n_cells, p=shares)
    doublet = rng.random(n_cells) < parameters.doublet_fraction
    damaged = ~doublet & (rng.random(n_cells) < parameters.low_quality_fraction)
    target = rng.integers(0, max(len(organism.targets_p), 1), n_cells)
    is_control = (rng.random(n_cells) < parameters.control_fraction) | (len(organism.targets_p) == 0)
    donor = rng.integers(0, parameters.n_donors, n_cells)
    log_counts = rng.normal(np.log(parameters.median_counts), parameters.sd_log_counts, (2, n_cells))
    counts = np.exp(log_counts) * organism.counts_factor_k[np.stack([kind, other])]
    low = np.exp(rng.normal(np.log(parameters.low_quality_counts), 0.4, n_cells))
    depth = np.where(damaged, low, counts[0] + np.where(doublet, counts[1], 0.0))
    share = np.where(damaged, parameters.low_quality_mito_fraction, parameters.mito_fraction).clip(1e-6, 1 - 1e-6)
    concentration = np.where(damaged, 8.0, max(parameters.mito_concentration, 1e-6))
    labels = np.append(universe.symbols[organism.targets_p], CONTROL)
    return pd.DataFrame(
        {
            "cell_type": pd.Categorical(names[kind]),
            "perturbation": pd.Categorical(labels[np.where(is_control, len(labels) - 1, target)]),
            "donor": pd.Categorical([f"donor_{number * parameters.n_donors + d + 1}" for d in donor]),
            "is_doublet": doublet,
            "is_low_quality": damaged,
            "kind": kind,
            "other": np.where(doublet, other, kind),
            "target": np.where(is_control, -1, target),
            "donor_code": donor,
            "depth": np.maximum(depth.astype(np.int64), 1),
            "mito": rng.beta(share * concentration, (1 - share) * concentration),
        }
    )


def _draw_components(
    cells: pd.DataFrame, rng: np.random.Generator, parameters: CellParameters
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Profiles of each cell and how many of its UMIs come from each, shapes (n_cells, 7)."""
    n_cells = len(cells)
    n_blends = len(CELL_TYPES) * N_STATES
    states = rng.integers(0, N_STATES, (n_cells, N_BLENDED))
    kind, other = cells["kind"].to_numpy(), cells["other"].to_numpy()
    kinds = np.column_stack([kind, other, np.where(rng.random(n_cells) < 0.5, kind, other)])
    target = cells["target"].to_numpy()
    profiles = np.column_stack(
        [
            kinds * N_STATES + states,
            np.full(n_cells, n_blends),
            np.full(n_cells, n_blends + 1),
            n_blends + 2 + cells["donor_code"],
            n_blends + 2 + parameters.n_donors + np.maximum(target, 0) if parameters.n_perturbations else kinds[:, 0],
        ]
    )
    weights = rng.dirichlet(np.ones(N_BLENDED), n_cells)
    small = np.column_stack(
        [
            np.full(n_cells, parameters.ambient_fraction),
            np.full(n_cells, parameters.donor_fraction),
            np.where(target >= 0, parameters.perturbation_fraction, 0.0),
        ]
    )
    rest = 1 - cells["mito"].to_numpy()[:, None]
    main = np.maximum(1 - small.sum(axis=1, keepdims=True), 0.0)
    shares = np.hstack([rest * main * weights, 1 - rest, rest * small])
    shares /= shares.sum(axis=1, keepdims=True)
    draws = rng.multinomial(cells["depth"].to_numpy(), shares)
    return profiles.astype(np.int32), draws.astype(np.int64)


def _barcodes(n_cells: int, rng: np.random.Generator) -> list[str]:
    """Cell barcodes, unique in one file; files share a pool twice the size, as they share a 10x whitelist."""
    numbers = rng.permutation(2 * n_cells)[:n_cells].astype(np.uint64) * np.uint64(2654435761) % np.uint64(4**16)
    shifts = np.arange(30, -1, -2, dtype=np.uint64)
    letters = np.frombuffer(b"ACGT", dtype=np.uint8)[((numbers[:, None] >> shifts) & np.uint64(3)).astype(np.intp)]
    return [f"{bytes(row).decode()}-1" for row in letters]
