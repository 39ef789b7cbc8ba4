"""A block is read as zlib reads it, or left alone."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from scvae_data.store.byte_shuffle import byte_counts
from scvae_data.store.deflate_blocks import literals_block, runs_block
from scvae_data.store.inflate_literals import MARGIN, NOT_TAKEN, read_literals

SIZE = 1500
RNG = np.random.default_rng(0)
SMALL = RNG.geometric(0.5, SIZE).astype(np.uint8)
RARE = np.where(RNG.random(SIZE) < 0.2, RNG.integers(0, 256, SIZE), SMALL).astype(np.uint8)
REST = runs_block(np.arange(200, dtype=np.uint8) // 3, 300).tobytes()


def read(stream: bytes, size: int = SIZE) -> tuple[int, np.ndarray]:
    """The stream's bytes lie between others that belong to nobody."""
    out = np.full(size + 1, 99, np.uint8)
    end = read_literals(np.frombuffer(stream + b"\xaa" * MARGIN, np.uint8), len(stream), out[:size])
    assert out[size] == 99
    return end, out[:size]


def literals_of(values: np.ndarray) -> bytes:
    return literals_block(values, byte_counts(values)).tobytes()


@pytest.mark.parametrize("values", [SMALL, RARE, RARE[::-1].copy()], ids=["small", "rare", "backwards"])
def test_literals_come_back(values: np.ndarray) -> None:
    block = literals_of(values)
    end, out = read(block + REST)
    assert end == len(block)
    assert np.array_equal(out, values)


@pytest.mark.parametrize("size", [SIZE - 1, SIZE + 1, 0])
def test_of_another_size_nothing_is_taken(size: int) -> None:
    assert read(literals_of(RARE) + REST, size)[0] == NOT_TAKEN


@pytest.mark.parametrize("n", [0, 100, 400, 600, -1])
def test_what_ends_early_is_not_taken(n: int) -> None:
    assert read(literals_of(RARE)[:n])[0] == NOT_TAKEN


@pytest.mark.parametrize(
    "stream",
    [
        pytest.param(zlib.compress(RARE, 6, -15), id="matches"),
        pytest.param(zlib.compress(RARE, 0, -15), id="stored"),
        pytest.param(zlib.compressobj(6, 8, -15, 9, zlib.Z_FIXED).compress(RARE) + bytes(900), id="fixed codes"),
        pytest.param(runs_block(RARE, 0).tobytes(), id="runs"),
        pytest.param(bytes(2000), id="zeros"),
    ],
)
def test_other_blocks_are_left_alone(stream: bytes) -> None:
    assert read(stream)[0] == NOT_TAKEN


def test_what_is_taken_of_damaged_streams_is_what_zlib_reads() -> None:
    stream = literals_of(RARE) + REST
    taken = 0
    for bit in [*range(8 * 250), *range(8 * 250, 8 * len(stream), 37)]:
        damaged = bytearray(stream)
        damaged[bit >> 3] ^= 1 << (bit & 7)
        end, out = read(bytes(damaged))
        if end != NOT_TAKEN:
            taken += 1
            assert zlib.decompressobj(-15).decompress(damaged[:end]) == out.tobytes()
    assert taken > 10
