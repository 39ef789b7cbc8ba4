"""A dataset directory in a remote store in, its files as sources of bytes out: copies on this machine, or ranges."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from scvae_data.remote import objects
from scvae_data.remote.disk_cache import DiskCache
from scvae_data.remote.location import Location, RemotePath, local_path
from scvae_data.remote.objects import ObjectFacts
from scvae_data.store.files import sha256_file
from scvae_data.store.source import ByteSource, LocalFile, damaged

__all__ = ["DEFAULT_DISK_GB", "CachedFiles", "CopiedFile", "RemoteFile", "disk_cache", "local_copy"]

log = logging.getLogger(__name__)

DEFAULT_DISK_GB = 50.0
"""Bound on the copies of remote files on this machine, in GB."""
TRIES = 3
"""How often an object is fetched that comes with other content than the index lists."""
LARGEST_SHARE = 4
"""A file of more than one such part of the cache is read where it lies, range by range."""


def disk_cache(cache_dir: str | None = None, cache_disk_gb: float = DEFAULT_DISK_GB) -> DiskCache:
    """The folder for copies of remote files.

    Parameters
    ----------
    cache_dir
        None for that of the user: ``scvae-data`` in ``$XDG_CACHE_HOME``, which is ``~/.cache`` by default.
    cache_disk_gb
        Bound on their size, in GB (10**9 bytes).

    Raises
    ------
    ConfigError
        The folder is in a remote store itself.
    """
    if cache_dir is None:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "scvae-data"
    else:
        folder = local_path("data.cache_dir", cache_dir).expanduser()
    return DiskCache(folder.absolute(), int(cache_disk_gb * 1e9), f"data.cache_disk_gb={cache_disk_gb:g}")


class RemoteFile:
    """An object of which ranges are read."""

    def __init__(self, path: RemotePath, facts: ObjectFacts) -> None:
        self._path = path
        self._facts = facts

    @property
    def size(self) -> int:
        """Bytes of the object."""
        return self._facts.size

    def read(self, offset: int, n_bytes: int) -> bytes:
        """The bytes from ``offset`` on; fewer than asked for only where it ends."""
        return objects.read(self._path, offset, max(0, min(n_bytes, self.size - offset)))

    def fileno(self) -> None:
        """There is no descriptor."""
        return

    def again(self) -> RemoteFile:
        """The object: what came changed on its way."""
        log.debug("%s: came changed, and is asked for again", self._path)
        return self


class CopiedFile(LocalFile):
    """A copy of an object on this machine.

    Parameters
    ----------
    copy
        The copy.
    renew
        Opens a new one in its place, given what is to be no more.
    """

    def __init__(self, copy: Path, renew: Callable[[CopiedFile], ByteSource]) -> None:
        super().__init__(copy)
        self._renew = renew

    def again(self) -> ByteSource:
        """A copy that is made anew."""
        return self._renew(self)


@dataclass(frozen=True)
class CachedFiles:
    """Opens files of a remote directory: each is copied to this machine first, and proved to be the one that is listed.

    Parameters
    ----------
    cache
        Where copies lie.
    files
        Size and SHA-256 of each file, by its name.
    """

    cache: DiskCache
    files: Mapping[str, tuple[int, str]]

    def __call__(self, path: Location) -> ByteSource:
        """Open a file of the directory."""
        if not self.is_copied(path):
            return RemoteFile(_remote(path), self._facts(path))
        opened = self._open_copy(path)
        return opened if opened.size == self.files[path.name][0] else opened.again()

    def is_copied(self, path: Location) -> bool:
        """Whether a file is small enough, as parts of the cache go, to be copied as a whole."""
        return self.files[path.name][0] * LARGEST_SHARE <= self.cache.max_bytes

    def copy(self, path: Location, due: float | None = None) -> Path:
        """The copy of a file on this machine; see :meth:`DiskCache.fetch`."""
        n_bytes, sha256 = self.files[path.name]
        return self.cache.fetch(sha256, n_bytes, lambda part: self._fetch(path, part), due=due)

    def proved_copy(self, path: Location) -> Path:
        """As :meth:`copy`, compared with its checksum now, for what reads files without comparing."""
        copy = self.copy(path)
        if sha256_file(copy) != self.files[path.name][1]:
            self._drop(path, copy)
            copy = self.copy(path)
        return copy

    def place(self, path: Location) -> Path:
        """Where the copy of a file is, if there is one."""
        n_bytes, sha256 = self.files[path.name]
        return self.cache.path(sha256, n_bytes)

    def _open_copy(self, path: Location) -> CopiedFile:
        def renew(damaged: CopiedFile) -> ByteSource:
            with suppress(FileNotFoundError):  # another thread may have been quicker
                copy = self.place(path)
                if os.path.samestat(os.fstat(damaged.fileno()), copy.stat()):
                    self._drop(path, copy)
            return self._open_copy(path)

        while True:
            try:
                return CopiedFile(self.copy(path), renew)
            except FileNotFoundError:
                continue  # another process needed its room between the two

    def _drop(self, path: Location, copy: Path) -> None:
        log.warning("%s: its copy %s is damaged, and is fetched anew", path, copy)
        self.cache.drop(copy)

    def _fetch(self, path: Location, part: Path) -> None:
        facts = self._facts(path)
        for _ in range(TRIES):
            digest = hashlib.sha256()
            with part.open("wb") as file:
                for piece in objects.pieces(_remote(path), facts):
                    file.write(piece)
                    digest.update(piece)
            if digest.hexdigest() == self.files[path.name][1]:
                return
        raise damaged(path, "its content does not match its checksum")

    def _facts(self, path: Location) -> ObjectFacts:
        try:
            facts = objects.facts_of(_remote(path))
        except FileNotFoundError:
            raise damaged(path, "is missing") from None
        if facts.size != self.files[path.name][0]:
            raise damaged(path, f"has {facts.size} bytes, the index says {self.files[path.name][0]}")
        return facts


def _remote(path: Location) -> RemotePath:
    assert isinstance(path, RemotePath)
    return path


def local_copy(path: Location, open_source: object) -> Path:
    """A file of a directory on this machine: itself, or the copy of one in a store."""
    if isinstance(path, RemotePath):
        assert isinstance(open_source, CachedFiles)
        return open_source.proved_copy(path)
    return path
