"""Which columns of a gene table are ids and which are symbols."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from scvae_data.readers.base import GeneTable

__all__ = [
    "ENSEMBL_GENE",
    "ID_COLUMNS",
    "OTHER_ID",
    "SYMBOL_COLUMNS",
    "are_ids",
    "are_numbers",
    "genes_from_features",
    "genes_from_var",
    "is_cut",
    "looks_ensembl",
    "may_name_genes",
]

ENSEMBL_GENE = re.compile(r"ENS[A-Z]*G\d{11}(\.\d+)?(_PAR_Y)?")
"""Ensembl gene ids of any species, with or without version."""
OTHER_ID = re.compile(r"FBgn\d{7}|WBGene\d{8}|AT[1-5MC]G\d{5}|Y[A-P][LR]\d{3}[WC](?:-[A-Z])?", re.IGNORECASE)
"""Ids of FlyBase, WormBase, TAIR and the genome database of yeast."""
CUT_ID = re.compile(r"ENS[A-Z]*G\d{1,10}")
NUMBER = re.compile(r"\d+(\.0+)?")
ID_COLUMNS = (
    "gene_ids", "gene_id", "ensembl_id", "ensembl", "feature_id", "ids", "Accession", "ensembl_ids"
)  # fmt: skip
SYMBOL_COLUMNS = ("gene_symbols", "gene_symbol", "gene_names", "gene_name", "feature_name", "symbol")
OTHER_NAMES = {
    "symbols", "features", "feature", "featurenames", "genes", "gene", "geneid", "geneids", "genesymbol", "genesymbols",
    "genename", "genenames", "geneshortname", "name", "names", "hgncsymbol", "mgisymbol", "externalgenename",
    "ensembl", "ensemblid", "ensemblids", "ensemblidversion", "ensemblgene", "ensemblgeneid", "ensemblgeneids",
    "ensemblgeneidversion", "ensembleid", "ensemblegeneid", "genestableid", "genestableidversion", "ensg", "ensgid",
}  # fmt: skip
"""More names of columns of ids or symbols, in small letters alone: ``Gene stable ID`` of BioMart, ``gene_ids-0``."""

Strings = NDArray[np.object_]


def looks_ensembl(names: Sequence[str] | Strings) -> bool:
    """Whether more than half of ``names`` are Ensembl gene ids.

    >>> looks_ensembl(["ENSG00000141510.18", "ENSG00000012048", "ERCC-00002"])
    True
    """
    return most_match(ENSEMBL_GENE, (name for name in names if name.startswith("ENS")), len(names))


def are_ids(names: Sequence[str] | Strings) -> bool:
    """Whether more than half of ``names`` are ids of Ensembl or of another database of genes.

    >>> are_ids(["FBgn0000042", "WBGene00000063"]), are_ids(["Act5C", "act-1"])
    (True, False)
    """
    return looks_ensembl(names) or most_match(OTHER_ID, names, len(names))


def is_cut(name: str) -> bool:
    """Whether a name is what a field of fixed width leaves of an id of Ensembl, which has eleven digits.

    >>> is_cut("ENSG00000198"), is_cut("ENSG00000198888"), is_cut("ENSA")
    (True, False, False)
    """
    return name.startswith("ENS") and CUT_ID.fullmatch(name) is not None


def are_numbers(names: Sequence[str] | Strings) -> bool:
    """Whether more than half of ``names`` are whole numbers: row numbers, or Entrez ids.

    >>> are_numbers(["0", "1", "2.0"]), are_numbers(["TP53", "1"])
    (True, False)
    """
    if 2 * sum(map(str.isidentifier, names)) >= len(names):  # as nearly all names are, told quickly
        return False
    return most_match(NUMBER, map(str.strip, names), len(names))


def most_match(pattern: re.Pattern[str], likely: Iterable[str], n: int) -> bool:
    """Whether more than half of ``n`` names match a pattern: no more are looked at than it takes.

    Parameters
    ----------
    likely
        Those of the names that may match.
    """
    return next(islice(filter(pattern.fullmatch, likely), n // 2, None), None) is not None


def may_name_genes(column: str) -> bool:
    """Whether a column is called as one of ids or symbols is."""
    return column in (*ID_COLUMNS, *SYMBOL_COLUMNS) or re.sub(r"[^a-z]", "", column.lower()) in OTHER_NAMES


def tells_genes(values: Strings) -> bool:
    """Whether a column tells genes apart: most of it are names, most of these unlike, without blanks, no numbers."""
    named = [value for value in map(str.strip, values) if value]
    whole = [value for value in named if " " not in value]
    return 2 * len(whole) > len(values) and 2 * len(set(named)) > len(named) and not are_numbers(values)


def genes_from_var(index: Strings, columns: Mapping[str, Strings]) -> GeneTable:
    """Genes of an AnnData ``var`` from its index and those of its columns that hold strings.

    Ids are the index, or the first column of ids, if they are ids of a
    database of genes; symbols the first column of symbols, or else an index
    that holds no ids. Where the index holds neither but numbers, any other
    column that tells genes apart does.
    """
    ids = index if are_ids(index) else None
    has_ids, numbered = ids is not None, ids is None and are_numbers(index)
    others = [name for name in columns if name not in ID_COLUMNS and name not in SYMBOL_COLUMNS]
    others.sort(key=lambda name: not may_name_genes(name))
    for name in (*ID_COLUMNS, *others):
        if ids is None and name in columns and are_ids(columns[name]):
            ids = columns[name]
    candidates = [name for name in SYMBOL_COLUMNS if name in columns]
    candidates += others if numbered else [name for name in others if may_name_genes(name)] if has_ids else []
    found = (columns[name] for name in candidates if columns[name] is not ids)
    symbols = next((values for values in found if tells_genes(values) and not are_ids(values)), None)
    if symbols is None and not has_ids:
        symbols = index if not (numbered and ids is not None) else None
    return GeneTable(names=index, ids=ids, symbols=symbols)


def genes_from_features(ids: Strings, symbols: Strings | None) -> GeneTable:
    """Genes of a 10x feature list, whose first column is an id by convention but often only a name."""
    if looks_ensembl(ids):
        return GeneTable(names=ids, ids=ids, symbols=symbols)
    if symbols is None or np.array_equal(ids, symbols):
        return GeneTable(names=ids, ids=None, symbols=ids)
    if looks_ensembl(symbols):  # columns swapped by hand, as some deposited files have them
        return GeneTable(names=symbols, ids=symbols, symbols=ids)
    return GeneTable(names=ids, ids=ids, symbols=symbols)
