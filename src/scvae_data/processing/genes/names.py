"""Names of genes in; what they say of identity, species and class out."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from scvae_data.processing.settings.gene_classes import GENE_CLASSES
from scvae_data.readers.base import GeneTable

__all__ = ["ENSEMBL", "gene_class_flags", "infer_species", "unversioned"]

ENSEMBL = re.compile(r"^(ENS[A-Z]*G\d{11})(?:\.\d+)?(_PAR_Y)?$")
SPECIES_OF_PREFIX = {
    "ENSG": "human",
    "ENSMUSG": "mouse",
    "ENSRNOG": "rat",
    "ENSDARG": "zebrafish",
    "ENSMMUG": "macaque",
    "ENSSSCG": "pig",
    "ENSCJAG": "marmoset",
}
GENOME_PREFIX = {"hg19_": "human", "hg38_": "human", "GRCh38_": "human", "mm10_": "mouse", "mm9_": "mouse"}


def unversioned(gene_id: str) -> str:
    """Strip the version of an Ensembl id, keeping the Y copy of a pseudo-autosomal gene apart.

    Examples
    --------
    >>> unversioned("ENSG00000210082.2"), unversioned("ENSG00000182378.14_PAR_Y"), unversioned("TP53")
    ('ENSG00000210082', 'ENSG00000182378_PAR_Y', 'TP53')
    """
    match = ENSEMBL.match(gene_id)
    return match.group(1) + (match.group(2) or "") if match else gene_id


def infer_species(table: GeneTable) -> list[str]:
    """Return the species a gene table speaks of: none, one, or several.

    Ensembl prefixes count from 1 % of the genes (so a handful of spike-ins is
    no species); without ids, genome prefixes or the case of the mitochondrial
    symbols tell.
    """
    names = [str(name) for name in (table.ids if table.ids is not None else table.names)]
    votes: Counter[str] = Counter()
    for name in names:
        match = re.match(r"^(ENS[A-Z]*G)\d{11}", name)
        if match:
            votes[SPECIES_OF_PREFIX.get(match.group(1), match.group(1))] += 1
        else:
            for prefix, species in GENOME_PREFIX.items():
                if name.startswith(prefix):
                    votes[species] += 1
    found = sorted(species for species, n in votes.items() if n > 0.01 * len(names))
    if found or table.symbols is None:
        return found
    human = any(str(symbol).startswith("MT-") for symbol in table.symbols)
    mouse = any(str(symbol).startswith("mt-") for symbol in table.symbols)
    return ["human"] * human + ["mouse"] * mouse


def without_genome(symbol: str) -> str:
    """Strip the genome that references of several species put before a symbol, e.g. ``hg19_``."""
    return symbol.split("_", 1)[1] if symbol.startswith(tuple(GENOME_PREFIX)) else symbol


def gene_class_flags(symbols: NDArray[np.object_], keys: NDArray[np.object_]) -> NDArray[np.uint32]:
    """Return a bit per entry of `GENE_CLASSES` for each gene, uint32, shape (n_genes,).

    Parameters
    ----------
    symbols
        Symbols; a genome prefix such as ``hg19_`` is ignored.
    keys
        Gene ids without version, for genes that have no symbol.
    """
    flags = np.zeros(len(symbols), np.uint32)
    for position, (symbol, key) in enumerate(zip(map(without_genome, symbols), keys, strict=True)):
        for bit, gene_class in enumerate(GENE_CLASSES):
            flags[position] |= gene_class.has(symbol, key) << bit
    return flags
