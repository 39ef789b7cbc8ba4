"""Bytes in, blocks of a deflate stream (RFC 1951) out: the two kinds that byte planes of counts need.

Small counts have no repeats that are worth a search: in a window of 32 KiB, to
point at one takes more bits than the Huffman codes of its bytes. The planes
above hold runs. Both take a fraction of the time that a search takes, and the
bytes depend on nothing but the content.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from scvae_data.store.huffman import LONGEST_CODE, code_lengths, codes_of
from scvae_data.store.runs import run_starts
from scvae_data.system.jit import ahead_of, compiled

__all__ = ["END", "LITERAL_CODES", "LONGEST_LITERAL", "ORDER_OF_LENGTHS", "literals_block", "runs_block"]

END = 256
"""The symbol behind the last byte of a block."""
LITERAL_CODES = END + 1
N_SYMBOLS = 286
SHORTEST, LONGEST = 3, 258
"""Bytes that one match repeats."""
LONGEST_SYMBOL = 285
ORDER_OF_LENGTHS = np.array([16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15])
"""Symbols of the code that the lengths of codes are written in, in the order that its own lengths come in."""
LONGEST_LITERAL = 11
"""Bits of a byte's code at most where there are no matches: a reader looks up any of them at once, which costs 4 %."""
MOST_HEADER = 41
"""Words of 8 bytes that a block takes at most before its first byte and behind its last."""


def _of_matches() -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """For each length of a match its symbol, how many bits follow that, and what they say."""
    symbols, n_bits, bits = np.zeros((3, LONGEST + 1), np.int64)
    length = SHORTEST
    for symbol in range(END + 1, LONGEST_SYMBOL):
        more = max(0, (symbol - 261) // 4)
        for value in range(1 << more):
            symbols[length], n_bits[length], bits[length] = symbol, more, value
            length += 1
    symbols[LONGEST], n_bits[LONGEST], bits[LONGEST] = LONGEST_SYMBOL, 0, 0
    return symbols, n_bits, bits


SYMBOLS, N_BITS, BITS = _of_matches()


@compiled
def _put(words: NDArray[np.uint64], at: int, bits: Any, n_bits: int) -> int:
    """Add bits, the lowest first, to zeros from bit ``at`` on; return where they end."""
    word, shift, rest = np.uintp(at >> 6), np.uint64(at & 63), np.uint64(bits)
    words[word] |= rest << shift
    words[word + np.uintp(1)] |= rest >> np.uint64(1) >> (np.uint64(63) - shift)
    return at + n_bits


@compiled
def _put_header(words: NDArray[np.uint64], lengths: NDArray[np.int64], final: bool) -> int:
    """Begin a block with codes of its own; matches have one distance, 1, of which the code is a zero bit."""
    at = _put(words, 0, int(final) | 2 << 1, 3)
    at = _put(words, at, lengths.size - LITERAL_CODES, 5)
    at = _put(words, at, 0, 5)
    at = _put(words, at, ORDER_OF_LENGTHS.size - 4, 4)
    counts = np.zeros(ORDER_OF_LENGTHS.size, np.int64)
    counts[1] = 1
    for length in lengths:
        counts[length] += 1
    widths = code_lengths(counts, 7)
    codes = codes_of(widths)
    for symbol in ORDER_OF_LENGTHS:
        at = _put(words, at, widths[symbol], 3)
    for length in lengths:
        at = _put(words, at, codes[length], widths[length])
    return _put(words, at, codes[1], widths[1])


@ahead_of("process", "u1[::1], i8[::1]")
@compiled
def literals_block(values: NDArray[np.uint8], counts: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Code each byte by itself; what follows begins with a byte of its own.

    Parameters
    ----------
    counts
        How often each of the 256 bytes occurs.
    """
    of_symbols = np.ones(LITERAL_CODES, np.int64)
    for value in range(END):
        of_symbols[value] = counts[value]
    lengths = code_lengths(of_symbols, LONGEST_LITERAL)
    codes = codes_of(lengths)
    entries = np.empty(LITERAL_CODES, np.uint64)
    n_bits = 0
    for symbol in range(LITERAL_CODES):
        entries[symbol] = codes[symbol] << 4 | lengths[symbol]
        n_bits += of_symbols[symbol] * lengths[symbol]
    words = np.zeros(MOST_HEADER + n_bits // 64, np.uint64)
    at = _put_header(words, lengths, False)
    out = words.view(np.uint8)
    # Indices without sign need no test for a negative one; of five bytes the codes fill eight bytes at most.
    place, held, n_held = np.uintp(at >> 3), np.uint64(out[at >> 3]), np.uint64(at & 7)
    whole = values.size // 5 * 5
    for first in range(0, whole, 5):
        for k in range(5):
            entry = entries[values[np.uintp(first + k)]]
            held |= (entry >> np.uint64(4)) << n_held
            n_held += entry & np.uint64(15)
        for k in range(8):
            out[place + np.uintp(k)] = np.uint8(held >> np.uint64(8 * k))
        place += np.uintp(n_held >> np.uint64(3))
        held >>= n_held & np.uint64(56)
        n_held &= np.uint64(7)
    at = 8 * int(place) + int(n_held)
    for k in range(whole, values.size):
        at = _put(words, at, codes[values[k]], lengths[values[k]])
    at = _put(words, at, codes[END], lengths[END])
    # A stored block of no bytes goes on to the next whole byte: its header of three zeros, then 0 and its complement.
    end = (at + 3 + 7) // 8 + 4
    out[end - 2] = out[end - 1] = 255
    return out[:end]


@compiled
def _runs(values: NDArray[np.uint8], n_zeros: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the byte and the length of each run of equal bytes, the zeros behind them as one more."""
    starts = run_starts(values, values.size)
    n_found = starts.size - 1
    n = n_found + int(n_zeros > 0)
    of_runs, n_bytes = np.zeros(n, np.uint8), np.empty(n, np.int64)
    for run in range(n_found):
        of_runs[run] = values[starts[run]]
        n_bytes[run] = starts[run + 1] - starts[run]
    if n_zeros:
        n_bytes[n_found] = n_zeros
    return of_runs, n_bytes


@ahead_of("process", "u1[::1], i8")
@compiled
def runs_block(values: NDArray[np.uint8], n_zeros: int) -> NDArray[np.uint8]:
    """Code bytes and zeros behind them as the last block: of each run its byte, and matches that repeat it."""
    of_runs, n_bytes = _runs(values, n_zeros)
    counts = np.zeros(N_SYMBOLS, np.int64)
    counts[END] = 1
    n_bits = 0
    for run in range(of_runs.size):
        value = of_runs[run]
        n_longest, left = divmod(n_bytes[run] - 1, LONGEST)
        counts[value] += 1
        counts[LONGEST_SYMBOL] += n_longest
        n_bits += n_longest
        if left < SHORTEST:
            counts[value] += left
        else:
            counts[SYMBOLS[left]] += 1
            n_bits += N_BITS[left] + 1
    n_codes = N_SYMBOLS
    while not counts[n_codes - 1]:
        n_codes -= 1
    lengths = code_lengths(counts[:n_codes], LONGEST_CODE)
    codes = codes_of(lengths)
    for symbol in range(n_codes):
        n_bits += counts[symbol] * lengths[symbol]
    words = np.zeros(MOST_HEADER + n_bits // 64, np.uint64)
    at = _put_header(words, lengths, True)
    for run in range(of_runs.size):
        value = of_runs[run]
        n_longest, left = divmod(n_bytes[run] - 1, LONGEST)
        for _ in range(1 + left if left < SHORTEST else 1):
            at = _put(words, at, codes[value], lengths[value])
        for _ in range(n_longest):
            at = _put(words, at, codes[LONGEST_SYMBOL], lengths[LONGEST_SYMBOL] + 1)
        if left >= SHORTEST:
            symbol = SYMBOLS[left]
            bits = codes[symbol] | BITS[left] << lengths[symbol]
            at = _put(words, at, bits, lengths[symbol] + N_BITS[left] + 1)
    at = _put(words, at, codes[END], lengths[END])
    return words.view(np.uint8)[: (at + 7) // 8]
