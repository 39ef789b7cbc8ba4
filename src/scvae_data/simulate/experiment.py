"""One simulated experiment: its genes, cells and profiles, planned before any count is drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scvae_data.simulate.genes import CELL_TYPES, Genes
from scvae_data.simulate.organism import N_BLENDED, N_STATES, Organism

__all__ = ["Experiment", "plan_experiment"]

CONTROL = "non-targeting"
CONTROL_FRACTION = 0.3  # of cells
N_DONORS = 2  # per file
SD_DONOR = 1.0  # standard deviation of a donor's effect on ln expression, per gene
SD_BATCH = 0.25  # the same of a file's effect
SD_LOG_COUNTS = 0.45  # standard deviation of ln UMIs between cells; 0.35–0.66
DOUBLET_FRACTION = 0.04  # of cells, of two cell types; 10x states 0.8 % per 1,000 cells
LOW_QUALITY_FRACTION = 0.05  # of cells: damaged, with few UMIs, many of them mitochondrial
LOW_QUALITY_COUNTS = 400.0  # median UMIs of a damaged cell; first percentiles were 220–1,600
MITO_FRACTION, LOW_QUALITY_MITO_FRACTION = 0.06, 0.4  # mean share of UMIs in mitochondrial genes; 0.02–0.14
# Of the beta distributions of these shares; larger is narrower (95th percentiles 0.03–0.29).
MITO_CONCENTRATION, LOW_QUALITY_MITO_CONCENTRATION = 60.0, 8.0
AMBIENT_FRACTION = 0.02  # of a cell's UMIs: from the soup, the average of all cells
DONOR_FRACTION = 0.05  # of a cell's UMIs: from its donor's own profile
PERTURBATION_FRACTION = 0.03  # of a perturbed cell's UMIs: from the programme that its perturbation raises
LABELS = ["cell_type", "perturbation", "donor", "is_doublet", "is_low_quality"]


@dataclass(frozen=True)
class Experiment:
    """Cells of one file and the profiles they draw from."""

    obs: pd.DataFrame
    """Labels, indexed by barcode."""
    var: pd.DataFrame
    """Genes in file order, named in one of the ways that real files name them."""
    profiles_pg: NDArray[np.float64]
    """Relative expression of the file's genes, positive."""
    profiles_nk: NDArray[np.int32]
    """Rows of ``profiles_pg`` that each cell draws from."""
    draws_nk: NDArray[np.int64]
    """UMIs drawn from each of them."""
    knocked_down_n: NDArray[np.int64]
    """Gene of the file that loses most of its UMIs, or −1."""
    seeds_n: NDArray[np.uint64]
    """Of each cell's own stream of random numbers."""


def plan_experiment(organism: Organism, number: int, n_cells: int, median_counts: float) -> Experiment:
    """Decide what file ``number`` measures and what its cells are: types, quality, donors, perturbations, depth.

    Parameters
    ----------
    organism
        Where the cells are from; the file depends on its seed and on ``number``.
    number
        Which file, from 0.
    n_cells
        Cells in the file.
    median_counts
        UMIs of a typical cell.
    """
    genes = _measured_genes(organism, number)
    rng = np.random.default_rng([organism.seed, number, 1])
    cells = _draw_cells(organism, number, n_cells, median_counts, rng)
    profiles = _draw_profiles(organism, rng)[:, genes]
    profiles_nk, draws_nk = _draw_components(cells, rng)
    place = np.empty(len(organism.shared_g), dtype=np.int64)
    place[genes] = np.arange(len(genes))
    knocked_down = np.append(place[organism.targets_p], -1)[cells["target"]]
    obs = cells[LABELS].set_index(pd.Index(_barcodes(n_cells, rng), dtype=object))
    seeds = rng.integers(0, 2**64, size=n_cells, dtype=np.uint64)
    return Experiment(obs, _var(organism.genes, genes, number), profiles, profiles_nk, draws_nk, knocked_down, seeds)


def _measured_genes(organism: Organism, number: int) -> NDArray[np.int64]:
    """Genes of one file: those that all share, half of the others; every second file lists them out of order."""
    rng = np.random.default_rng([organism.seed, number, 3])
    genes = np.flatnonzero(organism.shared_g | (rng.random(len(organism.shared_g)) < 0.5))
    return rng.permutation(genes) if number % 2 else genes


def _var(genes: Genes, measured: NDArray[np.int64], number: int) -> pd.DataFrame:
    """Gene table in one of the three ways that real files name genes."""
    ids, symbols = genes.ids[measured], genes.symbols[measured]
    if number % 4 == 1:
        versioned = [f"{name}.{1 + i % 17}" for name, i in zip(ids, measured, strict=True)]
        var = pd.DataFrame({"gene_name": symbols}, index=pd.Index(versioned, dtype=object))
    elif number % 4 == 2:
        var = pd.DataFrame({"gene_ids": ids}, index=pd.Index(symbols, dtype=object))
    else:
        var = pd.DataFrame({"gene_symbols": symbols}, index=pd.Index(ids, dtype=object))
    var["feature_types"] = pd.Categorical(["Gene Expression"] * len(var))
    return var


def _draw_cells(
    organism: Organism, number: int, n_cells: int, median_counts: float, rng: np.random.Generator
) -> pd.DataFrame:
    """Labels and depth of each cell, with the codes behind the labels; the target of a control is −1."""
    names = np.array(list(CELL_TYPES), dtype=object)
    shares = rng.dirichlet(np.full(len(names), 4.0))
    kind = rng.choice(len(names), n_cells, p=shares)
    other = rng.choice(len(names), n_cells, p=shares)
    doublet = rng.random(n_cells) < DOUBLET_FRACTION
    damaged = ~doublet & (rng.random(n_cells) < LOW_QUALITY_FRACTION)
    target = rng.integers(0, len(organism.targets_p), n_cells)
    target[rng.random(n_cells) < CONTROL_FRACTION] = -1
    donor = rng.integers(0, N_DONORS, n_cells)
    log_counts = rng.normal(np.log(median_counts), SD_LOG_COUNTS, (2, n_cells))
    counts = np.exp(log_counts) * organism.counts_factor_k[np.stack([kind, other])]
    low = np.exp(rng.normal(np.log(LOW_QUALITY_COUNTS), 0.4, n_cells))
    depth = np.where(damaged, low, counts[0] + np.where(doublet, counts[1], 0.0))
    share = np.where(damaged, LOW_QUALITY_MITO_FRACTION, MITO_FRACTION)
    concentration = np.where(damaged, LOW_QUALITY_MITO_CONCENTRATION, MITO_CONCENTRATION)
    perturbations = np.append(organism.genes.symbols[organism.targets_p], CONTROL)
    return pd.DataFrame(
        {
            "cell_type": pd.Categorical(names[kind]),
            "perturbation": pd.Categorical(perturbations[target]),
            "donor": pd.Categorical([f"donor_{number * N_DONORS + d + 1}" for d in donor]),
            "is_doublet": doublet,
            "is_low_quality": damaged,
            "kind": kind,
            "other": np.where(doublet, other, kind),
            "target": target,
            "donor_code": donor,
            "depth": np.maximum(depth.astype(np.int64), 1),
            "mito": rng.beta(share * concentration, (1 - share) * concentration),
        }
    )


def _draw_profiles(organism: Organism, rng: np.random.Generator) -> NDArray[np.float64]:
    """All profiles of one file: types × states, mitochondrial, ambient, donors, programmes; shape (p, n_genes)."""
    n_genes = len(organism.mito_g)
    blends = (organism.types_kg[:, None, :] * organism.states_sg[None, :, :]).reshape(-1, n_genes)
    mean = organism.types_kg.mean(axis=0)
    ambient = mean + 0.05 * organism.mito_g / organism.mito_g.sum()
    donors = mean * np.exp(rng.normal(0.0, SD_DONOR, (N_DONORS, n_genes)))
    profiles = np.vstack([blends, organism.mito_g, ambient, donors, organism.programmes_pg])
    return np.asarray(profiles * np.exp(rng.normal(0.0, SD_BATCH, n_genes)) + 1e-15)


def _draw_components(cells: pd.DataFrame, rng: np.random.Generator) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Profiles of each cell and how many of its UMIs come from each, shapes (n_cells, 7)."""
    n_cells = len(cells)
    n_blends = len(CELL_TYPES) * N_STATES
    states = rng.integers(0, N_STATES, (n_cells, N_BLENDED))
    kind, other, target = (cells[name].to_numpy() for name in ("kind", "other", "target"))
    kinds = np.column_stack([kind, other, np.where(rng.random(n_cells) < 0.5, kind, other)])
    profiles = np.column_stack(
        [
            kinds * N_STATES + states,
            np.full(n_cells, n_blends),
            np.full(n_cells, n_blends + 1),
            n_blends + 2 + cells["donor_code"],
            n_blends + 2 + N_DONORS + np.maximum(target, 0),
        ]
    )
    weights = rng.dirichlet(np.ones(N_BLENDED), n_cells)
    small = np.column_stack(
        [
            np.full(n_cells, AMBIENT_FRACTION),
            np.full(n_cells, DONOR_FRACTION),
            np.where(target >= 0, PERTURBATION_FRACTION, 0.0),
        ]
    )
    rest = 1 - cells["mito"].to_numpy()[:, None]
    main = 1 - small.sum(axis=1, keepdims=True)
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
