"""What a block holds is what LZ4 reads in it, as its own decoder and by the rules for the end of a block."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numcodecs.lz4 import decompress

from scvae_data.store.lz4_runs import lz4_runs

RUNS = st.lists(st.tuples(st.integers(0, 255), st.sampled_from([*range(1, 40), 270, 274, 275, 530, 785])), max_size=9)


def values_of(runs: list[tuple[int, int]]) -> np.ndarray:
    return np.frombuffer(b"".join(bytes([value]) * n for value, n in runs), np.uint8)


def lz4_reads(block: np.ndarray, size: int) -> bytes:
    return decompress(np.int32(size).tobytes() + block.tobytes())


def matches_of(block: bytes) -> list[tuple[int, int]]:
    """Where each match begins and ends among the bytes."""
    at = place = 0
    found = []

    def length(short: int) -> int:
        nonlocal at
        if short < 15:
            return short
        while True:
            at += 1
            short += block[at - 1]
            if block[at - 1] < 255:
                return short

    while True:
        token = block[at]
        at += 1
        n_literals = length(token >> 4)
        at, place = at + n_literals, place + n_literals
        if at == len(block):
            return [*found, (place, place)]
        assert block[at : at + 2] == b"\1\0"
        at += 2
        found.append((place, place + 4 + length(token & 15)))
        place = found[-1][1]


@settings(max_examples=150, deadline=None)
@given(RUNS.map(lambda runs: [*runs, (7, 12 * (len(runs) + 1))]).flatmap(st.permutations))
def test_few_runs_are_read_again(runs):
    values = values_of(runs)
    block = lz4_runs(values)
    assert lz4_reads(block, values.size) == values.tobytes()
    *matches, (end, _) = matches_of(block.tobytes())
    assert end == values.size
    assert all(stop <= values.size - 5 and begin <= values.size - 12 for begin, stop in matches)


@pytest.mark.parametrize("size", [12, 13, 16, 17, 18, 23, 24, 25, 278, 279, 533, 131_072])
def test_one_run(size):
    values = np.full(size, 3, np.uint8)
    block = lz4_runs(values)
    assert lz4_reads(block, size) == values.tobytes()
    assert (len(matches_of(block.tobytes())) == 2) == (size > 12)


def test_more_and_shorter_runs_are_left():
    assert lz4_runs(np.arange(1200).astype(np.uint8) // 11).size == 0
    assert lz4_runs(np.repeat(np.arange(100), 12).astype(np.uint8)).size > 0
