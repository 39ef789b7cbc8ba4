"""Checksums for every column chunk of a Parquet file, kept between its last row group and its footer.

Parquet's own page checksums leave page headers out, and a changed header can
decode to other values. What lies between row groups and footer is ignored by
every Parquet reader, so the file stays an ordinary one.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

import deflate
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

__all__ = ["Tail", "TailError", "read_tail", "seal"]

MAGIC = b"PAR1"
Read = Callable[[int, int], bytes]
"""Gives the bytes of a file from an offset on, as many as asked for."""


class TailError(ValueError):
    """The bytes are not those that the index describes; the caller adds the file."""


@dataclass(frozen=True, eq=False)
class Tail:
    """What the end of the file holds: the footer, and a checksum for each row group (row) and column; uint32."""

    metadata: pq.FileMetaData
    crc32: NDArray[np.uint32]

    def column_chunk(self, read: Read, row_group: int, column: int) -> tuple[int, bytes]:
        """Where one column chunk begins in the file, and its bytes, checked."""
        offset, size = _extent(self.metadata, row_group, column)
        content = read(offset, size)
        if deflate.crc32(content) != int(self.crc32[row_group, column]):
            name = self.metadata.schema.column(column).path
            raise TailError(f"column {name} of row group {row_group} does not match its checksum")
        return offset, content


def seal(file: BinaryIO) -> tuple[int, int]:
    """Insert the checksums before the footer of a finished Parquet file; return size and CRC-32 of its new tail."""
    size = file.seek(0, os.SEEK_END)
    file.seek(size - 8)
    n_footer = int.from_bytes(file.read(4), "little") + 8
    file.seek(size - n_footer)
    footer = file.read(n_footer)
    metadata = _parse_footer(footer)
    crc32 = np.zeros((metadata.num_row_groups, metadata.num_columns), "<u4")
    for group, column in np.ndindex(*crc32.shape):
        offset, n_bytes = _extent(metadata, group, column)
        file.seek(offset)
        crc32[group, column] = deflate.crc32(file.read(n_bytes))
    tail = crc32.tobytes() + footer
    file.seek(size - n_footer)
    file.write(tail)
    return len(tail), int(deflate.crc32(tail))


def read_tail(read: Read, file_bytes: int, tail_bytes: int, tail_crc32: int) -> Tail:
    """Read and check the end of a file of ``file_bytes``.

    Raises
    ------
    TailError
        If its last ``tail_bytes`` are not those that the checksum is of.
    """
    if not 0 < tail_bytes <= file_bytes:
        raise TailError(f"has no footer of {tail_bytes} bytes among its {file_bytes}")
    tail = read(file_bytes - tail_bytes, tail_bytes)
    if deflate.crc32(tail) != tail_crc32:
        raise TailError("its footer does not match its checksum")
    n_footer = int.from_bytes(tail[-8:-4], "little") + 8
    metadata = _parse_footer(tail[-n_footer:])
    crc32 = np.frombuffer(tail[:-n_footer], "<u4")
    return Tail(metadata, crc32.reshape(metadata.num_row_groups, metadata.num_columns))


def _parse_footer(footer: bytes) -> pq.FileMetaData:
    # A Parquet file is parsed from its end: these bytes are one without row groups before them.
    return pq.read_metadata(pa.BufferReader(MAGIC + footer))


def _extent(metadata: pq.FileMetaData, row_group: int, column: int) -> tuple[int, int]:
    """First byte and number of bytes of a column chunk."""
    chunk = metadata.row_group(row_group).column(column)
    offset = chunk.dictionary_page_offset if chunk.has_dictionary_page else chunk.data_page_offset
    return int(offset), int(chunk.total_compressed_size)
