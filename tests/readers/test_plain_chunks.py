"""Ranges that are read past HDF5 are those that HDF5 reads, and whatever is not plain is left to it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from scvae_data.errors import InputError
from scvae_data.readers.hdf5 import reading
from scvae_data.readers.plain_chunks import PlainChunks, past_cache

VALUES = np.arange(1_003)


def stored(path: Path, values: np.ndarray, userblock: int = 0, **options: Any) -> h5py.Dataset:
    """A data set of a closed file that was opened again."""
    with h5py.File(path, "w", userblock_size=userblock) as file:
        dataset = file.create_dataset(
            "x", values.shape, values.dtype, maxshape=(None,), **{"chunks": (100,), **options}
        )
        if options.get("fillvalue") is None:
            dataset[:] = values
        else:
            dataset[:500] = values[:500]
    return h5py.File(path, "r")["x"]


@pytest.mark.parametrize("dtype", ["<i4", ">i4", "<f4", "<f8", "<u2", "<i8"])
def test_ranges_are_those_that_hdf5_reads(dtype: str, tmp_path: Path) -> None:
    dataset = stored(tmp_path / "a.h5", VALUES.astype(dtype))
    chunks = past_cache(dataset)
    assert isinstance(chunks, PlainChunks)
    for start, stop in [(0, 1_003), (0, 100), (99, 101), (250, 250), (37, 912), (1_000, 1_003)]:
        found, wanted = chunks[start:stop], dataset[start:stop]
        assert found.dtype == wanted.dtype
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "gzip"}, {"fletcher32": True}, {"userblock": 512}, {"fillvalue": 7},
        {"chunks": True, "shuffle": True}, {"chunks": (10,)},
    ],
    ids=["gzip", "checksum", "user block", "unwritten chunk", "shuffle", "small chunks"],
)  # fmt: skip
def test_others_are_left_to_hdf5(options: dict[str, Any], tmp_path: Path) -> None:
    dataset = stored(tmp_path / "a.h5", VALUES.astype("<i4"), **options)
    assert past_cache(dataset) is dataset


def test_whole_arrays_booleans_and_empty_ones_are_left_to_hdf5(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        nodes = [
            file.create_dataset("whole", data=VALUES),
            file.create_dataset("flags", data=VALUES > 3, chunks=(100,)),
            file.create_dataset("empty", (0,), "<i4", maxshape=(None,), chunks=(100,)),
            file.create_dataset("table", data=np.zeros((4, 5), "<i4"), chunks=(2, 5)),
            np.zeros(3),
        ]
        for node in nodes:
            assert past_cache(node) is node


def test_a_file_that_is_cut_short_meanwhile_is_refused(tmp_path: Path) -> None:
    dataset = stored(tmp_path / "a.h5", VALUES.astype("<i4"))
    chunks = past_cache(dataset)
    os.truncate(tmp_path / "a.h5", dataset.id.get_chunk_info(10).byte_offset + 8)
    with pytest.raises(InputError, match="cut short"), reading(tmp_path / "a.h5"):
        chunks[990:1_003]


def test_it_is_the_open_file_that_is_read(tmp_path: Path) -> None:
    dataset = stored(tmp_path / "a.h5", VALUES.astype("<i4"))
    stored(tmp_path / "b.h5", -VALUES.astype("<i4")).file.close()
    (tmp_path / "b.h5").replace(tmp_path / "a.h5")
    np.testing.assert_array_equal(past_cache(dataset)[0:1_003], VALUES)
