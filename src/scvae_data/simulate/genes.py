"""The genes of a simulated organism: a number of genes in, ids, symbols and roles out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scvae_data.errors import ConfigError

__all__ = ["CELL_TYPES", "Genes", "make_genes"]

MIN_GENES, MAX_GENES = 100, 65_536  # some of every kind; what 16 bits of an alias table can address
# Each with the markers that carry their real names.
CELL_TYPES: dict[str, tuple[str, ...]] = {
    "CD4 T cell": ("CD3D", "CD3E", "IL7R"),
    "CD8 T cell": ("CD8A", "CD8B", "GZMK"),
    "B cell": ("CD79A", "MS4A1", "CD19"),
    "NK cell": ("NKG7", "GNLY", "KLRD1"),
    "monocyte": ("LYZ", "CD14", "S100A8"),
    "dendritic cell": ("FCER1A", "CST3", "CLEC10A"),
    "megakaryocyte": ("PPBP", "PF4", "ITGA2B"),
    "erythroid cell": ("GYPA", "ALAS2", "AHSP"),
}

MITO_NAMES = ("ND1", "ND2", "CO1", "CO2", "ATP8", "ATP6", "CO3", "ND3", "ND4L", "ND4", "ND5", "ND6", "CYB")
MITO = tuple(f"MT-{name}" for name in MITO_NAMES)
RIBO = (*(f"RPL{i}" for i in range(3, 43)), *(f"RPS{i}" for i in range(2, 30)), "RPLP0", "RPLP1", "RPLP2", "RPSA")
HB = ("HBA1", "HBA2", "HBB", "HBD", "HBE1", "HBG1", "HBG2", "HBM", "HBQ1", "HBZ")
# Ensembl numbers no human gene this high, so a simulated gene is never taken for a real one by its id.
FIRST_ID = 90_000_000_000
LETTERS = "ABCDEFGHIJKLNOPQSTUVWXYZ"  # without M and R: no invented symbol looks mitochondrial or ribosomal


@dataclass(frozen=True)
class Genes:
    """All genes of the organism; arrays of shape (n_genes,)."""

    ids: NDArray[np.object_]
    """Ensembl-like ids without version, ``str``, sorted."""
    symbols: NDArray[np.object_]
    """Unique symbols, ``str``."""
    role: NDArray[np.str_]
    """``"mito"``, ``"ribo"``, ``"hb"``, ``"marker"`` or ``""``."""
    marker_of: NDArray[np.int64]
    """Cell type that the gene is a named marker of, or −1."""


def make_genes(n_genes: int) -> Genes:
    """Name ``n_genes`` genes; the same number always gives the same genes.

    Raises
    ------
    ConfigError
        If there are too few for every kind of gene, or too many.
    """
    if not MIN_GENES <= n_genes <= MAX_GENES:
        raise ConfigError(f"n_genes must lie in {MIN_GENES:,}…{MAX_GENES:,}, got {n_genes:,}; change it")
    markers = {name: k for k, names in enumerate(CELL_TYPES.values()) for name in names}
    named = {"mito": MITO, "ribo": RIBO[: n_genes // 8], "hb": HB[: n_genes // 25], "marker": tuple(markers)}
    names = [name for group in named.values() for name in group]
    places = np.random.default_rng(n_genes).permutation(np.linspace(0, n_genes - 1, len(names)).astype(int))
    symbols = np.array([_symbol(i) for i in range(n_genes)], dtype=object)
    symbols[places] = names
    role = np.full(n_genes, "", dtype="U6")
    role[places] = np.repeat(list(named), [len(group) for group in named.values()])
    marker_of = np.array([markers.get(symbol, -1) for symbol in symbols], dtype=np.int64)
    ids = np.array([f"ENSG{FIRST_ID + 7 * i:011d}" for i in range(n_genes)], dtype=object)
    return Genes(ids, symbols, role, marker_of)


def _symbol(i: int) -> str:
    """Letters and a digit, unlike any name above: ``Q`` first, e.g. ``QABD3``."""
    number, digit = divmod(i, 9)
    letters = ""
    for _ in range(4):
        number, rest = divmod(number, len(LETTERS))
        letters = LETTERS[rest] + letters
    return f"Q{letters}{digit + 1}"
