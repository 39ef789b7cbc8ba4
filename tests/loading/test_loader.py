from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.loading.conftest import Directory, flat, module_of, rows_of

from scvae_data import DamagedFileError
from scvae_data.loading.loader import BatchLoader


def loader_of(directory: Directory, **settings: Any) -> BatchLoader:
    return module_of(directory, **{"split": None, **settings}).train_dataloader()


@pytest.fixture
def no_threads_left() -> Iterator[None]:
    yield
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("scvae-")] == []


@pytest.mark.usefixtures("no_threads_left")
def test_batches_hold_the_rows_they_name(hashed: Directory) -> None:
    loader = loader_of(hashed, label_keys=["cell_type"], counts=True, normalized=True, max_chunks_in_memory=3)
    for batch in loader:
        rows = batch["index"].numpy()
        obs = hashed.obs.iloc[rows]
        np.testing.assert_array_equal(batch["counts"].numpy(), hashed.counts[rows])
        expected = np.log1p(hashed.counts[rows] / obs["size_factor"].to_numpy()[:, None])
        np.testing.assert_allclose(batch["x"].numpy(), expected, rtol=1e-6)
        np.testing.assert_array_equal(batch["library_size"].numpy(), hashed.counts[rows].sum(axis=1))
        np.testing.assert_array_equal(batch["size_factor"].numpy(), obs["size_factor"].to_numpy(np.float32))
        np.testing.assert_array_equal(batch["obs"]["SRX_accession"].numpy(), obs["SRX_accession"].cat.codes)
        codes = obs["cell_type"].cat.codes.to_numpy()
        np.testing.assert_array_equal(batch["obs"]["cell_type"].numpy(), np.where(codes < 0, 3, codes))
        types = {key: value.dtype for key, value in batch.items() if key != "obs"}
        assert types == {
            **dict.fromkeys(["x", "counts", "library_size", "size_factor"], torch.float32),
            **dict.fromkeys(["index", "gene_set"], torch.int64),
        }
        assert {codes.dtype for codes in batch["obs"].values()} == {torch.int64}


@pytest.mark.usefixtures("no_threads_left")
@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"num_threads": 1}, id="one thread"),
        pytest.param({"num_threads": 4}, id="four threads"),
        pytest.param({"chunk_cache_size": 2}, id="cache of the window"),
        pytest.param({"chunk_cache_size": 10}, id="cache all"),
        pytest.param({"cache_bytes": 1000}, id="few bytes"),
        pytest.param({"num_workers": 1}, id="one worker"),
        pytest.param({"num_workers": 2}, id="two workers"),
    ],
)
def test_order_does_not_depend_on_how_it_is_made(hashed: Directory, settings: dict[str, int]) -> None:
    reference, loader = loader_of(hashed, max_chunks_in_memory=2), loader_of(hashed, max_chunks_in_memory=2, **settings)
    for _ in range(3):
        expected, made = rows_of(reference), rows_of(loader)
        assert made == expected
        assert sorted(flat(made)) == list(range(300))
    loader.close()


def test_spawned_workers_give_the_same_batches(hashed: Directory) -> None:
    loader = loader_of(hashed, num_workers=2, multiprocessing_context="spawn")
    reference = loader_of(hashed)
    for made, expected in zip(loader, reference, strict=True):
        np.testing.assert_array_equal(made["x"].numpy(), expected["x"].numpy())
        assert made["index"].tolist() == expected["index"].tolist()
    counters = loader.counters()
    # Each of the ten chunks is read by one worker.
    assert (counters.cells, counters.hits + counters.misses) == (300, 10)
    loader.close()
    assert loader.counters().cells == 300


@pytest.mark.usefixtures("no_threads_left")
def test_every_epoch_has_a_new_order_without_help(hashed: Directory) -> None:
    loader = loader_of(hashed)
    epochs = [flat(rows_of(loader)) for _ in range(3)]
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert loader.state_dict()["epoch"] == 2


@pytest.mark.usefixtures("no_threads_left")
@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_epoch_left_early_is_over(hashed: Directory, num_workers: int) -> None:
    whole = loader_of(hashed)
    epochs = [rows_of(whole) for _ in range(3)]
    loader = loader_of(hashed, num_workers=num_workers)
    for epoch in range(3):
        iterator = iter(loader)
        assert [next(iterator)["index"].tolist() for _ in range(4)] == epochs[epoch][:4]
        iterator.close()
    loader.close()


@pytest.mark.usefixtures("no_threads_left")
@pytest.mark.parametrize(
    ("n_done", "saved_workers", "resumed_workers"),
    [*((n_done, 0, 0) for n_done in (0, 1, 7, 18, 19, 20)), (1, 2, 0), (19, 2, 0), (1, 0, 2), (19, 0, 2)],
)
def test_resume_gives_exactly_the_rest(
    hashed: Directory, n_done: int, saved_workers: int, resumed_workers: int
) -> None:
    whole = loader_of(hashed)
    expected = flat(rows_of(whole) for _ in range(3))
    first = loader_of(hashed, num_workers=saved_workers)
    done: list[list[int]] = []
    while len(done) < n_done:
        for batch in first:
            done.append(batch["index"].tolist())
            if len(done) == n_done:
                break
    state = first.state_dict()
    assert set(map(type, state.values())) == {int, list} and state["served"] == []
    second = loader_of(hashed, num_workers=resumed_workers)
    second.load_state_dict(state)
    assert second.state_dict() == state
    rest: list[list[int]] = []
    while len(done) + len(rest) < len(expected):
        rest += rows_of(second)
    assert done + rest == expected
    first.close()
    second.close()


def test_a_worker_that_aborts_at_its_end_does_not_fail_the_run(
    hashed: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = loader_of(hashed, num_workers=1)
    rows_of(loader)
    iterator = loader._workers._loaders[0]._iterator  # type: ignore[union-attr]
    end = iterator._shutdown_workers

    def end_and_raise() -> None:
        end()
        raise RuntimeError("DataLoader worker (pid 1) is killed by signal: Aborted.")

    monkeypatch.setattr(iterator, "_shutdown_workers", end_and_raise)
    loader.close()
    assert loader.counters().cells == 300
    assert not any(worker.is_alive() for worker in iterator._workers)


@pytest.mark.usefixtures("no_threads_left")
def test_leaving_in_the_middle_stops_the_threads(hashed: Directory) -> None:
    def fail_in_the_middle() -> None:
        for number, _ in enumerate(loader_of(hashed)):
            if number == 3:
                raise KeyError("user")

    with pytest.raises(KeyError, match="user"):
        fail_in_the_middle()
    loader = loader_of(hashed)
    for _ in loader:
        break
    del loader


@pytest.mark.usefixtures("no_threads_left")
def test_threads_are_gone_when_the_last_batch_arrives(hashed: Directory) -> None:
    loader = loader_of(hashed)
    iterator = iter(loader)
    for _ in range(len(loader)):
        next(iterator)
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("scvae-")] == []


@pytest.mark.usefixtures("no_threads_left")
@pytest.mark.parametrize("num_workers", [0, 1])
def test_damage_is_reported_with_its_own_message(hashed: Directory, tmp_path: Path, num_workers: int) -> None:
    shutil.copytree(hashed.path, tmp_path / "copy")
    victim = tmp_path / "copy" / "chunk_0005.h5"
    # A file of another size is found at setup; this one is cut while it is in use.
    module = module_of(tmp_path / "copy", split=None, num_workers=num_workers)
    victim.write_bytes(victim.read_bytes()[:-100])
    loader = module.train_dataloader()
    with pytest.raises(DamagedFileError, match=r"chunk_0005\.h5: has \d+ bytes, the index says \d+.*resume=true"):
        rows_of(loader)
    loader.close()


@pytest.mark.usefixtures("no_threads_left")
@pytest.mark.parametrize("chunk_cache_size", [1, 2, 5, 10])
def test_counters_over_three_epochs(hashed: Directory, chunk_cache_size: int) -> None:
    loader = loader_of(hashed, chunk_cache_size=chunk_cache_size)
    for _ in range(3):
        rows_of(loader)
    counters = loader.counters()
    assert counters.hits == counters.predicted_hits == 2 * chunk_cache_size
    assert counters.hits + counters.misses == 30
    assert counters.evictions == counters.misses - chunk_cache_size
    assert (counters.batches, counters.cells, counters.cached_blocks) == (57, 900, chunk_cache_size)
    assert counters.bytes_read > 0 and counters.cached_bytes > 0
    assert loader.wait_seconds > 0


def test_global_random_state_is_left_alone(hashed: Directory) -> None:
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002 - the global state is what this is about
    before = torch.get_rng_state(), np.random.get_state()[1]  # noqa: NPY002
    for num_workers in (0, 1):
        loader = loader_of(hashed, num_workers=num_workers)
        rows_of(loader)
        loader.close()
    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
