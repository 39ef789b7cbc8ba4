"""Which columns of a gene table are ids and which are symbols."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from scvae_data.readers.base import GeneTable

__all__ = [
    "ENSEMBL_GENE",
    "ID_COLUMNS",
    "SYMBOL_COLUMNS",
    "are_numbers",
    "genes_from_features",
    "genes_from_var",
    "looks_ensembl",
    "may_name_genes",
]

ENSEMBL_GENE = re.compile(r"ENS[A-Z]*G\d{11}(\.\d+)?(_PAR_Y)?")
"""Ensembl gene ids of any species, with or without version."""
NUMBER = re.compile(r"\d+(\.0+)?")
ID_COLUMNS = (
    "gene_ids", "gene_id", "ensembl_id", "ensembl", "feature_id", "ids", "Accession", "ensembl_ids"
)  # fmt: skip
SYMBOL_COLUMNS = ("gene_symbols", "gene_symbol", "gene_names", "gene_name", "feature_name", "symbol")
OTHER_NAMES = {
    "symbols", "features", "feature", "featurenames", "genes", "gene", "geneid", "genesymbol", "genename",
    "geneshortname", "name", "names", "hgncsymbol", "mgisymbol", "externalgenename", "ensemblgeneid", "ensemblids",
    "ensg", "ensgid",
}  # fmt: skip
"""More names of columns of ids or symbols, in small letters alone, for an index that has no symbols."""

Strings = NDArray[np.object_]


def looks_ensembl(names: Sequence[str] | Strings) -> bool:
    """Whether more than half of ``names`` are Ensembl gene ids.

    >>> looks_ensembl(["ENSG00000141510.18", "ENSG00000012048", "ERCC-00002"])
    True
    """
    return most_match(ENSEMBL_GENE, [name for name in names if name.startswith("ENS")], len(names))


def are_numbers(names: Sequence[str] | Strings) -> bool:
    """Whether more than half of ``names`` are whole numbers: row numbers, or Entrez ids.

    >>> are_numbers(["0", "1", "2.0"]), are_numbers(["TP53", "1"])
    (True, False)
    """
    return most_match(NUMBER, [name for name in map(str.strip, names) if name[:1].isdigit()], len(names))


def most_match(pattern: re.Pattern[str], likely: Sequence[str], n: int) -> bool:
    """Whether more than half of ``n`` names match a pattern, which is looked for in those alone that may do so."""
    return 2 * len(likely) > n and 2 * sum(map(bool, map(pattern.fullmatch, likely))) > n


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

    Ids are the index or the first of :data:`ID_COLUMNS` that looks like
    Ensembl. Symbols are the first of :data:`SYMBOL_COLUMNS`, or else an index
    that does not look like Ensembl. Where the index holds neither ids nor
    symbols but numbers, any other column that tells genes apart does.
    """
    index_is_ensembl = looks_ensembl(index)
    ids = index if index_is_ensembl else None
    numbered = not index_is_ensembl and are_numbers(index)
    others = [name for name in columns if name not in ID_COLUMNS and name not in SYMBOL_COLUMNS]
    others.sort(key=lambda name: not may_name_genes(name))
    for name in (*ID_COLUMNS, *(others if numbered else ())):
        if ids is None and name in columns and looks_ensembl(columns[name]):
            ids = columns[name]
    candidates = [name for name in SYMBOL_COLUMNS if name in columns]
    candidates += others if numbered else [name for name in others if may_name_genes(name)] if index_is_ensembl else []
    found = (columns[name] for name in candidates if columns[name] is not ids)
    symbols = next((values for values in found if tells_genes(values) and not looks_ensembl(values)), None)
    if symbols is None and not index_is_ensembl:
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
