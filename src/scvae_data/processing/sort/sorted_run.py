"""Sorted runs of rows on disk between the stages.

A *sorted run* holds rows sorted by their order key, packed (see `packed`), so that a slow
input is decoded once and an output chunk is one slice of each run::

    NAME.run     the rows, then the per-row arrays, then where they are
    NAME.arrow   the rows' obs, an Arrow file that is memory-mapped
    NAME.totals  per row, once the genes are decided: total and number of entries over kept genes

Files appear under their name when whole. They are not synced to disk: what a
power cut has left of them is told by a note beside them.
"""

from __future__ import annotations

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
from numpy.typing import NDArray

from scvae_data.errors import DamagedFileError
from scvae_data.processing.sort.packed import unpack_rows
from scvae_data.processing.work import WorkFolder
from scvae_data.readers.base import CsrBlock

__all__ = ["MAX_RUNS", "RARE_CELLS", "RUN_ENTRIES", "SUMS", "SortedRun", "SortedRunWriter", "open_runs"]

RUN_ENTRIES = 6_000_000
"""Of a file come into one run; then it is written, and the next one begun."""
MAX_RUNS = 128
"""A chunk reads one slice of each run: where there are more, they are merged first, so many at once into one."""
RARE_CELLS = 9
"""A gene that at most so many of a file's kept cells have is rare there: which cells these are is kept."""
PIECE_BYTES = 1 << 22
"""Of rows that are mapped at once."""
TRAILER, KEY = struct.Struct("<Q8s"), struct.Struct("<Q")
MAGIC = b"scvaerow"
SUMS = {"total": "<i8", "length": "<i4", "largest": "<u4"}
"""Of each row: the total, the number of entries and the largest count over all its genes."""
ARRAYS = {"order": "<u8", "hash": "<u8", "starts": "<i8", "batches": "<i8"} | SUMS
"""Type of the arrays: both keys of each row; where it starts among the bytes, and the last one ends; the first row of
each batch of obs, and how many rows there are; and what a scan adds up."""
SEARCHED_ROWS = 8192
"""Among so many the end of what is mapped at once is looked for."""
SPOOL_BYTES = 1 << 20


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
        self._arrays = {name: Spooled(path.parent, kind) for name, kind in ARRAYS.items()}
        self._totals = [Spooled(path.parent, "<i8"), Spooled(path.parent, "<i4")]
        self._n_rows = 0
        for name in ("starts", "batches"):
            self._arrays[name].append(np.zeros(1, np.int64))

    def append(
        self,
        keys: NDArray[np.uint64],
        starts: NDArray[np.int64],
        packed: NDArray[np.uint8],
        obs: pa.Table,
        *,
        sums: NDArray[np.int64] | None = None,
        totals: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None,
    ) -> None:
        """Append rows in key order.

        Parameters
        ----------
        keys
            Order key and second hash of each row, uint64, shape (n, 2).
        starts, packed
            The rows, of `pack_rows`; genes by their positions in the universe.
        obs
            Their obs, n rows.
        sums
            Their `SUMS`, shape (n, 3), where the kept genes are not known yet.
        totals
            Their totals and numbers of entries over the kept genes, where there are no other genes in them; shape (n,).
        """
        self._arrays["order"].append(keys[:, 0])
        self._arrays["hash"].append(keys[:, 1])
        self._arrays["starts"].append(self._stream.tell() + starts[1:])
        self._stream.write(packed.data)
        if sums is not None:
            for name, values in zip(SUMS, sums.T, strict=True):
                self._arrays[name].append(values)
        for held, values in zip(self._totals, totals or (), strict=False):
            held.append(values)
        for batch in obs.to_batches():
            self._obs.write_batch(batch)
            self._n_rows += batch.num_rows
            self._arrays["batches"].append(np.array([self._n_rows]))

    @property
    def files(self) -> list[Path]:
        """What a run consists of whose totals came with its rows."""
        return [self.path.with_suffix(suffix) for suffix in (".run", ".arrow", ".totals")]

    def close(self) -> None:
        """Write the per-row arrays and publish the run, its totals last where they came with the rows."""
        header: dict[str, Any] = {"n_genes": self._n_genes}
        self._stream.write(b"\0" * (-self._stream.tell() % 8))
        for name, array in self._arrays.items():
            header[name] = [self._stream.tell(), array.dtype.str, array.n_items]
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
    kind
        Type of its items.
    """

    def __init__(self, folder: Path, kind: str) -> None:
        self.dtype, self.n_items = np.dtype(kind), 0
        self._folder = folder
        self._held: BinaryIO = io.BytesIO()

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
            with as_written(path.with_suffix(".run")):
                size = os.fstat(self._fd).st_size
                start, magic = TRAILER.unpack(os.pread(self._fd, TRAILER.size, size - TRAILER.size))
                if magic != MAGIC:
                    raise ValueError("not a finished run")
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
        """Return one of the `ARRAYS`, memory-mapped."""
        offset, dtype, n_items = self._header[name]
        return np.frombuffer(self._map, np.dtype(dtype), n_items, offset)

    def some_keys(self, step: int) -> NDArray[np.uint64]:
        """Return the order key of every ``step``-th row."""
        return np.array([self._key(row) for row in range(0, self.n_rows, step)], np.uint64)

    def rank(self, key: int) -> int:
        """Return how many rows have a lower order key."""
        low, high = 0, self.n_rows
        while low < high:
            middle = (low + high) // 2
            if self._key(middle) < key:
                low = middle + 1
            else:
                high = middle
        return low

    def _key(self, row: int) -> int:
        """Read the order key of a row; of what is mapped, the pages around each that is looked at would stay."""
        with as_written(self.path.with_suffix(".run")):
            return int(KEY.unpack(os.pread(self._fd, KEY.size, self._header["order"][0] + KEY.size * row))[0])

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return int(self._header["order"][2])

    def packed(self, start: int, stop: int) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.uint8]]]:
        """Yield the rows from ``start`` to ``stop`` as they are packed, some at a time: first row, starts, bytes."""
        starts = self.array("starts")
        while start < stop:
            first = int(starts[start])
            some = starts[start + 1 : min(stop, start + SEARCHED_ROWS) + 1]
            end = start + max(int(np.searchsorted(some, first + PIECE_BYTES, side="right")), 1)
            n_bytes = int(starts[end]) - first
            yield start, starts[start : end + 1] - first, np.frombuffer(self._map, np.uint8, n_bytes, first)
            page = first - first % mmap.PAGESIZE
            self._map.madvise(mmap.MADV_DONTNEED, page, first + n_bytes - page)  # what was mapped would stay
            start = end

    def blocks(self, start: int, stop: int) -> Iterator[CsrBlock]:
        """Yield the rows from ``start`` to ``stop``, some at a time."""
        n_genes = self._header["n_genes"]
        for first, starts, packed in self.packed(start, stop):
            indptr, indices, data = unpack_rows(starts, packed, n_genes)
            yield CsrBlock(first_row=first, indptr=indptr, indices=indices, data=data, n_vars=n_genes)

    def obs(self, start: int = 0, stop: int | None = None) -> pa.Table:
        """Return the obs of the rows from ``start`` to ``stop``, of all by default, memory-mapped."""
        stop = self.n_rows if stop is None else stop
        batches = self.array("batches")
        first, last = int(np.searchsorted(batches, start, side="right")) - 1, int(np.searchsorted(batches, stop))
        file = self.path.with_suffix(".arrow")
        with as_written(file):
            reader = pa.ipc.open_file(pa.memory_map(str(file)))
            # No other batch is looked at: there may be many.
            found = [reader.get_batch(number) for number in range(first, last)]
        return pa.Table.from_batches(found, reader.schema).slice(start - int(batches[first]), stop - start)

    def write_totals(self, totals: NDArray[np.int64], lengths: NDArray[np.int32]) -> None:
        """Store per row the total and the number of entries over the kept genes."""
        part = self.path.with_name(self.path.name + ".totals.part")
        part.write_bytes(totals.tobytes() + lengths.tobytes())
        part.replace(self.path.with_suffix(".totals"))

    def totals(self) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Return what `write_totals` stored, memory-mapped; a row of total 0 is not written out."""
        file = self.path.with_suffix(".totals")
        with as_written(file):
            raw = np.memmap(file, np.uint8, "r", shape=(12 * self.n_rows,))
        cut = 8 * self.n_rows
        return raw[:cut].view(np.int64), raw[cut:].view(np.int32)


@contextmanager
def as_written(file: Path) -> Iterator[None]:
    """Turn what happens where a file of a run is cut off, or cannot be read, into an error that names it.

    Raises
    ------
    DamagedFileError
        In place of any other.
    """
    try:
        yield
    except (OSError, ValueError, struct.error) as error:  # those of Arrow are among them
        fault = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise DamagedFileError(f"{file}: is not as it was written ({fault}); resume=true makes it again") from error


@contextmanager
def open_runs(work: WorkFolder, names: Sequence[str]) -> Iterator[list[SortedRun]]:
    """Open runs, by their paths below the work folder, for the time of a block."""
    with ExitStack() as stack:
        yield [stack.enter_context(SortedRun(work.path / name)) for name in names]
