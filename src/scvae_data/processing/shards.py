"""Settings and the number of a shard in, its share of the work out; and all shards in, one dataset directory out.

Shards are processes of their own, on one machine or many, which see the same
folders and nothing else of each other: no server, no connection. What goes
into a store they send there, and meet in the folder where it is made. All read
the same survey, each scans its share of the files, one process decides over
all of them, and each writes its share of the chunks. Whatever is done lies
in the work folder under a key of what it depends on, so a shard that was
killed is run again, and the bytes are those of a run without shards.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from scvae_data.calling import program
from scvae_data.errors import ConfigError, ScvaeDataError
from scvae_data.processing import pipeline
from scvae_data.processing.decide.stage import WritePlan
from scvae_data.processing.engine.base import Engine
from scvae_data.processing.engine.task import Failure, stop_without_room
from scvae_data.processing.facts import FailedFile
from scvae_data.processing.genes.wanted import read_gene_files
from scvae_data.processing.run.context import Context, Record
from scvae_data.processing.run.directory import (
    SCRATCH,
    begin_in,
    check_own,
    claimed,
    disk_faults,
    held_directory,
    held_file,
    is_complete,
    made_in,
    prepare,
)
from scvae_data.processing.run.losses import failure_table, warn_of_fractions
from scvae_data.processing.run.summary import Summary
from scvae_data.processing.scan.stage import scan, scan_tasks
from scvae_data.processing.settings.run import Settings
from scvae_data.processing.settings.shard import Shard
from scvae_data.processing.sort.gather import ChunkRange
from scvae_data.processing.survey.room import check_room
from scvae_data.processing.survey.shared import SharedSurvey
from scvae_data.processing.survey.stage import Surveyed, save_survey, survey
from scvae_data.processing.work import WorkFolder
from scvae_data.processing.write.chunks import write_chunks
from scvae_data.progress import progress
from scvae_data.remote.location import Location, RemotePath
from scvae_data.store.files import expecting, read_json, sync_file, syncing, write_json
from scvae_data.store.names import WORK_FOLDER
from scvae_data.system.jit import compile_ahead
from scvae_data.wording import counted, named

__all__ = ["decide_for_shards", "merge", "run_shard"]

RANGE = ("low", "high", "first_row")
log = logging.getLogger(__name__)


def run_shard(
    settings: Settings,
    engine: Engine,
    directory: Location,
    shard: Shard,
    *,
    scratch: Path = SCRATCH,
    check_disk: bool = True,
) -> str:
    """Scan a shard's share of the files; once the chunks are decided, write its share of them.

    Parameters
    ----------
    directory
        The output, here or in a store.
    scratch
        Where a directory of a store is made: a folder that all shards see.
    check_disk
        Refuse a run that will not fit the disk, that is what all shards do together.

    Returns
    -------
    What was done, and what is next.

    Raises
    ------
    ScvaeDataError
        What stopped it, in one line.
    """
    if is_complete(directory):
        raise ConfigError(f"{directory} already holds a dataset; choose another paths.processed_dir for shard={shard}")
    warn_of_fractions(settings.qc)
    gene_files = read_gene_files(settings.genes)
    made, store = made_in(directory, scratch), directory if isinstance(directory, RemotePath) else None
    with held_directory(made, shared=True), disk_faults(made), claimed(directory, made, done=False):
        work = WorkFolder(made / WORK_FOLDER)
        check_own(directory, work)
        work.make()
        work.shards.path.mkdir(exist_ok=True)
        context = Context(settings, engine, made, work, gene_files, Record(), store=store, check_disk=check_disk)
        taken = f"shard={shard} of {directory} is being run by another process; wait for it, or give another number"
        engine.must_see(work.path)
        with held_file(work.shards.lock(f"{shard.number:04d}"), refusal=taken):
            try:
                return do_share(context, shard)
            finally:
                engine.close()


def merge(
    settings: Settings,
    engine: Engine,
    directory: Location,
    *,
    record: Record | None = None,
    scratch: Path = SCRATCH,
) -> Summary:
    """Decide over the scans of all shards, and make of them the directory that one run would have made.

    Chunks are written that no shard has written yet.

    Parameters
    ----------
    directory, scratch
        As of :func:`run_shard`.
    record
        How the run was asked for, kept beside the chunks.

    Raises
    ------
    ScvaeDataError
        What stopped it, in one line: a shard is missing.
    """
    if is_complete(directory):
        return pipeline.run(settings, engine, directory, resume=True, record=record, scratch=scratch)
    # What the shards have claimed is let go with the last of them, which is this.
    with merging(settings, engine, directory, scratch, record) as context, claimed(directory, context.directory):
        seconds: dict[str, float] = {}
        return pipeline.write(context, decide_over_all(context, seconds), seconds)


def decide_for_shards(settings: Settings, engine: Engine, directory: Location, *, scratch: Path = SCRATCH) -> str:
    """Decide over the scans of all shards, and leave the chunks to them; what is next comes back.

    Parameters
    ----------
    directory, scratch
        As of :func:`run_shard`.

    Raises
    ------
    ScvaeDataError
        As :func:`merge`.
    """
    if is_complete(directory):
        raise ConfigError(f"{directory} already holds a dataset; there is nothing to decide")
    with merging(settings, engine, directory, scratch) as context:
        decided = decide_over_all(context, {}).decided
        ranges = [asdict(one) for one in decided.ranges]
        columns = {name: [one[name] for one in ranges] for name in RANGE}
        for path in context.work.decided(decided.digest):
            sync_file(path)
        write_json(context.work.shards.decided, {"digest": decided.digest} | columns)
        return f"decided {counted(len(ranges), 'chunk')}; run all shards again to write them, then merge=true"


@contextmanager
def merging(
    settings: Settings, engine: Engine, directory: Location, scratch: Path, record: Record | None = None
) -> Iterator[Context]:
    """Hold a directory in which all shards have scanned."""
    gene_files = read_gene_files(settings.genes)
    made, store = made_in(directory, scratch), directory if isinstance(directory, RemotePath) else None
    with held_directory(made), disk_faults(made):
        work = prepare(made, directory, overwrite=False, resume=True)
        check_all_scanned(directory, work)
        engine.must_see(work.path)
        try:
            yield Context(settings, engine, made, work, gene_files, record or Record(), store=store)
        finally:
            engine.close()


def do_share(context: Context, shard: Shard) -> str:
    """Do what there is to do for a shard."""
    compile_ahead("process")
    surveyed = shared_survey(context, shard)
    if context.work.shards.decided.exists():
        return write_share(context, shard)
    if context.check_disk:
        check_room(context.directory, surveyed, context.settings, goes_away=context.store is not None)
    return scan_share(context, surveyed, shard)


def shared_survey(context: Context, shard: Shard) -> Surveyed:
    """Read all headers, as far as no other shard has."""
    sharing = SharedSurvey(context.engine, context.work.shards, shard)
    return survey(replace(context, engine=sharing), partial(save_once, shard=shard))


def save_once(context: Context, surveyed: Surveyed, shard: Shard) -> None:
    """Save the survey where no shard has; others may be reading what is saved.

    Raises
    ------
    ConfigError
        The survey, the settings or the number of shards are not those of the first shard.
    """
    shards = context.work.shards
    parts = [context.processing_id(surveyed.files), *sorted(surveyed.universe.meanings().items())]
    begun = {"of": shard.of, "survey": hashlib.sha256(repr(parts).encode()).hexdigest()}
    with held_file(shards.lock("survey")):
        if not shards.begun.exists():
            save_survey(context, surveyed)
            write_json(shards.begun, begun)
            return
        if (first := read_json(shards.begun)) == begun:
            return
    what = "other inputs or settings" if first["of"] == shard.of else f"{shard.of} shards instead of {first['of']}"
    raise ConfigError(
        f"{context.directory} was begun with {what}; give those, or, once no shard runs, `rm -r {shards.path}` and run "
        "all shards again: scans that are the same are kept"
    )


def scan_share(context: Context, surveyed: Surveyed, shard: Shard) -> str:
    """Scan a shard's files. Those that fail are told; the merge tries them again, and decides what that means."""
    share = shard.share(len(surveyed.files))
    every = scan_tasks(context, surveyed)
    tasks = [every[number] for number in share]
    failed = []
    for position, outcome in progress(context.engine.run(tasks), total=len(tasks), desc="scan"):
        stop_without_room(outcome)
        if isinstance(outcome, Failure):
            file = surveyed.files[share[position]]
            failed.append(FailedFile.of(file.source_file, "scan", outcome, file.path))
    if failed:
        log.warning("%s failed:\n%s", counted(len(failed), "file"), failure_table(failed))
    write_json(context.work.shards.scanned(shard.number), {"n_files": len(tasks), "n_failed": len(failed)})
    lost = f", of which {len(failed):,} failed" if failed else ""
    return (
        f"shard {shard}: scanned {len(tasks):,} of {counted(len(surveyed.files), 'file')}{lost}; once all shards have: "
        "merge=true, or merge=decide and then all shards again, to write their chunks"
    )


def n_shards(work: WorkFolder) -> int:
    """Return how many shards there are."""
    return int(read_json(work.shards.begun)["of"])


def check_all_scanned(directory: Location, work: WorkFolder) -> None:
    """Refuse to decide without the scans of all shards.

    Raises
    ------
    ScvaeDataError
        Names those that are missing.
    """
    folder = f" (all must see {work.path}: paths.scratch_dir)" if isinstance(directory, RemotePath) else ""
    if not work.shards.begun.exists():
        raise ConfigError(
            f"{directory}: no shard has begun{folder}; run {program('process')} with shard=1/N to N/N first"
        )
    of = n_shards(work)
    if missing := [number for number in range(1, of + 1) if not work.shards.scanned(number).exists()]:
        texts = [str(Shard(number, of)) for number in missing]
        these = f"shard={texts[0]}" if len(texts) == 1 else "these"
        raise ScvaeDataError(
            f"{directory}: {len(texts)} of {of} shards have not scanned their files: {named(texts, 10)}{folder}; run "
            f"{these}, then merge"
        )


def decide_over_all(context: Context, seconds: dict[str, float]) -> WritePlan:
    """Read what shards have found, try again what failed, and decide; ``seconds`` gets the wall times."""
    compile_ahead("process")
    with pipeline.timed(seconds, "scan"):
        surveyed = shared_survey(context, Shard(1, n_shards(context.work)))
        scanned = scan(context, surveyed)
    return pipeline.decide_plan(context, surveyed, scanned, seconds)


def write_share(context: Context, shard: Shard) -> str:
    """Write a shard's chunks; those that stand already are left alone."""
    path = context.work.shards.decided
    decided = read_json(path)
    with expecting(path):
        columns: Sequence[Any] = [decided[name] for name in RANGE]
        ranges = [ChunkRange(*values) for values in zip(*columns, strict=True)]
        digest = str(decided["digest"])
    share = shard.share(len(ranges))
    if context.store is not None:
        begin_in(context.store, context.directory)
    with syncing() as sync:
        for _ in write_chunks(context, digest, ranges, share, sync):
            pass
    return f"shard {shard}: wrote {len(share):,} of {counted(len(ranges), 'chunk')}; once all shards have: merge=true"
