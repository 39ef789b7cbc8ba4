from __future__ import annotations

import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from scvae_data.errors import ConfigError
from scvae_data.store.byte_shuffle import byte_counts, entropy, join_planes, join_two, narrow_into, shuffle
from scvae_data.store.codec import Codec, CodecError, codec_of

CODECS = ["gzip", "lz4", "none"]


def shuffle_twin(values: np.ndarray, length: int, itemsize: int) -> np.ndarray:
    wide = np.zeros(length, f"<u{itemsize}")
    wide[: values.size] = values
    return wide.view(np.uint8).reshape(length, itemsize).T.reshape(-1)


def join_twin(planes: np.ndarray, out: np.ndarray) -> int:
    out[:] = planes.T.copy().view(f"<u{len(planes)}").reshape(-1)
    return int(out.max(initial=0))


values_of = st.sampled_from(["u2", "u4", "u8"]).flatmap(
    lambda kind: hnp.arrays(kind, st.integers(0, 40), elements=st.integers(0, 2**16 - 1 if kind == "u2" else 2**31 - 1))
)


@settings(max_examples=60, deadline=None)
@given(values_of, st.integers(0, 5), st.sampled_from([4, 8]))
def test_planes_equal_their_numpy_twins(values, padding, itemsize):
    length = values.size + padding or 1
    shuffled = shuffle(values, length, itemsize)
    assert np.array_equal(shuffled.reshape(-1), shuffle_twin(values, length, itemsize))
    assert np.array_equal(shuffle(values, length, 2), shuffled[:2])
    for start in range(0, length, 7):
        for kind in [np.uint16, np.uint32] if values.max(initial=0) < 2**16 else [np.uint32]:
            out, twin = np.empty(length - start, kind), np.empty(length - start, kind)
            planes = shuffled[: out.itemsize, start:]
            assert join_planes(planes, out) == join_twin(planes, twin)
            assert np.array_equal(out, twin)
            if kind is np.uint16:
                assert join_two(*planes, out) == twin.max(initial=0)
                assert np.array_equal(out, twin)


def test_join_planes_of_eight_bytes():
    values = np.array([1, 2**40, 2**63 - 1], np.uint64)
    out = np.empty(3, np.uint64)
    assert join_planes(shuffle(values, 3, 8), out) == 2**63 - 1
    assert np.array_equal(out, values)


def test_narrow_equals_astype():
    values = np.array([5, 0, 65_535], np.uint32)
    out = np.empty(3, np.uint16)
    assert narrow_into(values, out) == 65_535
    assert np.array_equal(out, values.astype(np.uint16))
    assert narrow_into(values[:0], out[:0]) == 0


@pytest.mark.parametrize("name", CODECS)
@settings(max_examples=40, deadline=None)
@given(values=values_of, padding=st.integers(0, 5), itemsize=st.sampled_from([4, 8]))
def test_round_trip(name, values, padding, itemsize):
    length = values.size + padding or 1
    codec = codec_of(name)
    stored = bytes(codec.encode(values, length, itemsize))
    out = codec.decode(stored, filter_mask=0, length=length, itemsize=itemsize)
    assert out.dtype == f"<u{itemsize}"
    assert np.array_equal(out[: values.size], values)
    assert not out[values.size :].any()


def hdf5_reads(tmp_path, codec: Codec, values: np.ndarray, length: int) -> np.ndarray:
    """What HDF5's own filters make of a block."""
    import h5py
    import hdf5plugin  # noqa: F401 - registers blosc

    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk((length,))
    for filter_id, options in codec.filters(length, 4):
        properties.set_filter(filter_id, h5py.h5z.FLAG_OPTIONAL, options)
    with h5py.File(tmp_path / "block.h5", "w") as file:
        space = h5py.h5s.create_simple((length,))
        dataset = h5py.Dataset(h5py.h5d.create(file.id, b"x", h5py.h5t.STD_I32LE, space, properties))
        dataset.id.write_direct_chunk((0,), codec.encode(values, length, 4), 0)
        return dataset[: values.size]


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("n_values", [3_000, 70_000, 140_000])
@pytest.mark.parametrize("kind", ["random low bytes", "small counts", "column numbers"])
def test_large_blocks_are_what_hdf5_reads_too(tmp_path, name, n_values, kind):
    rng = np.random.default_rng(0)
    values = {
        "random low bytes": rng.integers(0, 60_000, n_values),
        "small counts": rng.poisson(1.5, n_values),
        "column numbers": np.arange(n_values) * 11 % 20_000,
    }[kind].astype(np.uint16)
    codec = codec_of(name)
    length = n_values + 5
    assert np.array_equal(hdf5_reads(tmp_path, codec, values, length), values)
    stored = bytes(codec.encode(values, length, 4))
    assert np.array_equal(codec.decode(stored, filter_mask=0, length=length, itemsize=4)[:n_values], values)


def test_random_low_bytes_are_stored_as_they_are():
    values = np.random.default_rng(0).integers(0, 20_000, 70_000).astype(np.uint16)
    low = (values & 255).astype(np.uint8).tobytes()
    assert low[:1000] in bytes(codec_of("gzip").encode(values, 70_000, 4))
    assert low[:1000] in bytes(codec_of("lz4").encode(values, 70_000, 4))


def test_levels_of_gzip_search_above_the_lowest_bytes():
    rows = [np.sort(np.random.default_rng(row).choice(20_000, 900, replace=False)) for row in range(30)]
    values = np.concatenate(rows).astype(np.uint16)
    stored = {level: bytes(codec_of("gzip", level).encode(values, values.size, 4)) for level in (1, 4, 5, 12)}
    assert stored[1] == stored[4]
    assert len(stored[12]) < len(stored[5]) < len(stored[4])
    planes = shuffle_twin(values, values.size, 4).tobytes()
    assert all(zlib.decompress(content) == planes for content in stored.values())


def test_entropy_of_bytes():
    def entropy_of(values: np.ndarray) -> float:
        return entropy(byte_counts(values.astype(np.uint8)))

    assert entropy_of(np.arange(256)) == 8
    assert entropy_of(np.array([3, 3, 9, 9])) == 1
    assert entropy_of(np.arange(64) // 9 * 9) == pytest.approx(-(7 * 9 * np.log2(9 / 64) - 6) / 64)
    assert entropy_of(np.zeros(0)) == 0


def test_filter_mask_names_the_filters_that_were_skipped():
    values = np.arange(10, dtype=np.uint16)
    raw = values.astype("<u4").tobytes()
    shuffled = shuffle(values, 10, 4).tobytes()
    deflated = bytes(codec_of("gzip").encode(values, 10, 4))
    for codec, stored, mask in [
        (codec_of("gzip"), deflated, 0),
        (codec_of("gzip"), shuffled, 2),
        (codec_of("gzip"), raw, 3),
        (codec_of("lz4"), raw, 1),
    ]:
        assert np.array_equal(codec.decode(stored, filter_mask=mask, length=10, itemsize=4), values)


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("length", [9, 11, 10**9], ids=["shorter", "longer", "absurd"])
def test_wrong_length_is_refused(name, length):
    stored = bytes(codec_of(name).encode(np.arange(10, dtype=np.uint16), 10, 4))
    if name == "gzip" and length == 10**9:
        length = 10**6  # libdeflate reserves what it is asked for
    with pytest.raises(CodecError):
        codec_of(name).decode(stored, filter_mask=0, length=length, itemsize=4)


@pytest.mark.parametrize("name", ["gzip", "lz4"])
@pytest.mark.parametrize("stored", [b"", b"x", b"x" * 40])
def test_garbage_is_refused(name, stored):
    with pytest.raises(CodecError):
        codec_of(name).decode(stored, filter_mask=0, length=10, itemsize=4)


@pytest.mark.parametrize("name", ["gzip", "lz4"])
def test_threads_decode_side_by_side(name):
    codec = codec_of(name)
    blocks = [np.full(5000, k, np.uint16) for k in range(40)]
    stored = [bytes(codec.encode(block, 5000, 4)) for block in blocks]

    def first(k: int) -> int:
        out = codec.decode(stored[k], filter_mask=0, length=5000, itemsize=4)
        return int(out.min()) if out.min() == out.max() else -1

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(first, range(40))) == list(range(40))


@pytest.mark.parametrize(
    ("name", "level", "message"),
    [
        pytest.param("zip", None, "compression='zip' is not one of gzip, lz4, none", id="unknown"),
        pytest.param("gzip", 0, "compression_level=0 does not fit compression=gzip: it takes 1 to 12", id="low"),
        pytest.param("gzip", 13, "compression_level=13", id="high"),
        pytest.param("lz4", 10, "compression_level=10 does not fit compression=lz4: it takes 1 to 9", id="lz4"),
        pytest.param("none", 1, "compression_level=1 does not fit compression=none: it takes null", id="none"),
        pytest.param("gzip", "4", "compression_level='4'", id="text"),
        pytest.param("gzip", True, "compression_level=True", id="bool"),
    ],
)
def test_impossible_codecs(name, level, message):
    with pytest.raises(ConfigError, match=message) as caught:
        codec_of(name, level)
    assert "\n" not in str(caught.value)


def test_default_levels():
    assert [codec_of(name).level for name in CODECS] == [4, 5, 0]
