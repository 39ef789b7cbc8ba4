"""Sketches of the cells of all experiments in; those that are nearly another one out, in time linear in their number.

A sketch is one permutation's MinHash (Li, Owen and Zhang 2012): of the hashes of an experiment's cells the least in
each of `N_BINS` parts of their range. The share of bins in which two sketches agree estimates which share of all
their cells they have in common. Candidates agree in a whole band of bins.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = ["EMPTY", "LEAST_SHARE", "N_BINS", "Alike", "Sketch", "alike_by_barcodes", "alike_by_counts", "hash_texts"]

N_BINS, BAND = 64, 4
EMPTY = np.uint64(2**64 - 1)
LEAST_SHARE = 0.5
# Whitelists are shared: the same cells have about the same counts too.
LEAST_CORRELATION, LEAST_COMMON = 0.8, 10


class Sketch(NamedTuple):
    """The least hash of each bin, uint64, (N_BINS,), and the counts of its cell, int64; `EMPTY` and 0 without cells."""

    hashes: NDArray[np.uint64]
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, hashes: NDArray[np.uint64], counts: NDArray[np.int64]) -> Sketch:
        """Sketch an experiment by a hash, and the counts, of each of its cells."""
        sketch = cls(np.full(N_BINS, EMPTY), np.zeros(N_BINS, np.int64))
        order = np.lexsort((counts, hashes))
        bins, first = np.unique(hashes[order] >> np.uint64(58), return_index=True)
        sketch.hashes[bins.astype(int)] = hashes[order][first]
        sketch.counts[bins.astype(int)] = counts[order][first]
        return sketch


class Alike(NamedTuple):
    """An experiment that is nearly an earlier one, by number, and the share of cells that they have in common."""

    other: int
    first: int
    share: float


def hash_texts(texts: NDArray[np.object_]) -> NDArray[np.uint64]:
    """Return a hash of each text, the same in every process."""
    return np.asarray(pd.util.hash_array(texts, categorize=False), np.uint64)


def alike_by_counts(sketches: list[Sketch]) -> Iterator[Alike]:
    """Find experiments with the same cells, by sketches of the cells' content."""
    for first, other in candidates(sketches):
        share = float(agreeing(sketches[first], sketches[other]).sum()) / n_bins(sketches[first], sketches[other])
        if share >= LEAST_SHARE:
            yield Alike(other, first, share)


def alike_by_barcodes(sketches: list[Sketch]) -> Iterator[Alike]:
    """Find experiments with the same barcodes and nearly the same counts in each: counted twice, or joined twice."""
    for first, other in candidates(sketches):
        common = agreeing(sketches[first], sketches[other])
        share = float(common.sum()) / n_bins(sketches[first], sketches[other])
        if share < LEAST_SHARE or common.sum() < LEAST_COMMON:
            continue
        depths = np.log1p([sketches[one].counts[common] for one in (first, other)])
        # Depths that are all alike, as those of downsampled cells are, tell nothing.
        if (depths.std(axis=1) > 0).all() and np.corrcoef(depths)[0, 1] >= LEAST_CORRELATION:
            yield Alike(other, first, share)


def candidates(sketches: list[Sketch]) -> list[tuple[int, int]]:
    """Return pairs (first, other) of sketches that agree in a band; of many that do, each with the first of them."""
    if not sketches:
        return []
    hashes = np.stack([sketch.hashes for sketch in sketches])
    found: set[tuple[int, int]] = set()
    for start in range(0, N_BINS, BAND):
        band = hashes[:, start : start + BAND]
        whole = np.flatnonzero((band != EMPTY).all(axis=1))
        as_one = np.ascontiguousarray(band[whole]).view(np.dtype((np.void, band.itemsize * BAND))).ravel()
        _, where, group = np.unique(as_one, return_index=True, return_inverse=True)
        first = whole[where[group]]
        again = first != whole
        found.update(zip(first[again].tolist(), whole[again].tolist(), strict=True))
    return sorted(found)


def agreeing(one: Sketch, other: Sketch) -> NDArray[np.bool_]:
    """Return in which bins two sketches have the same cell."""
    return np.asarray((one.hashes == other.hashes) & (one.hashes != EMPTY))


def n_bins(one: Sketch, other: Sketch) -> int:
    """Return in how many bins one of two sketches has a cell."""
    return int(((one.hashes != EMPTY) | (other.hashes != EMPTY)).sum())
