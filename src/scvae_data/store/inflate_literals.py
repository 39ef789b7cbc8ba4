"""The block that small counts are coded in, read several bytes at a time; whatever else a stream holds is left alone.

A plane of small counts has codes of two bits on average. Looked up one by one,
as it must be where a code may begin a match, that is most of the time that
reading takes. Where there are none, eleven bits give four bytes at once.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scvae_data.store.deflate_blocks import END, LITERAL_CODES, LONGEST_LITERAL, ORDER_OF_LENGTHS
from scvae_data.store.huffman import codes_of, is_complete
from scvae_data.system.jit import compiled

__all__ = ["MARGIN", "NOT_TAKEN", "read_literals"]

NOT_TAKEN = -1
MARGIN = 16
"""Bytes behind the content that must be readable; their values do not matter."""
# A block of codes of its own that is not the last: 257 codes of bytes, one of a distance, 19 of lengths.
HEADER = 2 << 1 | (LITERAL_CODES - 257) << 3 | 0 << 8 | (ORDER_OF_LENGTHS.size - 4) << 13
HEADER_BITS = 17
MOST_HEADER = 320
"""Bytes of a header at most."""
MOST_BYTES = 6
"""Bytes of an entry of that table; above them are their number and that of their bits."""
LOOKUPS = 4
"""Lookups that 64 bits last for, wherever in a byte they begin."""


@compiled
def _bits(content: NDArray[np.uint8], at: int, n_bits: int) -> int:
    """Up to 16 bits from bit ``at`` on."""
    place = np.uintp(at >> 3)
    held = int(content[place]) | int(content[place + np.uintp(1)]) << 8 | int(content[place + np.uintp(2)]) << 16
    return (held >> (at & 7)) & ((1 << n_bits) - 1)


@compiled
def _lookup(lengths: NDArray[np.int64], width: int) -> NDArray[np.uint16]:
    """For any ``width`` bits, the symbol whose code they begin with, and in the lowest four bits its length."""
    codes = codes_of(lengths)
    table = np.zeros(1 << width, np.uint16)
    for length in range(1, width + 1):
        half = 1 << (length - 1)
        for bits in range(half):  # what shorter codes are followed by does not matter
            table[half + bits] = table[bits]
        for symbol in range(lengths.size):
            if lengths[symbol] == length:
                table[codes[symbol]] = symbol << 4 | length
    return table


@compiled
def _lookup_several(single: NDArray[np.uint16]) -> NDArray[np.uint64]:
    """For any ``LONGEST_LITERAL`` bits, the bytes that they are, as far as whole codes reach."""
    table = np.zeros(1 << LONGEST_LITERAL, np.uint64)
    for bits in range(1 << LONGEST_LITERAL):
        entry, n_bytes, used = 0, 0, 0
        while n_bytes < MOST_BYTES:
            symbol, length = int(single[bits >> used]) >> 4, int(single[bits >> used]) & 15
            if used + length > LONGEST_LITERAL or symbol == END:
                break
            entry |= symbol << 8 * n_bytes
            n_bytes += 1
            used += length
        table[bits] = np.uint64(entry | n_bytes << 48 | used << 56)
    return table


@compiled
def _read_header(content: NDArray[np.uint8], lengths: NDArray[np.int64]) -> int:
    """Fill in the lengths of the codes; return the bit behind them, ``NOT_TAKEN`` for another kind of block."""
    if _bits(content, 0, 16) | _bits(content, 16, 1) << 16 != HEADER:
        return NOT_TAKEN
    at = HEADER_BITS
    widths = np.zeros(ORDER_OF_LENGTHS.size, np.int64)
    for symbol in ORDER_OF_LENGTHS:
        widths[symbol] = _bits(content, at, 3)
        at += 3
    if not is_complete(widths):
        return NOT_TAKEN
    table = _lookup(widths, 7)
    for symbol in range(LITERAL_CODES + 1):
        entry = int(table[_bits(content, at, 7)])
        at += entry & 15
        if entry >> 4 > LONGEST_LITERAL:  # or a repeated length
            return NOT_TAKEN
        if symbol < LITERAL_CODES:
            lengths[symbol] = entry >> 4
        elif entry >> 4 != 1:  # the distance, of which there is one
            return NOT_TAKEN
    return at if is_complete(lengths) else NOT_TAKEN


@compiled
def read_literals(content: NDArray[np.uint8], n: int, out: NDArray[np.uint8]) -> int:
    """Fill ``out`` from the first block of a stream, if it is one of bytes alone, of as many, and a whole byte follows.

    Parameters
    ----------
    content
        The stream of ``n`` bytes, and ``MARGIN`` more.

    Returns
    -------
    The byte that the next block begins at; ``NOT_TAKEN`` where the first one is another, and ``out`` holds anything.
    """
    lengths = np.zeros(LITERAL_CODES, np.int64)
    at = _read_header(content, lengths) if n > MOST_HEADER else NOT_TAKEN
    if at < 0:
        return NOT_TAKEN
    single = _lookup(lengths, LONGEST_LITERAL)
    several = _lookup_several(single)
    mask = np.uint64(several.size - 1)
    done, size = np.uintp(0), np.uintp(out.size)
    while at >> 3 < n:
        # Entries are written whole, eight bytes, as long as there is room for that; what is too much is written over.
        if done + np.uintp(MOST_BYTES * LOOKUPS + 2) <= size:
            place, held, before = np.uintp(at >> 3), np.uint64(0), done
            for k in range(8):
                held |= np.uint64(content[place + np.uintp(k)]) << np.uint64(8 * k)
            held >>= np.uint64(at & 7)
            for _ in range(LOOKUPS):
                entry = several[held & mask]
                for k in range(8):
                    out[done + np.uintp(k)] = np.uint8(entry >> np.uint64(8 * k))
                done += np.uintp((entry >> np.uint64(48)) & np.uint64(255))
                held >>= entry >> np.uint64(56)
                at += int(entry >> np.uint64(56))
            if done != before:
                continue
        entry = single[_bits(content, at, LONGEST_LITERAL)]
        at += int(entry) & 15
        if int(entry) >> 4 == END:
            break
        if done == size:
            return NOT_TAKEN
        out[done] = int(entry) >> 4
        done += np.uintp(1)
    # An empty stored block goes on to the next whole byte.
    end = (at + 3 + 7) // 8 + 4
    if done < size or end > n or _bits(content, at, 3):
        return NOT_TAKEN
    if content[end - 4] | content[end - 3] or content[end - 2] & content[end - 1] != 255:
        return NOT_TAKEN
    return end
