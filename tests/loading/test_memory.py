from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
from tests.loading.conftest import Directory

from scvae_data import ChunkedDataModule, ConfigError
from scvae_data.loading.memory import KERNEL_BYTES, MemoryNeed, resident_bytes, worker_bytes
from scvae_data.loading.select.rows import to_row_groups
from scvae_data.loading.select.sizes import group_sizes
from scvae_data.store import open_index

MB = 1_000_000


def need(**changes: Any) -> MemoryNeed:
    """Ten row groups of 100 MB and ten of 10 MB for validation; batches of 5 MB."""
    sizes: dict[str, Any] = {"train": (100 * MB,) * 10, "val": (10 * MB,) * 10}
    return MemoryNeed(**{"resident": 500 * MB, "worker": 50 * MB, "batches": 5 * MB, **sizes, **changes})


FIXED = 500 * MB + KERNEL_BYTES + 2 * 5 * MB


@pytest.mark.parametrize(
    ("settings", "chunks", "window", "total"),
    [
        pytest.param({}, 1, 1, FIXED + 2 * 110 * MB, id="the window in use and the next"),
        pytest.param({}, 5, 1, FIXED + 5 * 110 * MB, id="a cache of five"),
        pytest.param({}, 5, 4, FIXED + 8 * 100 * MB + 5 * 10 * MB, id="a wide window"),
        pytest.param({}, 99, 1, FIXED + 10 * 110 * MB, id="no more than there are"),
        pytest.param({"cache_bytes": 300 * MB}, 9, 1, FIXED + 3 * 100 * MB + 9 * 10 * MB, id="bounded in bytes"),
        pytest.param(
            {"n_workers": 2}, 6, 1, FIXED + 6 * 110 * MB + 2 * 5 * MB + 4 * 50 * MB, id="divided over workers"
        ),
        pytest.param({"n_ranks": 2}, 5, 1, 2 * (FIXED + 5 * 110 * MB), id="once for each rank"),
        pytest.param({"val": ()}, 5, 1, FIXED - 5 * MB + 500 * MB, id="without validation"),
    ],
)
def test_what_loading_takes(settings: dict[str, Any], chunks: int, window: int, total: int) -> None:
    assert need(**settings).total(chunks, window) == total


@pytest.mark.parametrize("settings", [{}, {"n_workers": 3}, {"n_ranks": 2}, {"val": ()}], ids=str)
def test_room_is_the_most_that_fits(settings: dict[str, Any]) -> None:
    of = need(**settings)
    for memory_gb in np.arange(0.5, 6, 0.25):
        room = of.room(memory_gb)
        assert room == 0 or of.total(room) <= memory_gb * 1e9
        # A few more would still fit where they are those of a worker that keeps as many already.
        assert room >= 10 * max(1, of.n_workers) or of.total(room + 1) > memory_gb * 1e9


def test_a_budget_that_does_not_suffice_is_refused_with_what_would() -> None:
    with pytest.raises(
        ConfigError, match=r"memory_gb=1 does not suffice: .* set chunk_cache_size=3, or memory_gb=1.67"
    ):
        need().check(1, 10, 1)
    with pytest.raises(ConfigError, match=r"set memory_gb=0.79, or fewer workers or smaller chunks"):
        need().check(0.3, 1, 1)
    need().check(1.67, 10, 1)


def test_row_groups_are_weighed_by_the_index(hashed: Directory) -> None:
    index = open_index(hashed.path)
    sizes = group_sizes(index, to_row_groups(None, index.first_rows))
    assert sum(sizes) == 4 * np.count_nonzero(hashed.counts) + 24 * 300
    assert list(sizes) == sorted(sizes, reverse=True)


def test_forked_workers_share_what_spawned_ones_load_again() -> None:
    assert worker_bytes(10**9, "fork") < worker_bytes(10**9, "spawn") == 10**9
    assert resident_bytes() > 10 * MB


def module_of(directory: Directory, **settings: Any) -> ChunkedDataModule:
    return ChunkedDataModule(directory.path, batch_size=32, **settings)


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        pytest.param({}, 4, id="default"),
        pytest.param({"memory_gb": 100.0}, 10, id="all that a budget has room for"),
        pytest.param({"memory_gb": 100.0, "chunk_cache_size": 3}, 3, id="as given"),
    ],
)
def test_chunks_kept(hashed: Directory, caplog: pytest.LogCaptureFixture, settings: dict[str, Any], kept: int) -> None:
    module = module_of(hashed, **settings)
    with caplog.at_level(logging.INFO):
        module.setup()
    assert module.train_dataloader().spec.cache_groups == kept
    assert f"1 × {kept} decoded chunks" in caplog.text


def test_a_budget_below_what_the_process_has_is_refused_at_every_setup(hashed: Directory) -> None:
    module = module_of(hashed, memory_gb=0.01)
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"memory_gb=0.01 does not suffice"):
            module.setup()


@pytest.mark.parametrize("memory_gb", [0, -1, True])
def test_a_budget_is_a_positive_number(memory_gb: float) -> None:
    with pytest.raises(ConfigError, match=r"memory_gb=.* must be a positive number"):
        ChunkedDataModule("nowhere", memory_gb=memory_gb)
