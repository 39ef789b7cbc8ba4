"""Row kernels over compressed sparse rows, compiled; tests hold a NumPy twin of each."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from scvae_data.system.jit import compiled, instruction

__all__ = ["remap_row", "sort_rows"]


trailing_zeros = instruction("trailing_zeros")


@compiled
def _n_set(word: np.uint64) -> np.uint64:
    """Return how many bits are set, in the words by which LLVM knows the instruction that counts them."""
    word = word - ((word >> np.uint64(1)) & np.uint64(0x5555555555555555))
    word = (word & np.uint64(0x3333333333333333)) + ((word >> np.uint64(2)) & np.uint64(0x3333333333333333))
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return (word * np.uint64(0x0101010101010101)) >> np.uint64(56)


@compiled
def _rank(gene: np.uintp, bits: NDArray[np.uint64], ranks: NDArray[np.uint32]) -> np.uintp:
    """Return how many of the marked genes come before one; ``ranks`` says it of the first gene of each word."""
    word = gene >> np.uintp(6)
    below = (np.uint64(1) << np.uint64(gene & np.uintp(63))) - np.uint64(1)
    return np.uintp(ranks[word]) + np.uintp(_n_set(bits[word] & below))


@compiled
def remap_row(
    indices: NDArray[Any],
    data: NDArray[Any],
    gene_map: NDArray[np.int32],
    bits: NDArray[np.uint64],
    ranks: NDArray[np.uint32],
    unordered: NDArray[Any],
    sums: NDArray[np.int64],
    out_indices: NDArray[Any],
    out_data: NDArray[np.uint32],
) -> int:
    """Bring a row into a new gene order; return how many entries it has, or -1 where a sum passes uint32.

    Columns that map to one gene are summed. A row whose genes come in the new
    order already is copied. For others a bitmap of the genes with a count
    replaces the sort: how many of its bits are set before a gene is the place
    of the gene. ``bits`` (zeros, one bit per gene), ``ranks`` (one per word
    of them), ``unordered`` and ``sums`` (one per entry) are scratch; zeros come
    back as zeros.
    """
    n = indices.size
    # Loops that do one thing, without a way out, become vector instructions; of 32 bits twice as many fit as of 64.
    for k in range(n):
        out_indices[k] = gene_map[np.uintp(indices[k])]
    for k in range(n):
        out_data[k] = np.uint32(data[k])
    n_zeros, n_falls = np.uint32(0), np.uint32(0)
    for k in range(n):
        n_zeros = np.uint32(n_zeros + np.uint32(out_data[k] == 0))
    for k in range(1, n):
        n_falls = np.uint32(n_falls + np.uint32(out_indices[k] <= out_indices[k - 1]))
    if not n_zeros and not n_falls:
        return n
    for k in range(n):
        unordered[k] = out_indices[k]
    for k in range(n):
        gene = np.uintp(unordered[k])
        bits[gene >> np.uintp(6)] |= np.uint64(data[k] != 0) << np.uint64(gene & np.uintp(63))
    n_genes, largest = np.uint32(0), np.int64(0)
    for word in range(bits.size):
        ranks[word] = n_genes
        n_genes = np.uint32(n_genes + np.uint32(_n_set(bits[word])))
    if n_genes == n:  # no zeros, and no two of one gene, as in most rows
        for k in range(n):
            gene = np.uintp(unordered[k])
            place = _rank(gene, bits, ranks)
            out_indices[place] = gene
            out_data[place] = np.uint32(data[k])
    else:
        sums[:n_genes] = 0
        for k in range(n):
            if data[k] != 0:
                gene = np.uintp(unordered[k])
                place = _rank(gene, bits, ranks)
                out_indices[place] = gene
                sums[place] += np.int64(data[k])
        for k in range(n_genes):
            out_data[k] = sums[k]
            largest = max(largest, sums[k])
    for word in range(bits.size):
        bits[word] = 0
    return -1 if largest > 4294967295 else int(n_genes)


@compiled
def sort_rows(
    indptr: NDArray[np.int64],
    indices: NDArray[Any],
    data: NDArray[Any],
    counts: NDArray[Any],
    bits: NDArray[np.uint64],
) -> None:
    """Sort each row by index in place; indices in a row are distinct.

    ``counts`` (one per column) and ``bits`` (zeros, one bit per column) are
    scratch; the bits come back as zeros.
    """
    for row in range(indptr.size - 1):
        for k in range(indptr[row], indptr[row + 1]):
            column = np.int64(indices[k])
            counts[column] = data[k]
            bits[column >> 6] |= np.uint64(1) << np.uint64(column & 63)
        position = indptr[row]
        for word in range(bits.size):
            left = bits[word]
            while left:
                column = (word << 6) + np.int64(trailing_zeros(left))
                left &= left - np.uint64(1)
                indices[position] = column
                data[position] = counts[column]
                position += 1
            bits[word] = 0
