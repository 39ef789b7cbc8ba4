from __future__ import annotations

import heapq
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scvae_data.store.huffman import code_lengths, codes_of, is_complete

COUNTS = st.lists(st.integers(0, 1000), min_size=2, max_size=40).filter(lambda counts: sum(map(bool, counts)) > 1)


def least_bits(counts: list[int]) -> int:
    """Bits of all symbols together with the best of codes: each node of its tree costs the symbols below it a bit."""
    heap = [count for count in counts if count]
    heapq.heapify(heap)
    bits = 0
    while len(heap) > 1:
        joined = heapq.heappop(heap) + heapq.heappop(heap)
        bits += joined
        heapq.heappush(heap, joined)
    return bits


def texts_of(lengths: np.ndarray) -> list[str]:
    """Codes as they are read, bit by bit."""
    codes = codes_of(lengths)
    return [f"{code:0{n}b}"[::-1] for code, n in zip(codes.tolist(), lengths.tolist(), strict=True) if n]


@settings(max_examples=60, deadline=None)
@given(COUNTS)
def test_codes_are_as_short_as_can_be(counts: list[int]) -> None:
    lengths = code_lengths(np.array(counts), 15)
    assert ((lengths > 0) == (np.array(counts) > 0)).all()
    assert (lengths * counts).sum() == least_bits(counts)


@settings(max_examples=60, deadline=None)
@given(COUNTS, st.integers(6, 15))
def test_no_code_is_longer_than_it_may_be_nor_the_beginning_of_another(counts: list[int], longest: int) -> None:
    lengths = code_lengths(np.array(counts), longest)
    assert lengths.max() <= longest
    assert is_complete(lengths)
    texts = sorted(texts_of(lengths))
    assert not any(after.startswith(before) for before, after in pairwise(texts))


@pytest.mark.parametrize("longest", [15, 9, 5])
def test_counts_that_would_make_long_codes(longest: int) -> None:
    fibonacci = [1, 1]
    while len(fibonacci) < 25:
        fibonacci.append(fibonacci[-1] + fibonacci[-2])
    lengths = code_lengths(np.array(fibonacci), longest)
    assert longest - 3 < lengths.max() <= longest
    assert is_complete(lengths)
    assert (np.diff(lengths) <= 0).all()


def test_codes_of_the_standard() -> None:
    # The example of RFC 1951, 3.2.2: the symbols A to H.
    lengths = np.array([3, 3, 3, 3, 3, 2, 4, 4])
    assert texts_of(lengths) == ["010", "011", "100", "101", "110", "00", "1110", "1111"]
    assert not is_complete(lengths[:-1])
