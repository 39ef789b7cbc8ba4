from __future__ import annotations

import gc
import os
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.loading.conftest import Directory, module_of
from tests.support.datasets import make_dataset

from scvae_data import ConfigError
from scvae_data.loading import workers
from scvae_data.loading.batch.sparse import SparseRows
from scvae_data.loading.loader import BatchLoader
from scvae_data.loading.plan.sampler import ListedEpoch, Segment


def loader_of(directory: Directory, **settings: Any) -> BatchLoader:
    return module_of(directory, **{"split": None, "num_workers": 2, **settings}).train_dataloader()


def plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    return (
        [plain(item) for item in value] if isinstance(value, SparseRows) else getattr(value, "tolist", lambda: value)()
    )


@pytest.mark.parametrize("x_format", ["dense", "csr", "compact"])
@pytest.mark.parametrize("batch_size", [7, 100], ids=["small", "of several windows"])
@pytest.mark.parametrize("n", [1, 3])
def test_batches_are_those_of_threads(hashed: Directory, x_format: str, batch_size: int, n: int) -> None:
    settings = {"x_format": x_format, "batch_size": batch_size, "counts": True, "label_keys": "cell_type"}
    loader, threads = loader_of(hashed, num_workers=n, **settings), loader_of(hashed, num_workers=0, **settings)
    for _ in range(2):
        for made, expected in zip(loader, threads, strict=True):
            assert plain(made) == plain(expected)
            assert made["counts"] is made["x"]
    loader.close()


@pytest.mark.parametrize("n", [0, 1, 2])
def test_batches_may_be_kept_and_changed(hashed: Directory, n: int) -> None:
    loader = loader_of(hashed, batch_size=10, num_workers=n)
    kept = []
    for _ in range(3):
        for number, batch in enumerate(loader):
            if number % 3 == 0:
                kept.append((batch["index"].clone(), batch["x"]))
            else:
                batch["x"][:] = -1
    loader.close()
    for rows, x in kept:
        np.testing.assert_array_equal(x.numpy(), hashed.counts[rows.numpy()])


def slots_free(loader: BatchLoader) -> list[int]:
    """Free slots of each worker; all of them when nothing is on its way."""
    assert loader._workers is not None
    return [int((taken == 0).sum()) for taken in loader._workers._ring._taken]


def test_an_epoch_left_early_leaves_no_slot_behind(hashed: Directory) -> None:
    loader = loader_of(hashed, batch_size=4)
    for _ in range(20):
        kept = [batch["index"] for batch in islice(loader, 5)]
    del kept
    assert sum(len(batch["index"]) for batch in loader) == 300
    gc.collect()
    assert loader._workers is not None
    assert slots_free(loader) == [place.n_slots for place in loader._workers._ring.places]
    loader.close()


def test_slots_without_room_are_slower_and_just_as_right(hashed: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "slot_bytes", lambda _: 100)
    for batch in (loader := loader_of(hashed)):
        np.testing.assert_array_equal(batch["x"].numpy(), hashed.counts[batch["index"].numpy()])
    loader.close()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux")
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_closing_frees_descriptors_and_memory(hashed: Directory, start: str) -> None:
    def held() -> list[str]:
        descriptors = [path for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
        links = [str(path.readlink()) for path in descriptors if path.is_symlink()]
        return [link for link in links if "scvae-data" in link]

    before = held()
    loader = loader_of(hashed, multiprocessing_context=start)
    kept = next(iter(loader))["x"]
    assert len(held()) > len(before)
    expected = kept.clone()
    loader.close()
    gc.collect()
    assert torch.equal(kept, expected)
    del kept
    gc.collect()
    assert held() == before


def test_what_a_worker_is_sent_does_not_grow_with_the_cells(tmp_path: Path) -> None:
    sizes = []
    for n_obs in (40, 400):
        path, _, _ = make_dataset(tmp_path / str(n_obs), n_obs=n_obs, chunk_size=n_obs // 4)
        module = module_of(path, batch_size=4)
        enclosed = workers.Enclosed(module.train_dataloader().spec.for_worker(2))
        sizes.append(len(enclosed._pickled) + enclosed._memory.n_bytes)
    assert sizes[1] < sizes[0] + 100


def pin(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.clone()


def test_pinned_batches_are_copies(hashed: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    loader = loader_of(hashed, x_format="compact", counts=True)
    object.__setattr__(loader.spec.form, "pin_memory", True)
    rows = []
    for batch in loader:
        assert batch["counts"] is batch["x"]
        np.testing.assert_array_equal(batch["x"].to_dense().numpy(), hashed.counts[batch["index"].numpy()])
        rows += batch["index"].tolist()
    assert sorted(rows) == list(range(300))
    loader.close()


class Forgetful:
    """Batches of one window that only the first process to ask gets."""

    n_rows, n_batches, batch_size, window, world_size = 30, 1, 30, 1, 1
    here = os.getpid()

    def __init__(self, cells: Any) -> None:
        pass

    def epoch(self, number: int) -> ListedEpoch:
        listed = [[Segment(0, np.arange(30))]] if os.getpid() == self.here else []
        return ListedEpoch([(0,)], listed)


def test_a_sampler_that_differs_in_workers_is_refused(hashed: Directory) -> None:
    loader = loader_of(hashed, sampler=Forgetful, num_workers=1, multiprocessing_context="fork")
    with pytest.raises(ConfigError, match="fewer batches in a worker process than here"):
        list(loader)
