"""One range of order keys in, one chunk file and its obs out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scvae_data.processing.decide.decision import Decision, describe, load_decision, load_var, save_frame
from scvae_data.processing.decide.stage import WritePlan
from scvae_data.processing.engine.task import Task
from scvae_data.processing.run.context import Context
from scvae_data.processing.sort.gather import ChunkRange, Gathered, gather
from scvae_data.processing.sort.kernels import sort_rows
from scvae_data.processing.sort.obs_schema import ChunkCells
from scvae_data.processing.sort.sorted_run import SortedRun, open_runs
from scvae_data.processing.work import WorkFolder
from scvae_data.remote.location import Location, RemotePath
from scvae_data.remote.objects import ObjectFacts, facts_of, upload
from scvae_data.store import (
    CHUNK_VERSION,
    STREAM_MAX_COUNT,
    ChunkContent,
    ChunkEntry,
    Codec,
    CompactCsr,
    CsrStream,
    chunk_file_name,
    write_chunk,
)
from scvae_data.store.files import read_note, sha256_file, write_note

__all__ = [
    "WriteJob",
    "as_noted",
    "entries_of",
    "write_chunks",
    "write_obs_of",
    "write_obs_of_chunks",
    "write_one",
    "write_tasks",
]

# Entries of a chunk that are in memory at once, 4 bytes each.
PART_ENTRIES = 9_000_000


@dataclass(frozen=True)
class WriteJob:
    """What the writing of any chunk needs.

    Parameters
    ----------
    work, target
        The work folder, and where the chunk files are made.
    store
        Where in a store they go; None where they stay.
    digest
        Hash of the decision.
    sort_by
        Order of the rows inside a chunk, see `gather`.
    key
        Hash of everything a chunk depends on besides its range.
    """

    work: WorkFolder
    target: Path
    store: RemotePath | None
    digest: str
    codec: Codec
    block_elements: int
    sort_by: Any
    n_threads: int
    key: str


def write_one(job: WriteJob, number: int, cells: ChunkRange) -> dict[str, Any]:
    """Write one chunk, or return the entry of one that stands already; who asked for it syncs the file.

    Returns
    -------
    The chunk's entry in the index, as plain values.
    """
    path = job.target / chunk_file_name(number)
    note = job.work.chunk_note(number)
    key = f"{job.key}:{cells.low}:{cells.high}:{cells.first_row}"
    earlier = read_note(note)
    if earlier.get("key") == key and stands(job, number, earlier):
        return dict(earlier["entry"])
    decision = load_decision(job.work, job.digest)
    with open_runs(job.work, decision.runs) as runs:
        rows, obs = gathered(job, decision, runs, cells)
        entry = write_chunk(
            path,
            ChunkContent(matrix_of(rows, decision), obs, load_var(job.work, job.digest), chunk_uns(decision)),
            job.codec,
            block_elements=job.block_elements,
            n_threads=job.n_threads,
            first_row=cells.first_row,
            synced=False,
        )
    saved = save_obs(job.work.chunk_obs(number), obs)
    plain = asdict(entry)
    version = None if job.store is None else upload(path, job.store / path.name).version
    # Not synced: that would wait for the chunks that are being synced.
    write_note(note, {"key": key, "entry": plain, "obs": saved, "version": version})
    if job.store is not None:
        path.unlink()
    return plain


def stands(job: WriteJob, number: int, note: Mapping[str, Any]) -> bool:
    """Whether a chunk that was written is where it belongs, as it was, and its obs is as well."""
    obs = job.work.chunk_obs(number)
    if not obs.exists() or note.get("obs") != sha256_file(obs):  # a power cut may have emptied it
        return False
    return as_noted(job.store or job.target, note)


def as_noted(directory: Location, note: Mapping[str, Any]) -> bool:
    """Whether a chunk is in a directory as it was when it was noted."""
    entry = note["entry"]
    path = directory / entry["file"]
    if isinstance(path, Path):
        return path.exists() and bool(entry["sha256"] == sha256_file(path))
    try:
        return facts_of(path) == ObjectFacts(entry["bytes"], note["version"])
    except FileNotFoundError:
        return False


def write_obs_of(job: WriteJob, number: int, cells: ChunkRange) -> None:
    """Save the obs of a chunk that stands, without its counts."""
    decision = load_decision(job.work, job.digest)
    with open_runs(job.work, decision.runs) as runs:
        save_obs(job.work.chunk_obs(number), gathered(job, decision, runs, cells)[1])


def gathered(
    job: WriteJob, decision: Decision, runs: Sequence[SortedRun], cells: ChunkRange
) -> tuple[Gathered, pd.DataFrame]:
    """Return the rows of a chunk, and their obs."""
    rows = gather(
        runs, cells.low, cells.high, decision.gene_map, decision.schema,
        sort_by=job.sort_by, n_genes=decision.n_vars, max_count=decision.max_count,
    )  # fmt: skip
    basis = rows.totals
    if decision.normalization.size_factor_genes == "all":
        basis = rows.obs.column("total_counts").to_numpy()
    files = rows.obs.column("file_number").to_numpy()
    names = np.array(decision.files, object)[files]
    cells_of = ChunkCells(rows.obs, names, basis / decision.target_sum, decision.gene_set[files])
    return rows, decision.schema.frame(cells_of)


def matrix_of(rows: Gathered, decision: Decision) -> CompactCsr | CsrStream:
    """Return the rows part by part, or whole where only the largest count of all can tell the stored type."""

    def parts(max_entries: int) -> Iterator[CompactCsr]:
        for part in rows.parts(max_entries):
            if decision.reorders:
                sort_columns(part.indptr, part.indices, part.data, part.n_vars)
            yield part
            del part  # before the next one is made

    if decision.max_count <= STREAM_MAX_COUNT:
        return CsrStream(rows.indptr, parts(PART_ENTRIES), decision.n_vars)
    (whole,) = parts(int(rows.indptr[-1]))
    return whole


def sort_columns(indptr: NDArray[np.int64], indices: NDArray[Any], data: NDArray[Any], n_vars: int) -> None:
    """Make the columns of every row ascend, in place."""
    sort_rows(indptr, indices, data, np.zeros(n_vars, data.dtype), np.zeros(-(-n_vars // 64), np.uint64))


def chunk_uns(decision: Decision) -> dict[str, Any]:
    """Return what every chunk says about itself; nothing that differs between equal runs."""
    return {
        "scvae_data": {
            "format_version": CHUNK_VERSION,
            "processing_id": decision.processing_id,
            "normalization": describe(decision),
        }
    }


def save_obs(path: Path, obs: pd.DataFrame) -> str:
    """Write a chunk's obs for obs.parquet, names first; return the hash of its bytes."""
    return save_frame(path, obs.reset_index(names="obs_name"))


def write_chunks(
    context: Context, digest: str, ranges: Sequence[ChunkRange], numbers: Iterable[int], sync: Callable[[Path], None]
) -> Iterator[ChunkEntry]:
    """Write chunks; yield their entries in order, each as soon as it can be.

    Parameters
    ----------
    digest, ranges
        As of `write_tasks`.
    numbers
        The chunks that are written.
    sync
        Makes the file of each survive a power cut; workers go on meanwhile.
    """
    tasks = write_tasks(context, digest, ranges, write_one, numbers)
    yield from entries_of(context, context.in_order("write", tasks, unit="chunk"), sync)


def entries_of(
    context: Context, written: Iterable[Mapping[str, Any]], sync: Callable[[Path], None]
) -> Iterator[ChunkEntry]:
    """Yield the entries of chunks, which `write_one` returns, and begin to sync the file of each."""
    for plain in written:
        if context.store is None:
            sync(context.directory / plain["file"])
        yield ChunkEntry(**plain)


def write_obs_of_chunks(context: Context, plan: WritePlan) -> None:
    """Write nothing but the obs of all chunks, for the table of all cells."""
    decided = plan.decided
    tasks = write_tasks(context, decided.digest, decided.ranges, write_obs_of, range(len(decided.ranges)))
    context.collect("obs", tasks, unit="chunk")


def write_tasks(
    context: Context, digest: str, ranges: Sequence[ChunkRange], function: Any, numbers: Iterable[int]
) -> list[Task]:
    """Return a call of the function for each chunk as a task.

    Parameters
    ----------
    digest
        Hash of the decision.
    ranges
        The cells of all chunks.
    """
    chunking = context.settings.chunking
    # Threads help where processes leave cores idle; the bytes do not depend on them.
    n_threads = 2 if context.engine.n_workers == 1 else 1
    job = WriteJob(
        context.work, context.directory, context.store, digest, chunking.codec, chunking.block_elements,
        "hash" if chunking.order == "hash" else "key", n_threads, f"{digest}:{chunking}",
    )  # fmt: skip
    return [Task(function, (job, number, ranges[number])) for number in numbers]
