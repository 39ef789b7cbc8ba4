"""An input in a store in; a copy of it on this machine, for as long as it is read, out.

What is fetched lies in a folder of bounded size: who finds no room takes that
of copies that nobody reads yet, or waits until one has been read. Copies are compared with size, version
and, where the store tells one, MD5 of each object.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from scvae_data.errors import InputError, RemoteError
from scvae_data.remote import objects
from scvae_data.remote.disk_cache import NO_OTHERS, DiskCache, Refused
from scvae_data.remote.location import Location, RemotePath
from scvae_data.remote.objects import ObjectFacts

__all__ = ["FetchAhead", "fetched", "objects_of", "scratch_folder"]

TRIES = 3
"""How often an object is fetched that comes with other content than the store tells of."""
WAIT_SECONDS = 0.1
KEPT_SECONDS = 30 * 24 * 3600.0
MATRIX = re.compile(r".*\.mtx(\.gz)?", re.IGNORECASE)
BESIDE = re.compile(r".*\.(tsv|txt|csv)(\.gz)?", re.IGNORECASE)
"""What may name the rows and columns of a matrix of text that lies beside it."""
USUAL_MATRIX = re.compile(r"(?P<prefix>.*?)matrix\.mtx(\.gz)?")


def scratch_folder(folder: Path, max_gb: float) -> DiskCache:
    """The folder for copies of inputs, of a bounded size."""
    return DiskCache(folder, int(max_gb * 1e9), f"input.scratch_gb={max_gb:g}")


@contextmanager
def fetched(place: Location, scratch: DiskCache, *, keep: bool = False) -> Iterator[Path]:
    """An input on this machine: itself, or a copy that is removed when it has been read.

    Parameters
    ----------
    keep
        Leave the copy for whoever reads the input next, as long as there is room; of several the first ones.

    Raises
    ------
    InputError
        There is nothing at the address; and whatever is wrong with a copy, by its address.
    """
    if isinstance(place, Path):
        yield place
        return
    # What is kept later is expected later, and so makes room first.
    with scratch.held(lambda: _fetch(place, scratch, None), keep=KEPT_SECONDS if keep else None) as entry:
        here = entry / (place.name or "bucket")
        try:
            yield here
        except InputError as error:
            raise InputError(place, error.reason, error.message.replace(str(here), str(place))) from error


class FetchAhead:
    """Fetches inputs in the order in which they will be read, a few ahead; a context manager.

    Parameters
    ----------
    places
        The inputs by number, in order; those of this machine are let be.
    scratch
        Where copies lie.
    n_ahead
        Inputs that are fetched and not yet read, at most.
    """

    def __init__(self, places: Sequence[tuple[int, Location]], scratch: DiskCache, n_ahead: int) -> None:
        self._waiting = [(number, place) for number, place in places if isinstance(place, RemotePath)]
        self._scratch = scratch
        self._free = threading.Semaphore(n_ahead)
        self._lock = threading.Lock()
        self._read: set[int] = set()
        self._ahead: set[int] = set()
        self._closed = False
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(n_ahead)]

    def __enter__(self) -> Self:
        if self._waiting:
            for thread in self._threads:
                thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        for _ in self._threads:
            self._free.release()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    def done(self, number: int) -> None:
        """Tell that an input has been read, or has failed."""
        with self._lock:
            self._read.add(number)
            was_ahead = number in self._ahead
            self._ahead.discard(number)
        if was_ahead:
            self._free.release()

    def _run(self) -> None:
        while True:
            self._free.acquire()
            with self._lock:
                while self._waiting and self._waiting[0][0] in self._read:
                    self._waiting.pop(0)
                if self._closed or not self._waiting:
                    return
                number, place = self._waiting.pop(0)
                self._ahead.add(number)
            self._fetch(number, place)

    def _fetch(self, number: int, place: Location) -> None:
        assert isinstance(place, RemotePath)
        while not self._closed and number not in self._read:
            try:
                entry = _fetch(place, self._scratch, NO_OTHERS)
            except Refused:
                time.sleep(WAIT_SECONDS)
                continue
            except (InputError, RemoteError):
                return  # whoever reads it says what is wrong
            if number in self._read:  # meanwhile, by a copy of its own
                self._scratch.drop(entry)
            return


def _fetch(place: RemotePath, scratch: DiskCache, due: float | None) -> Path:
    """The folder with the copy of an input; see :meth:`DiskCache.fetch`."""
    parts = objects_of(place)
    told = "".join(f"{path}\0{facts.size}\0{facts.version}\0" for path, facts in parts.items())
    key = hashlib.sha256(f"{place}\0{told}".encode()).hexdigest()
    n_bytes = sum(facts.size for facts in parts.values())

    def make(part: Path) -> None:
        part.unlink()
        part.mkdir()
        for path, facts in parts.items():
            target = part / (path.below(place.parent) if place.name else f"bucket/{path.below(place)}")
            target.parent.mkdir(parents=True, exist_ok=True)
            _copy(path, facts, target)

    return scratch.fetch(key, n_bytes, make, due=due)


def objects_of(place: RemotePath) -> dict[RemotePath, ObjectFacts]:
    """All objects of an input: itself, what lies below it, or what names the rows and columns of a matrix of text.

    Raises
    ------
    InputError
        There is none.
    """
    try:
        parts = {place: objects.facts_of(place)}
    except FileNotFoundError:
        if not (parts := objects.find(place)):
            objects.check_bucket(place)
            raise InputError(place, "missing", "there is no such object or folder; check the address") from None
        return parts
    if MATRIX.fullmatch(place.name):
        match = USUAL_MATRIX.fullmatch(place.name)
        prefix = match["prefix"] if match else ""
        beside = objects.find(place.parent, deep=False).items()
        parts |= {path: facts for path, facts in beside if BESIDE.fullmatch(path.name) and path.name.startswith(prefix)}
    return parts


def _copy(path: RemotePath, facts: ObjectFacts, target: Path) -> None:
    """Fetch an object; content that the store tells another MD5 of has to come twice before it counts."""
    seen: set[str] = set()
    for _ in range(TRIES):
        digest = hashlib.sha256()
        with target.open("wb") as file:
            for piece in objects.pieces(path, facts):
                file.write(piece)
                digest.update(piece)
        # Some tags look like an MD5 and are none, as those of encrypted objects.
        if objects.is_content(target, facts) is not False or digest.hexdigest() in seen:
            return
        seen.add(digest.hexdigest())
    raise RemoteError(f"{path} comes with other content each time; see whether the network changes it")
