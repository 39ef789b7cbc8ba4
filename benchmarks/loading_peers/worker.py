"""Other loaders on the same cells, run by an interpreter of their own; answers a line of JSON per request.

Needs annbatch, zarrs, scdataset, anndata, h5py, torch and psutil (Python 3.12 or newer). Started by
``benchmarks/loading.py --peer-python``.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import psutil

warnings.filterwarnings("ignore")
CHUNK, PRELOAD = 512, 32  # annbatch's defaults: 16,384 rows are mixed
BLOCK, FETCH = 64, 64  # scDataset: as many rows mixed, in blocks


def prepare(h5ad: Path, store: Path) -> None:
    """Write annbatch's pre-shuffled store with its own defaults."""
    from annbatch import DatasetCollection

    DatasetCollection(str(store)).add_adatas([str(h5ad)], rng=np.random.default_rng(0))


Batches = Iterator[tuple[int, Any]]


def annbatch(store: Path, batch_size: int, dense: bool) -> Callable[[], Batches]:
    """Batches as CSR tensors of float32; dense arrays are made with scipy, which on a CPU is faster than torch."""
    import zarr
    from annbatch import DatasetCollection, Loader

    zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"})
    loader = Loader(
        batch_size=batch_size,
        chunk_size=CHUNK,
        preload_nchunks=PRELOAD,
        shuffle=True,
        preload_to_gpu=False,
        to=None if dense else "torch",
    ).use_collection(DatasetCollection(str(store), mode="r"))

    def epoch() -> Batches:
        for batch in loader:
            x = batch["X"]
            labels = batch["obs"]["SRX_accession"].to_numpy() if batch.get("obs") is not None else None
            yield x.shape[0], labels
            if dense:
                x.toarray()

    return epoch


def scdataset(h5ad: Path, batch_size: int, dense: bool) -> Callable[[], Batches]:
    """Batches of a backed file in blocks."""
    from scdataset import BlockShuffling, scDataset

    adata = ad.read_h5ad(h5ad, backed="r")
    labels = adata.obs["SRX_accession"].to_numpy()

    def fetch(data: Any, rows: Any) -> Any:
        return np.asarray(rows), data.X[np.asarray(rows)]

    def cut(fetched: Any, rows: Any) -> Any:
        return fetched[0][rows], fetched[1][rows]

    loader = scDataset(
        adata, BlockShuffling(block_size=BLOCK), batch_size=batch_size, fetch_factor=FETCH, fetch_callback=fetch,
        batch_callback=cut, seed=0,
    )  # fmt: skip

    def epoch() -> Batches:
        for rows, x in loader:
            yield x.shape[0], labels[rows]
            if dense:
                x.toarray()

    return epoch


def annloader(h5ad: Path, batch_size: int, dense: bool) -> Callable[[], Batches]:
    """Batches of anndata's own loader over a backed file."""
    from anndata.experimental import AnnCollection, AnnLoader

    adata = ad.read_h5ad(h5ad, backed="r")
    loader = AnnLoader(AnnCollection([adata], join_vars="inner"), batch_size=batch_size, shuffle=True)

    def epoch() -> Batches:
        for batch in loader:
            yield batch.X.shape[0], np.asarray(batch.obs["SRX_accession"])

    return epoch


def h5py_rows(h5ad: Path, batch_size: int, dense: bool) -> Callable[[], Batches]:
    """Batches of single rows, each read from HDF5."""

    def epoch() -> Batches:
        with h5py.File(h5ad) as file:
            matrix = file["X"]
            indptr = matrix["indptr"][:]
            rows = np.random.default_rng(0).permutation(indptr.size - 1)
            for first in range(0, rows.size, batch_size):
                batch = rows[first : first + batch_size]
                for row in batch:
                    matrix["indices"][indptr[row] : indptr[row + 1]], matrix["data"][indptr[row] : indptr[row + 1]]
                yield batch.size, None

    return epoch


def entropy(labels: Any) -> float:
    """Shannon entropy of one batch's labels in bits."""
    share = np.unique(np.asarray(labels), return_counts=True)[1] / len(labels)
    return float(-(share * np.log2(share)).sum())


def measure(epoch: Callable[[], Batches], seconds: float) -> dict[str, float]:
    """One epoch, or as much of it as fits: cells a second, time to the first batch, entropy, memory; then the next."""
    process = psutil.Process()
    started, worked = time.perf_counter(), time.process_time()
    first, n_cells, peak, bits, number = 0.0, 0, 0, [], 0
    for number, (n, labels) in enumerate(epoch()):
        first = first or time.perf_counter() - started
        n_cells += n
        if number % 16 == 0:
            peak = max(peak, process.memory_info().rss)
            if labels is not None:
                bits.append(entropy(labels))
        if time.perf_counter() - started > seconds:
            break
    elapsed, worked = time.perf_counter() - started, time.process_time() - worked
    following = {}
    if elapsed < seconds:
        again = time.perf_counter()
        following["next_cells_per_second"] = sum(n for n, _ in epoch()) / (time.perf_counter() - again)
    return {
        **following,
        "cells_per_second": n_cells / elapsed,
        "cells_per_cpu_second": n_cells / worked,
        "first_batch_seconds": first,
        "rss_bytes": peak,
        "entropy_bits": float(np.mean(bits)) if bits else float("nan"),
    }


LOADERS = {"annbatch": annbatch, "scdataset": scdataset, "annloader": annloader, "h5py": h5py_rows}


def main() -> None:
    """Serve requests until the input ends."""
    for line in sys.stdin:
        request = json.loads(line)
        answer: dict[str, Any]
        try:
            if request["do"] == "prepare":
                prepare(Path(request["h5ad"]), Path(request["store"]))
                answer = {}
            else:
                source = Path(request["store"] if request["loader"] == "annbatch" else request["h5ad"])
                epoch = LOADERS[request["loader"]](source, request["batch_size"], request["dense"])
                answer = measure(epoch, request["seconds"])
        except Exception as error:  # noqa: BLE001 - reported by the other side
            answer = {"error": f"{type(error).__name__}: {error}"}
        sys.stdout.write("\n@" + json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
