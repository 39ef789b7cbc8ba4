"""TODO scvae_data.processing.genes.names."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
from numpy.typing import NDArray

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
# Mitochondrial genes, for files that carry ids without symbols: the 13 of proteins and, as the prefix MT- finds them
# by symbol and scanpy's users count them, both of rRNA. The tRNAs, too short for the libraries, are left to symbols.
MITOCHONDRIAL_IDS = frozenset(
    [f"ENSG00000{n}" for n in (198888, 198763, 198804, 198712, 228253, 198899, 198938, 198840, 212907, 198886)]
    + [f"ENSG00000{n}" for n in (198786, 198695, 198727, 211459, 210082)]
    + [f"ENSMUSG000000{n}" for n in (64341, 64345, 64351, 64354, 64356, 64357, 64358, 64360, 65947, 64363)]
    + [f"ENSMUSG000000{n}" for n in (64367, 64368, 64370, 64337, 64339)]
)


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
