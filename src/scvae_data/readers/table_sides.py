"""Names of the rows and columns of a table in; which of them are genes out."""

from __future__ import annotations

import re
from collections.abc import Sequence

from scvae_data.readers.gene_names import may_name_genes
from scvae_data.readers.opening import TableRows
from scvae_data.readers.table_layout import BARCODE, is_of_cells, tells_a_place

__all__ = ["are_cells", "are_genes", "name_a_gene", "rows_of"]

# Names that no cell has: ids of genomes' databases, spike-ins, and genes that nearly every table of counts has.
GENE = re.compile(
    r"(?<![A-Za-z0-9])(ENS[A-Z]*[GT]\d{11}|ERCC-\d{5}|FBgn\d{7}|WBGene\d{8}|AT[1-5MC]G\d{5}|Y[A-P][LR]\d{3}[WC]"
    r"|MT-(ND[1-6]|ND4L|CO[123]|CYB|ATP[68])|RP[LS]\d+[AXYL]?\d*|(NDUF|COX|ATP5|EEF1|EIF)[A-Z0-9]+|GAPDH|ACTB|MALAT1"
    r"|HSP[A-Z]\w+)(?![A-Za-z])",
    re.IGNORECASE,
)
FEWEST_GENES = 50
FEWEST_NAMED = 10
"""Names of genes among those of cells that are no accident."""


def rows_of(names: Sequence[str], columns: Sequence[str], texts: Sequence[str]) -> TableRows | None:
    """Tell what the rows of a table are; None if nothing tells, or what tells is at odds.

    >>> rows_of(["RPL13", "Cd4"], ["A1", "A2"], [""]), rows_of(["A1", "A2"], ["mt-Nd1", "Cd4"], ["well"])
    ('genes', 'cells')
    >>> rows_of(["a", "b"], ["c", "d"], [])  # nothing tells

    Parameters
    ----------
    names, columns
        Names of the rows, and of the columns of counts.
    texts
        Names of the other columns, the one of row names first.
    """
    votes: set[TableRows] = set()
    genes = (_share(GENE, names), _share(GENE, columns))
    barcodes = (_share(BARCODE, names), _share(BARCODE, columns))
    if max(genes) > 10 * min(genes):
        votes.add("genes" if genes[0] > genes[1] else "cells")
    first, *others = texts or [""]
    if any(map(tells_a_place, others)):
        votes.add("genes")
    # Descriptions of cells have their names too: what is called by none of genes' names must be many.
    if max(barcodes) > 0.5 > min(barcodes):
        told: TableRows = "cells" if barcodes[0] > barcodes[1] else "genes"
        votes |= {told} if votes or _n_genes(told, names, columns) >= FEWEST_GENES else set()
    if is_of_cells(first) or may_name_genes(first):
        told = "cells" if is_of_cells(first) else "genes"
        votes |= {told} if votes or _n_genes(told, names, columns) >= FEWEST_GENES else set()
    return votes.pop() if len(votes) == 1 else None


def are_cells(names: Sequence[str]) -> bool:
    """Whether names that should be those of genes are barcodes, most of them.

    >>> are_cells(["AAACCTGAGA-1", "AAACGGGTGC-1"]), are_cells(["RPL13", "TAGAP"])
    (True, False)
    """
    return _share(BARCODE, names) > 0.5


def name_a_gene(names: Sequence[str]) -> bool:
    """Whether any of some names is one that no cell has, as in nearly every table of genes."""
    return any(map(GENE.search, names))


def are_genes(names: Sequence[str]) -> bool:
    """Whether names that should be those of cells are of genes, by more of them than by accident.

    >>> are_genes(["ENSG00000141510", "ENSG00000111640"]), are_genes(["A1", "A2"])
    (True, False)
    """
    n = sum(GENE.search(name) is not None for name in names)
    return n >= FEWEST_NAMED or 2 * n > len(names) > 0


def _n_genes(rows: TableRows, names: Sequence[str], columns: Sequence[str]) -> int:
    return len(names if rows == "genes" else columns)


def _share(pattern: re.Pattern[str], names: Sequence[str]) -> float:
    return sum(pattern.search(name) is not None for name in names) / max(len(names), 1)
