"""Texts in; the names of genes in them, cleaned, and what these say of species and class, out."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from scvae_data.processing.settings.gene_classes import GENE_CLASSES
from scvae_data.readers.base import GeneTable

__all__ = [
    "ENSEMBL",
    "cleaned",
    "gene_class_flags",
    "genome_names",
    "infer_species",
    "split_pair",
    "unversioned",
    "without_genome",
]

ENSEMBL_ID = r"ENS[A-Z]*G\d{11}(?:\.\d+)?(?:_PAR_Y)?"
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
SPECIES_OF_GENOME = (
    (re.compile(r"grch\d|hg\d|human|homo|hsap|t2t|chm13", re.IGNORECASE), "human"),
    (re.compile(r"grcm\d|mm\d|mouse|mus|mmus", re.IGNORECASE), "mouse"),
    (re.compile(r"rnor|mratbn|rn\d|grcr\d|rat", re.IGNORECASE), "rat"),
    (re.compile(r"grcz\d|danrer|zebrafish", re.IGNORECASE), "zebrafish"),
    (re.compile(r"mmul|rhemac|macaque", re.IGNORECASE), "macaque"),
    (re.compile(r"sscrofa|susscr|pig", re.IGNORECASE), "pig"),
)
BYTES = re.compile(r"b(['\"])(.*)\1", re.DOTALL)
PAIR = re.compile(rf"({ENSEMBL_ID})[_|:;,/() -]+(.+?)\)?")
PAIR_REVERSED = re.compile(rf"(.+?)[_|:;,/() -]+({ENSEMBL_ID})\)?")
GENOME = re.compile(r"([A-Za-z][A-Za-z0-9.]*)(_+|-+)(?=.*[A-Za-z])")
LEAST_OF_A_GENOME = 0.05


def unversioned(gene_id: str) -> str:
    """Strip the version of an Ensembl id, keeping the Y copy of a pseudo-autosomal gene apart.

    Examples
    --------
    >>> unversioned("ENSG00000210082.2"), unversioned("ENSG00000182378.14_PAR_Y"), unversioned("TP53")
    ('ENSG00000210082', 'ENSG00000182378_PAR_Y', 'TP53')
    """
    match = ENSEMBL.match(gene_id)
    return match.group(1) + (match.group(2) or "") if match else gene_id


def cleaned(name: str) -> str:
    """Return a name without blanks around it, and without the marks of a text that was bytes.

    >>> cleaned(" MT-ND1"), cleaned("b'MT-ND1'")
    ('MT-ND1', 'MT-ND1')
    """
    text = name.strip().strip("\ufeff").strip()
    match = BYTES.fullmatch(text)
    return match.group(2).strip() if match else text


def split_pair(name: str) -> tuple[str, str]:
    """Return the id and the symbol of a name that may be both, an id or a symbol; empty what it is not.

    >>> split_pair("ENSG00000198888_MT-ND1"), split_pair("ENSG00000198888.2"), split_pair("TP53")
    (('ENSG00000198888', 'MT-ND1'), ('ENSG00000198888', ''), ('', 'TP53'))
    """
    if ENSEMBL.match(name):
        return unversioned(name), ""
    if pair := PAIR.fullmatch(name):
        return unversioned(pair.group(1)), pair.group(2)
    if pair := PAIR_REVERSED.fullmatch(name):
        return unversioned(pair.group(2)), pair.group(1)
    return "", name


def genome_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return the genomes that references of several species put before names, with the mark between.

    A word before ``_`` or ``-`` is that of a genome if such words stand before
    most names and hold a digit, or name a species.

    >>> genome_names(["GRCm39_Xkr4", "GRCm39_mt-Nd1", "GRCh38_TP53"]), genome_names(["HLA-A", "HLA-B", "MT-ND1"])
    (('GRCh38_', 'GRCm39_'), ())
    """
    words = Counter(match.group() for match in map(GENOME.match, names) if match)
    found = {
        word: n
        for word, n in words.items()
        if n > 1
        and n >= LEAST_OF_A_GENOME * len(names)
        and not re.match(ENSEMBL_ID, word)
        and (any(map(str.isdigit, word)) or species_of_genome(word))
    }
    return tuple(sorted(found)) if 2 * sum(found.values()) > len(names) else ()


def species_of_genome(word: str) -> str:
    """Return the species of a genome's name, empty if it is unknown."""
    return next((species for pattern, species in SPECIES_OF_GENOME if pattern.match(word)), "")


def without_genome(name: str, genomes: Iterable[str]) -> str:
    """Return a name without the genome before it."""
    return next((name.removeprefix(word) for word in genomes if name.startswith(word)), name)


def infer_species(table: GeneTable) -> list[str]:
    """Return the species a gene table speaks of: none, one, or several.

    Ensembl prefixes count from 1 % of the genes (so a handful of spike-ins is
    no species); without ids, genomes before the names or the case of the
    mitochondrial symbols tell.
    """
    names = [cleaned(name) for name in (table.ids if table.ids is not None else table.names)]
    genomes = genome_names(names)
    votes: Counter[str] = Counter()
    for name in names:
        gene_id, _ = split_pair(without_genome(name, genomes))
        if match := re.match(r"ENS[A-Z]*G(?=\d{11})", gene_id):
            votes[SPECIES_OF_PREFIX.get(match.group(), match.group())] += 1
        elif word := next((word for word in genomes if name.startswith(word)), ""):
            # One genome of no known name says nothing; beside another one it is a species of its own.
            votes[species_of_genome(word) or (word.rstrip("_-") if len(genomes) > 1 else "")] += 1
    found = sorted(species for species, n in votes.items() if species and n > 0.01 * len(names))
    if found or table.symbols is None:
        return found
    symbols = [without_genome(cleaned(symbol), genomes) for symbol in table.symbols]
    human = any(symbol.startswith(("MT-", "MT.")) for symbol in symbols)
    mouse = any(symbol.startswith(("mt-", "mt.")) for symbol in symbols)
    return ["human"] * human + ["mouse"] * mouse


def gene_class_flags(symbols: Sequence[str] | NDArray[np.object_], ids: Iterable[str]) -> NDArray[np.uint32]:
    """Return a bit per entry of `GENE_CLASSES` for each gene, uint32, shape (n_genes,).

    Parameters
    ----------
    symbols
        Symbols; R writes a dot for a dash.
    ids
        Gene ids without version, for genes that have no symbol.
    """
    flags = np.zeros(len(symbols), np.uint32)
    for position, (symbol, gene_id) in enumerate(zip(symbols, ids, strict=True)):
        spelled = symbol.replace(".", "-")
        for bit, gene_class in enumerate(GENE_CLASSES):
            flags[position] |= gene_class.has(spelled, gene_id) << bit
    return flags
