"""Names of the rows and columns of a table in; which of them are genes out."""

from __future__ import annotations

import re
from collections.abc import Sequence

from scvae_data.readers.gene_names import may_name_genes
from scvae_data.readers.opening import TableRows
from scvae_data.readers.table_layout import PLACES, is_of_cells

__all__ = ["rows_of"]

# Names that no cell has: ids of genomes' databases, spike-ins, and genes that nearly every table of counts has.
GENE = re.compile(
    r"(?<![A-Za-z0-9])(ENS[A-Z]*[GT]\d{11}|ERCC-\d{5}|FBgn\d{7}|WBGene\d{8}|AT[1-5MC]G\d{5}|Y[A-P][LR]\d{3}[WC]"
    r"|MT-(ND[1-6]|ND4L|CO[123]|CYB|ATP[68])|RP[LS]\d+[AXYL]?\d*|(NDUF|COX|ATP5|EEF1|EIF)[A-Z0-9]+|GAPDH|ACTB|MALAT1"
    r"|HSP[A-Z]\w+)(?![A-Za-z])",
    re.IGNORECASE,
)
FEWEST_GENES = 50
BARCODE = re.compile(r"(?<![A-Za-z])[ACGTN]{8,}(?![A-Za-z])")


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
    if any(name.lower() in PLACES for name in others):
        votes.add("genes")
    # Descriptions of cells have their names too: what is called by none of genes' names must be many.
    if max(barcodes) > 0.5 > min(barcodes):
        told: TableRows = "cells" if barcodes[0] > barcodes[1] else "genes"
        votes |= {told} if votes or _n_genes(told, names, columns) >= FEWEST_GENES else set()
    if is_of_cells(first) or may_name_genes(first):
        told = "cells" if is_of_cells(first) else "genes"
        votes |= {told} if votes or _n_genes(told, names, columns) >= FEWEST_GENES else set()
    return votes.pop() if len(votes) == 1 else None


def _n_genes(rows: TableRows, names: Sequence[str], columns: Sequence[str]) -> int:
    return len(names if rows == "genes" else columns)


def _share(pattern: re.Pattern[str], names: Sequence[str]) -> float:
    return sum(pattern.search(name) is not None for name in names) / max(len(names), 1)
