"""Row numbers in, compact rows out: the read side of a chunk, by ranges of bytes and without HDF5."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import deflate
import numpy as np
from numpy.typing import NDArray

from scvae_data.remote.location import Location
from scvae_data.store.block_table import ArrayBlocks, TableError, parse_table
from scvae_data.store.byte_shuffle import narrow_into
from scvae_data.store.chunk_writer import ChunkEntry
from scvae_data.store.codec import Codec, CodecError
from scvae_data.store.csr import CompactCsr, count_dtype, index_dtype
from scvae_data.store.native_decode import unpack
from scvae_data.store.source import ListedFile, LocalFile, OpenSource, damaged

__all__ = ["ChunkReader"]


class ChunkReader:
    """Random access to the rows of one chunk file.

    Opens on first use, once per process; safe to use from several threads
    and across fork; pickled without what it has open. Every block is
    verified against the block table, and the table against the index,
    before a value of it is returned.

    Parameters
    ----------
    path
        The chunk file.
    entry
        Its entry in the index.
    n_vars, codec, block_elements
        Facts of the directory, from the index.
    open_source
        Opens the file.
    """

    def __init__(
        self,
        path: Location,
        entry: ChunkEntry,
        *,
        n_vars: int,
        codec: Codec,
        block_elements: int,
        open_source: OpenSource = LocalFile,
    ) -> None:
        self.path = path
        self.entry = entry
        self.n_vars = n_vars
        self.codec = codec
        self.block_elements = block_elements
        self.index_dtype = index_dtype(n_vars)
        self.count_dtype = count_dtype(entry.max_count)
        self._file = ListedFile(path, entry.bytes, open_source)
        self._layout: tuple[dict[str, ArrayBlocks], NDArray[np.int64]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_layout": None}

    def __enter__(self) -> ChunkReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def check_size(self) -> None:
        """Raise DamagedFileError unless the file is there with the size that the index says; leaves it closed."""
        self._file.source()
        self.close()

    def close(self) -> None:
        """Close the file; the next read opens it again."""
        self._file.close()

    @property
    def bytes_read(self) -> int:
        """Bytes read from the file so far, in this process."""
        return self._file.bytes_read

    @property
    def bytes_read_here(self) -> int:
        """Bytes that the calling thread has read from the file so far."""
        return self._file.bytes_read_here

    @property
    def indptr(self) -> NDArray[np.int64]:
        """Where each row starts among the chunk's elements: int64, (n_obs + 1,); read-only."""
        return self._load()[1]

    @property
    def stored_bytes(self) -> dict[str, int]:
        """Bytes that each array takes in the file, by its name."""
        return {name: int(blocks.size.sum()) for name, blocks in self._load()[0].items()}

    def read_rows(self, start: int, stop: int) -> CompactCsr:
        """Rows ``start`` to ``stop`` (excluded), numbered within the chunk.

        Raises
        ------
        IndexError
            Unless ``0 <= start <= stop <= n_obs``.
        DamagedFileError
            If what is read is not what was written.
        """
        return self.read_spans([(start, stop)])

    def read_spans(self, spans: Sequence[tuple[int, int]]) -> CompactCsr:
        """Rows of several half-open ranges, one below the other in the order given.

        A block shared by neighbouring ranges is read once when the ranges ascend.
        """
        indptr = self._spans_indptr(spans)
        indices = np.empty(indptr[-1], self.index_dtype)
        data = np.empty(indptr[-1], self.count_dtype)
        self.read_into(spans, indices, data)
        return CompactCsr(indptr, indices, data, self.n_vars)

    def read_into(self, spans: Sequence[tuple[int, int]], indices: NDArray[Any], data: NDArray[Any]) -> int:
        """Read ranges of rows into arrays the caller owns; return how many elements were filled.

        ``indices`` and ``data`` need the reader's ``index_dtype`` and ``count_dtype``,
        and at least as many elements as the rows hold.
        """
        n_elements = int(self._spans_indptr(spans)[-1])
        if indices.dtype != self.index_dtype or data.dtype != self.count_dtype:
            raise TypeError(f"needs {self.index_dtype} and {self.count_dtype}, got {indices.dtype} and {data.dtype}")
        if min(indices.size, data.size) < n_elements:
            raise ValueError(f"rows hold {n_elements} elements, got room for {min(indices.size, data.size)}")
        blocks, indptr = self._load()
        ranges = [(int(indptr[start]), int(indptr[stop])) for start, stop in spans]
        highest = self._fill("indices", blocks["indices"], ranges, indices)
        if highest >= self.n_vars and n_elements:
            raise damaged(self.path, f"refers to gene {highest} of {self.n_vars}")
        largest = self._fill("data", blocks["data"], ranges, data)
        if largest > self.entry.max_count:
            raise damaged(
                self.path, f"holds a count of {largest} where the index knows of {self.entry.max_count} at most"
            )
        return n_elements

    def _spans_indptr(self, spans: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
        for start, stop in spans:
            if not 0 <= start <= stop <= self.entry.n_obs:
                raise IndexError(f"rows {start} to {stop} are not within the {self.entry.n_obs} rows of {self.path}")
        lengths = [np.diff(self.indptr[start : stop + 1]) for start, stop in spans]
        return np.concatenate([np.zeros(1, np.int64), *lengths]).cumsum()

    def _fill(self, name: str, blocks: ArrayBlocks, ranges: list[tuple[int, int]], out: NDArray[Any]) -> int:
        """Copy element ranges of an array into ``out``; return the largest value seen."""
        total = sum(stop - start for start, stop in ranges)
        source = self._file.source()  # referred to, and so open, until all is read
        done = unpack(source.fileno(), self.codec.native, blocks, np.array(ranges, np.int64), out[:total])
        if done is None:
            return self._fill_by_blocks(name, blocks, ranges, out)
        self._file.count(done.n_bytes)
        return done.largest

    def _fill_by_blocks(self, name: str, blocks: ArrayBlocks, ranges: list[tuple[int, int]], out: NDArray[Any]) -> int:
        """Like :meth:`_fill` for any block; says what is wrong with one."""
        done = largest = 0
        held, values = -1, None
        for block, first, n in _segments(ranges, blocks.length):
            if block != held or values is None:
                held, values = block, self._read_block(name, blocks, block)
            largest = max(largest, narrow_into(values[first : first + n], out[done : done + n]))
            done += n
        return largest

    def _read_block(self, name: str, blocks: ArrayBlocks, block: int) -> NDArray[Any]:
        return self._file.proved(lambda: self._decode_block(name, blocks, block))

    def _decode_block(self, name: str, blocks: ArrayBlocks, block: int) -> NDArray[Any]:
        stored = self._file.read(int(blocks.offset[block]), int(blocks.size[block]))
        if deflate.crc32(stored) != int(blocks.crc32[block]):
            raise damaged(self.path, f"block {block} of {name} does not match its checksum")
        mask = int(blocks.filter_mask[block])
        try:
            return self.codec.decode(stored, filter_mask=mask, length=blocks.length, itemsize=blocks.itemsize)
        except CodecError as error:
            raise damaged(self.path, f"block {block} of {name} {error}") from None

    def _load(self) -> tuple[dict[str, ArrayBlocks], NDArray[np.int64]]:
        """Table and indptr; threads that come first together both read them, and agree."""
        if self._layout is None:
            blocks = self._file.proved(self._read_table)
            self._layout = blocks, self._read_indptr(blocks["indptr"])
        return self._layout

    def _read_table(self) -> dict[str, ArrayBlocks]:
        entry = self.entry
        stored = self._file.read(entry.blocks_offset, entry.blocks_size)
        try:
            return parse_table(
                stored,
                crc32=entry.blocks_crc32,
                n_obs=entry.n_obs,
                nnz=entry.nnz,
                max_count=entry.max_count,
                block_elements=self.block_elements,
                file_bytes=entry.bytes,
            )
        except TableError as error:
            raise damaged(self.path, str(error)) from None

    def _read_indptr(self, blocks: ArrayBlocks) -> NDArray[np.int64]:
        # Block by block, as fast for an array this short, so that `unpack` is not compiled for its type as well.
        parts = [self._read_block("indptr", blocks, block) for block in range(blocks.offset.size)]
        indptr = np.concatenate(parts)[: blocks.n_elements].astype(np.int64)
        if indptr[0] != 0 or indptr[-1] != self.entry.nnz or (np.diff(indptr) < 0).any():
            raise damaged(self.path, f"its indptr does not ascend from 0 to {self.entry.nnz}")
        indptr.flags.writeable = False
        return indptr


def _segments(ranges: Sequence[tuple[int, int]], length: int) -> Iterator[tuple[int, int, int]]:
    """Cut element ranges at block borders: (block, first element within it, number of elements)."""
    for start, stop in ranges:
        while start < stop:
            block, first = divmod(start, length)
            n = min(length - first, stop - start)
            yield block, first, n
            start += n
