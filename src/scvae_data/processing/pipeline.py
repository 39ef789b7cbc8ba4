"""Settings in, a dataset directory out: survey, scan and compare the inputs, decide once, write chunks, index last.

This is the whole story; each stage takes the records of those before it and returns its own.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from scvae_data.errors import ConfigError
from scvae_data.processing.decide.duplicates import compare_cells
from scvae_data.processing.decide.stage import WritePlan, decide
from scvae_data.processing.decide.standing import compare_standing
from scvae_data.processing.engine.base import Engine
from scvae_data.processing.facts import InputFacts
from scvae_data.processing.finished.append import add_part, frozen_settings, inputs_again, open_growing, standing_of
from scvae_data.processing.finished.check import check_again, check_finished, check_rest, grown_index, summary_of
from scvae_data.processing.finished.rebuild import find_damage, rebuild
from scvae_data.processing.genes.wanted import read_gene_files
from scvae_data.processing.run.context import Context, Record, Standing
from scvae_data.processing.run.directory import (
    SCRATCH,
    begin_in,
    claimed,
    clear,
    disk_faults,
    end_in,
    is_complete,
    made_in,
    prepare,
    run_directory,
    send,
)
from scvae_data.processing.run.losses import warn_of_fractions
from scvae_data.processing.run.summary import Summary
from scvae_data.processing.scan.stage import Scanned, scan
from scvae_data.processing.settings.run import Settings
from scvae_data.processing.survey.corpus import NothingNewError
from scvae_data.processing.survey.room import check_room
from scvae_data.processing.survey.stage import Surveyed, read_inputs, survey
from scvae_data.processing.work import WorkFolder
from scvae_data.processing.write.publish import publish, write_cells
from scvae_data.remote.location import Location, RemotePath
from scvae_data.store import INDEX_FILE, DatasetIndex, open_index, sweep_temporaries
from scvae_data.store.files import syncing, write_atomic
from scvae_data.store.names import WORK_FOLDER
from scvae_data.store.verify import by_generation
from scvae_data.system.jit import compile_ahead

__all__ = ["append", "decide_plan", "run", "write"]


def run(
    settings: Settings,
    engine: Engine,
    directory: Location,
    *,
    overwrite: bool = False,
    resume: bool = False,
    record: Record | None = None,
    scratch: Path = SCRATCH,
    check_disk: bool = True,
) -> Summary:
    """Process raw files into a dataset directory.

    Parameters
    ----------
    settings
        What shall be done.
    engine
        Who does it; closed at the end.
    directory
        The directory, here or in a remote store.
    overwrite, resume
        Replace a dataset, or continue an unfinished run, also one that was to replace a dataset.
    record
        How the run was asked for, kept beside the chunks.
    scratch
        Where a directory of a remote store is made.
    check_disk
        Refuse a run that will not fit the disk.

    Raises
    ------
    ScvaeDataError
        What stopped the run, in one line.
    """
    warn_of_fractions(settings.qc)
    gene_files = read_gene_files(settings.genes)  # one of them may lie in the directory that is overwritten
    made = made_in(directory, scratch)
    store = directory if isinstance(directory, RemotePath) else None
    with run_directory(made), disk_faults(made), claimed(directory, made):
        work = prepare(made, directory, overwrite=overwrite, resume=resume)
        work.shards.remove()  # later shards must not take the genes that this run saves for theirs
        context = Context(
            settings, engine, made, work, gene_files, record or Record(), store=store, check_disk=check_disk
        )
        engine.must_see(work.path)
        try:
            return make(context) if replaces(context, overwrite=overwrite) else finish(context)
        finally:
            engine.close()


def replaces(context: Context, *, overwrite: bool) -> bool:
    """Whether a directory is to be made, in place of what is there; noted, for a run that goes on with that.

    An interrupted ``overwrite`` is gone on with where the settings are its own.
    """
    note, meant = context.work.replacing, context.settings.processing_id(context.gene_files.settings, "")
    if overwrite:
        write_atomic(note, meant.encode())
    return not is_complete(context.target) or (note.exists() and note.read_text() == meant)


def append(
    settings: Settings,
    engine: Engine,
    directory: Location,
    *,
    resume: bool = False,
    record: Record | None = None,
    scratch: Path = SCRATCH,
    check_disk: bool = True,
) -> Summary:
    """Process raw files into new chunks of a finished directory, whose genes and rules stay what they are.

    The new cells become a directory of their own within the work folder, and
    are then added to the directory in one step, when its index is replaced.
    What was interrupted goes on where it was. Where the directory has all files
    already, it is left alone.

    Parameters
    ----------
    settings, engine, directory, record, scratch, check_disk
        As of :func:`run`; the genes and the target sum are those of the directory.
    resume
        Build files of added cells that are damaged again, and then add nothing.

    Raises
    ------
    ScvaeDataError
        What stopped the run, in one line.
    """
    open_index(directory)  # before anything is made in a folder that holds no dataset
    warn_of_fractions(settings.qc)
    made = made_in(directory, scratch)
    with run_directory(made), disk_faults(made), claimed(directory, made):
        index = open_growing(directory)
        work = WorkFolder(made / WORK_FOLDER)
        settings = frozen_settings(settings, index, work.path)
        gene_files = read_gene_files(settings.genes).of_directory(directory)
        sweep_temporaries(made)
        part = work.appended
        part.mkdir(parents=True, exist_ok=True)
        context = Context(
            settings,
            engine,
            part,
            prepare(part, part, overwrite=False, resume=True),
            gene_files,
            record or Record(),
            check_disk=check_disk,
        )
        engine.must_see(context.work.path)
        try:
            begun = is_complete(part) or context.work.started
            if resume and not begun and (rebuilt := mend_added(replace(context, work=work), index)):
                work.remove()
                return summary_of(directory, rebuilt)
            context = replace(context, standing=standing_of(index))
            summary = make_again(context) if is_complete(part) else make(context)
            grown = add_part(context, index)
        except NothingNewError as nothing:
            work.remove()
            return replace(summary_of(directory), n_files=nothing.n_files)
        finally:
            engine.close()
        work.remove()
    return summary.of_added(directory, grown)


def make_again(context: Context) -> Summary:
    """Keep what an interrupted append has finished, if it was of these inputs; else make it anew."""
    try:
        return finish(context)
    except ConfigError:
        (context.directory / INDEX_FILE).unlink()
        return make(context)


def make(context: Context) -> Summary:
    """Run all stages."""
    compile_ahead("process")
    seconds: dict[str, float] = {}
    return write(context, make_plan(context, seconds), seconds)


def write(context: Context, plan: WritePlan, seconds: dict[str, float]) -> Summary:
    """Run the stages from the first chunk on; ``seconds`` has the wall times of those before, and gets theirs."""
    if context.store is not None:
        begin_in(context.store, context.directory)
    elif is_complete(context.directory):
        clear(context.directory)
    context.work.replacing.unlink(missing_ok=True)  # there is nothing left to be replaced
    with syncing() as sync, timed(seconds, "write"):
        written = write_cells(context, plan, sync)
    context.engine.close()
    summary = publish(context, plan, written, seconds)
    settle(context)
    return summary


def make_plan(context: Context, seconds: dict[str, float]) -> WritePlan:
    """Run the stages before the first chunk is written; ``seconds`` gets their wall times."""
    with timed(seconds, "survey"):  # with the making of what is simulated
        surveyed = survey(context)
        if context.check_disk:
            check_room(context.directory, surveyed, context.settings, goes_away=context.store is not None)
    with timed(seconds, "scan"):
        scanned = scan(context, surveyed)
    return decide_plan(context, surveyed, scanned, seconds)


def decide_plan(context: Context, surveyed: Surveyed, scanned: Scanned, seconds: dict[str, float]) -> WritePlan:
    """Run the stages between the last scan and the first chunk; ``seconds`` gets their wall times."""
    with timed(seconds, "compare"):
        compared = compare_cells(context, scanned)
        if context.standing is not None:
            compared = compare_standing(context, surveyed, scanned, compared)
    with timed(seconds, "decide"):
        decided = decide(context, surveyed, compared)
    return WritePlan(surveyed, scanned, compared, decided)


def finish(context: Context) -> Summary:
    """Check that a finished directory is what this run would make; build again only files that are damaged."""
    directory = context.target
    if (grown := grown_index(directory)) is not None:
        rebuilt = mend(context, grown, [0])
        context.work.remove()
        return summary_of(directory, rebuilt)
    files = inputs_meant(context)
    index = check_finished(directory, files, context.processing_id(files), context.record.config)
    if index is None:
        return make(context)
    damaged = find_damage(index, partial(context.collect, "verify", unit="file"))
    if damaged:
        context.work.mended.mkdir(exist_ok=True)
        build_again(replace(context, directory=context.work.mended), index, 0, damaged)
    settle(context)
    return summary_of(directory, sorted(damaged))


def inputs_meant(context: Context) -> list[InputFacts]:
    """Read the headers of the inputs that a run is about."""
    return read_inputs(
        context.settings, context.engine, context.work, context.gene_files, context.standing, context.again
    ).files


def mend_added(context: Context, index: DatasetIndex) -> list[str]:
    """Build damaged files of added cells again; return their names."""
    return mend(context, index, range(1, len(index.generations))) if len(index.generations) > 1 else []


def mend(context: Context, index: DatasetIndex, numbers: Collection[int]) -> list[str]:
    """Build damaged files of some generations of a directory that has grown again; return their names.

    Those that were made with other inputs or settings are left for another run.

    Raises
    ------
    ConfigError
        All that are damaged were.
    """
    damaged = by_generation(index, find_damage(index, partial(context.collect, "verify", unit="file")))
    rebuilt: list[str] = []
    refusals: list[ConfigError] = []
    for number in [number for number in damaged if number in numbers]:
        folder = context.work.mended / f"{number:04d}"
        folder.mkdir(parents=True, exist_ok=True)
        again = replace(
            context,
            directory=folder,
            work=prepare(folder, folder, overwrite=False, resume=True),
            standing=Standing(index.first_generations(number), {}) if number else None,
            again=inputs_again(index, number),
        )
        try:
            files = inputs_meant(again)
            check_again(index, number, files, again.processing_id(files), again.record.config)
        except ConfigError as error:
            refusals.append(error)
            continue
        build_again(again, index, number, damaged[number])
        rebuilt += damaged.pop(number)
    if refusals and not rebuilt:
        raise refusals[0]
    check_rest(index, [name for names in damaged.values() for name in names], rebuilt)
    return rebuilt


def build_again(context: Context, index: DatasetIndex, number: int, damaged: Collection[str]) -> None:
    """Build damaged files of one generation again; the directory of the context is a folder to make them in."""
    seconds: dict[str, float] = {}
    rebuild(context, index, number, make_plan(context, seconds), damaged, seconds)


def settle(context: Context) -> None:
    """Send a directory where it belongs, and leave nothing else of the run."""
    if context.store is not None:
        send(context.directory, context.store)
        end_in(context.store)
    context.work.remove()


@contextmanager
def timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Note a stage's wall time."""
    started = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - started
