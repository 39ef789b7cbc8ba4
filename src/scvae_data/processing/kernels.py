"""Row kernels over compressed sparse rows, compiled; tests hold a NumPy twin of each."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from scvae_data.jit import compiled

__all__ = ["FAULTS", "first_fault", "place_rows", "remap_rows", "row_sums", "row_totals", "sort_rows"]

FAULTS = {1: "not_finite", 2: "negative", 3: "fractional", 4: "too_large"}
# Counts up to this value are ranked by a table instead of a sort.
TABLE_SIZE = 1024


@intrinsic  # type: ignore[untyped-decorator]
def trailing_zeros(_context: Any, _word: Any) -> Any:
    """Count trailing zero bits of a uint64 that is not zero (one machine instruction)."""

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], context.get_constant(types.boolean, True))

    return types.uint64(types.uint64), generate


@compiled
def first_fault(data: NDArray[np.floating[Any]]) -> tuple[int, int]:
    """Return (position, fault) of the first float that is no count, or (-1, 0).

    Faults: 1 not finite, 2 negative, 3 fractional, 4 above 2**32 - 1.
    """
    for position in range(data.size):
        value = data[position]
        if not np.isfinite(value):
            return position, 1
        if value < 0:
            return position, 2
        if value > 4294967295.0:
            return position, 4
        if value != np.floor(value):
            return position, 3
    return -1, 0


@compiled
def row_sums(
    indptr: NDArray[np.int64],
    indices: NDArray[Any],
    data: NDArray[Any],
    flags: NDArray[np.uint8],
    tops: NDArray[np.int64],
    total: NDArray[np.int64],
    n_genes: NDArray[np.int64],
    by_class: NDArray[np.int64],
    top: NDArray[np.int64],
) -> None:
    """Fill the exact sums of every row; ``tops`` is ascending, explicit zeros do not count."""
    table = np.zeros(TABLE_SIZE, np.int64)
    large = np.empty(0, np.int64)
    for row in range(indptr.size - 1):
        n_large = 0
        row_total = np.int64(0)
        row_genes = 0
        highest = np.int64(0)
        for k in range(indptr[row], indptr[row + 1]):
            value = np.int64(data[k])
            if value == 0:
                continue
            row_total += value
            row_genes += 1
            flag = flags[indices[k]]
            if flag:
                if flag & 1:
                    by_class[row, 0] += value
                if flag & 2:
                    by_class[row, 1] += value
                if flag & 4:
                    by_class[row, 2] += value
            if value < TABLE_SIZE:
                table[value] += 1
                highest = value if value > highest else highest
            else:
                if n_large == large.size:
                    grown = np.empty(2 * large.size + 64, np.int64)
                    grown[:n_large] = large
                    large = grown
                large[n_large] = value
                n_large += 1
        total[row] = row_total
        n_genes[row] = row_genes
        if tops.size:
            ranked = np.sort(large[:n_large])
            sum_top = np.int64(0)
            taken = np.int64(0)
            level = 0
            for k in range(n_large - 1, -1, -1):
                if level == tops.size:
                    break
                sum_top += ranked[k]
                taken += 1
                while level < tops.size and taken == tops[level]:
                    top[row, level] = sum_top
                    level += 1
            for count in range(highest, 0, -1):
                left = table[count]
                while left and level < tops.size:
                    missing = tops[level] - taken
                    step = left if left < missing else missing
                    taken += step
                    left -= step
                    sum_top += step * count
                    if taken == tops[level]:
                        top[row, level] = sum_top
                        level += 1
                table[count] = 0
            while level < tops.size:
                top[row, level] = sum_top
                level += 1
        table[: highest + 1] = 0


@compiled
def remap_rows(
    indptr: NDArray[np.int64],
    indices: NDArray[Any],
    data: NDArray[Any],
    keep: NDArray[np.bool_],
    gene_map: NDArray[np.int32],
    counts: NDArray[np.int64],
    bits: NDArray[np.uint64],
    out_indices: NDArray[Any],
    out_data: NDArray[np.uint32],
    out_start: int,
    out_lengths: NDArray[np.int64],
    gene_cells: NDArray[np.int64],
    gene_totals: NDArray[np.int64],
) -> int:
    """Append the kept rows in a new gene order; return where the output ends, or -1 where a sum passes uint32.

    Columns that map to one gene are summed. A row whose genes come in the new
    order already is copied. For others a bitmap of touched genes replaces the
    sort: ``counts`` (zeros, one per gene) and ``bits`` (zeros, one bit per
    gene) are scratch and come back as zeros.
    """
    position = out_start
    n_kept = 0
    for row in range(indptr.size - 1):
        if not keep[row]:
            continue
        first = position
        ordered = True
        previous = np.int64(-1)
        for k in range(indptr[row], indptr[row + 1]):
            value = np.int64(data[k])
            if value:
                gene = np.int64(gene_map[indices[k]])
                if gene <= previous:
                    ordered = False
                    break
                out_indices[position] = gene
                out_data[position] = value
                previous = gene
                position += 1
        if not ordered:
            position = first
            for k in range(indptr[row], indptr[row + 1]):
                value = np.int64(data[k])
                if value:
                    gene = np.int64(gene_map[indices[k]])
                    counts[gene] += value
                    bits[gene >> 6] |= np.uint64(1) << np.uint64(gene & 63)
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
        for k in range(first, position):
            gene_cells[out_indices[k]] += 1
            gene_totals[out_indices[k]] += np.int64(out_data[k])
        out_lengths[n_kept] = position - first
        n_kept += 1
    return position


@compiled
def row_totals(
    row_starts: NDArray[np.int64],
    indices: NDArray[Any],
    data: NDArray[Any],
    kept: NDArray[np.bool_],
    totals: NDArray[np.int64],
    lengths: NDArray[np.int32],
) -> int:
    """Fill each row's total and number of entries over the kept genes; return the largest kept value."""
    largest = np.int64(0)
    for row in range(row_starts.size - 1):
        total = np.int64(0)
        length = 0
        for k in range(row_starts[row], row_starts[row + 1]):
            if kept[indices[k]]:
                value = np.int64(data[k])
                total += value
                length += 1
                largest = value if value > largest else largest
        totals[row] = total
        lengths[row] = length
    return int(largest)


@compiled
def place_rows(
    row_starts: NDArray[np.int64],
    indices: NDArray[Any],
    data: NDArray[Any],
    targets: NDArray[np.int64],
    gene_map: NDArray[np.int32],
    out_indices: NDArray[Any],
    out_data: NDArray[Any],
) -> None:
    """Copy each row to its place in the output, in the kept genes' numbering; target -1 leaves a row out."""
    for row in range(row_starts.size - 1):
        position = targets[row]
        if position < 0:
            continue
        for k in range(row_starts[row], row_starts[row + 1]):
            gene = gene_map[indices[k]]
            if gene >= 0:
                out_indices[position] = gene
                out_data[position] = data[k]
                position += 1


@compiled
def sort_rows(
    row_starts: NDArray[np.int64],
    indices: NDArray[Any],
    data: NDArray[Any],
    counts: NDArray[Any],
    bits: NDArray[np.uint64],
) -> None:
    """Sort each row by index in place; indices in a row are distinct.

    ``counts`` (one per column) and ``bits`` (zeros, one bit per column) are
    scratch; the bits come back as zeros.
    """
    for row in range(row_starts.size - 1):
        for k in range(row_starts[row], row_starts[row + 1]):
            column = np.int64(indices[k])
            counts[column] = data[k]
            bits[column >> 6] |= np.uint64(1) << np.uint64(column & 63)
        position = row_starts[row]
        for word in range(bits.size):
            left = bits[word]
            while left:
                column = (word << 6) + np.int64(trailing_zeros(left))
                left &= left - np.uint64(1)
                indices[position] = column
                data[position] = counts[column]
                position += 1
            bits[word] = 0


@compiled
def take_rows(
    row_starts: NDArray[np.int64],
    indices: NDArray[Any],
    data: NDArray[Any],
    rows: NDArray[np.int64],
    out_starts: NDArray[np.int64],
    out_indices: NDArray[Any],
    out_data: NDArray[Any],
) -> None:
    """Copy rows by number, in the order asked, to where ``out_starts`` says."""
    for number in range(rows.size):
        position = out_starts[number]
        for k in range(row_starts[rows[number]], row_starts[rows[number] + 1]):
            out_indices[position] = indices[k]
            out_data[position] = data[k]
            position += 1
