"""Headers of all inputs in, what a run would find, need and make out; what the headers say is kept for the run."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scvae_data.errors import ScvaeDataError
from scvae_data.processing.engine.base import Engine
from scvae_data.processing.facts import FailedFile
from scvae_data.processing.genes.overlap import Overlap, compared_tables, kind_of_names, least_shared, overlaps
from scvae_data.processing.genes.tables import names_of_columns
from scvae_data.processing.genes.wanted import read_gene_files, resolve
from scvae_data.processing.run.directory import SCRATCH, check_target, dry_run_folder, made_in
from scvae_data.processing.run.losses import check_failures, failure_table
from scvae_data.processing.run.rules import unapplied_rules
from scvae_data.processing.run.summary import human_bytes
from scvae_data.processing.settings.inputs import Inputs, SimulatedInput
from scvae_data.processing.settings.run import Settings
from scvae_data.processing.survey.corpus import check_together, contradicted_species
from scvae_data.processing.survey.notes import MOST_NOTES, frequent_notes
from scvae_data.processing.survey.overview import Row, columns_alike, named_otherwise, sources_of_counts, tell_alike
from scvae_data.processing.survey.room import (
    BYTES_PER_COUNT,
    OBS_BYTES,
    SPOOL_BYTES,
    SPOOL_CELL_BYTES,
    check_room,
    free_bytes,
    room_of,
    stored_counts,
)
from scvae_data.processing.survey.stage import Surveyed, check_rules, read_headers, table_columns
from scvae_data.processing.work import WorkFolder
from scvae_data.remote.location import Location, RemotePath
from scvae_data.store.names import WORK_FOLDER
from scvae_data.wording import counted

__all__ = ["DryRun", "dry_run"]

# A third below what a worker of a quiet two-core machine did, for cores are rarely quiet; counts of 2,000 genes a cell,
# files that are compressed.
SCAN_RATE = {"csr": 17e6, "csc": 5e6, "coo": 4e6, "dense": 35e6}
"""Stored counts a second by layout; for dense all elements."""
START_SECONDS = 2.5
"""Imports, and the first kernels that are loaded."""
FILE_SECONDS = 0.06
SURVEY_SECONDS = 0.04
"""What a worker needs for a file besides its counts, and for its survey where that is not kept."""
ROW_SECONDS = 10e-6
ALIGN_SECONDS = 20e-6
"""For each row of each different gene table: to report what it is, and to find its gene where that is not kept."""
DECIDE_RATE = 150e6
MERGE_RATE = 6e6
WRITE_RATE = {"gzip": 35e6, "lz4": 30e6, "none": 15e6}
FIRST_BYTES = 550e6
"""Of the process that is started and the one that workers come from."""
WORKER_BYTES = 300e6
WRITE_BYTES = {"gzip": 2, "lz4": 2.5, "none": 9}
"""Of each count of a chunk that is written."""


@dataclass(frozen=True)
class DryRun:
    """What the headers say about a run.

    Parameters
    ----------
    nnz
        Stored counts where the headers know, plus a tenth of the elements of dense files.
    n_left_out
        Files of other species than the wanted one.
    n_dense
        Files whose stored counts are not known.
    n_genes
        Distinct genes of all files.
    overlaps
        All pairs of distinct gene tables, least shared first; of 300 tables at most.
    chunk_size
        Cells of a chunk.
    notes
        Kinds of notes and warnings on files, see `frequent_notes`.
    stops
        What would stop the run before any count is read; empty if nothing would.
    seconds, memory_bytes
        Predicted for ``n_workers`` processes.
    kept
        Folder of what the headers say, for the run; empty if it went.
    overview
        What the files have that their user may not expect.
    bytes, spool_bytes, free_bytes
        Predicted size of the chunks if every cell is kept, of the temporary
        files beside them, and room where they would be made.
    n_merges
        How often rows are merged before chunks are written.
    goes_away
        Whether the chunks go to a store, so that this machine has room for the temporary files alone.
    """

    n_files: int
    n_obs: int
    nnz: int
    n_dense: int
    n_genes: int
    n_tables: int
    species: dict[str, int]
    n_left_out: int
    overlaps: list[Overlap]
    failed: list[FailedFile]
    notes: list[str]
    stops: str
    n_chunks: int
    chunk_size: int
    compression: str
    n_workers: int
    bytes: float
    spool_bytes: float
    free_bytes: int
    seconds: float
    memory_bytes: float
    kept: str
    overview: Sequence[Row] = ()
    n_merges: int = 0
    goes_away: bool = False

    def __str__(self) -> str:
        """Lay the facts and the predictions out in two blocks, and below them what was assumed."""
        written = f" but what they say, in {self.kept}" if self.kept else ""
        lines = [
            f"dry run: from headers alone; nothing was written{written}",
            "",
            *laid_out(self._found().items()),
            *laid_out(self.overview),
        ]
        if self.overlaps:
            lines += ["  least shared:", *(f"    {line}" for line in least_shared(self.overlaps))]
        if self.n_files > 1 and self.failed:  # of a single file the error says it
            lines += ["  cannot be read:", failure_table(self.failed, indent=4)]
        if self.notes:
            lines += ["  noticed:", *(f"    {line}" for line in self.notes[:MOST_NOTES])]
        if len(self.notes) > MOST_NOTES:
            lines.append(f"    … and {counted(len(self.notes) - MOST_NOTES, 'more kind')} of notes")
        if not self.n_obs:
            return "\n".join(lines)
        lines += ["", "predicted, if every cell is kept", *laid_out(self._predicted().items()), "", *self._assumed()]
        return "\n".join(lines)

    def _found(self) -> dict[str, str]:
        species = ", ".join(f"{name} ({counted(n, 'file')})" for name, n in self.species.items())
        dense = f", those of {counted(self.n_dense, 'dense file')} guessed" if self.n_dense else ""
        left_out = f"; {counted(self.n_left_out, 'file')} of other species left out" if self.n_left_out else ""
        failed = f", {len(self.failed):,} of them cannot be read" if self.failed else ""
        if not self.n_obs:
            return {"files": f"{self.n_files:,}{failed}"}
        rows = {
            "files": f"{self.n_files:,}{failed}",
            "cells": f"{self.n_obs:,}",
            "counts": f"{self.nnz:,} stored{dense}",
            "genes": f"{self.n_genes:,} in {counted(self.n_tables, 'different gene list')}",
            "species": (species or "not told by gene names") + left_out,
        }
        if self.overlaps:
            median = float(np.median([overlap.share for overlap in self.overlaps]))
            rows["shared"] = f"{100 * median:.1f} % of the genes of the shorter list, in the median pair of lists"
        return rows

    def _predicted(self) -> dict[str, str]:
        here = self.spool_bytes + (0 if self.goes_away else self.bytes)
        short = ": NOT ENOUGH" if here > self.free_bytes else ""
        place = " in the store" if self.goes_away else ""
        return {
            "chunks": f"{self.n_chunks:,} of up to {counted(self.chunk_size, 'cell')}",
            "disk": f"{human_bytes(self.bytes)}{place}, and {human_bytes(self.spool_bytes)} while it runs; "
            f"{human_bytes(self.free_bytes)} free{short}",
            "time": f"{duration(self.seconds)} with {counted(self.n_workers, 'worker')}",
            "memory": human_bytes(self.memory_bytes),
        }

    def _assumed(self) -> list[str]:
        scan = ", ".join(f"{layout} {rate / 1e6:.0f}" for layout, rate in SCAN_RATE.items())
        merged = f", {counted(1 + self.n_merges, 'time')} since runs are merged" if self.n_merges else ""
        lines = [
            f"{BYTES_PER_COUNT[self.compression]} bytes a count ({self.compression}) and {OBS_BYTES} a cell; "
            f"while it runs {SPOOL_BYTES:.0f} a count and {SPOOL_CELL_BYTES} a cell{merged}",
            f"{scan} M elements/s read and {WRITE_RATE[self.compression] / 1e6:.0f} M counts/s written by each worker",
            f"{START_SECONDS:.0f} s to start, {1e3 * FILE_SECONDS:.0f} ms a file by each worker, "
            f"{1e6 * ROW_SECONDS:.0f} s for a million rows of different gene lists",
            f"{human_bytes(FIRST_BYTES)} and {human_bytes(WORKER_BYTES)} for each worker, and "
            f"{WRITE_BYTES[self.compression]} bytes a count of the chunk it writes",
        ]
        if self.n_dense:
            lines.append("counts in a tenth of the elements of a dense file")
        return ["assumed", *(f"  {line}" for line in lines)]


def laid_out(rows: Iterable[Row]) -> list[str]:
    """Return rows as aligned lines."""
    return [f"  {name:<8} {text}" for name, text in rows]


def dry_run(
    settings: Settings,
    engine: Engine,
    directory: Location,
    *,
    overwrite: bool = False,
    resume: bool = False,
    scratch: Path = SCRATCH,
    check_disk: bool = True,
) -> DryRun:
    """Read all headers and predict; the arguments are those of :func:`~scvae_data.processing.pipeline.run`.

    Raises
    ------
    ConfigError
        The settings name no file.
    """
    gene_files = read_gene_files(settings.genes)
    made = made_in(directory, scratch)
    with folder_for_survey(made, settings.input) as work:
        engine.must_see(work.tables)
        if isinstance(settings.input, SimulatedInput):
            settings = replace(settings, input=replace(settings.input, directory=str(work.path / "simulated")))
        tables = work.tables
        surveyed = read_headers(settings, engine, work, gene_files)
        kinds = {table: kind_of_names(names_of_columns(tables, table)) for table in compared_tables(surveyed.files)}

        def checks() -> None:
            """All that a run checks before it reads counts, in its order."""
            check_target(directory, WorkFolder(made / WORK_FOLDER), overwrite=overwrite, resume=resume)
            check_failures(surveyed.failed, surveyed.n_files, settings.max_failed_fraction)
            check_together(surveyed.files, settings, table_columns(surveyed))
            check_rules(surveyed, settings, tables)
            if surveyed.obs_table is not None:
                surveyed.obs_table.rows_of(surveyed.files)
            if gene_files.wanted:
                resolve(gene_files.wanted, surveyed.universe)
            if check_disk:
                check_room(made, surveyed, settings, goes_away=isinstance(directory, RemotePath))

        stops = refusal(checks)
        contradicted = contradicted_species(surveyed.files, gene_files.reference)
        notes = [
            *unapplied_texts(surveyed, settings, tables),
            *(f"WARNING: {file}: {text}" for file, text in contradicted[:MOST_NOTES]),
            *frequent_notes(surveyed.files),
        ]
        kept = "" if work.path.parent != made else str(work.survey)
    found = predict(surveyed, kinds, (stops, notes), settings, engine.n_workers, made, kept)
    return replace(found, goes_away=isinstance(directory, RemotePath))


@contextmanager
def folder_for_survey(made: Path, inputs: Inputs) -> Iterator[WorkFolder]:
    """Give a folder for what the survey finds: that of the run, or one that goes where it cannot be used again.

    Copies of remote inputs go in any case: they lie apart from those of a run, which may be under way.
    """
    with ExitStack() as stack:
        try:
            if isinstance(inputs, SimulatedInput):
                raise PermissionError("simulated files go with the folder")
            work = WorkFolder(stack.enter_context(dry_run_folder(made)))
            work.make_survey()
        except OSError:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="scvae-data-"))
            work = WorkFolder(Path(folder) / WORK_FOLDER)
            work.make_survey()
        yield work


def unapplied_texts(surveyed: Surveyed, settings: Settings, tables: Path) -> list[str]:
    """Say which rules of quality control could not be applied to which files."""
    of_files = {file.source_file: file.slot.table for file in surveyed.files}
    return [f"WARNING: {one.text(tables)}" for one in unapplied_rules(settings.qc, surveyed.universe, of_files)]


def refusal(checks: Callable[[], None]) -> str:
    """Return what checks raise on purpose; empty if nothing."""
    try:
        checks()
    except ScvaeDataError as error:
        return str(error)
    return ""


def predict(
    surveyed: Surveyed,
    kinds: Mapping[str, str],
    told: tuple[str, list[str]],
    settings: Settings,
    n_workers: int,
    made: Path,
    kept: str,
) -> DryRun:
    """Add the headers up; ``told`` is what would stop the run, and the notes on files; ``kept`` as in `DryRun`."""
    files, maps, chunking = surveyed.files, surveyed.universe.maps, settings.chunking
    room = room_of(surveyed, chunking.compression, settings.input.scratch_gb)
    codec = chunking.compression if chunking.compression in WRITE_RATE else "gzip"  # of the user's own: not measured
    n_obs = sum(file.n_obs for file in files)
    tables = {file.slot.table for file in files}
    elements = {file.source_file: file.n_obs * len(maps[file.slot.table]) for file in files}
    dense = [file for file in files if file.slot.storage["nnz"] is None]
    counts = {file.source_file: stored_counts(file, elements[file.source_file]) for file in files}
    nnz = sum(counts.values())
    scan = [
        (elements if file in dense else counts)[file.source_file] / SCAN_RATE[file.slot.storage["layout"]]
        for file in files
    ]
    later = nnz / DECIDE_RATE + room.n_merges * nnz / MERGE_RATE + nnz / WRITE_RATE[codec]
    # No file is cut: the longest one is the least that the scan takes. Gene tables are read by one process.
    n_rows = sum(len(maps[table]) for table in tables)
    of_file = FILE_SECONDS + (0 if kept else SURVEY_SECONDS)
    of_tables = n_rows * (ROW_SECONDS + (0 if kept else ALIGN_SECONDS))
    counting = max([sum(scan) / n_workers, *scan], default=0.0) + later / n_workers
    seconds = START_SECONDS + len(files) * of_file / n_workers + of_tables + counting if files else 0.0
    in_chunk = min(chunking.chunk_size, n_obs) * nnz / max(n_obs, 1)
    n_chunks = -(-n_obs // chunking.chunk_size)
    written = min(n_workers, n_chunks) * in_chunk * WRITE_BYTES[codec]
    return DryRun(
        n_files=surveyed.n_files,
        n_obs=n_obs,
        nnz=nnz,
        n_dense=len(dense),
        n_genes=n_genes_of([maps[table] for table in tables], len(surveyed.universe.keys)),
        n_tables=len(tables),
        species=dict(sorted(Counter(name for file in files for name in file.slot.species).items())),
        n_left_out=len(surveyed.left_out),
        overlaps=overlaps(files, surveyed.universe, kinds),
        failed=surveyed.failed,
        notes=told[1],
        stops=told[0],
        n_chunks=n_chunks,
        chunk_size=chunking.chunk_size,
        compression=codec,
        n_workers=n_workers,
        bytes=room.chunks,
        spool_bytes=room.spool,
        free_bytes=free_bytes(made),
        n_merges=room.n_merges,
        seconds=seconds,
        memory_bytes=FIRST_BYTES + n_workers * WORKER_BYTES + written,
        kept=kept,
        overview=[
            *named_otherwise(files),
            *sources_of_counts(file.slot.name for file in files),
            *tell_alike(columns_alike(files, settings.input.obs_names, settings.input.obs_columns)),
        ],
    )


def n_genes_of(maps: Iterable[NDArray[np.int32]], n_universe: int) -> int:
    """Return how many genes of the universe some tables have together."""
    has = np.zeros(n_universe, bool)
    for genes in maps:
        has[genes[genes >= 0]] = True
    return int(has.sum())


def duration(seconds: float) -> str:
    """Return a time with its unit, e.g. ``"3.5 min"``."""
    for unit, size in (("h", 3600.0), ("min", 60.0)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
