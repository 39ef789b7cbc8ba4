"""What is decoded together in, readers of its rows out: those of one chunk, or of ranges from many."""

from __future__ import annotations

import resource
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scvae_data.errors import DamagedFileError
from scvae_data.loading.plan.scatter import Extent, ScatteredRows
from scvae_data.loading.select.rows import RowGroup, to_spans
from scvae_data.store.cell_index import CellIndex
from scvae_data.store.chunk_reader import ChunkReader
from scvae_data.store.csr import count_dtype, index_dtype

__all__ = ["Reader", "ReaderPool", "ScatteredReader", "chunks_of", "reader_of"]


class ReaderPool:
    """Readers of chunks that many row groups have rows of, so that the tables of a chunk are read once while it stays.

    Parameters
    ----------
    index
        The directory.
    max_rows
        Chunks are kept up to so many rows in all, each of which takes 8 bytes.
    max_open
        Chunks that are kept open; None for a quarter of the files that this process may open, 256 at most.
    """

    def __init__(self, index: CellIndex, max_rows: int = 8_000_000, max_open: int | None = None) -> None:
        self.index = index
        self._max_rows = max_rows
        self._max_open = min(256, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4) if max_open is None else max_open
        self._lock = threading.Lock()
        self._readers: OrderedDict[int, ChunkReader] = OrderedDict()
        self._rows = 0

    def reader(self, chunk_id: int) -> ChunkReader:
        """The reader of a chunk; whoever has it may use it after the pool dropped it."""
        with self._lock:
            found = self._readers.get(chunk_id)
            if found is None:
                found = self._readers[chunk_id] = self.index.reader(chunk_id)
                self._rows += found.entry.n_obs
            self._readers.move_to_end(chunk_id)
            while len(self._readers) > 1 and (self._rows > self._max_rows or len(self._readers) > self._max_open):
                self._rows -= self._readers.popitem(last=False)[1].entry.n_obs
            return found


def raise_it(error: DamagedFileError) -> None:
    """Leave nothing out."""
    raise error


class ScatteredReader:
    """Reads the rows of a :class:`ScatteredRows` as a ``ChunkReader`` reads those of its chunk; safe for threads.

    Parameters
    ----------
    rows
        The rows.
    readers
        Readers of their chunks.
    leave_out
        Told of a chunk that cannot be read: returns if rows of it are to be left out, or raises.
    """

    def __init__(
        self, rows: ScatteredRows, readers: ReaderPool, leave_out: Callable[[DamagedFileError], None] = raise_it
    ) -> None:
        self._rows = rows
        self._readers = readers
        self._leave_out = leave_out
        self.missing = np.zeros(rows.n_rows, np.bool_)
        """Rows that were left out, (n_rows,): they have no elements, or any."""
        self._lock = threading.Lock()
        self._indptr: NDArray[np.int64] | None = None
        self._bytes_read = 0
        index = readers.index
        pieces, first_ranges = np.unique(rows.piece, return_index=True)
        n_rows = np.diff(rows.borders[[*first_ranges, -1]])
        chunks = [index.chunks[chunk_id] for chunk_id in rows.selected.chunk_ids[pieces].tolist()]
        nnz = sum(n * chunk.nnz / chunk.n_obs for n, chunk in zip(n_rows.tolist(), chunks, strict=True))
        self.entry = Extent(rows.n_rows, round(nnz))
        self.n_vars = index.n_vars
        self.index_dtype = index_dtype(index.n_vars)
        self.count_dtype = count_dtype(max(chunk.max_count for chunk in chunks))

    @property
    def bytes_read(self) -> int:
        """Bytes read for these rows so far."""
        return self._bytes_read

    @property
    def indptr(self) -> NDArray[np.int64]:
        """Where each row starts among the row group's elements: int64, (n_rows + 1,)."""
        # Not a cached_property, which may have one lock for all readers: a process forked meanwhile would wait for it.
        if self._indptr is None:
            self._indptr = self._read_indptr()
        return self._indptr

    def _read_indptr(self) -> NDArray[np.int64]:
        lengths = np.zeros(self._rows.n_rows + 1, np.int64)
        for reader, rows, place in self._by_chunk(0, self._rows.n_rows):
            before = reader.bytes_read_here
            try:
                starts = reader.indptr
            except DamagedFileError as error:
                self._leave_out(error)
                self.missing[place] = True
                continue
            self._count(reader.bytes_read_here - before)
            lengths[1:][place] = starts[rows + 1] - starts[rows]
        return lengths.cumsum()

    def read_into(self, spans: Sequence[tuple[int, int]], indices: NDArray[Any], data: NDArray[Any]) -> int:
        """Read ranges of the row group's rows; see :meth:`ChunkReader.read_into`."""
        done = 0
        for low, high in spans:
            for reader, rows, place in self._by_chunk(low, high):
                end = done + int(self.indptr[place.stop] - self.indptr[place.start])
                if not self.missing[place.start]:
                    self._read_chunk(reader, rows, place, indices[done:end], data[done:end])
                done = end
        return done

    def _read_chunk(
        self, reader: ChunkReader, rows: NDArray[np.int32], place: slice, indices: NDArray[Any], data: NDArray[Any]
    ) -> None:
        before = reader.bytes_read_here
        # Another chunk of the row group may have counts that need a wider type.
        same = reader.count_dtype == data.dtype
        taken = data if same else np.empty(data.size, reader.count_dtype)
        try:
            reader.read_into(to_spans(rows), indices, taken)
        except DamagedFileError as error:
            self._leave_out(error)
            self.missing[place] = True
            return
        if not same:
            data[:] = taken
        self._count(reader.bytes_read_here - before)

    def _by_chunk(self, low: int, high: int) -> Iterator[tuple[ChunkReader, NDArray[np.int32], slice]]:
        """The row group's rows number ``low`` to ``high``: each chunk's reader, its rows, and where they go."""
        for chunk_id, rows, place in self._rows.runs(low, high):
            yield self._readers.reader(chunk_id), rows, place

    def _count(self, n_bytes: int) -> None:
        with self._lock:
            self._bytes_read += n_bytes


def chunks_of(group: RowGroup) -> list[int]:
    """Chunks that rows of a row group are in."""
    if isinstance(group, ScatteredRows):
        return [int(chunk_id) for chunk_id in group.selected.chunk_ids[np.unique(group.piece)]]
    return [group.chunk_id]


Reader = ChunkReader | ScatteredReader


def reader_of(
    index: CellIndex, row_groups: Sequence[RowGroup], leave_out: Callable[[DamagedFileError], None] = raise_it
) -> Callable[[int], Reader]:
    """A function that makes the reader of a row group, given its ``chunk_id``; see :class:`ScatteredReader`."""
    scattered = [group for group in row_groups if isinstance(group, ScatteredRows)]
    if not scattered:
        return index.reader
    readers = ReaderPool(index)
    return lambda number: ScatteredReader(scattered[number], readers, leave_out)
