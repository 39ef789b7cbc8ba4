from __future__ import annotations

import errno
import gc
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scvae_data.errors import ScvaeDataError
from scvae_data.loading.batch.sparse import SparseRows
from scvae_data.loading.ring import LENT_SLOTS, Parcel, Ring, Slots
from scvae_data.loading.shared import Enclosed, SharedMemory


def ring_of_one(n_slots: int = 4, slot_bytes: int = 4096) -> tuple[Ring, Slots]:
    ring = Ring(2, n_slots, slot_bytes)
    return ring, Slots(ring.places[1])


def send(slots: Slots, value: int, n: int = 100) -> Parcel:
    """An array made in a slot, as a message that has been through a pipe."""
    slot = slots.claim()
    made = slot.take((n,), np.int32)
    made[:] = value
    parcel = slot.enclose({"x": made, "row": torch.tensor([value])})
    slots.sent(parcel.slot)
    return pickle.loads(pickle.dumps(parcel))


def free_slots(ring: Ring) -> int:
    return int((ring._taken[1] == 0).sum())


@pytest.fixture
def few_objects() -> Iterator[None]:
    """Let the collector look at nothing but what the test makes."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("few_objects")
def test_what_is_kept_keeps_its_values_and_its_slot() -> None:
    ring, slots = ring_of_one()
    kept = ring.open(1, send(slots, 7))["x"]
    view = kept[10:20]
    del kept
    for value in range(20):
        assert ring.open(1, send(slots, value))["x"].tolist() == [value] * 100
        gc.collect()
    assert view.tolist() == [7] * 10
    assert free_slots(ring) == 3
    del view
    assert free_slots(ring) == 4


def test_more_than_may_be_lent_is_copied() -> None:
    ring, slots = ring_of_one()
    kept = [ring.open(1, send(slots, value)) for value in range(10)]
    assert free_slots(ring) == 4 - LENT_SLOTS
    assert [batch["x"].unique().item() for batch in kept] == list(range(10))
    kept[5]["x"] += 1
    assert [batch["row"].item() for batch in kept] == list(range(10))


def test_arrays_lie_where_they_were_made() -> None:
    ring, slots = ring_of_one()
    parcel = send(slots, 3, n=1000)
    assert parcel.slot == 0
    assert len(parcel.pickled) < 1000
    batch = ring.open(1, parcel)
    batch["x"][:] = 5
    assert ring._memory.array(ring.places[1].start(0), 4000).view(np.int32).tolist() == [5] * 1000


@pytest.mark.parametrize("n", [1024, 1025, 5000], ids=["just fits", "one too many", "far too many"])
def test_what_finds_no_room_travels_in_the_message(n: int) -> None:
    ring, slots = ring_of_one()
    assert ring.open(1, send(slots, 9, n))["x"].tolist() == [9] * n


def test_no_slot_is_no_fault() -> None:
    ring, slots = ring_of_one(n_slots=1)
    waiting, other = send(slots, 1), send(slots, 2)
    assert (waiting.slot, other.slot) == (0, None)
    assert ring.open(1, other)["x"].tolist() == [2] * 100
    ring.drop(1, waiting)
    assert send(slots, 3).slot == 0


def test_what_was_never_sent_is_given_up() -> None:
    ring, slots = ring_of_one()
    sent = send(slots, 1)
    for _ in range(3):
        slots.claim()
    assert free_slots(ring) == 0
    slots.give_up_all()
    assert free_slots(ring) == 3
    assert ring.open(1, sent)["row"].tolist() == [1]


def test_tensors_of_every_kind_come_back_as_they_were() -> None:
    ring, slots = ring_of_one()
    rows = SparseRows(torch.tensor([0, 0, 2]), torch.tensor([3, 1], dtype=torch.uint16), torch.zeros(2), 4)
    item = {"x": rows, "counts": rows, "empty": torch.empty(0, 3), "obs": {"a": torch.tensor([np.nan])}, "none": None}
    parcel = slots.claim().enclose(item)
    made = ring.open(1, parcel)
    assert made["counts"] is made["x"]
    assert [part.dtype for part in made["x"][:3]] == [torch.int64, torch.uint16, torch.float32]
    assert made["x"].indices.tolist() == [3, 1]
    assert made["empty"].shape == (0, 3)
    assert made["obs"]["a"].isnan().all()
    assert made["none"] is None


def blocks_of(memory: SharedMemory) -> int:
    """Bytes that the system has set aside."""
    return os.fstat(memory._fd).st_blocks * 512


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs Linux")
def test_memory_is_taken_as_needed_used_again_and_freed() -> None:
    ring, slots = ring_of_one(n_slots=4, slot_bytes=1 << 24)
    before = blocks_of(ring._memory)
    assert before < 1 << 16
    for value in range(50):
        ring.open(1, send(slots, value, n=1 << 18))
    assert 1 << 20 <= blocks_of(ring._memory) - before < 3 << 20
    kept = ring.open(1, send(slots, 8, n=1 << 18))["x"]
    ring.open(1, send(slots, 9, n=1 << 18))
    ring.close()
    assert kept.unique().tolist() == [8]
    assert blocks_of(ring._memory) < 3 << 19
    del kept
    assert blocks_of(ring._memory) == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_gives_nothing_back() -> None:
    ring, slots = ring_of_one()
    kept = ring.open(1, send(slots, 7))
    if (child := os.fork()) == 0:
        kept.clear()
        os._exit(0)
    os.waitpid(child, 0)
    assert free_slots(ring) == 3
    assert kept["x"].tolist() == [7] * 100


def test_no_memory_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    _, slots = ring_of_one()

    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(SharedMemory, "reserve", refuse)
    for attempt in (lambda: send(slots, 1), lambda: ring_of_one()):
        with pytest.raises(ScvaeDataError, match=r"cannot hand over batches: .*No space left.*num_workers=0") as caught:
            attempt()
        assert "\n" not in str(caught.value)


def test_an_enclosed_object_has_its_arrays_in_shared_memory() -> None:
    numbers = np.arange(100_000)
    enclosed = Enclosed(
        {"numbers": numbers, "again": numbers, "few": np.array([1.5]), "none": np.empty((0, 2)), "a": 1}
    )
    assert len(enclosed._pickled) < 1000
    one, other = enclosed.open(), enclosed.open()
    assert one["numbers"] is one["again"]
    np.testing.assert_array_equal(one["numbers"], numbers)
    assert one["few"].tolist() == [1.5]
    assert one["none"].shape == (0, 2)
    one["numbers"][5] = -1
    assert other["numbers"][5] == -1
    assert numbers[5] == 5
