"""A buffer is what blosc reads in it, and its own encoder would have made of it where it makes planes too."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numcodecs import blosc

from scvae_data.store import blosc_buffer as blosc_buffer_module
from scvae_data.store.blosc_buffer import HEADER, blosc_buffer, can_encode, plane_of_zeros
from scvae_data.store.byte_shuffle import shuffle
from scvae_data.store.codec import codec_of


def buffer_of(values: np.ndarray, length: int, itemsize: int, level: int = 5) -> bytes:
    return blosc_buffer(shuffle(values, length, min(itemsize, values.dtype.itemsize)), itemsize, level)


def blosc_reads(buffer: bytes, itemsize: int) -> np.ndarray:
    return np.frombuffer(blosc.decompress(buffer), f"<u{itemsize}")


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([128, 129, 1000, 4093]), st.sampled_from(["u2", "u4", "u8"]), st.sampled_from([4, 8]),
    st.integers(0, 31), st.floats(0, 1), st.integers(1, 9), st.integers(0, 2**31),
)  # fmt: skip
def test_blosc_reads_what_was_stored(length, kind, itemsize, bits, filled, level, seed):
    n = int(filled * length)
    values = np.random.default_rng(seed).integers(0, 1 << min(bits, 16 if kind == "u2" else 31), n).astype(kind)
    buffer = buffer_of(values, length, itemsize, level)
    read = blosc_reads(buffer, itemsize)
    assert np.array_equal(read[:n], values) and not read[n:].any() and read.size == length
    assert len(buffer) <= HEADER.size + 4 + itemsize * (4 + length)


def test_values_beyond_int32():
    values = np.array([1, 2**40, 2**62] * 100, np.uint64)
    assert np.array_equal(blosc_reads(buffer_of(values, 300, 8), 8), values)


@pytest.mark.parametrize("level", [1, 5, 9])
def test_planes_without_runs_are_what_blosc_makes_of_them(level):
    values = np.random.default_rng(0).poisson(3, 20_000).astype("<u4") * 257
    expected = blosc.compress(values, b"lz4", level, blosc.SHUFFLE, values.nbytes)
    assert buffer_of(values, values.size, 4, level) == expected


def test_a_plane_of_zeros_is_stored_as_by_blosc():
    for length in (128, 1000, 131_072):
        theirs = blosc.compress(np.zeros(length, "<u4"), b"lz4", 5, blosc.SHUFFLE)
        ours = buffer_of(np.zeros(length, np.uint16), length, 4)
        assert ours == theirs
        assert ours.count(plane_of_zeros(length).tobytes()) == 4


def test_short_blocks_and_a_module_that_hides_lz4_are_left_to_blosc(monkeypatch):
    assert not can_encode(127)
    values = np.arange(127, dtype=np.uint16)
    assert np.array_equal(blosc_reads(codec_of("lz4").encode(values, 127, 4), 4), values)

    class Hidden:
        def __init__(self, path: str) -> None:
            assert path == blosc.__file__

    monkeypatch.setattr(ctypes, "CDLL", Hidden)
    blosc_buffer_module._lz4.cache_clear()
    plane_of_zeros.cache_clear()
    try:
        assert not can_encode(1000) and plane_of_zeros(1000).size == 0
        values = np.arange(1000, dtype=np.uint16)
        assert np.array_equal(blosc_reads(codec_of("lz4").encode(values, 1000, 4), 4), values)
    finally:
        blosc_buffer_module._lz4.cache_clear()
        plane_of_zeros.cache_clear()
