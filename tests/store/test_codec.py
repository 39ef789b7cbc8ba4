from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from scvae_data.errors import ConfigError
from scvae_data.store.codec import Codec, CodecError
from scvae_data.store.planes import join_planes, narrow, shuffle

CODECS = ["gzip", "lz4", "none"]


def shuffle_twin(values: np.ndarray, length: int, itemsize: int) -> np.ndarray:
    wide = np.zeros(length, f"<u{itemsize}")
    wide[: values.size] = values
    return wide.view(np.uint8).reshape(length, itemsize).T.reshape(-1)


def join_twin(shuffled: np.ndarray, length: int, start: int, out: np.ndarray) -> int:
    wide = shuffled.reshape(-1, length).T.copy().view(f"<u{shuffled.size // length}").reshape(-1)
    out[:] = wide[start : start + out.size]
    return int(out.max(initial=0))


values_of = st.sampled_from(["u2", "u4", "u8"]).flatmap(
    lambda kind: hnp.arrays(kind, st.integers(0, 40), elements=st.integers(0, 2**16 - 1 if kind == "u2" else 2**31 - 1))
)


@settings(max_examples=60, deadline=None)
@given(values_of, st.integers(0, 5), st.sampled_from([4, 8]))
def test_planes_equal_their_numpy_twins(values, padding, itemsize):
    length = values.size + padding or 1
    shuffled = shuffle(values, length, itemsize)
    assert np.array_equal(shuffled, shuffle_twin(values, length, itemsize))
    for start in range(0, length, 7):
        for kind in [np.uint16, np.uint32] if values.max(initial=0) < 2**16 else [np.uint32]:
            out, twin = np.empty(length - start, kind), np.empty(length - start, kind)
            assert join_planes(shuffled, length, start, out) == join_twin(shuffled, length, start, twin)
            assert np.array_equal(out, twin)


def test_join_planes_of_eight_bytes():
    values = np.array([1, 2**40, 2**63 - 1], np.uint64)
    out = np.empty(3, np.uint64)
    assert join_planes(shuffle(values, 3, 8), 3, 0, out) == 2**63 - 1
    assert np.array_equal(out, values)


def test_narrow_equals_astype():
    values = np.array([5, 0, 65_535], np.uint32)
    out = np.empty(3, np.uint16)
    assert narrow(values, out) == 65_535
    assert np.array_equal(out, values.astype(np.uint16))
    assert narrow(values[:0], out[:0]) == 0


@pytest.mark.parametrize("name", CODECS)
@settings(max_examples=40, deadline=None)
@given(values=values_of, padding=st.integers(0, 5), itemsize=st.sampled_from([4, 8]))
def test_round_trip(name, values, padding, itemsize):
    length = values.size + padding or 1
    codec = Codec(name)
    stored = bytes(codec.encode(values, length, itemsize))
    plain = codec.decode(stored, filter_mask=0, length=length, itemsize=itemsize)
    out = np.full(length, 7, np.uint32)
    assert plain.copy_into(0, out) == values.max(initial=0)
    assert np.array_equal(out[: values.size], values)
    assert not out[values.size :].any()


def test_filter_mask_names_the_filters_that_were_skipped():
    values = np.arange(10, dtype=np.uint16)
    raw = values.astype("<u4").tobytes()
    shuffled = shuffle(values, 10, 4).tobytes()
    deflated = bytes(Codec("gzip").encode(values, 10, 4))
    for codec, stored, mask in [
        (Codec("gzip"), deflated, 0),
        (Codec("gzip"), shuffled, 2),
        (Codec("gzip"), raw, 3),
        (Codec("lz4"), raw, 1),
    ]:
        out = np.empty(10, np.uint16)
        codec.decode(stored, filter_mask=mask, length=10, itemsize=4).copy_into(0, out)
        assert np.array_equal(out, values)


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("length", [9, 11, 10**9], ids=["shorter", "longer", "absurd"])
def test_wrong_length_is_refused(name, length):
    stored = bytes(Codec(name).encode(np.arange(10, dtype=np.uint16), 10, 4))
    if name == "gzip" and length == 10**9:
        length = 10**6  # libdeflate reserves what it is asked for
    with pytest.raises(CodecError):
        Codec(name).decode(stored, filter_mask=0, length=length, itemsize=4)


@pytest.mark.parametrize("name", ["gzip", "lz4"])
@pytest.mark.parametrize("stored", [b"", b"x", b"x" * 40])
def test_garbage_is_refused(name, stored):
    with pytest.raises(CodecError):
        Codec(name).decode(stored, filter_mask=0, length=10, itemsize=4)


@pytest.mark.parametrize("name", ["gzip", "lz4"])
def test_threads_decode_side_by_side(name):
    codec = Codec(name)
    blocks = [np.full(5000, k, np.uint16) for k in range(40)]
    stored = [bytes(codec.encode(block, 5000, 4)) for block in blocks]

    def first(k: int) -> int:
        out = np.empty(5000, np.uint16)
        codec.decode(stored[k], filter_mask=0, length=5000, itemsize=4).copy_into(0, out)
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
        Codec(name, level)
    assert "\n" not in str(caught.value)


def test_default_levels():
    assert [Codec(name).level for name in CODECS] == [1, 5, 0]
