"""Keys and sizes in, files of this machine's disk out: a folder of bounded size that processes share.

An entry is called by its key and size, so that names alone tell how much room
is taken. It is made under the same name with ``.part`` behind it, which is
locked meanwhile, and renamed when it is whole: whoever else wants it waits
for the lock, and a process that is killed lets go of it.

What is wanted again, and when, is told by :meth:`DiskCache.expect` and kept
as the entry's time of modification, where every process sees it. Room is made
by what is expected farthest from now: far ahead, or overdue for so long that
whoever expected it is gone.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from scvae_data.errors import RemoteError

__all__ = ["NO_OTHERS", "DiskCache", "Refused"]

log = logging.getLogger(__name__)

ENTRY = re.compile(r"(?P<key>[0-9a-f]{64})\.(?P<size>[0-9]+)(?P<part>\.part)?")
LOCK, PART = ".lock", ".part"
WAIT_SECONDS = 0.05
NO_OTHERS = float("inf")
"""Due so late that nothing is given up for it."""
HELD = 0.0
"""Time of what is in use, and stays whatever happens."""
NO_ROOM = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES))


class Refused(Exception):
    """There is no room for an entry without what is needed sooner."""


@dataclass(frozen=True)
class DiskCache:
    """A folder of entries; safe for threads and processes of one machine, and picklable.

    Parameters
    ----------
    folder
        Where they lie; made when the first is.
    max_bytes
        Bound on the bytes of all of them, whole or being made.
    setting
        Who set the bound, for errors.
    """

    folder: Path
    max_bytes: int
    setting: str

    def path(self, key: str, n_bytes: int) -> Path:
        """Where an entry is, if it is there; a key is 64 hexadecimal digits."""
        name = f"{key}.{n_bytes}"
        if not ENTRY.fullmatch(name):
            raise ValueError(f"{key!r} is no SHA-256")
        return self.folder / name

    def fetch(self, key: str, n_bytes: int, make: Callable[[Path], None], *, due: float | None = None) -> Path:
        """The entry of a key; made by ``make``, which is given where to, unless it is there.

        Parameters
        ----------
        due
            Seconds until it is needed: what is needed sooner is not given up for it. None: it is needed now.

        Raises
        ------
        Refused
            There is no room for it with what is needed sooner; only with ``due``.
        RemoteError
            It is larger than all may be together, or the disk has no room.
        """
        path = self.path(key, n_bytes)
        if path.exists():
            return path
        with self._disk_faults(), self._making(path) as part:
            if path.exists():
                return path
            self._reserve(part, n_bytes, due)
            try:
                make(part)
                with _locked(self.folder / LOCK):  # a listing meanwhile could miss both names
                    part.replace(path)
            except BaseException:
                _remove(part)
                raise
        return path

    def expect(self, path: Path, seconds: float, told: int | None = None) -> int:
        """Tell that an entry is needed in ``seconds``, instead of what the caller told before; return what is told.

        What someone else told stays where that is sooner.
        """
        now = time.time_ns()
        when = now + int(seconds * 1e9)
        with suppress(FileNotFoundError):
            known = path.stat().st_mtime_ns
            if known > now and known != told:
                when = min(known, when)
            os.utime(path, ns=(now, when))
        return when

    @contextmanager
    def held(self, fetch: Callable[[], Path], *, keep: float | None = None) -> Iterator[Path]:
        """An entry that makes no room for others meanwhile.

        Parameters
        ----------
        fetch
            Fetches it; once more, where another process needed its room before it was held.
        keep
            Seconds until it is needed again; None to remove it.
        """
        while True:
            path = fetch()
            with _locked(self.folder / LOCK), suppress(FileNotFoundError):
                os.utime(path, (HELD, HELD))
                break
        try:
            yield path
        finally:
            if keep is None:
                self.drop(path)
            else:
                self.expect(path, keep)

    def drop(self, path: Path) -> None:
        """Remove an entry."""
        _remove(path)

    def used_bytes(self) -> int:
        """Bytes of all entries, whole or being made."""
        return sum(n_bytes for _, n_bytes in self._entries())

    def tell_room(self, n_bytes: int) -> None:
        """Warn where the disk has less room than ``n_bytes`` of entries will take, as far as the bound lets them."""
        wanted = min(n_bytes, self.max_bytes)
        place = next(folder for folder in (self.folder, *self.folder.parents) if folder.exists())
        room = shutil.disk_usage(place).free + self.used_bytes()
        if room < wanted:
            log.warning(
                "%s is more than the disk of %s has room for: %.3f GB, and %.3f GB will come; set it lower, as a full "
                "disk ends the run", self.setting, self.folder, room / 1e9, wanted / 1e9,
            )  # fmt: skip

    @contextmanager
    def _making(self, path: Path) -> Iterator[Path]:
        """Hold the right to make an entry; waits while another has it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with _locked(_lock_of(path)):
            yield path.with_name(f"{path.name}{PART}")

    def _reserve(self, part: Path, n_bytes: int, due: float | None) -> None:
        """Take room under the name of the entry that is being made."""
        if n_bytes > self.max_bytes:
            raise RemoteError(
                f"{self.setting} is less than the {n_bytes / 1e9:.3f} GB of one file; set it to several of them"
            )
        while True:
            with _locked(self.folder / LOCK):
                entries = [one for one in self._entries() if one[0] != part]
                missing = sum(size for _, size in entries) + n_bytes - self.max_bytes
                if missing <= 0 or self._make_room(entries, missing, due):
                    part.touch()
                    return
            time.sleep(WAIT_SECONDS)  # for those that are being made, who are done or gone some time

    def _make_room(self, entries: list[tuple[Path, int]], missing: int, due: float | None) -> bool:
        """Remove what is expected farthest from now, and what killed processes left; whether that is enough."""
        now = time.time()
        times = [(path.stat().st_mtime, path, size) for path, size in entries if path.suffix != PART]
        far = [(abs(when - now), path, size) for when, path, size in times if when != HELD]
        far += [(float("inf"), path, size) for path, size in entries if path.suffix == PART and _is_left(path)]
        chosen, found = list[Path](), 0
        for distance, path, size in sorted(far, key=lambda one: one[0], reverse=True):
            if found >= missing or (due is not None and distance <= due):
                break
            chosen.append(path)
            found += size
        if found < missing and due is not None:
            raise Refused
        for path in chosen:
            _remove(path)
        return found >= missing

    def _entries(self) -> Iterator[tuple[Path, int]]:
        with suppress(FileNotFoundError):
            for entry in os.scandir(self.folder):
                if match := ENTRY.fullmatch(entry.name):
                    yield Path(entry.path), int(match["size"])

    @contextmanager
    def _disk_faults(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            raise RemoteError(
                f"{self.folder}: {error.strerror}; make room there, or set {self.setting.partition('=')[0]} lower"
            ) from error


@contextmanager
def _locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def _lock_of(path: Path) -> Path:
    """Who makes an entry holds this file; few files for any number of entries."""
    return path.with_name(f"{path.name[:2]}{LOCK}")


def _is_left(part: Path) -> bool:
    """Whether nobody makes an entry any more."""
    try:
        with _locked(_lock_of(part), wait=False):
            return True
    except BlockingIOError:
        return False


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
