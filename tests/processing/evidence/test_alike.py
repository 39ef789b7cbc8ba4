"""Experiments that have most cells in common are found among many that have not, each with the first of its kind."""

from __future__ import annotations

import numpy as np
import pytest

from scvae_data.processing.evidence import alike
from scvae_data.processing.evidence.alike import Sketch, alike_by_barcodes, alike_by_counts, hash_texts


def hashes(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.integers(0, 2**64, n, dtype=np.uint64)


def sketch(values: np.ndarray) -> Sketch:
    return Sketch.of(values, np.zeros(len(values), np.int64))


@pytest.mark.parametrize(("share", "found"), [(1.0, True), (0.9, True), (0.75, True), (0.2, False), (0.0, False)])
def test_shares_of_common_cells(share: float, found: bool) -> None:
    rng = np.random.default_rng(0)
    own, other = hashes(rng, 3_000), hashes(rng, 3_000)
    n = int(3_000 * 2 * share / (1 + share))  # of a union of 6,000 - n
    other[:n] = own[:n]
    pairs = list(alike_by_counts([sketch(hashes(rng, 500)), sketch(own), sketch(other)]))
    assert [(one.other, one.first) for one in pairs] == ([(2, 1)] if found else [])
    if found:
        assert pairs[0].share == pytest.approx(share, abs=0.2)


def test_the_order_of_cells_does_not_matter() -> None:
    rng = np.random.default_rng(1)
    values, counts = hashes(rng, 1_000), rng.integers(1, 9, 1_000)
    order = rng.permutation(1_000)
    for one, other in zip(Sketch.of(values, counts), Sketch.of(values[order], counts[order]), strict=True):
        assert (one == other).all()


def test_many_copies_are_compared_with_the_first_alone() -> None:
    values = hashes(np.random.default_rng(2), 1_000)
    assert alike.candidates([sketch(values)] * 300) == [(0, number) for number in range(1, 300)]


def test_a_shared_whitelist_makes_few_candidates() -> None:
    rng = np.random.default_rng(3)
    whitelist = hashes(rng, 100_000)
    sketches = [sketch(rng.choice(whitelist, 5_000, replace=False)) for _ in range(300)]
    assert len(alike.candidates(sketches)) < 30
    assert list(alike_by_counts(sketches)) == []


def test_the_same_barcodes_are_the_same_cells_if_their_counts_agree() -> None:
    rng = np.random.default_rng(4)
    values, depth = hashes(rng, 2_000), np.exp(rng.normal(8, 0.5, 2_000))
    first, again = (Sketch.of(values, rng.poisson(depth * factor)) for factor in (1, 0.8))
    other = Sketch.of(values, rng.poisson(rng.permutation(depth)))
    constant = Sketch.of(values, np.full(2_000, 500))
    assert [(one.other, one.first) for one in alike_by_barcodes([first, other, again, constant])] == [(2, 0)]


def test_few_or_no_cells_are_like_nothing() -> None:
    empty, few = sketch(np.empty(0, np.uint64)), sketch(np.arange(3, dtype=np.uint64))
    assert list(alike_by_counts([empty, empty, few, few])) == []
    assert list(alike_by_counts([])) == []


def test_hashes_of_texts_do_not_depend_on_the_process() -> None:
    assert int(hash_texts(np.array(["AAACCTGAGAAACCAT"], object))[0]) == 1336155974412769899
