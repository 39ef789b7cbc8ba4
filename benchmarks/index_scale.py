"""What opening a directory of a whole corpus takes, in time and memory: a synthetic one of any size.

    python benchmarks/index_scale.py --cells 500000000 --chunks 10000 --experiments 61378

The directory lies in a temporary folder. Its chunk files are empty but of the size that the index lists, so that each
is looked at. In its row table every cell has an experiment of its own; columns that opening does not read are holes.
obs.parquet stores one row group, which its footer lists for every chunk. Each figure is of a process of its own, beyond
what that has after its imports, and of smaller directories too, for the exponent by which it grows with the size.
"""

from __future__ import annotations

import argparse
import io
import json
import pickle
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import deflate
import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from scvae_data import ChunkedDataModule
from scvae_data.loading.memory import resident_bytes
from scvae_data.loading.select.values import FactsReader
from scvae_data.loading.stream import BatchStream
from scvae_data.store import (
    GENE_LIST_FILE,
    SRX_COLUMN,
    CellTablesWriter,
    ChunkEntry,
    Chunking,
    DatasetIndex,
    FileFacts,
    GeneList,
    GeneSets,
    chunk_file_name,
    obs_columns,
    write_gene_list,
    write_index,
)
from scvae_data.store.row_table import LIMITS, n_bytes_of

N_VARS = 60_000
NNZ_PER_CELL = 2_000
BYTES_PER_NNZ = 1.35
INCLUDED = 100
SHARES = (1 / 16, 1 / 4, 1)
"""Sizes of the directories that are made, the last of them the one asked for."""


def make_directory(folder: Path, n_obs: int, n_chunks: int, n_experiments: int) -> None:
    """Write a directory that lacks nothing but its counts."""
    rng = np.random.default_rng(0)
    size = n_obs // n_chunks
    accessions = [f"SRX{number:08d}" for number in range(n_experiments)]
    obs = made_up_obs(size, accessions, rng)
    columns = obs_columns(obs)
    for name in (SRX_COLUMN, "source_file"):
        columns[name] = replace(columns[name], categories=tuple(obs[name].cat.categories))
    genes = GeneList.of([f"ENSG{number:011d}" for number in range(N_VARS)])
    with CellTablesWriter(folder, columns, "benchmark") as writer:
        writer.append(obs)
        generation, files = writer.close(GeneSets.of([np.ones(N_VARS, bool)], N_VARS))
    assert generation.rows is not None
    files[generation.obs] = repeat_row_group(folder / generation.obs, n_chunks)
    files[generation.rows] = write_rows(folder / generation.rows, generation.row_columns, size, n_chunks, n_experiments)
    files[GENE_LIST_FILE] = write_gene_list(folder, genes)
    chunking = Chunking(size)
    index = DatasetIndex(
        path=folder,
        n_obs=size * n_chunks,
        n_vars=N_VARS,
        nnz=size * n_chunks * NNZ_PER_CELL,
        chunk_size=size,
        chunks=tuple(write_hole(folder, number, size) for number in range(n_chunks)),
        obs_columns=columns,
        codec=chunking.codec,
        block_elements=chunking.block_elements,
        order={"kind": "hash", "seed": 0, "group_column": None},
        normalization={"method": "log1p", "target_sum": 1e4, "size_factor_genes": "kept"},
        processing_id="benchmark",
        gene_list_hash=genes.hash,
        files=files,
        generations=(replace(generation, n_chunks=n_chunks),),
        simulated=True,
    )
    write_index(folder, index)


def made_up_obs(n_obs: int, accessions: list[str], rng: np.random.Generator) -> pd.DataFrame:
    """Obs of a chunk whose cells are drawn from all experiments."""
    which = rng.integers(len(accessions), size=n_obs)
    totals = rng.integers(500, 50_000, n_obs)
    names = [f"{accessions[code]}:{number:012d}-1" for number, code in enumerate(which.tolist())]
    return pd.DataFrame(
        {
            SRX_COLUMN: pd.Categorical.from_codes(which, accessions),
            "source_file": pd.Categorical.from_codes(which, [f"{name[:6]}/{name}.h5ad" for name in accessions]),
            "source_row": rng.integers(0, 20_000, n_obs),
            "total_counts": totals,
            "n_genes_by_counts": (totals // 3).astype(np.int32),
            "log1p_total_counts": np.log1p(totals).astype(np.float32),
            "log1p_n_genes_by_counts": np.log1p(totals / 3),
            "pct_counts_mt": rng.random(n_obs).astype(np.float32),
            "pct_counts_ribo": rng.random(n_obs).astype(np.float32),
            "pct_counts_hb": rng.random(n_obs).astype(np.float32),
            "size_factor": totals / 1e4,
            "gene_set": np.zeros(n_obs, np.int32),
            "split_hash": np.sort(rng.integers(0, 1 << 32, n_obs, dtype=np.uint32)),
            "cell_type": pd.Categorical.from_codes(
                rng.integers(200, size=n_obs), [f"type {k:03d}" for k in range(200)]
            ),
        },
        index=names,
    )


def write_hole(folder: Path, number: int, size: int) -> ChunkEntry:
    """A chunk file that holds nothing, of the size that it should have."""
    nnz = size * NNZ_PER_CELL
    n_bytes = round(nnz * BYTES_PER_NNZ)
    with (folder / chunk_file_name(number)).open("wb") as file:
        file.truncate(n_bytes)
    return ChunkEntry(
        chunk_file_name(number), size, nnz, number * size, n_bytes, f"{number:064x}", 5_000, 4096, 64, number
    )


def repeat_row_group(path: Path, times: int) -> FileFacts:
    """List the one row group of a Parquet file many times; its bytes stay where they are."""
    content, one = path.read_bytes(), pq.read_metadata(path)
    n_tail = int.from_bytes(content[-8:-4], "little") + 8 + 4 * one.num_columns
    body, crc32 = content[:-n_tail], content[-n_tail : -n_tail + 4 * one.num_columns]
    doubled, every = one, None
    for bit in range(times.bit_length()):
        if times >> bit & 1:
            every = doubled if every is None else both(every, doubled)
        doubled = both(doubled, doubled)
    tail = crc32 * times + encoded(every)
    path.write_bytes(body + tail)
    return FileFacts(len(body) + len(tail), "0" * 64, len(tail), int(deflate.crc32(tail)))


def encoded(metadata: pq.FileMetaData | None) -> bytes:
    """A footer as it stands in a file."""
    assert metadata is not None
    file = io.BytesIO()
    metadata.write_metadata_file(file)
    return file.getvalue()[4:]  # a file of its own begins with the magic


def both(one: pq.FileMetaData, other: pq.FileMetaData) -> pq.FileMetaData:
    """A footer that lists the row groups of two."""
    made = pq.read_metadata(io.BytesIO(b"PAR1" + encoded(one)))
    made.append_row_groups(other)
    return made


def write_rows(path: Path, types: Mapping[str, str], size: int, n_chunks: int, n_experiments: int) -> FileFacts:
    """A row table with an experiment for every cell, drawn from all, and holes in place of the other columns."""
    rng = np.random.default_rng(1)
    kinds = {name: np.dtype(kind) for name, kind in types.items()}
    row_bytes = sum(kind.itemsize for kind in kinds.values())
    crc32 = np.tile(
        np.array([deflate.crc32(bytes(size * kind.itemsize)) for kind in kinds.values()], "<u4"), (n_chunks, 1)
    )
    assert next(iter(kinds)) == SRX_COLUMN
    with path.open("wb") as file:
        for chunk in range(n_chunks):
            codes = rng.integers(n_experiments, size=size, dtype=kinds[SRX_COLUMN]).tobytes()
            file.seek(chunk * size * row_bytes)
            file.write(codes)
            crc32[chunk, 0] = deflate.crc32(codes)
        bounds = np.tile((LIMITS * size // LIMITS[-1]).astype("<u4"), (n_chunks, 1))
        tail = bounds.tobytes() + crc32.tobytes()
        file.seek(n_chunks * size * row_bytes)
        file.write(tail)
    assert path.stat().st_size == n_bytes_of(types, size * n_chunks, n_chunks)
    return FileFacts(path.stat().st_size, "0" * 64, len(tail), int(deflate.crc32(tail)))


def opened(folder: Path, **settings: Any) -> ChunkedDataModule:
    """A data module that was set up."""
    data = ChunkedDataModule(folder, batch_key=SRX_COLUMN, **settings)
    data.setup()
    return data


def measure(what: str, folder: Path) -> dict[str, float]:
    """Do one thing in this process; return its seconds and its bytes at their peak."""
    spec_file = folder / ".spec"
    # From here on the kernel counts the peak anew.
    Path("/proc/self/clear_refs").write_text("5")
    before, started, worked = resident_bytes(), time.perf_counter(), time.process_time()
    if what == "setup":
        data = opened(folder)
        spec_file.write_bytes(pickle.dumps(data.train_dataloader().spec, protocol=5))
    elif what == "include":
        opened(folder, include_srx_accessions=[f"SRX{7 * number:08d}" for number in range(INCLUDED)])
    else:
        spec = pickle.loads(spec_file.read_bytes())
        stream = BatchStream(spec.for_worker(2))
        next(spec.sampler.epoch(0).batches())
        FactsReader(stream.spec.form.index, stream.spec.form.obs_keys).of(spec.row_groups[0])
    seconds, worked = time.perf_counter() - started, time.process_time() - worked
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert peak is not None
    return {"seconds": seconds, "cpu_seconds": worked, "bytes": 1024 * int(peak[1]) - before}


def measured(what: str, folder: Path) -> dict[str, float]:
    """The same in a process of its own."""
    command = [sys.executable, __file__, "--measure", what, str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def exponent(sizes: list[int], values: list[float]) -> float:
    """By which power of the size a value grows."""
    return float(np.polyfit(np.log(sizes), np.log(np.maximum(values, 1e-9)), 1)[0])


def main() -> None:
    """Print a table, and write the figures of the largest directory where ``--json`` says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=50_000_000)
    parser.add_argument("--chunks", type=int, default=1_000)
    parser.add_argument("--experiments", type=int, default=61_378)
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--measure", nargs=2, metavar=("WHAT", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure[0], Path(options.measure[1]))))
        return
    kinds = ("setup", "include", "worker")
    found: dict[str, list[dict[str, float]]] = {what: [] for what in kinds}
    sizes = []
    print(
        f"{'cells':>12} {'chunks':>7} {'experiments':>11}  "
        + "  ".join(f"{what + ' s, CPU s, MB':>24}" for what in kinds)
    )
    for share in SHARES:
        n_obs, n_chunks, n_experiments = (
            max(1, round(share * number)) for number in (options.cells, options.chunks, options.experiments)
        )
        sizes.append(n_obs)
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            make_directory(Path(folder), n_obs, n_chunks, max(INCLUDED * 7, n_experiments))
            for what in kinds:
                found[what].append(measured(what, Path(folder)))
        last = "  ".join(
            f"{figures['seconds']:8.2f}{figures['cpu_seconds']:8.2f}{figures['bytes'] / 1e6:8.0f}"
            for figures in (found[what][-1] for what in kinds)
        )
        print(f"{n_obs:12,} {n_chunks:7,} {n_experiments:11,}  {last}", flush=True)
    for what in kinds:
        seconds, n_bytes = ([figures[name] for figures in found[what]] for name in ("cpu_seconds", "bytes"))
        powers = [f"size^{exponent(sizes, values):.2f}" for values in (seconds, n_bytes)]
        print(f"{what}: CPU seconds grow as {powers[0]}, bytes as {powers[1]}")
    if options.json:
        figures = {f"{what}_{name}": value for what in kinds for name, value in found[what][-1].items()}
        facts = {"cells": options.cells, "chunks": options.chunks, "experiments": options.experiments}
        options.json.write_text(json.dumps({**facts, "included": INCLUDED, **figures}, indent=1) + "\n")


if __name__ == "__main__":
    main()
