"""The counts of all barcodes of an experiment in; where its curve of counts by rank turns down, and drops, out.

As ``DropletUtils::barcodeRanks`` does (Lun et al. 2019, Genome Biology 20:63): counts are drawn over ranks on
logarithmic axes. The *inflection* is where the curve is steepest, the *knee* where the plateau of cells ends
before it: the point of the curve furthest above the line from the plateau to the inflection (Satopää et al.
2011), in place of the greatest curvature of a spline.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["AMBIENT_COUNTS", "Knee", "find_knee"]

AMBIENT_COUNTS = 100
"""Barcodes of no more counts hold no cell, in experiments that have any of many more."""
EXCLUDED_RANKS = 50
"""The curve of the first few cells is steep by chance."""


class Knee(NamedTuple):
    """Counts of a barcode at the knee and at the inflection."""

    knee: int
    inflection: int


def find_knee(totals: NDArray[np.int64]) -> Knee | None:
    """Find knee and inflection of the counts of barcodes; None where too few have more than `AMBIENT_COUNTS`."""
    distinct, times = np.unique(totals[totals > AMBIENT_COUNTS], return_counts=True)
    if len(distinct) < 3:
        return None
    counts, times = distinct[::-1], times[::-1]
    x, y = np.log10(np.cumsum(times) - (times - 1) / 2), np.log10(counts)
    slopes = np.diff(y) / np.diff(x)
    skipped = min(len(slopes) - 1, int((x <= np.log10(EXCLUDED_RANKS)).sum()))
    right = skipped + int(np.argmin(slopes[skipped:]))
    left = skipped + int(np.argmax(slopes[skipped : right + 1]))
    line = y[left] + (y[right] - y[left]) / max(x[right] - x[left], 1e-9) * (x[left : right + 1] - x[left])
    return Knee(int(counts[left + int(np.argmax(y[left : right + 1] - line))]), int(counts[right]))
