"""Entropy of batches from directories in source order, from row numbers alone: nothing is written or read.

python benchmarks/mixing.py
"""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scvae_data.loading.plan.mixing import mix
from scvae_data.loading.select.rows import to_row_groups

NNZ = 2_000  # non-zeros a cell
# Cells, cells of a chunk, experiments, cells of a batch.
CASES = [
    (100_000, 10_000, 20, 256),
    (1_000_000, 50_000, 100, 256),
    (1_000_000, 50_000, 500, 256),
    (5_000_000, 50_000, 600, 256),
    (5_000_000, 50_000, 600, 4_096),
    (5_000_000, 50_000, 2_000, 256),
    (5_000_000, 50_000, 10_000, 4_096),
    (50_000_000, 50_000, 6_000, 256),
]


def directory(n_obs: int, chunk_size: int, sources: NDArray[np.int32]) -> Any:
    """What the index of such a directory tells."""
    first_rows = np.append(np.arange(0, n_obs, chunk_size), n_obs)
    chunks = [SimpleNamespace(n_obs=n, nnz=NNZ * n, max_count=1_000) for n in np.diff(first_rows).tolist()]
    return SimpleNamespace(
        order={"kind": "source"}, n_obs=n_obs, n_vars=20_000, nnz=NNZ * n_obs, block_elements=131_072,
        first_rows=first_rows, chunks=chunks, codes=lambda column: sources,
    )  # fmt: skip


def main() -> None:
    """Print the table."""
    heads = "cells", "chunk", "experiments", "batch", "% of random entropy", "cells of a range", "decoded per used", "s"
    print(f"| {' | '.join(heads)} |")
    print("|--:|--:|--:|--:|--:|--:|--:|--:|")
    for n_obs, chunk_size, n_sources, batch_size in CASES:
        sizes = np.random.default_rng(0).lognormal(0, 1, n_sources)
        ends = np.rint(np.cumsum(sizes) / sizes.sum() * n_obs).astype(np.int64)
        index = directory(n_obs, chunk_size, np.repeat(np.arange(n_sources, dtype=np.int32), np.diff(ends, prepend=0)))
        started = time.perf_counter()
        made = mix(index, to_row_groups(None, index.first_rows), ["source"], batch_size=batch_size)
        print(
            f"| {n_obs:,} | {chunk_size:,} | {n_sources:,} | {batch_size:,} | {100 * made.share:.1f} "
            f"| {made.range_rows or 'whole chunks'} | {made.decoded_per_used:.2f} "
            f"| {time.perf_counter() - started:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
