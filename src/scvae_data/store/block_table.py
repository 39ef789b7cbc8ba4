"""The block table of a chunk file: where each HDF5 chunk of X lies, and the checksum that proves it is that one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import deflate
import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ARRAYS",
    "COLUMNS",
    "ArrayBlocks",
    "Block",
    "TableError",
    "data_itemsize",
    "index_itemsize",
    "pack_table",
    "parse_table",
]

ARRAYS = ("indptr", "indices", "data")
COLUMNS = ("array", "first_element", "n_elements", "itemsize", "offset", "size", "filter_mask", "crc32")
ROW_BYTES = 8 * len(COLUMNS)
INT32_MAX = 2**31 - 1


class TableError(ValueError):
    """A block table contradicts itself, the index or the file's size; the caller adds the file."""


@dataclass(frozen=True)
class Block:
    """One stored HDF5 chunk; fields are the columns of the table."""

    array: int
    first_element: int
    n_elements: int
    itemsize: int
    offset: int
    size: int
    filter_mask: int
    crc32: int


@dataclass(frozen=True, eq=False)
class ArrayBlocks:
    """The blocks of one array, in order, as columns.

    ``length`` is what every block decodes to, the padded last one included;
    block b holds the elements from ``b * length`` on.
    """

    n_elements: int
    length: int
    itemsize: int
    offset: NDArray[np.int64]
    size: NDArray[np.int64]
    filter_mask: NDArray[np.uint32]
    crc32: NDArray[np.uint32]


def index_itemsize(nnz: int) -> int:
    """Bytes of an element of indices and indptr: 4 up to 2**31 - 1 non-zeros, else 8 for both."""
    return 4 if nnz <= INT32_MAX else 8


def data_itemsize(max_count: int) -> int:
    """Bytes of a stored count: 4, or 8 in a chunk with a count above 2**31 - 1."""
    return 4 if max_count <= INT32_MAX else 8


def pack_table(blocks: Iterable[Block]) -> NDArray[np.uint64]:
    """Lay blocks out as the dataset ``X/blocks``: uint64, (n_blocks, 8), array by array in element order."""
    rows = sorted((tuple(vars(block).values()) for block in blocks), key=lambda row: row[:2])
    return np.array(rows, dtype="<u8").reshape(-1, len(COLUMNS))


def parse_table(
    stored: bytes | bytearray, *, crc32: int, n_obs: int, nnz: int, max_count: int, block_elements: int, file_bytes: int
) -> dict[str, ArrayBlocks]:
    """Check a table against the index and split it by array.

    Raises
    ------
    TableError
        If the bytes do not have the checksum ``crc32``, or the blocks do not
        cover every array once, in order, inside the file.
    """
    if len(stored) % ROW_BYTES or deflate.crc32(stored) != crc32:
        raise TableError("its block table does not match its checksum")
    table = np.frombuffer(stored, "<u8").reshape(-1, len(COLUMNS)).astype(np.int64)
    wanted = {
        "indptr": (n_obs + 1, index_itemsize(nnz)),
        "indices": (nnz, index_itemsize(nnz)),
        "data": (nnz, data_itemsize(max_count)),
    }
    arrays = {}
    for code, (name, (n_elements, itemsize)) in enumerate(wanted.items()):
        rows = table[table[:, 0] == code]
        arrays[name] = _array_blocks(name, rows, n_elements, itemsize, block_elements, file_bytes)
    if sum(blocks.offset.size for blocks in arrays.values()) != len(table):
        raise TableError("its block table lists blocks of unknown arrays")
    return arrays


def _array_blocks(
    name: str, rows: NDArray[np.int64], n_elements: int, itemsize: int, block_elements: int, file_bytes: int
) -> ArrayBlocks:
    length = min(block_elements, n_elements)
    first = np.arange(0, n_elements, length) if length else np.zeros(0, np.int64)
    n_in_block = np.minimum(length, n_elements - first)
    covers = np.array_equal(rows[:, 1], first) and np.array_equal(rows[:, 2], n_in_block)
    offset, size = rows[:, 4], rows[:, 5]
    # Compared without a sum, which a hostile table could make wrap.
    inside = (offset >= 0) & (size > 0) & (offset < file_bytes) & (size <= file_bytes - offset)
    if not covers or (rows[:, 3] != itemsize).any() or not inside.all():
        raise TableError(f"its block table does not cover {name} ({n_elements} elements of {itemsize} bytes)")
    masks: NDArray[Any] = rows[:, 6].astype(np.uint32)
    return ArrayBlocks(n_elements, length, itemsize, offset.copy(), size.copy(), masks, rows[:, 7].astype(np.uint32))
