from __future__ import annotations

import gc

import numpy as np
import torch

from scvae_data.loading.fetch.pool import BufferPool


def test_buffers_are_used_again_only_when_nobody_holds_them() -> None:
    pool = BufferPool()
    first = torch.from_numpy(pool.take((4, 3000), np.float32))
    view = first[1:, :2].numpy()
    place = first.data_ptr()
    del first
    gc.collect()
    assert pool.take((4, 3000), np.float32).ctypes.data != place  # the view still sees it
    del view
    gc.collect()
    assert pool.take((3, 3000), np.float32).ctypes.data == place
    assert pool.take((9, 3000), np.float64).shape == (9, 3000)


def test_types_and_sizes() -> None:
    pool = BufferPool()
    for kind in (np.float32, np.uint16, np.int64):
        for shape in ((0,), (1,), (1000,), (7, 3), (100, 1001)):
            array = pool.take(shape, kind)
            array[...] = 1
            assert array.dtype == kind and array.shape == shape and array.flags.c_contiguous


def test_buffers_of_similar_size_are_interchangeable() -> None:
    pool = BufferPool()
    for size in np.random.default_rng(0).integers(95_000, 100_000, 200):
        pool.take((int(size),), np.float32)
    assert len(pool) <= 2


def test_idle_buffers_make_room_when_the_size_changes() -> None:
    pool = BufferPool(max_idle=2)
    held = [pool.take((10_000,), np.uint8) for _ in range(5)]
    held.clear()
    for _ in range(5):
        pool.take((90_000,), np.uint8)
    assert len(pool) <= 3


def test_what_a_consumer_collects_is_not_remembered_for_ever() -> None:
    pool = BufferPool(max_buffers=8)
    held = [pool.take((1,), np.float32) for _ in range(50)]
    assert len({array.ctypes.data for array in held}) == 50
    assert len(pool) == 8
