from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import deflate
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scvae_data.store import native_decode as unpack_module
from scvae_data.store.block_table import ArrayBlocks
from scvae_data.store.codec import Codec, codec_of
from scvae_data.store.native_decode import unpack

LENGTH = 280  # lz4 keeps the planes of smaller blocks together
N = 2000


def store(path, codec: Codec, values: np.ndarray, itemsize: int = 4, length: int = LENGTH) -> ArrayBlocks:
    """Write values as the blocks of one array, with bytes between them that belong to nobody."""
    stored = [bytes(codec.encode(values[k : k + length], length, itemsize)) for k in range(0, values.size, length)]
    path.write_bytes(b"".join(b"between" + block for block in stored))
    sizes = np.array([len(block) for block in stored])
    offsets = np.cumsum(7 + sizes) - sizes
    crcs = np.array([deflate.crc32(block) for block in stored], np.uint32)
    return ArrayBlocks(values.size, length, itemsize, offsets, sizes, np.zeros(sizes.size, np.uint32), crcs)


def read(path, name, blocks, ranges, dtype):
    """What unpack says, and the values it filled in."""
    out = np.full(sum(stop - start for start, stop in ranges), 99, dtype)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return unpack(descriptor, name, blocks, np.array(ranges, np.int64), out), out
    finally:
        os.close(descriptor)


def values_of(n: int, kind: str) -> np.ndarray:
    """Values that say where they stand, in all bytes of their type; equal neighbours, since lz4 keeps random bytes."""
    return (np.arange(n) // 10).astype(kind) * np.array(np.iinfo(kind).max // n, kind)


@pytest.mark.parametrize("name", ["gzip", "lz4"])
@pytest.mark.parametrize(("kind", "itemsize"), [("u2", 4), ("u2", 8), ("u4", 4), ("u4", 8), ("u8", 8)])
def test_ranges_hold_what_was_stored(tmp_path_factory, name, kind, itemsize):
    values = values_of(N, kind)
    path = tmp_path_factory.mktemp("blocks") / "array"
    blocks = store(path, codec_of(name), values, itemsize)

    @settings(max_examples=30, deadline=None)
    @given(st.lists(st.integers(0, N), min_size=2, max_size=8).map(sorted))
    def check(borders):
        ranges = list(pairwise(borders))[::2]
        done, out = read(path, name, blocks, ranges, kind)
        expected = np.concatenate([values[start:stop] for start, stop in ranges])
        assert np.array_equal(out, expected)
        if expected.size:
            touched = sorted({k // LENGTH for start, stop in ranges for k in range(start, stop)})
            assert done == (expected.max(), blocks.size[touched].sum())
        else:
            assert done is None

    check()


def test_descending_ranges_are_read_in_their_order(tmp_path):
    values = values_of(N, "u2")
    blocks = store(tmp_path / "array", codec_of("gzip"), values)
    _, out = read(tmp_path / "array", "gzip", blocks, [(200, 250), (30, 90)], "u2")
    assert out.tolist() == [*values[200:250], *values[30:90]]


@pytest.mark.parametrize("name", ["gzip", "lz4"])
@pytest.mark.parametrize("kind", ["random", "small", "ascending"])
def test_large_blocks(tmp_path, name, kind):
    rng = np.random.default_rng(0)
    values = {
        "random": rng.integers(0, 60_000, 300_000),
        "small": rng.poisson(1.5, 300_000),
        "ascending": np.arange(300_000) * 11 % 20_000,
    }[kind].astype(np.uint16)
    blocks = store(tmp_path / "array", codec_of(name), values, length=131_072)
    done, out = read(tmp_path / "array", name, blocks, [(5, 300_000)], "u2")
    assert np.array_equal(out, values[5:])
    assert done.largest == values[5:].max()


def damage(path, blocks: ArrayBlocks, at: int, value: bytes, honest: bool) -> ArrayBlocks:
    """Change bytes of the second block; ``honest`` gives it the checksum of what it holds then."""
    content = bytearray(path.read_bytes())
    begin, size = int(blocks.offset[1]), int(blocks.size[1])
    content[begin + at : begin + at + len(value)] = value
    path.write_bytes(content)
    crc32 = blocks.crc32.copy()
    if honest:
        crc32[1] = deflate.crc32(bytes(content[begin : begin + size]))
    return ArrayBlocks(
        blocks.n_elements, blocks.length, blocks.itemsize, blocks.offset, blocks.size, blocks.filter_mask, crc32
    )


@pytest.mark.parametrize("name", ["gzip", "lz4"])
def test_a_block_of_another_checksum_is_left(tmp_path, name):
    values = values_of(N, "u2")
    blocks = store(tmp_path / "array", codec_of(name), values)
    changed = damage(tmp_path / "array", blocks, 3, b"?", honest=False)
    assert read(tmp_path / "array", name, changed, [(0, N)], "u2")[0] is None
    assert read(tmp_path / "array", name, changed, [(0, 50), (600, N)], "u2")[0] is not None


@pytest.mark.parametrize(
    ("name", "at", "value"),
    [
        pytest.param("gzip", 2, b"\x07", id="no deflate data"),
        pytest.param("lz4", 2, b"\x00", id="other flags"),
        pytest.param("lz4", 3, b"\x02", id="other bytes a value"),
        pytest.param("lz4", 4, b"\xff\xff\xff\x7f", id="more bytes"),
        pytest.param("lz4", 8, b"\x01\x00\x00\x00", id="other bytes a block"),
        pytest.param("lz4", 12, b"\x11\x00\x00\x00", id="other bytes in all"),
        pytest.param("lz4", 20, b"\xff\xff\xff\x7f", id="a plane past the end"),
        pytest.param("lz4", 20, b"\xff\xff\xff\xff", id="a plane of a negative size"),
        pytest.param("lz4", 20, b"\x02\x00\x00\x00", id="a plane cut short"),
    ],
)
def test_a_block_that_does_not_decode_is_left(tmp_path, name, at, value):
    blocks = store(tmp_path / "array", codec_of(name), values_of(N, "u2"))
    changed = damage(tmp_path / "array", blocks, at, value, honest=True)
    assert read(tmp_path / "array", name, changed, [(0, N)], "u2")[0] is None


@pytest.mark.parametrize("name", ["gzip", "lz4"])
@pytest.mark.parametrize("length", [LENGTH, 20_000])
def test_values_too_large_for_where_they_go_are_left(tmp_path, name, length):
    values = np.zeros(3 * length, np.uint32)
    values[length + 5] = 65_539  # 3 in its lowest two bytes
    blocks = store(tmp_path / "array", codec_of(name), values, length=length)
    assert read(tmp_path / "array", name, blocks, [(0, values.size)], "u2")[0] is None
    done, out = read(tmp_path / "array", name, blocks, [(0, values.size)], "u4")
    assert done.largest == 65_539 and np.array_equal(out, values)
    for sound in ([(0, length)], [(2 * length, 3 * length)]):
        assert read(tmp_path / "array", name, blocks, sound, "u2")[0] == (0, blocks.size[sound[0][0] // length])


@pytest.mark.parametrize("name", ["gzip", "lz4"])
def test_what_is_not_the_common_case_is_left(tmp_path, name):
    values = values_of(N, "u2")
    blocks = store(tmp_path / "array", codec_of(name), values)
    skipped = np.ones_like(blocks.filter_mask)
    other = ArrayBlocks(N, LENGTH, 4, blocks.offset, blocks.size, skipped, blocks.crc32)
    assert read(tmp_path / "array", name, other, [(0, N)], "u2")[0] is None
    beyond = ArrayBlocks(N, LENGTH, 4, blocks.offset + 10**6, blocks.size, blocks.filter_mask, blocks.crc32)
    assert read(tmp_path / "array", name, beyond, [(0, N)], "u2")[0] is None


def test_uncompressed_blocks_are_left(tmp_path):
    blocks = store(tmp_path / "array", codec_of("none"), values_of(N, "u2"))
    assert read(tmp_path / "array", codec_of("none").native, blocks, [(0, N)], "u2")[0] is None


def test_nothing_is_taken_without_the_libraries(tmp_path, monkeypatch):
    blocks = store(tmp_path / "array", codec_of("gzip"), values_of(N, "u2"))
    monkeypatch.setattr(unpack_module, "_libdeflate", lambda: None)
    assert read(tmp_path / "array", "gzip", blocks, [(0, N)], "u2")[0] is None


@pytest.mark.parametrize("name", ["gzip", "lz4"])
def test_threads_unpack_side_by_side(tmp_path, name):
    values = values_of(30_000, "u2")
    blocks = store(tmp_path / "array", codec_of(name), values, length=1000)

    def right(k: int) -> bool:
        _, out = read(tmp_path / "array", name, blocks, [(k * 700, k * 700 + 900)], "u2")
        return np.array_equal(out, values[k * 700 : k * 700 + 900])

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(right, range(40)))
