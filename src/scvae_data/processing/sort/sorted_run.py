"""Sorted runs of rows on disk between the stages.

A *sorted run* holds rows sorted by their order key, in a fast codec, so that a slow
input is decoded once and an output chunk is one slice of each run::

    NAME.run     blocks of whole rows (indices, then counts; each lz4 with byte shuffle),
                 then the per-row arrays, then where they are
    NAME.arrow   the rows' obs, an Arrow file that is memory-mapped
    NAME.totals  per row, once the genes are decided: total and number of entries over kept genes

Files appear under their name when whole. They are not synced to disk: after
a power cut a run without its trailer is refused and made again.
"""

from __future__ import annotations

import bisect
import io
import json
import mmap
import os
import shutil
import struct
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
from numcodecs import blosc
from numpy.typing import NDArray

from scvae_data.processing.work import WorkFolder
from scvae_data.readers.base import CsrBlock

__all__ = ["SortedRun", "SortedRunWriter", "open_runs"]

# Rows are packed into blocks of about this many entries: a slice that starts
# inside a block wastes at most one of them.
BLOCK_ENTRIES = 32_768
TRAILER = struct.Struct("<Q8s")
MAGIC = b"scvaerun"
ARRAYS = {"order": ("<u8", 0), "hash": ("<u8", 0), "indptr": ("<i8", 0), "blocks": ("<i8", 5)}
"""Type of the per-row arrays, and the width of those of two dimensions."""
SPOOL_BYTES = 1 << 20
blosc.use_threads = False


class SortedRunWriter:
    """Write one run: rows come in order, the file appears whole on `close`.

    What is held in memory does not grow with the rows.

    Parameters
    ----------
    path
        Path without suffix.
    schema
        Arrow schema of the rows' obs.
    n_genes
        Size of the universe.
    """

    def __init__(self, path: Path, schema: pa.Schema, n_genes: int) -> None:
        self.path = path
        self._n_genes = n_genes
        self._part = path.with_name(path.name + ".part")
        self._stream: BinaryIO = self._part.open("wb")
        self._obs_part = path.with_name(path.name + ".obs.part")
        self._obs = pa.ipc.new_file(str(self._obs_part), schema)
        self._arrays = {name: Spooled(path.parent, kind, width) for name, (kind, width) in ARRAYS.items()}
        self._totals = [Spooled(path.parent, "<i8"), Spooled(path.parent, "<i4")]
        self._arrays["indptr"].append(np.zeros(1, np.int64))
        self._n_entries = self._n_rows = 0

    def append(
        self,
        keys: NDArray[np.uint64],
        indptr: NDArray[np.int64],
        indices: NDArray[Any],
        data: NDArray[Any],
        obs: pa.Table,
        totals: NDArray[np.int64] | None = None,
    ) -> None:
        """Append rows in key order.

        Parameters
        ----------
        keys
            Order key and second hash of each row, uint64, shape (n, 2).
        indptr, indices, data
            The rows: where each starts, int64, (n + 1,); gene positions in the universe, ascending in a row; counts.
        obs
            Their obs, n rows.
        totals
            Their totals over the kept genes, where there are no other genes in them; int64, shape (n,).
        """
        first = 0
        while first < len(keys):
            limit = indptr[first] + BLOCK_ENTRIES
            stop = max(first + 1, int(np.searchsorted(indptr, limit, side="right")) - 1)
            stop = min(stop, len(keys))
            span = slice(int(indptr[first]), int(indptr[stop]))
            self._append_block(self._n_rows + stop, indices[span], smallest(data[span]))
            first = stop
        self._arrays["order"].append(keys[:, 0])
        self._arrays["hash"].append(keys[:, 1])
        self._arrays["indptr"].append(self._n_entries + indptr[1:] - indptr[0])
        if totals is not None:
            self._totals[0].append(totals)
            self._totals[1].append(np.diff(indptr))
        self._n_entries += int(indptr[-1] - indptr[0])
        self._n_rows += len(keys)
        self._obs.write_table(obs)

    def _append_block(self, end_row: int, indices: NDArray[Any], data: NDArray[Any]) -> None:
        parts = [compress(array) for array in (indices, data)]
        offset = self._stream.tell()
        for part in parts:
            self._stream.write(part)
        sizes = indices.dtype.itemsize * 16 + data.dtype.itemsize
        self._arrays["blocks"].append(np.array([[end_row, offset, len(parts[0]), len(parts[1]), sizes]]))

    def close(self) -> None:
        """Write the per-row arrays and publish the run, its totals last where they came with the rows."""
        header: dict[str, Any] = {"n_genes": self._n_genes}
        self._stream.write(b"\0" * (-self._stream.tell() % 8))
        for name, array in self._arrays.items():
            header[name] = [self._stream.tell(), array.dtype.str, array.shape]
            array.move_to(self._stream)
        start = self._stream.tell()
        self._stream.write(json.dumps(header).encode())
        self._stream.write(TRAILER.pack(start, MAGIC))
        self._stream.close()
        self._obs.close()
        self._obs_part.replace(self.path.with_suffix(".arrow"))
        self._part.replace(self.path.with_suffix(".run"))
        if self._totals[0].n_items:
            part = self.path.with_name(self.path.name + ".totals.part")
            with part.open("wb") as stream:
                for array in self._totals:
                    array.move_to(stream)
            part.replace(self.path.with_suffix(".totals"))


class Spooled:
    """An array that is appended to, on disk once it is large.

    Parameters
    ----------
    folder
        Where it lies then, without a name: it goes with the process.
    kind, width
        Type of its items, and how many make a row; 0 for an array of one dimension.
    """

    def __init__(self, folder: Path, kind: str, width: int = 0) -> None:
        self.dtype, self._width, self.n_items = np.dtype(kind), width, 0
        self._folder = folder
        self._held: BinaryIO = io.BytesIO()

    @property
    def shape(self) -> list[int]:
        """Shape of what was appended so far."""
        return [self.n_items // self._width, self._width] if self._width else [self.n_items]

    def append(self, values: NDArray[Any]) -> None:
        """Append values of any integer type."""
        self._held.write(np.ascontiguousarray(values, self.dtype).tobytes())
        self.n_items += values.size
        if isinstance(self._held, io.BytesIO) and self._held.tell() > SPOOL_BYTES:
            content = self._held.getbuffer()
            self._held = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - closed by `move_to`
            self._held.write(content)

    def move_to(self, stream: BinaryIO) -> None:
        """Write all of it to a stream, and forget it."""
        with self._held as held:
            held.seek(0)
            shutil.copyfileobj(held, stream, SPOOL_BYTES)


class SortedRun:
    """Read one run.

    Parameters
    ----------
    path
        Path without suffix.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path.with_suffix(".run"), os.O_RDONLY)
        try:
            size = os.fstat(self._fd).st_size
            start, magic = TRAILER.unpack(os.pread(self._fd, TRAILER.size, size - TRAILER.size))
            if magic != MAGIC:
                raise ValueError(f"{path.with_suffix('.run')} is not a finished run")
            self._header = json.loads(os.pread(self._fd, size - TRAILER.size - start, start))
            self._map = mmap.mmap(self._fd, 0, access=mmap.ACCESS_READ)
        except BaseException:
            os.close(self._fd)
            raise

    def __enter__(self) -> SortedRun:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; arrays handed out keep their mapping alive."""
        os.close(self._fd)

    def array(self, name: str) -> NDArray[Any]:
        """Return a per-row array, memory-mapped: ``order``, ``hash``, ``indptr`` or ``blocks``."""
        offset, dtype, shape = self._header[name]
        return np.frombuffer(self._map, np.dtype(dtype), int(np.prod(shape)), offset).reshape(shape)

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return int(self._header["order"][2][0])

    def blocks(self, start: int, stop: int) -> Iterator[CsrBlock]:
        """Decode the blocks that hold rows ``start`` to ``stop``; the first and last may reach beyond."""
        if start >= stop:
            return
        table, indptr = self.array("blocks"), self.array("indptr")
        ends = table[:, 0]
        # numpy would copy the column.
        for number in range(bisect.bisect_right(ends, start), len(table)):
            end, offset, n_indices, n_data, sizes = (int(value) for value in table[number])
            first = int(ends[number - 1]) if number else 0
            if first >= stop:
                return
            raw = os.pread(self._fd, n_indices + n_data, offset)
            yield CsrBlock(
                n_vars=self._header["n_genes"],
                first_row=first,
                indptr=indptr[first : end + 1] - indptr[first],
                indices=decompress(memoryview(raw)[:n_indices], sizes // 16),
                data=decompress(memoryview(raw)[n_indices:], sizes % 16),
            )

    def obs(self) -> pa.Table:
        """Return the rows' obs, memory-mapped."""
        return pa.ipc.open_file(pa.memory_map(str(self.path.with_suffix(".arrow")))).read_all()

    def write_totals(self, totals: NDArray[np.int64], lengths: NDArray[np.int32]) -> None:
        """Store per row the total and the number of entries over the kept genes."""
        part = self.path.with_name(self.path.name + ".totals.part")
        part.write_bytes(totals.tobytes() + lengths.tobytes())
        part.replace(self.path.with_suffix(".totals"))

    def totals(self) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Return what `write_totals` stored, memory-mapped; a row of total 0 is not written out."""
        raw = np.memmap(self.path.with_suffix(".totals"), np.uint8, "r")
        cut = 8 * self.n_rows
        return raw[:cut].view(np.int64), raw[cut:].view(np.int32)


@contextmanager
def open_runs(work: WorkFolder, names: Sequence[str]) -> Iterator[list[SortedRun]]:
    """Open runs, by their paths below the work folder, for the time of a block."""
    with ExitStack() as stack:
        yield [stack.enter_context(SortedRun(work.path / name)) for name in names]


def smallest(data: NDArray[Any]) -> NDArray[Any]:
    """Return counts in the smallest unsigned type that holds them."""
    largest = int(data.max(initial=0))
    return data.astype(np.uint8 if largest < 1 << 8 else np.uint16 if largest < 1 << 16 else np.uint32, copy=False)


def compress(array: NDArray[Any]) -> bytes:
    """Compress one array; blosc refuses empty buffers, so an empty array is no bytes."""
    if not array.size:
        return b""
    packed: bytes = blosc.compress(np.ascontiguousarray(array), b"lz4", 5, blosc.SHUFFLE, 0)
    return packed


def decompress(packed: memoryview, itemsize: int) -> NDArray[Any]:
    """Undo `compress`, into memory that may be written: for other memory kernels would be compiled once more."""
    n_bytes = int.from_bytes(packed[4:8], "little")  # as blosc's header has it; 0 of no bytes
    values: NDArray[Any] = np.empty(n_bytes // itemsize, f"<u{itemsize}")
    if n_bytes:
        blosc.decompress(packed, values)
    return values
