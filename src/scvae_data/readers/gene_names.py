"""Which columns of a gene table are ids and which are symbols."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from scvae_data.readers.base import GeneTable

__all__ = ["ENSEMBL_GENE", "ID_COLUMNS", "SYMBOL_COLUMNS", "genes_from_features", "genes_from_var", "looks_ensembl"]

ENSEMBL_GENE = re.compile(r"ENS[A-Z]*G\d{11}(\.\d+)?(_PAR_Y)?")
"""Ensembl gene ids of any species, with or without version."""
ID_COLUMNS = ("gene_ids", "gene_id", "ensembl_id", "ensembl", "feature_id", "ids")
SYMBOL_COLUMNS = ("gene_symbols", "gene_symbol", "gene_names", "gene_name", "feature_name", "symbol")

Strings = NDArray[np.object_]


def looks_ensembl(names: Sequence[str] | Strings) -> bool:
    """Whether more than half of ``names`` are Ensembl gene ids.

    >>> looks_ensembl(["ENSG00000141510.18", "ENSG00000012048", "ERCC-00002"])
    True
    """
    n_matches = sum(ENSEMBL_GENE.fullmatch(name) is not None for name in names)
    return 2 * n_matches > len(names)


def genes_from_var(index: Strings, columns: Mapping[str, Strings]) -> GeneTable:
    """Genes of an AnnData ``var`` from its index and those of its columns that hold strings.

    Ids are the index or the first of :data:`ID_COLUMNS` that looks like
    Ensembl. Symbols are the first of :data:`SYMBOL_COLUMNS`, or else an index
    that does not look like Ensembl.
    """
    index_is_ensembl = looks_ensembl(index)
    ids = index if index_is_ensembl else None
    for name in ID_COLUMNS:
        if ids is None and name in columns and looks_ensembl(columns[name]):
            ids = columns[name]
    symbols = next((columns[name] for name in SYMBOL_COLUMNS if name in columns and columns[name] is not ids), None)
    if symbols is None and not index_is_ensembl:
        symbols = index
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
