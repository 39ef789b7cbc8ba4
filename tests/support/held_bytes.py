"""A dataset directory whose chunks and obs lie in memory: what a remote store would be to its readers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from scvae_data.store import DatasetIndex, open_index


@dataclass(frozen=True)
class HeldBytes:
    """The bytes of a file."""

    content: bytes

    @property
    def size(self) -> int:
        return len(self.content)

    def read(self, offset: int, n_bytes: int) -> bytes:
        return self.content[offset : offset + n_bytes]

    def fileno(self) -> None:
        return None

    def again(self) -> None:
        return None


@dataclass(frozen=True)
class HeldFiles:
    """Opens files of a mapping by their names; sent to workers with all of them."""

    files: Mapping[str, bytes]

    def __call__(self, path: Path) -> HeldBytes:
        if path.name not in self.files:
            raise FileNotFoundError(f"{path.name} is not held")
        return HeldBytes(self.files[path.name])


def held(index: DatasetIndex) -> DatasetIndex:
    """Take the chunks and the tables of cells of a directory into memory, and away from the disk."""
    tables = [name for generation in index.generations for name in generation.files]
    paths = [index.path / name for name in (*(chunk.file for chunk in index.chunks), *tables)]
    files = {path.name: path.read_bytes() for path in paths}
    for path in paths:
        path.unlink()
    return replace(open_index(index.path), open_source=HeldFiles(files))


def flipped(index: DatasetIndex, name: str, place: int) -> DatasetIndex:
    """The index of :func:`held` over files of which one has a flipped bit."""
    source = index.open_source
    assert isinstance(source, HeldFiles)
    content = bytearray(source.files[name])
    content[place] ^= 1
    return replace(index, open_source=HeldFiles({**source.files, name: bytes(content)}))
