"""Codes and numbers of cells, chunk by chunk: the columns of fixed width as plain arrays, and back.

A column of one chunk is read without the others, and without decoding: what
loading asks of obs is here. ``obs.parquet`` has the same values, and the texts.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import deflate
import numpy as np
from numpy.typing import NDArray

from scvae_data.remote.location import Location
from scvae_data.store.files import FileFacts, atomic_file, sha256_file
from scvae_data.store.obs_writer import NUMBERS, ObsColumn
from scvae_data.store.source import ListedFile, OpenSource, damaged

__all__ = [
    "CODE_TYPES",
    "LIMITS",
    "RowTable",
    "RowTableWriter",
    "n_bytes_of",
    "split_limit",
    "stored_types",
    "tail_bytes_of",
]

SPLIT_STEPS = 100
"""Shares of the range of ``split_hash`` for which the table has the number of rows below."""
HASH_RANGE = 1 << 32
CODE_TYPES = ("uint8", "uint16", "uint32")


def split_limit(share: float) -> int:
    """The least ``split_hash`` that is not among a ``share`` of the cells."""
    return round(share * HASH_RANGE)


LIMITS = np.array([split_limit(step / SPLIT_STEPS) for step in range(SPLIT_STEPS + 1)])


def stored_types(columns: Mapping[str, ObsColumn]) -> dict[str, str]:
    """The columns of fixed width with the type that each is stored in: the smallest for codes, else its own."""
    types = {}
    for name, column in columns.items():
        if column.categories is not None:
            n_codes = len(column.categories)
            types[name] = next(kind for kind in CODE_TYPES if n_codes <= np.iinfo(kind).max)
        elif column.dtype in (*NUMBERS, "bool"):
            types[name] = column.dtype
    return types


def n_bytes_of(types: Mapping[str, str], n_obs: int, n_chunks: int) -> int:
    """Bytes of a row table with its tail."""
    row = sum(np.dtype(kind).itemsize for kind in types.values())
    return n_obs * row + tail_bytes_of(types, n_chunks)


def tail_bytes_of(types: Mapping[str, str], n_chunks: int) -> int:
    """Bytes of the tables at the end."""
    return 4 * n_chunks * (SPLIT_STEPS + 1 + len(types))


class RowTableWriter:
    """Write a row table chunk by chunk; the file appears when :meth:`close` succeeds.

    Used as a context manager, it publishes the file unless the block raises.

    Parameters
    ----------
    path
        The file.
    types
        Of :func:`stored_types`.
    """

    def __init__(self, path: Path, types: Mapping[str, str]) -> None:
        self.types = {name: np.dtype(kind).newbyteorder("<") for name, kind in types.items()}
        self._crc32: list[list[int]] = []
        self._bounds: list[NDArray[np.int64]] = []
        self._stack = ExitStack()
        self._file = self._stack.enter_context(atomic_file(path))

    def append(self, values: Mapping[str, NDArray[Any]]) -> None:
        """Append the cells of the next chunk: numbers, and codes with -1 for a missing value."""
        crc32 = []
        for name, kind in self.types.items():
            content = values[name].astype(kind).tobytes()  # -1 has all bits set in any type
            crc32.append(int(deflate.crc32(content)))
            self._file.write(content)
        self._crc32.append(crc32)
        self._bounds.append(np.searchsorted(np.sort(values["split_hash"]).astype(np.int64), LIMITS))

    def close(self) -> FileFacts:
        """Publish the file; return size and checksums for the index."""
        shape = (len(self._crc32), -1)
        tail = np.array(self._bounds, "<u4").tobytes() + np.array(self._crc32, "<u4").reshape(shape).tobytes()
        self._file.write(tail)
        digest = sha256_file(self._file)
        facts = FileFacts(self._file.tell(), digest, len(tail), int(deflate.crc32(tail)))
        self._stack.close()
        return facts

    def __enter__(self) -> RowTableWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)


class RowTable:
    """Read columns of chunks; the file is opened once in each process.

    Parameters
    ----------
    path
        The file.
    facts
        Its entry in the index.
    types
        Its columns with the type that each is stored in.
    first_rows
        Number of the first cell of each of its chunks and, last, the number of cells; int64.
    open_source
        Opens the file.
    """

    def __init__(
        self,
        path: Location,
        facts: FileFacts,
        types: Mapping[str, str],
        first_rows: NDArray[np.int64],
        open_source: OpenSource,
    ) -> None:
        self.path = path
        self.facts = facts
        self.first_rows = first_rows
        self.types = {name: np.dtype(kind).newbyteorder("<") for name, kind in types.items()}
        sizes = [kind.itemsize for kind in self.types.values()]
        self._before = dict(zip(self.types, np.cumsum([0, *sizes]).tolist(), strict=False))
        self._row_bytes = sum(sizes)
        self._file = ListedFile(path, facts.bytes, open_source)
        self._tail: tuple[NDArray[np.uint32], NDArray[np.uint32]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_tail": None}

    def read(self, column: str, chunk: int) -> NDArray[Any]:
        """A column of one chunk in the type that it is stored in.

        Raises
        ------
        DamagedFileError
            If the file is not what was written.
        """
        return self._file.proved(lambda: self._read_column(column, chunk))

    def _read_column(self, column: str, chunk: int) -> NDArray[Any]:
        kind, first, end = self.types[column], int(self.first_rows[chunk]), int(self.first_rows[chunk + 1])
        n_rows = end - first
        content = self._file.read(first * self._row_bytes + n_rows * self._before[column], n_rows * kind.itemsize)
        place = list(self.types).index(column)
        if deflate.crc32(content) != int(self._load_tail()[1][chunk, place]):
            raise damaged(self.path, f"column {column} of chunk {chunk} does not match its checksum")
        return np.frombuffer(content, kind)

    @property
    def split_bounds(self) -> NDArray[np.uint32]:
        """Cells of each chunk whose ``split_hash`` is below each of the shares; uint32, (n_chunks, SPLIT_STEPS + 1)."""
        return self._load_tail()[0]

    def _load_tail(self) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
        if self._tail is None:
            self._tail = self._file.proved(self._read_tail)
        return self._tail

    def _read_tail(self) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
        n_chunks, n_bytes = self.first_rows.size - 1, self.facts.tail_bytes or 0
        tail = self._file.read(self.facts.bytes - n_bytes, n_bytes)
        if deflate.crc32(tail) != self.facts.tail_crc32:
            raise damaged(self.path, "its tables do not match their checksum")
        n_bounds = n_chunks * (SPLIT_STEPS + 1)
        numbers = np.frombuffer(tail, "<u4")
        return numbers[:n_bounds].reshape(n_chunks, -1), numbers[n_bounds:].reshape(n_chunks, len(self.types))
