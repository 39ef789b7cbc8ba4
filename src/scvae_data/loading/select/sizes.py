"""Row groups in, what they will take once decoded out, estimated from the counts that the index knows of each chunk."""

from __future__ import annotations

from collections.abc import Sequence

from scvae_data.loading.select.rows import ChunkRows, RowGroup
from scvae_data.store import CellIndex, count_dtype, index_dtype

__all__ = ["decoded_bytes", "decoded_elements", "group_sizes"]

# Of a row, beside its counts: where it starts, size factor, gene set, and an obs column.
ROW_BYTES = 8 + 8 + 4 + 4


def decoded_elements(index: CellIndex, group: RowGroup) -> int:
    """Estimate the counts of a row group from the mean of its chunk, or of the directory where it is of many chunks."""
    chunk = index.chunks[group.chunk_id] if isinstance(group, ChunkRows) else None
    nnz, n_obs = (index.nnz, index.n_obs) if chunk is None else (chunk.nnz, chunk.n_obs)
    return -(-group.n_rows * nnz // max(1, n_obs))


def group_sizes(index: CellIndex, row_groups: Sequence[RowGroup]) -> tuple[int, ...]:
    """Estimate the bytes of each row group once decoded, largest first."""
    largest = max((chunk.max_count for chunk in index.chunks), default=0)
    itemsize = index_dtype(index.n_vars).itemsize + count_dtype(largest).itemsize
    return tuple(
        sorted(
            (decoded_elements(index, group) * itemsize + ROW_BYTES * group.n_rows for group in row_groups), reverse=True
        )
    )


def decoded_bytes(index: CellIndex, row_groups: Sequence[ChunkRows]) -> int:
    """Estimate the bytes of all ``row_groups`` once decoded, from the mean number of counts per cell of each chunk."""
    total = 0.0
    for group in row_groups:
        chunk = index.chunks[group.chunk_id]
        itemsize = index_dtype(index.n_vars).itemsize + count_dtype(chunk.max_count).itemsize
        total += group.n_rows * (chunk.nnz / chunk.n_obs * itemsize + ROW_BYTES)
    return round(total)
