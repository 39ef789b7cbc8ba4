"""A store in this process's memory, what lies in it or in a folder, and faults of what is put there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import pytest

from scvae_data.errors import RemoteError
from scvae_data.remote import objects
from scvae_data.remote.location import RemotePath

OF_A_RUN = ("processing.write.chunks.upload", "processing.run.directory.upload", "processing.run.directory.swap")
"""What a run puts into a store by."""
TO_ADDRESSES = ("remote.objects.upload", "remote.objects.swap", *OF_A_RUN[1:])
"""What gives a file of a finished directory its place there."""


@contextmanager
def memory_store(folder: Path, patch: pytest.MonkeyPatch) -> Iterator[RemotePath]:
    """An empty place called ``set`` in a bucket of its own; copies, and folders that are made here, are in a folder."""
    patch.setattr(objects, "BACK_OFF_SECONDS", 0.0)
    patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    patch.chdir(folder)
    yield RemotePath(f"memory://{folder.name}/set")
    memory = fsspec.filesystem("memory")
    if memory.exists(f"/{folder.name}"):
        memory.rm(f"/{folder.name}", recursive=True)


def put(folder: Path, store: RemotePath) -> RemotePath:
    """Send all files of a folder; return where to."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            objects.upload(path, store / path.relative_to(folder).as_posix())
    return store


def content(place: Path | RemotePath) -> dict[str, bytes]:
    """Files by name."""
    if isinstance(place, RemotePath):
        return {path.name: objects.read_whole(path, 1 << 30) for path in objects.find(place)}
    return {path.name: path.read_bytes() for path in place.iterdir() if not path.name.startswith(".")}


class Dying:
    """What is put into a store, by functions that are called so, fails from the ``n``-th on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, n: int, names: tuple[str, ...] = OF_A_RUN) -> None:
        self.left = n
        self._monkeypatch = monkeypatch
        self._puts = {f"scvae_data.{name}": getattr(objects, name.rpartition(".")[2]) for name in names}

    def __enter__(self) -> None:
        for name, whole in self._puts.items():
            self._monkeypatch.setattr(name, partial(self._put, whole))

    def __exit__(self, *_: object) -> None:
        for name, whole in self._puts.items():
            self._monkeypatch.setattr(name, whole)

    def _put(self, whole: Callable[..., Any], source: Path, path: RemotePath, *rest: Any) -> Any:
        self.left -= 1
        if self.left < 0:
            raise RemoteError(f"{path}: gone")
        return whole(source, path, *rest)
