"""One block of integers to stored bytes and back, as HDF5's own filters would do it.

Nothing here touches HDF5: blocks are written with ``write_direct_chunk`` and
read with ``pread``, so that both run in threads, outside HDF5's global lock.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal, NamedTuple, get_args

import deflate
import numpy as np
from numpy.typing import NDArray

from scvae_data.errors import ConfigError
from scvae_data.store.planes import join_planes, narrow, shuffle

__all__ = ["Codec", "CodecError", "CodecName", "Plain"]

CodecName = Literal["gzip", "lz4", "none"]

# First and last allowed level, and the default. libdeflate's level 1 gives
# the size of zlib's level 4 at several times its speed.
LEVELS: dict[str, tuple[int, int, int]] = {"gzip": (1, 12, 1), "lz4": (1, 9, 5), "none": (0, 0, 0)}

DEFLATE_FILTER, SHUFFLE_FILTER, BLOSC_FILTER = 1, 2, 32001


class CodecError(ValueError):
    """A stored block cannot be decoded; the message says why and leaves the file to the caller."""


class Plain(NamedTuple):
    """A decompressed block: its bytes, values it holds, bytes a value takes, and whether they are shuffled."""

    content: bytes | bytearray
    length: int
    itemsize: int
    shuffled: bool

    def copy_into(self, start: int, out: NDArray[Any]) -> int:
        """Copy ``out.size`` values from value ``start`` on; return the largest of them."""
        if self.shuffled:
            return join_planes(np.frombuffer(self.content, np.uint8), self.length, start, out)
        values = np.frombuffer(self.content, f"<u{self.itemsize}")
        return narrow(values[start : start + out.size], out)


@functools.cache
def _blosc() -> ModuleType:
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
            return deflate.zlib_compress(shuffle(values, length, itemsize), self.level)  # type: ignore[no-any-return]
        wide = np.zeros(length, dtype=f"<u{itemsize}")
        wide[: values.size] = values
        if self.name == "lz4":
            blosc = _blosc()
            return blosc.compress(wide, b"lz4", self.level, blosc.SHUFFLE)  # type: ignore[no-any-return]
        return wide.tobytes()

    def decode(self, stored: bytes, *, filter_mask: int, length: int, itemsize: int) -> Plain:
        """Decompress one stored block.

        Parameters
        ----------
        stored
            The bytes as they lie in the file.
        filter_mask
            HDF5's: bit i set means that the i-th filter was skipped for this block.
        length, itemsize
            Values in the block (also in the last, padded one) and bytes each takes.

        Raises
        ------
        CodecError
            If the bytes do not decode to exactly ``length * itemsize`` bytes.
        """
        n_bytes = length * itemsize
        content: bytes | bytearray = stored
        shuffled = False
        if self.name == "gzip":
            content = stored if filter_mask & 2 else _inflate(stored, n_bytes)
            shuffled = not filter_mask & 1
        elif self.name == "lz4" and not filter_mask & 1:
            content = _unblosc(stored, n_bytes)
        if len(content) != n_bytes:
            raise CodecError(f"decodes to {len(content)} bytes instead of {n_bytes}")
        return Plain(content, length, itemsize, shuffled)


def _inflate(stored: bytes, n_bytes: int) -> bytearray:
    try:
        return deflate.zlib_decompress(stored, n_bytes)  # type: ignore[no-any-return]
    except deflate.DeflateError as error:
        raise CodecError(f"is not valid deflate data ({error})") from None


def _unblosc(stored: bytes, n_bytes: int) -> bytes:
    # The header is believed only once it agrees with the table: blosc allocates what it declares.
    declared = int.from_bytes(stored[4:8], "little")
    held = int.from_bytes(stored[12:16], "little")
    if len(stored) < 16 or declared != n_bytes or held != len(stored):
        raise CodecError(f"declares {declared} bytes in {held} instead of {n_bytes} in {len(stored)}")
    try:
        return _blosc().decompress(stored)  # type: ignore[no-any-return]
    except RuntimeError as error:
        raise CodecError(f"is not valid blosc data ({error})") from None
