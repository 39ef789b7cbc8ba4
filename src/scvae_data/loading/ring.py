"""What worker processes make in, the same in the process that receives it out: slots of memory that both map.

Each worker has slots of its own. It claims a free one, makes something there
and sends a :class:`Parcel` that says where its arrays lie. From then on the
slot is the receiver's, who gives it back once nothing there is referred to any
more. So values never change under the hands of whoever keeps them, and memory
is mapped once and used again and again. Whatever finds no room in a slot
travels in the message: slower, and just as right.
"""

from __future__ import annotations

import math
import mmap
import os
import threading
import weakref
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray

from scvae_data.errors import ScvaeDataError
from scvae_data.loading.shared import SharedMemory, aligned, pickled, unpickled

__all__ = ["LENT_SLOTS", "Parcel", "Ring", "Slot", "SlotPlace", "Slots", "no_room"]

LENT_SLOTS = 2
"""Slots of a worker that the receiver may have: of what is in use and what was before. What exceeds them is copied."""


def no_room(error: BaseException) -> ScvaeDataError:
    """Say what helps where worker processes find no memory to share."""
    return ScvaeDataError(
        f"worker processes cannot hand over batches: {' '.join(str(error).split())}; num_workers=0 does without them, "
        "fewer workers and smaller batches need less memory, and /dev/shm must not be full"
    )


class Parcel(NamedTuple):
    """An object on its way."""

    slot: int | None
    """Where its arrays lie; None if they are part of the message."""
    pickled: bytes
    places: tuple[tuple[int, int], ...]
    """First byte within the slot, and number of bytes, of each array."""


@dataclass(frozen=True)
class SlotPlace:
    """Where the slots of one worker are; can be sent to it."""

    memory: SharedMemory
    marks: int
    """First byte of their marks: a byte for each slot, 0 if it is free. Only the worker sets one, only the receiver
    clears it, but for slots of which the receiver never knew."""
    first: int
    """First byte of the first slot."""
    n_slots: int
    slot_bytes: int

    def taken(self) -> NDArray[np.uint8]:
        """Marks of all slots."""
        return self.memory.array(self.marks, self.n_slots)

    def start(self, slot: int) -> int:
        """First byte of a slot."""
        return self.first + slot * self.slot_bytes


class Slots:
    """A worker's own slots, in the worker; safe for threads."""

    def __init__(self, place: SlotPlace) -> None:
        self.place = place
        self._taken = place.taken()
        self._reserved = [0] * place.n_slots
        self._claimed: set[int] = set()
        self._lock = threading.Lock()

    def claim(self) -> Slot:
        """A slot to make something in; one without room if none is free."""
        with self._lock:
            free = np.flatnonzero(self._taken == 0)
            if not free.size:
                return Slot(self, None)
            slot = int(free[0])
            self._taken[slot] = 1
            self._claimed.add(slot)
        return Slot(self, slot)

    def sent(self, slot: int | None) -> None:
        """What lies in ``slot`` goes to the receiver."""
        if slot is not None:
            self._claimed.remove(slot)

    def give_up(self, slot: int) -> None:
        """Nothing lies in a claimed slot that anybody waits for."""
        self._claimed.remove(slot)
        self._taken[slot] = 0

    def give_up_all(self) -> None:
        """What was made and not sent is not wanted."""
        for slot in list(self._claimed):
            self.give_up(slot)

    def reserve(self, slot: int, n_bytes: int) -> None:
        """Have memory behind the first ``n_bytes`` of a slot."""
        have = self._reserved[slot]
        if n_bytes > have:
            try:
                self.place.memory.reserve(self.place.start(slot) + have, n_bytes - have)
            except OSError as error:
                raise no_room(error) from None
            self._reserved[slot] = n_bytes


class Slot:
    """Room for one object's arrays.

    Parameters
    ----------
    slots
        Whose it is.
    number
        Which it is; None for no room at all.
    """

    def __init__(self, slots: Slots, number: int | None) -> None:
        self._slots = slots
        self._number = number
        place = slots.place
        self._bytes = np.empty(0, np.uint8)
        if number is not None:
            self._bytes = place.memory.array(place.start(number), place.slot_bytes)
        self._used = 0

    def take(self, shape: tuple[int, ...], dtype: DTypeLike) -> torch.Tensor:
        """A tensor of any content, in the slot if it has room."""
        kind = np.dtype(dtype)
        n_bytes = math.prod(shape) * kind.itemsize
        start = self._find(n_bytes)
        raw = np.empty(n_bytes, np.uint8) if start is None else self._bytes[start : start + n_bytes]
        return torch.from_numpy(raw.view(kind).reshape(shape))

    def enclose(self, item: Any) -> Parcel:
        """``item`` ready to be sent; arrays that are not yet in the slot are copied there."""
        places: list[tuple[int, int]] = []

        def put(array: memoryview) -> bool:
            if not array.nbytes:
                return False
            given = np.frombuffer(array, np.uint8)
            start = given.ctypes.data - self._bytes.ctypes.data
            if start not in range(self._bytes.size):
                found = self._find(given.size)
                if found is None:
                    return False
                start = found
                self._bytes[start : start + given.size] = given
            places.append((start, given.size))
            return True

        content = pickled(item, put)
        if self._number is not None and not places:
            self._slots.give_up(self._number)
        return Parcel(self._number if places else None, content, tuple(places))

    def _find(self, n_bytes: int) -> int | None:
        """First byte of so many unused ones; None if there are fewer."""
        start = aligned(self._used)
        if self._number is None or start + n_bytes > self._bytes.size:
            return None
        self._slots.reserve(self._number, start + n_bytes)
        self._used = start + n_bytes
        return start


class Ring:
    """The slots of all workers, in the process that receives what lies there.

    Parameters
    ----------
    n_workers, n_slots
        Workers, and slots of each.
    slot_bytes
        Room in a slot; memory is taken as it is needed, and kept.

    Raises
    ------
    ScvaeDataError
        There is no memory to share.
    """

    def __init__(self, n_workers: int, n_slots: int, slot_bytes: int) -> None:
        first, room = whole_pages(n_workers * n_slots), whole_pages(slot_bytes)
        try:
            memory = SharedMemory(first + n_workers * n_slots * room)
            memory.reserve(0, first)
        except OSError as error:
            raise no_room(error) from None
        self.places = [
            SlotPlace(memory, worker * n_slots, first + worker * n_slots * room, n_slots, room)
            for worker in range(n_workers)
        ]
        self._memory = memory
        self._taken = [place.taken() for place in self.places]
        self._lent: set[tuple[int, int]] = set()
        self._process = os.getpid()
        self._closed = False

    def open(self, worker: int, parcel: Parcel) -> Any:
        """What a worker has sent; its arrays lie in the slot until they are given up, or are copies."""
        if parcel.slot is None:
            return unpickled(parcel.pickled)
        place = self.places[worker]
        lent = self._memory.array(place.start(parcel.slot), place.slot_bytes)
        if sum(owner == worker for owner, _ in self._lent) >= LENT_SLOTS:
            copies = [lent[start : start + n_bytes].copy() for start, n_bytes in parcel.places]
            self.drop(worker, parcel)
            return unpickled(parcel.pickled, copies)
        self._lent.add((worker, parcel.slot))
        weakref.finalize(lent, self._give_back, worker, parcel.slot).atexit = False
        # Views of a memoryview keep what it is of; numpy would shorten the chain.
        whole = memoryview(lent)  # type: ignore[arg-type]
        parts = [whole[start : start + n_bytes] for start, n_bytes in parcel.places]
        return unpickled(parcel.pickled, parts)

    def drop(self, worker: int, parcel: Parcel) -> None:
        """Do without what a worker has sent."""
        if parcel.slot is not None:
            self._taken[worker][parcel.slot] = 0

    def close(self) -> None:
        """Free all memory, that of slots still referred to once they are not; workers have ended."""
        self._closed = True
        for worker, place in enumerate(self.places):
            for slot in range(place.n_slots):
                if (worker, slot) not in self._lent:
                    self._memory.free(place.start(slot), place.slot_bytes)

    def _give_back(self, worker: int, slot: int) -> None:
        if os.getpid() != self._process:
            return  # a process that was forked meanwhile gives up its copies of what is ours
        self._lent.discard((worker, slot))
        self._taken[worker][slot] = 0
        if self._closed:
            self._memory.free(self.places[worker].start(slot), self.places[worker].slot_bytes)


def whole_pages(n_bytes: int) -> int:
    """``n_bytes`` or as many more as fill a page."""
    return -(-n_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
