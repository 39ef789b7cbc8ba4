"""Checksums for every column chunk of a Parquet file, kept between its last row group and its footer.

Parquet's own page checksums leave page headers out, and a changed header can
decode to other values. What lies between row groups and footer is ignored by
every Parquet reader, so the file stays an ordinary one.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import BinaryIO

import deflate
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

__all__ = ["Tail", "TailError", "read_tail", "seal"]

MAGIC = b"PAR1"


class TailError(ValueError):
    """The bytes are not those that the index describes; the caller adds the file."""


@dataclass(frozen=True, eq=False)
class Tail:
    """What the end of the file holds: the footer, and a checksum for each row group (row) and column; uint32."""

    metadata: pq.FileMetaData
    crc32: NDArray[np.uint32]

    def verify(self, fd: int, row_group: int, column: int) -> int:
        """Check the bytes of one column chunk of an open file; return how many they are."""
        offset, size = _extent(self.metadata, row_group, column)
        if deflate.crc32(os.pread(fd, size, offset)) != int(self.crc32[row_group, column]):
            name = self.metadata.schema.column(column).path
            raise TailError(f"column {name} of row group {row_group} does not match its checksum")
        return size


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


def read_tail(fd: int, *, file_bytes: int, tail_bytes: int, tail_crc32: int) -> Tail:
    """Read and check the end of an open file.

    Raises
    ------
    TailError
        If size or bytes are not those given.
    """
    size = os.fstat(fd).st_size
    if size != file_bytes or not 0 < tail_bytes <= size:
        raise TailError(f"has {size} bytes, the index says {file_bytes}")
    tail = os.pread(fd, tail_bytes, size - tail_bytes)
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
