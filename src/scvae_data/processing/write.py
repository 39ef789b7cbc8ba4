"""One range of order keys in, one chunk file and its obs out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather as feather
from numpy.typing import NDArray

from scvae_data.processing.decision import Decision, describe, load_decision
from scvae_data.processing.gather import Gathered, gather
from scvae_data.processing.kernels import sort_rows
from scvae_data.processing.ranges import ChunkRange
from scvae_data.processing.spool import Run
from scvae_data.store import STREAM_MAX_COUNT, Codec, CompactCsr, CsrStream, write_chunk
from scvae_data.store.files import read_json, sha256_file, write_atomic, write_json

__all__ = ["WriteJob", "chunk_name", "write_obs_of", "write_one"]

# Entries of a chunk that are in memory at once, 4 bytes each.
PART_ENTRIES = 16_000_000


@dataclass(frozen=True)
class WriteJob:
    """What the writing of any chunk needs.

    Parameters
    ----------
    work, target
        The work folder and the dataset directory.
    digest
        Hash of the decision.
    sort_by
        Order of the rows inside a chunk, see `gather`.
    key
        Hash of everything a chunk depends on besides its range.
    """

    work: Path
    target: Path
    digest: str
    codec: Codec
    block_elements: int
    sort_by: Any
    n_threads: int
    key: str


def chunk_name(number: int) -> str:
    """Return a chunk's file name: ``chunk_0000.h5``."""
    return f"chunk_{number:04d}.h5"


def write_one(job: WriteJob, number: int, cells: ChunkRange) -> dict[str, Any]:
    """Write one chunk, or return the entry of one that stands already.

    Returns
    -------
    The chunk's entry in the index, as plain values.
    """
    path = job.target / chunk_name(number)
    note = job.work / "chunks" / f"{number:06d}.json"
    key = f"{job.key}:{cells.low}:{cells.high}:{cells.first_row}"
    if note.exists() and path.exists():
        earlier = read_json(note)
        if earlier.get("key") == key and earlier["entry"]["sha256"] == sha256_file(path):
            return dict(earlier["entry"])
    decision = load_decision(job.work, job.digest)
    with open_runs(job.work, decision.runs) as runs:
        rows, obs = gathered(job, decision, runs, cells)
        entry = write_chunk(
            path,
            x=matrix_of(rows, decision),
            obs=obs,
            var=load_var(job.work, job.digest),
            uns=chunk_uns(decision),
            codec=job.codec,
            block_elements=job.block_elements,
            n_threads=job.n_threads,
            first_row=cells.first_row,
        )
    save_obs(job.work / "chunks" / f"{number:06d}.feather", obs)
    plain = asdict(entry)
    write_json(note, {"key": key, "entry": plain})
    return plain


def write_obs_of(job: WriteJob, number: int, cells: ChunkRange) -> None:
    """Save the obs of a chunk that stands, without its counts."""
    decision = load_decision(job.work, job.digest)
    with open_runs(job.work, decision.runs) as runs:
        save_obs(job.work / "chunks" / f"{number:06d}.feather", gathered(job, decision, runs, cells)[1])


def gathered(
    job: WriteJob, decision: Decision, runs: Sequence[Run], cells: ChunkRange
) -> tuple[Gathered, pd.DataFrame]:
    """Return the rows of a chunk, and their obs."""
    rows = gather(
        runs, cells.low, cells.high, decision.gene_map, decision.schema,
        sort_by=job.sort_by, n_genes=decision.n_vars, max_count=decision.max_count,
    )  # fmt: skip
    basis = rows.totals
    if decision.normalization.size_factor_genes == "all":
        basis = rows.obs.column("total_counts").to_numpy()
    return rows, decision.schema.frame(rows.obs, decision.files, basis / decision.target_sum, decision.gene_set)


@contextmanager
def open_runs(work: Path, names: Sequence[str]) -> Iterator[list[Run]]:
    """Open runs for the time of a block."""
    with ExitStack() as stack:
        yield [stack.enter_context(Run(work / name)) for name in names]


def matrix_of(rows: Gathered, decision: Decision) -> CompactCsr | CsrStream:
    """Return the rows part by part, or whole where only the largest count of all can tell the stored type."""

    def parts(max_entries: int) -> Iterator[CompactCsr]:
        for part in rows.parts(max_entries):
            if decision.reorders:
                sort_columns(part.indptr, part.indices, part.data, part.n_vars)
            yield part
            del part  # before the next one is made

    if decision.max_count <= STREAM_MAX_COUNT:
        return CsrStream(rows.row_starts, parts(PART_ENTRIES), decision.n_vars)
    (whole,) = parts(int(rows.row_starts[-1]))
    return whole


def sort_columns(row_starts: NDArray[np.int64], indices: NDArray[Any], data: NDArray[Any], n_vars: int) -> None:
    """Make the columns of every row ascend, in place."""
    sort_rows(row_starts, indices, data, np.zeros(n_vars, data.dtype), np.zeros(-(-n_vars // 64), np.uint64))


def chunk_uns(decision: Decision) -> dict[str, Any]:
    """Return what every chunk says about itself; nothing that differs between equal runs."""
    return {
        "scvae_data": {
            "format_version": 1,
            "processing_id": decision.processing_id,
            "normalization": describe(decision),
        }
    }


@lru_cache(maxsize=1)
def load_var(work: Path, digest: str) -> pd.DataFrame:
    """Read the var table of the directory, once per process."""
    frame = feather.read_feather(work / f"var-{digest}.feather")
    var: pd.DataFrame = frame.set_index(frame.columns[0]).rename_axis(None)
    return var


def save_var(work: Path, digest: str, var: pd.DataFrame) -> None:
    """Write the var table for the workers."""
    save_frame(work / f"var-{digest}.feather", var.reset_index(names="gene"))


def save_obs(path: Path, obs: pd.DataFrame) -> None:
    """Write a chunk's obs for obs.parquet, names first."""
    frame = obs.reset_index(names="obs_name")
    save_frame(path, frame)


def save_frame(path: Path, frame: pd.DataFrame) -> None:
    """Write a table whole or not at all."""
    sink = pa.BufferOutputStream()
    feather.write_feather(pa.Table.from_pandas(frame, preserve_index=False), sink, compression="lz4")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, sink.getvalue().to_pybytes())
