"""Row kernels over compressed sparse rows, compiled; tests hold a NumPy twin of each."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from scvae_data.system.jit import compiled, instruction

__all__ = ["remap_row", "sort_rows"]


trailing_zeros = instruction("trailing_zeros")


@compiled
def remap_row(
    indices: NDArray[Any],
    data: NDArray[Any],
    gene_map: NDArray[np.int32],
    values: NDArray[np.uint32],
    counts: NDArray[np.int64],
    bits: NDArray[np.uint64],
    out_indices: NDArray[Any],
    out_data: NDArray[np.uint32],
) -> int:
    """Bring a row into a new gene order; return how many entries it has, or -1 where a sum passes uint32.

    Columns that map to one gene are summed. A row whose genes come in the new
    order already is copied. For others a bitmap of touched genes replaces the
    sort: ``values`` (one per gene), ``counts`` (zeros, one per gene) and
    ``bits`` (zeros, one bit per gene) are scratch; zeros come back as zeros.
    """
    n = indices.size
    # Loops without a way out become vector instructions.
    for k in range(n):
        out_indices[k] = gene_map[indices[k]]
        out_data[k] = np.uint32(data[k])
    n_zeros, n_falls = 0, 0
    for k in range(n):
        n_zeros += out_data[k] == 0
    for k in range(1, n):
        n_falls += out_indices[k] <= out_indices[k - 1]
    if not n_zeros and not n_falls:
        return n
    if not n_zeros:
        for k in range(n):
            place = np.uintp(out_indices[k])
            values[place] = out_data[k]
            bits[place >> np.uintp(6)] |= np.uint64(1) << np.uint64(place & np.uintp(63))
        n_genes = 0
        for word in range(bits.size):
            left = bits[word]
            while left:
                place = np.uintp(word << 6) + np.uintp(trailing_zeros(left))
                left &= left - np.uint64(1)
                out_indices[n_genes] = place
                out_data[n_genes] = values[place]
                n_genes += 1
            bits[word] = 0
        if n_genes == n:  # no two of one gene, as in most rows
            return n
    for k in range(n):
        value = np.int64(data[k])
        if value:
            gene = np.int64(gene_map[indices[k]])
            counts[gene] += value
            bits[gene >> 6] |= np.uint64(1) << np.uint64(gene & 63)
    position = 0
    for word in range(bits.size):
        left = bits[word]
        while left:
            gene = (word << 6) + np.int64(trailing_zeros(left))
            left &= left - np.uint64(1)
            if counts[gene] > 4294967295:
                return -1
            out_indices[position] = gene
            out_data[position] = counts[gene]
            counts[gene] = 0
            position += 1
        bits[word] = 0
    return position


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
