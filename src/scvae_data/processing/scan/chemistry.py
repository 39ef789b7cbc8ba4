"""Names of cells in; the chemistry that they speak of, and the sequences in them, out."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["MOST_LOOKED_AT", "TENX", "chemistry_of", "sequences"]

ALONE = r"(?<![A-Za-z]){}(?![A-Za-z])"
TENX = "10x (16 nt)"
# How kits call cells; sequences of other lengths, plate wells and plain numbers say nothing.
PATTERNS = {
    "10x Visium HD": re.compile(r"s_\d{3}um_\d{5}_\d{5}"),
    "10x Flex (16 + 8 nt)": re.compile(ALONE.format(r"[ACGT]{24}-\d+")),
    TENX: re.compile(ALONE.format(r"[ACGTN]{16}")),
    "10x 3' v1 (14 nt)": re.compile(ALONE.format(r"[ACGTN]{14}")),
    "Drop-seq or Seq-Well (12 nt)": re.compile(ALONE.format(r"[ACGTN]{12}")),
    "BD Rhapsody (3 × 9 nt)": re.compile(ALONE.format(r"[ACGTN]{9}([-_.]?[ACGTN]{9}){2}")),
    "inDrop (8 to 12 + 8 nt)": re.compile(ALONE.format(r"[ACGTN]{8,12}-[ACGTN]{8}")),
    "Parse (three wells)": re.compile(r"(?<!\d)\d\d_\d\d_\d\d(?!\d)(__s\d+)?"),
}
SEQUENCE = re.compile(r"(?<![A-Za-z])([ACGTN]{12,})(?![A-Za-z])")
MOST_LOOKED_AT = 1000
"""Names of so many cells are enough."""
MOST_CELLS = 0.9


def chemistry_of(names: Sequence[str]) -> str | None:
    """Return what names of cells of an experiment tell of its chemistry; None where they tell nothing.

    >>> chemistry_of(["AAACCTGAGAAACCAT-1", "sample2_AAACCTGAGAAACCTA-1"]), chemistry_of(["cell1", "cell2"])
    ('10x (16 nt)', None)
    """
    for chemistry, pattern in PATTERNS.items():
        if names and sum(bool(pattern.search(name)) for name in names) >= MOST_CELLS * len(names):
            return chemistry
    return None


def sequences(barcodes: Sequence[str]) -> NDArray[np.object_]:
    """Return the first sequence of 12 letters or more in each name, ``""`` where there is none."""
    found = map(SEQUENCE.search, barcodes)
    return np.array([match.group(1) if match else "" for match in found], object)
