"""What the blocks hold is what zlib reads in them."""

from __future__ import annotations

import zlib

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from scvae_data.store.byte_shuffle import byte_counts
from scvae_data.store.deflate_blocks import literals_block, runs_block

BYTES = st.one_of(
    st.binary(max_size=60),
    st.lists(st.tuples(st.integers(0, 255), st.integers(1, 600)), max_size=6).map(
        lambda runs: b"".join(bytes([value]) * n for value, n in runs)
    ),
)


def literals_of(content: bytes) -> bytes:
    values = np.frombuffer(content, np.uint8)
    return literals_block(values, byte_counts(values)).tobytes()


def runs_of(content: bytes, n_zeros: int = 0) -> bytes:
    return runs_block(np.frombuffer(content, np.uint8), n_zeros).tobytes()


def inflated(stream: bytes) -> bytes:
    """All that a stream holds, if it ends where its last block does."""
    reader = zlib.decompressobj(-15)
    content = reader.decompress(stream)
    assert reader.eof
    assert not reader.unused_data
    return content


@settings(max_examples=80, deadline=None)
@given(BYTES.filter(bool), BYTES, st.integers(0, 2000))
def test_blocks_follow_each_other(lowest: bytes, above: bytes, n_zeros: int) -> None:
    stream = literals_of(lowest) + runs_of(above + b"\1", n_zeros)
    assert inflated(stream) == lowest + above + b"\1" + bytes(n_zeros)


def test_runs_of_every_length() -> None:
    runs = b"".join(bytes([length % 2]) * length for length in range(1, 2 * 258 + 5))
    assert inflated(runs_of(runs)) == runs


def test_zeros_alone() -> None:
    for n_zeros in [1, 2, 3, 4, 258, 259, 260, 261, 262, 262_144]:
        stream = runs_of(b"", n_zeros)
        assert inflated(stream) == bytes(n_zeros)
    assert len(stream) < 320


def test_rare_bytes_have_codes_that_can_be_looked_up_at_once() -> None:
    # By their counts the rarest would take 16 bits.
    lowest = b"".join(bytes([value]) * max(1, 2**16 >> value) for value in range(80))
    assert inflated(literals_of(lowest) + runs_of(b"", 5)) == lowest + bytes(5)


def test_small_counts_take_little_more_than_their_entropy() -> None:
    counts = np.random.default_rng(0).geometric(0.6, 20_000).astype(np.uint8)
    share = np.bincount(counts) / counts.size
    entropy = -(share[share > 0] * np.log2(share[share > 0])).sum()
    assert len(literals_of(counts.tobytes())) < 1.1 * entropy * counts.size / 8
