"""Compact rows, obs and var in, one AnnData file out: the write side of a chunk."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import deflate
import h5py
import numpy as np
from numpy.typing import NDArray

from scvae_data.errors import StoreError
from scvae_data.store.anndata_encoding import encode, write_frame, write_mapping
from scvae_data.store.block_table import ARRAYS, Block, data_itemsize, index_itemsize, pack_table
from scvae_data.store.codec import Codec
from scvae_data.store.csr import STREAM_MAX_COUNT, CompactCsr, CsrStream
from scvae_data.store.files import check_plain_name, write_atomic
from scvae_data.store.memory_file import MemoryFile

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ChunkContent", "ChunkEntry", "write_chunk"]

# Pinned: the newest format of an HDF5 library would change the bytes with its
# version. This one checksums its metadata and is read by HDF5 1.10 and later.
LIBRARY_VERSIONS = ("v110", "v110")
# Bytes that a chunk file takes, about: its tables, and of each entry the column's two bytes and the count's fraction.
ROOM, ROOM_OF_ENTRY = 1 << 21, 2


@dataclass(frozen=True)
class ChunkEntry:
    """What the index knows about a chunk file.

    ``first_row`` is the global row of its first cell, ``blocks_offset`` and
    ``blocks_size`` locate its block table in bytes. ``stored_bytes`` (array
    name to bytes) is known to the writer only.
    """

    file: str
    n_obs: int
    nnz: int
    first_row: int
    bytes: int
    sha256: str
    max_count: int
    blocks_offset: int
    blocks_size: int
    blocks_crc32: int
    stored_bytes: Mapping[str, int] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True)
class _Piece:
    """A block before it is compressed."""

    array: int
    first_element: int
    values: NDArray[Any]


@dataclass(frozen=True)
class _Stored:
    """A block as it lies in the file."""

    array: int
    first_element: int
    n_elements: int
    content: bytes | bytearray
    crc32: int


@dataclass(frozen=True, eq=False)
class ChunkContent:
    """What a chunk file holds.

    Parameters
    ----------
    x
        Canonical rows (:meth:`CompactCsr.check_canonical`), whole or part by part.
    obs, var
        Tables whose index holds the names of cells and genes, in the order of ``x``.
    uns
        Nested mappings of strings and numbers.
    """

    x: CompactCsr | CsrStream
    obs: pd.DataFrame
    var: pd.DataFrame
    uns: Mapping[str, Any]


def write_chunk(
    path: Path,
    content: ChunkContent,
    codec: Codec,
    *,
    block_elements: int,
    n_threads: int = 1,
    first_row: int = 0,
    synced: bool = True,
) -> ChunkEntry:
    """Write one chunk file atomically; equal arguments give equal bytes.

    The file is built in memory, because a disk that fills up under HDF5 takes
    the interpreter with it; beside ``content.x``, or a part of it, that takes
    about the compressed size.

    Parameters
    ----------
    path
        The file; replaced when it exists.
    content
        What it holds.
    codec
        How blocks are compressed.
    block_elements
        Elements of an HDF5 chunk of indptr, indices and data.
    n_threads
        Threads that compress; the bytes do not depend on it.
    first_row
        Global row of the first cell, for the entry.
    synced
        Wait until the file survives a power cut; who does not, syncs it.

    Raises
    ------
    StoreError
        If ``content.x`` is not canonical, or lengths or column types do not fit.
    OSError
        If the file cannot be written; nothing is left behind then.
    """
    check_plain_name(path.name)
    x, obs, var = content.x, content.obs, content.var
    if len(obs) != x.n_obs or len(var) != x.n_vars:
        raise StoreError(f"obs and var have {len(obs)} and {len(var)} rows for a {x.n_obs} × {x.n_vars} matrix")
    image = MemoryFile(ROOM + ROOM_OF_ENTRY * x.nnz)
    with h5py.File(image, "w", libver=LIBRARY_VERSIONS) as file:
        encode(file, "anndata", "0.1.0")
        matrix = file.create_group("X")
        blocks, max_count = _write_matrix(matrix, x, codec, block_elements, n_threads)
        table = matrix.create_dataset("blocks", data=pack_table(blocks))
        table.attrs["crc32"] = np.uint32(deflate.crc32(table[()].tobytes()))
        write_frame(file, "obs", obs)
        write_frame(file, "var", var)
        write_mapping(file, "uns", content.uns)
        place = (int(table.id.get_offset()), int(table.nbytes), int(table.attrs["crc32"]))
    whole = image.getbuffer()
    with ThreadPoolExecutor(1, thread_name_prefix="hash") as beside:
        digest = beside.submit(lambda: hashlib.sha256(whole).hexdigest())  # while the disk takes it in
        write_atomic(path, whole, synced=synced)
        stored = {name: sum(block.size for block in blocks if block.array == code) for code, name in enumerate(ARRAYS)}
        return ChunkEntry(
            path.name, x.n_obs, x.nnz, first_row, whole.nbytes, digest.result(), max_count, *place, stored
        )


def _write_matrix(
    group: h5py.Group, x: CompactCsr | CsrStream, codec: Codec, block_elements: int, n_threads: int
) -> tuple[list[Block], int]:
    """Write the arrays; return where their blocks lie, and the largest count."""
    parts = _Parts(x)
    encode(group, "csr_matrix", "0.1.0")
    group.attrs["shape"] = np.array([x.n_obs, x.n_vars], dtype=np.int64)
    index_bytes = index_itemsize(x.nnz)
    sizes = {"indptr": x.indptr.size, "indices": x.nnz, "data": x.nnz}
    itemsizes = {"indptr": index_bytes, "indices": index_bytes, "data": data_itemsize(parts.most)}
    lengths = {name: min(block_elements, size) for name, size in sizes.items()}
    datasets = {name: _create(group, name, sizes[name], lengths[name], itemsizes[name], codec) for name in ARRAYS}

    def compress(piece: _Piece) -> _Stored:
        name = ARRAYS[piece.array]
        content = codec.encode(piece.values, lengths[name], itemsizes[name])
        return _Stored(piece.array, piece.first_element, piece.values.size, content, deflate.crc32(content))

    written: list[tuple[int, int, int, int, int]] = []
    for block in _in_order(compress, _pieces(parts, block_elements), n_threads):
        datasets[ARRAYS[block.array]].id.write_direct_chunk((block.first_element,), block.content, 0)
        written.append((block.array, block.first_element, block.n_elements, len(block.content), block.crc32))
    offsets = {code: _offsets(datasets[name]) for code, name in enumerate(ARRAYS)}
    blocks = [
        Block(array, first, n_elements, itemsizes[ARRAYS[array]], offsets[array][first], size, 0, crc32)
        for array, first, n_elements, size, crc32 in written
    ]
    return blocks, parts.max_count


class _Parts:
    """The rows of a matrix, checked as they come.

    ``most`` is a bound of the counts that tells how wide they are stored,
    ``max_count`` the largest of those that have come.
    """

    def __init__(self, x: CompactCsr | CsrStream) -> None:
        self.indptr = x.indptr
        self.n_obs = x.n_obs
        self.most = STREAM_MAX_COUNT if isinstance(x, CsrStream) else x.check_canonical()
        self.max_count = 0
        self._x = x

    def __iter__(self) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        """Yield indices and data, as unsigned integers."""
        if isinstance(self._x, CompactCsr):
            self.max_count = self.most
            yield unsigned(self._x.indices), unsigned(self._x.data)
            return
        first = 0
        for part in self._x.parts:
            self.max_count = max(self.max_count, part.check_canonical())
            starts = self.indptr[first : first + part.n_obs + 1]
            first += part.n_obs
            if not np.array_equal(part.indptr, starts - starts[0]) or self.max_count > self.most:
                raise StoreError(f"the part that ends at row {first} is not what was announced")
            yield unsigned(part.indices), unsigned(part.data)
            del part
        if first != self.n_obs:
            raise StoreError(f"{self.n_obs} rows were announced, {first} came")


def unsigned(values: NDArray[Any]) -> NDArray[Any]:
    """Return the same memory as unsigned integers."""
    return values.view(np.dtype(f"u{values.dtype.itemsize}"))


def _create(group: h5py.Group, name: str, size: int, length: int, itemsize: int, codec: Codec) -> h5py.Dataset:
    """Create an integer dataset whose HDF5 chunks are filled by ``write_direct_chunk``; an empty one has none."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_obj_track_times(False)
    if size:
        properties.set_chunk((length,))
        properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        for filter_id, values in codec.filters(length, itemsize):
            properties.set_filter(filter_id, h5py.h5z.FLAG_OPTIONAL, values)
    kind = h5py.h5t.STD_I32LE if itemsize == 4 else h5py.h5t.STD_I64LE
    space = h5py.h5s.create_simple((size,))
    return h5py.Dataset(h5py.h5d.create(group.id, name.encode(), kind, space, properties))


def _pieces(parts: _Parts, block_elements: int) -> Iterator[_Piece]:
    """Blocks in file order: indptr, then indices and data in turns, so that the bytes of a row lie together."""
    indptr = unsigned(parts.indptr)
    for first in range(0, indptr.size, block_elements):
        yield _Piece(0, first, indptr[first : first + block_elements])
    first = 0
    for indices, data in _cut(parts, block_elements):
        yield _Piece(1, first, indices)
        yield _Piece(2, first, data)
        first += indices.size
        del indices, data  # the part they belong to, before the next one is made


def _cut(parts: Iterable[tuple[NDArray[Any], NDArray[Any]]], size: int) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Cut pairs of arrays that come in parts into pairs of ``size`` elements, the last of fewer."""
    left: tuple[NDArray[Any], NDArray[Any]] | None = None
    for part in parts:
        start = 0
        if left is not None:
            start = min(size - left[0].size, part[0].size)
            left = (np.concatenate([left[0], part[0][:start]]), np.concatenate([left[1], part[1][:start]]))
            if left[0].size < size:
                continue
            yield left
            left = None
        stop = start + (part[0].size - start) // size * size
        for first in range(start, stop, size):
            yield part[0][first : first + size], part[1][first : first + size]
        if stop < part[0].size:
            left = (part[0][stop:].copy(), part[1][stop:].copy())
        del part
    if left is not None:
        yield left


def _in_order(compress: Callable[[_Piece], _Stored], pieces: Iterator[_Piece], n_threads: int) -> Iterator[_Stored]:
    """Map in threads, yield in order, with few blocks in flight so that memory does not grow with the chunk."""
    if n_threads <= 1:
        yield from map(compress, pieces)
        return
    with ThreadPoolExecutor(n_threads, thread_name_prefix="compress") as pool:
        waiting: deque[Future[_Stored]] = deque()
        for piece in pieces:
            waiting.append(pool.submit(compress, piece))
            del piece
            if len(waiting) > 2 * n_threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _offsets(dataset: h5py.Dataset) -> dict[int, int]:
    """First element to byte offset in the file, for every HDF5 chunk."""
    places: dict[int, int] = {}
    if dataset.chunks:
        dataset.id.chunk_iter(lambda chunk: places.__setitem__(chunk.chunk_offset[0], chunk.byte_offset))
    return places
