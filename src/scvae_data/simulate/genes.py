"""The genes of a simulated organism: a number of genes in, ids, symbols and roles out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scvae_data.errors import ConfigError

__all__ = ["CELL_TYPES", "MAX_GENES", "MIN_GENES", "Universe", "make_universe"]

MIN_GENES, MAX_GENES = 100, 65_536
"""More than any annotation of one species has genes, and what the sampler can address."""
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
"""Cell types and the markers that carry their real names."""

MITO_NAMES = ("ND1", "ND2", "CO1", "CO2", "ATP8", "ATP6", "CO3", "ND3", "ND4L", "ND4", "ND5", "ND6", "CYB")
MITO = tuple(f"MT-{name}" for name in MITO_NAMES)
RIBO = (*(f"RPL{i}" for i in range(3, 43)), *(f"RPS{i}" for i in range(2, 30)), "RPLP0", "RPLP1", "RPLP2", "RPSA")
HB = ("HBA1", "HBA2", "HBB", "HBD", "HBE1", "HBG1", "HBG2", "HBM", "HBQ1", "HBZ")
FIRST_ID = 90_000_000_000
"""Ensembl numbers no human gene this high, so a simulated gene is never taken for a real one by its id."""
LETTERS = "ABCDEFGHIJKLNOPQSTUVWXYZ"
"""Without M and R, so that no invented symbol looks mitochondrial or ribosomal."""


@dataclass(frozen=True)
class Universe:
    """All genes of the organism; arrays of shape (n_genes,)."""

    ids: NDArray[np.object_]
    """Ensembl-like ids without version, ``str``, sorted."""
    symbols: NDArray[np.object_]
    """Unique symbols, ``str``."""
    mito: NDArray[np.bool_]
    ribo: NDArray[np.bool_]
    hb: NDArray[np.bool_]
    marker_of: NDArray[np.int64]
    """Cell type that the gene is a named marker of, or −1."""

    @property
    def n_genes(self) -> int:
        """Number of genes."""
        return len(self.ids)

    @property
    def ordinary(self) -> NDArray[np.bool_]:
        """Genes without a role."""
        return ~(self.mito | self.ribo | self.hb) & (self.marker_of < 0)


def make_universe(n_genes: int) -> Universe:
    """Name ``n_genes`` genes; the same number always gives the same genes.

    Raises
    ------
    ConfigError
        If there are too few for every kind of gene, or too many.
    """
    if not MIN_GENES <= n_genes <= MAX_GENES:
        raise ConfigError(f"n_genes must lie in {MIN_GENES:,}…{MAX_GENES:,}, got {n_genes:,}; change it")
    symbols = np.array([_symbol(i) for i in range(n_genes)], dtype=object)
    named = [name for markers in CELL_TYPES.values() for name in markers]
    groups = [MITO, RIBO[: n_genes // 8], HB[: n_genes // 25], named]
    n_named = sum(len(group) for group in groups)
    places = np.linspace(0, n_genes - 1, n_named).astype(int)
    places = np.random.default_rng(n_genes).permutation(places)
    borders = np.cumsum([0, *(len(group) for group in groups)])
    masks = []
    for group, start, stop in zip(groups, borders[:-1], borders[1:], strict=True):
        symbols[places[start:stop]] = list(group)
        mask = np.zeros(n_genes, dtype=bool)
        mask[places[start:stop]] = True
        masks.append(mask)
    marker_of = np.full(n_genes, -1, dtype=np.int64)
    types = [k for k, markers in enumerate(CELL_TYPES.values()) for _ in markers]
    marker_of[places[borders[3] : borders[4]]] = types
    ids = np.array([f"ENSG{FIRST_ID + 7 * i:011d}" for i in range(n_genes)], dtype=object)
    return Universe(ids, symbols, masks[0], masks[1], masks[2], marker_of)


def _symbol(i: int) -> str:
    """Letters and a digit, unlike any name above: ``Q`` first, e.g. ``QABD3``."""
    number, digit = divmod(i, 9)
    letters = ""
    for _ in range(4):
        number, rest = divmod(number, len(LETTERS))
        letters = LETTERS[rest] + letters
    return f"Q{letters}{digit + 1}"
