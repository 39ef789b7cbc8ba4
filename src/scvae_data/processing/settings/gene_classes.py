"""Classes of genes whose share of a cell's counts is measured: an entry each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

__all__ = ["GENE_CLASSES", "GeneClass"]


@dataclass(frozen=True)
class GeneClass:
    """Genes that belong together; a gene that the reference of genes knows is told by its symbol there.

    Parameters
    ----------
    name
        Of the column ``pct_counts_NAME`` of obs, and of a column of var.
    prefixes
        Beginnings of symbols, in upper case: case does not matter.
    symbols
        Whole symbols, as they are written.
    ids
        Ensembl ids without version, for genes that have no symbol.
    called
        In words, for messages.
    """

    name: str
    prefixes: tuple[str, ...] = ()
    symbols: frozenset[str] = frozenset()
    ids: frozenset[str] = frozenset()
    called: str = ""

    def has(self, symbols: Any, ids: Any) -> NDArray[np.bool_]:
        """Return which genes belong to the class, by arrow arrays of their symbols and ids."""
        upper = pc.utf8_upper(symbols)
        of_class = (pa.array(sorted(names), pa.string()) for names in (self.symbols, self.ids))
        found = pc.or_(*map(pc.is_in, (symbols, ids), of_class))
        for prefix in self.prefixes:
            found = pc.or_(found, pc.starts_with(upper, prefix))
        return np.asarray(found)


# The 13 genes of proteins and, as the prefix MT- finds them by symbol and scanpy's users count them, both of rRNA.
# The tRNAs, too short for the libraries, are left to symbols.
MITOCHONDRIAL_IDS = frozenset(
    [f"ENSG00000{n}" for n in (198888, 198763, 198804, 198712, 228253, 198899, 198938, 198840, 212907, 198886)]
    + [f"ENSG00000{n}" for n in (198786, 198695, 198727, 211459, 210082)]
    + [f"ENSMUSG000000{n}" for n in (64341, 64345, 64351, 64354, 64356, 64357, 64358, 64360, 65947, 64363)]
    + [f"ENSMUSG000000{n}" for n in (64367, 64368, 64370, 64337, 64339)]
)
# An explicit list: the common pattern ^HB[^(P)] also counts HBEGF and HBS1L.
HAEMOGLOBIN = frozenset(
    ["HBA1", "HBA2", "HBB", "HBD", "HBE1", "HBG1", "HBG2", "HBM", "HBQ1", "HBZ"]
    + ["Hba-a1", "Hba-a2", "Hba-x", "Hbq1a", "Hbq1b"]
    + [f"Hbb-{name}" for name in ("b1", "b2", "bs", "bt", "bh1", "bh2", "y")]
)

GENE_CLASSES = [
    GeneClass("mt", prefixes=("MT-",), ids=MITOCHONDRIAL_IDS, called="mitochondrial"),
    GeneClass("ribo", prefixes=("RPS", "RPL"), called="ribosomal"),
    GeneClass("hb", symbols=HAEMOGLOBIN, called="haemoglobin"),
]
"""In the order of their columns; 32 at most, a bit each."""
