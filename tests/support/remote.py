"""A store in this process's memory, and what lies in it or in a folder, by name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec
import pytest

from scvae_data.remote import objects
from scvae_data.remote.location import RemotePath


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
