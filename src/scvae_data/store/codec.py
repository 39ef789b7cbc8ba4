"""One block of integers to stored bytes and back, as HDF5's own filters would do it, by codecs known by name.

Nothing here touches HDF5: blocks are written with ``write_direct_chunk`` and
read with ``pread``, so that both run in threads, outside HDF5's global lock.
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import deflate
import numpy as np
from numpy.typing import NDArray

from scvae_data.errors import ConfigError
from scvae_data.store.blosc_buffer import blosc_buffer, blosc_module, can_encode
from scvae_data.store.byte_shuffle import byte_counts, entropy, join_planes, shuffle
from scvae_data.store.deflate_blocks import literals_block, runs_block
from scvae_data.system.import_path import imported

__all__ = [
    "CODECS",
    "Codec",
    "CodecError",
    "Gzip",
    "Lz4",
    "Native",
    "Uncompressed",
    "as_values",
    "codec_of",
    "imported_codec",
    "padded",
]

Native = Literal["gzip", "lz4"]
CODECS: dict[str, type[Codec]] = {}
"""Every codec that this process knows, by name."""

DEFLATE_FILTER, SHUFFLE_FILTER, BLOSC_FILTER = 1, 2, 32001

# The lowest bytes of column numbers are close to random: deflate would save 5 % of them and take
# ten times as long to read. From this entropy on, in bits a byte, a plane is stored as it is.
STORED_ENTROPY = 7.5
# A byte by itself takes a bit at least; a plane of less is one of runs.
LITERAL_ENTROPY = 0.5
# Up to this level planes above the lowest are coded as runs; from the next on repeats are searched for in them.
LAST_OF_RUNS = 4
STORED_PIECE = 65_535  # bytes of a stored piece at most, by the definition of deflate
ADLER_PRIME = 65_521


class CodecError(ValueError):
    """A stored block cannot be decoded; the message says why and leaves the file to the caller."""


@dataclass(frozen=True, init=False)
class Codec(ABC):
    """How blocks are compressed.

    A codec of your own is a subclass, known from when its module is imported
    by its import path, which the index of a directory records. Where a
    directory is written, ``chunking.compression=my_codecs.Zstd`` imports it.
    An index is data, and opening a directory imports nothing: whoever reads
    it imports ``my_codecs`` before, or is told to. Worker processes get the
    codec from the process that starts them.

    Parameters
    ----------
    level
        How hard to compress; None takes the codec's default.

    Raises
    ------
    ConfigError
        If the codec has no such level.
    """

    name: ClassVar[str]
    """What the index and ``chunking.compression`` call it: the import path unless the class says otherwise."""
    levels: ClassVar[tuple[int, int, int]] = (0, 0, 0)
    """First and last allowed level, and the default."""
    native: ClassVar[Native | None] = None
    """How ``scvae_data.store.native_decode`` decodes the blocks; None for :meth:`decode` alone."""
    level: int

    def __init_subclass__(cls, name: str | None = None) -> None:
        cls.name = f"{cls.__module__}.{cls.__qualname__}" if name is None else name
        if "__main__" not in cls.name and "<locals>" not in cls.name:  # whoever reads could not import those
            CODECS[cls.name] = cls

    def __init__(self, level: int | None = None) -> None:
        first, last, default = self.levels
        level = default if level is None else level
        if isinstance(level, bool) or not isinstance(level, int) or not first <= level <= last:
            allowed = f"{first} to {last}" if last else "null"
            raise ConfigError(f"compression_level={level!r} does not fit compression={self.name}: it takes {allowed}")
        object.__setattr__(self, "level", level)

    @abstractmethod
    def filters(self, length: int, itemsize: int) -> list[tuple[int, tuple[int, ...]]]:
        """HDF5 filter ids and client values for blocks of ``length`` values, in pipeline order.

        HDF5 writes the name of a filter that it knows into the file, so a
        plugin that brings one must be imported here, for equal bytes anywhere.
        """

    @abstractmethod
    def encode(self, values: NDArray[Any], length: int, itemsize: int) -> bytes | bytearray:
        """Store unsigned ``values`` as a block of ``length`` values of ``itemsize`` bytes, zeros after the last.

        Called by several threads at once, as is :meth:`decode`.
        """

    @abstractmethod
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


class Gzip(Codec, name="gzip"):
    """HDF5's shuffle and deflate filters, which every HDF5 reads."""

    # Levels up to the default are one; above it files shrink by 2 % and take three times as long to compress.
    levels = (1, 12, 4)
    native = "gzip"

    def filters(self, length: int, itemsize: int) -> list[tuple[int, tuple[int, ...]]]:
        """Shuffle, then deflate."""
        return [(SHUFFLE_FILTER, (itemsize,)), (DEFLATE_FILTER, (min(self.level, 9),))]

    def encode(self, values: NDArray[Any], length: int, itemsize: int) -> bytes | bytearray:
        """Byte planes as a zlib stream."""
        all_of_them = self.level > LAST_OF_RUNS
        planes = shuffle(values, length, itemsize if all_of_them else min(itemsize, values.dtype.itemsize))
        return _deflate(planes, (itemsize - len(planes)) * length, self.level)

    def decode(
        self, stored: bytes | bytearray | memoryview, *, filter_mask: int, length: int, itemsize: int
    ) -> NDArray[Any]:
        """See :meth:`Codec.decode`."""
        content = stored
        if not filter_mask & 2:
            try:
                content = deflate.zlib_decompress(stored, length * itemsize)
            except deflate.DeflateError:
                raise CodecError(f"is not valid deflate data of {length * itemsize} bytes") from None
        values = as_values(content, length, itemsize)
        if filter_mask & 1:
            return values
        joined = np.empty(length, f"<u{itemsize}")
        join_planes(np.frombuffer(bytearray(content), np.uint8).reshape(itemsize, length), joined)
        return joined


class Lz4(Codec, name="lz4"):
    """The blosc filter (32001) with lz4 and byte shuffle: faster, and readable only where hdf5plugin is imported."""

    levels = (1, 9, 5)
    native = "lz4"

    def filters(self, length: int, itemsize: int) -> list[tuple[int, tuple[int, ...]]]:
        """Blosc: filter revision, its format, bytes a value, bytes a block, level, byte shuffle, lz4."""
        import hdf5plugin  # noqa: F401

        return [(BLOSC_FILTER, (2, 2, itemsize, length * itemsize, self.level, 1, 1))]

    def encode(self, values: NDArray[Any], length: int, itemsize: int) -> bytes | bytearray:
        """A blosc buffer."""
        if can_encode(length):
            return blosc_buffer(shuffle(values, length, min(itemsize, values.dtype.itemsize)), itemsize, self.level)
        blosc, block = blosc_module(), padded(values, length, itemsize)
        return blosc.compress(block, b"lz4", self.level, blosc.SHUFFLE)  # type: ignore[no-any-return]

    def decode(
        self, stored: bytes | bytearray | memoryview, *, filter_mask: int, length: int, itemsize: int
    ) -> NDArray[Any]:
        """See :meth:`Codec.decode`."""
        content = stored if filter_mask & 1 else _unblosc(stored, length * itemsize)
        return as_values(content, length, itemsize)


class Uncompressed(Codec, name="none"):
    """Blocks as they are."""

    def filters(self, length: int, itemsize: int) -> list[tuple[int, tuple[int, ...]]]:
        """None."""
        return []

    def encode(self, values: NDArray[Any], length: int, itemsize: int) -> bytes | bytearray:
        """The block."""
        return padded(values, length, itemsize).tobytes()

    def decode(
        self, stored: bytes | bytearray | memoryview, *, filter_mask: int, length: int, itemsize: int
    ) -> NDArray[Any]:
        """See :meth:`Codec.decode`."""
        return as_values(stored, length, itemsize)


def codec_of(name: str, level: int | None = None) -> Codec:
    """The codec of a name that an index gives; imports nothing.

    Raises
    ------
    ConfigError
        If this process knows no such codec, or it has no such level.
    """
    if name not in CODECS:
        raise ConfigError(f"compression={name!r} is not one of {', '.join(CODECS)}, nor the import path of a Codec")
    return CODECS[name](level)


def imported_codec(name: str, level: int | None = None) -> Codec:
    """The codec of a name or import path that the user gives; what it names is imported.

    Raises
    ------
    ConfigError
        As :func:`codec_of`; also where nothing is found, or something that no reader could import.
    """
    if name in CODECS or "." not in name:
        return codec_of(name, level)
    found = imported(name, "compression")
    if not isinstance(found, type) or not issubclass(found, Codec) or found.name not in CODECS:
        raise ConfigError(f"compression={name!r} is no subclass of Codec at the top of a module; write one there")
    return found(level)


def padded(values: NDArray[Any], length: int, itemsize: int) -> NDArray[Any]:
    """A block as it is before it is compressed: little-endian integers, (length,), zeros after ``values``."""
    block = np.zeros(length, dtype=f"<u{itemsize}")
    block[: values.size] = values
    return block


def as_values(content: bytes | bytearray | memoryview, length: int, itemsize: int) -> NDArray[Any]:
    """Decompressed bytes as the values of a block, over the same memory; CodecError unless they are as many."""
    if len(content) != length * itemsize:
        raise CodecError(f"decodes to {len(content)} bytes instead of {length * itemsize}")
    return np.frombuffer(content, f"<u{itemsize}")


def _deflate(planes: NDArray[np.uint8], n_zeros: int, level: int) -> bytes:
    """Compress byte planes, (n, length), and zeros behind them into one zlib stream."""
    lowest, content = planes[0], planes.reshape(-1)
    counts = byte_counts(lowest)
    bits = entropy(counts)
    stream: list[Any] = [b"\x78\x01"]
    first = lowest.size
    if bits >= STORED_ENTROPY:
        for start in range(0, lowest.size, STORED_PIECE):
            piece = lowest[start : start + STORED_PIECE]
            stream += struct.pack("<BHH", 0, piece.size, piece.size ^ 0xFFFF), piece
    elif bits >= LITERAL_ENTROPY:
        stream.append(literals_block(lowest, counts))
    else:
        first = 0
    if level <= LAST_OF_RUNS:
        stream.append(runs_block(content[first:], n_zeros))
    else:
        stream.append(deflate.deflate_compress(content[first:].data, level))
    stream.append(struct.pack(">I", _with_zeros(deflate.adler32(content.data), n_zeros)))
    return b"".join(stream)


def _with_zeros(adler32: int, n_zeros: int) -> int:
    """Return the checksum of bytes and zeros behind them, of that of the bytes: a sum, and the sum of all its steps."""
    total, of_totals = adler32 & 0xFFFF, adler32 >> 16
    return (of_totals + n_zeros * total) % ADLER_PRIME << 16 | total


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
