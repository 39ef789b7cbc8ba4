"""One block of integers to stored bytes and back, as HDF5's own filters would do it.

Nothing here touches HDF5: blocks are written with ``write_direct_chunk`` and
read with ``pread``, so that both run in threads, outside HDF5's global lock.
"""

from __future__ import annotations

import functools
import struct
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal, get_args

import deflate
import numpy as np
from numpy.typing import NDArray

from scvae_data.errors import ConfigError
from scvae_data.store.byte_shuffle import byte_entropy, join_planes, shuffle

__all__ = ["BLOSC_HEADER", "BLOSC_LZ4", "BLOSC_SHUFFLED", "Codec", "CodecError", "CodecName", "blosc_module"]

CodecName = Literal["gzip", "lz4", "none"]

# First and last allowed level, and the default. Small counts decode fastest from libdeflate's
# level 4; above it files shrink by 3 % and take longer to write.
LEVELS: dict[str, tuple[int, int, int]] = {"gzip": (1, 12, 4), "lz4": (1, 9, 5), "none": (0, 0, 0)}

DEFLATE_FILTER, SHUFFLE_FILTER, BLOSC_FILTER = 1, 2, 32001

# The lowest bytes of column numbers are close to random: deflate would save 5 % of them and take
# ten times as long to read. From this entropy on, in bits a byte, a plane is stored as it is.
STORED_ENTROPY = 7.5
STORED_PIECE = 65_535  # bytes of a stored piece at most, by the definition of deflate
# A blosc buffer: version of the format and of lz4, flags, bytes a value; its bytes, those of a
# block and those of the buffer, little-endian; then where each block begins.
BLOSC_HEADER = struct.Struct("<4B3I")
BLOSC_SHUFFLED, BLOSC_LZ4 = 0x01, 0x20


class CodecError(ValueError):
    """A stored block cannot be decoded; the message says why and leaves the file to the caller."""


@functools.cache
def blosc_module() -> ModuleType:
    """The module that encodes and decodes blosc buffers."""
    from numcodecs import blosc

    # With its own threads blosc works on one shared context behind a lock; without,
    # every call has its own context, releases the GIL, and survives fork.
    blosc.use_threads = False
    return blosc  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Codec:
    """How blocks are compressed.

    Parameters
    ----------
    name
        ``"gzip"``: HDF5's shuffle and deflate filters, which every HDF5 reads.
        ``"lz4"``: the blosc filter (32001) with lz4 and byte shuffle; faster,
        and readable only where hdf5plugin is imported. ``"none"``: as they are.
    level
        gzip 1-12, lz4 1-9, none 0; None takes the codec's default.
    """

    name: CodecName = "gzip"
    level: int | None = None

    def __post_init__(self) -> None:
        if self.name not in LEVELS:
            raise ConfigError(f"compression={self.name!r} is not one of {', '.join(get_args(CodecName))}")
        first, last, default = LEVELS[self.name]
        level = default if self.level is None else self.level
        if isinstance(level, bool) or not isinstance(level, int) or not first <= level <= last:
            allowed = f"{first} to {last}" if last else "null"
            raise ConfigError(f"compression_level={level!r} does not fit compression={self.name}: it takes {allowed}")
        object.__setattr__(self, "level", level)

    def filters(self, length: int, itemsize: int) -> list[tuple[int, tuple[int, ...]]]:
        """HDF5 filter ids and client values for blocks of ``length`` values, in pipeline order."""
        assert self.level is not None
        if self.name == "gzip":
            return [(SHUFFLE_FILTER, (itemsize,)), (DEFLATE_FILTER, (min(self.level, 9),))]
        if self.name == "lz4":
            # filter revision, blosc format, bytes a value, bytes a block, level, byte shuffle, lz4
            return [(BLOSC_FILTER, (2, 2, itemsize, length * itemsize, self.level, 1, 1))]
        return []

    def encode(self, values: NDArray[Any], length: int, itemsize: int) -> bytes | bytearray:
        """Store unsigned ``values`` as a block of ``length`` values of ``itemsize`` bytes, zeros after the last."""
        if self.name == "gzip":
            return _deflate(shuffle(values, length, itemsize), length, self.level or 1)
        wide = np.zeros(length, dtype=f"<u{itemsize}")
        wide[: values.size] = values
        if self.name == "lz4":
            blosc = blosc_module()
            return blosc.compress(wide, b"lz4", self.level, blosc.SHUFFLE)  # type: ignore[no-any-return]
        return wide.tobytes()

    def decode(
        self, stored: bytes | bytearray | memoryview, *, filter_mask: int, length: int, itemsize: int
    ) -> NDArray[Any]:
        """Decompress one stored block.

        Parameters
        ----------
        stored
            The bytes as they lie in the file; their checksum is the caller's to verify.
        filter_mask
            HDF5's: bit i set means that the i-th filter was skipped for this block.
        length, itemsize
            Values in the block (also in the last, padded one) and bytes each takes.

        Returns
        -------
        Unsigned integers of ``itemsize`` bytes, (length,).

        Raises
        ------
        CodecError
            If the bytes do not decode to exactly ``length * itemsize`` bytes.
        """
        n_bytes = length * itemsize
        content: Any = stored
        if self.name == "lz4" and not filter_mask & 1:
            content = _unblosc(stored, n_bytes)
        elif self.name == "gzip" and not filter_mask & 2:
            try:
                content = deflate.zlib_decompress(stored, n_bytes)
            except deflate.DeflateError:
                raise CodecError(f"is not valid deflate data of {n_bytes} bytes") from None
        if len(content) != n_bytes:
            raise CodecError(f"decodes to {len(content)} bytes instead of {n_bytes}")
        if self.name == "gzip" and not filter_mask & 1:
            values = np.empty(length, f"<u{itemsize}")
            join_planes(np.frombuffer(bytearray(content), np.uint8).reshape(itemsize, length), values)
            return values
        return np.frombuffer(content, f"<u{itemsize}")


def _deflate(planes: NDArray[np.uint8], length: int, level: int) -> bytes | bytearray:
    """Compress byte planes into one zlib stream; a lowest plane that looks random is stored as it is."""
    content = planes.data
    if byte_entropy(planes[:length]) < STORED_ENTROPY:
        return deflate.zlib_compress(content, level)  # type: ignore[no-any-return]
    stream = bytearray(b"\x78\x01")
    for start in range(0, length, STORED_PIECE):
        piece = content[start : min(start + STORED_PIECE, length)]
        stream += struct.pack("<BHH", 0, len(piece), len(piece) ^ 0xFFFF) + piece
    stream += deflate.deflate_compress(content[length:], level)
    stream += struct.pack(">I", deflate.adler32(content))
    return stream


def _unblosc(stored: bytes | bytearray | memoryview, n_bytes: int) -> bytes:
    # The header is believed only once it agrees with the table: blosc writes as much as it declares.
    declared = int.from_bytes(stored[4:8], "little")
    held = int.from_bytes(stored[12:16], "little")
    if len(stored) < 16 or declared != n_bytes or held != len(stored):
        raise CodecError(f"declares {declared} bytes in {held} instead of {n_bytes} in {len(stored)}")
    try:
        return blosc_module().decompress(stored)  # type: ignore[no-any-return]
    except RuntimeError as error:
        raise CodecError(f"is not valid blosc data ({error})") from None
