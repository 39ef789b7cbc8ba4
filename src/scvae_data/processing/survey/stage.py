"""Configured inputs in; the headers of all files, and their genes in one order, out: no counts are read.

The survey finds what must stop a run before hours of reading. A run, and a
dry run, start from the same `read_headers` and the same checks.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from scvae_data.processing.engine.base import Engine
from scvae_data.processing.engine.task import Failure
from scvae_data.processing.engine.workers import release_memory
from scvae_data.processing.facts import FailedFile, InputFacts
from scvae_data.processing.genes.choose import Choice, list_choice
from scvae_data.processing.genes.stored_universe import arrays_of, universe_of
from scvae_data.processing.genes.tables import held_clean_table
from scvae_data.processing.genes.universe import Universe, align, forget_names, hash_keys
from scvae_data.processing.genes.wanted import GeneFiles, resolve
from scvae_data.processing.run.context import Again, Context, Standing
from scvae_data.processing.run.losses import tell_failures
from scvae_data.processing.run.rules import tell_unapplied, unapplied_rules
from scvae_data.processing.settings.gene_classes import GENE_CLASSES
from scvae_data.processing.settings.run import Settings
from scvae_data.processing.survey.corpus import (
    NothingNewError,
    check_together,
    contradicted_species,
    files_meant,
    of_species,
    survey_inputs,
)
from scvae_data.processing.survey.kept import digest, keep_arrays, kept_arrays
from scvae_data.processing.survey.notes import tell_by_kind, tell_shared_cells
from scvae_data.processing.survey.obs_table import ObsTable, read_obs_table
from scvae_data.processing.work import WorkFolder
from scvae_data.system.quick_import import collector_paused
from scvae_data.wording import counted

__all__ = ["Surveyed", "check_rules", "read_headers", "read_inputs", "save_survey", "survey", "table_columns"]

log = logging.getLogger(__name__)

# Raised where the same tables may be brought into another order, or rows be other genes.
ALIGNED = 8


@dataclass(frozen=True)
class Surveyed:
    """All that is known before the first count is read.

    Parameters
    ----------
    files
        The inputs that can be read, in order of their names.
    failed
        The others, and why.
    left_out
        Those of other species than the one that is wanted.
    universe
        The genes of all files.
    listed
        The columns where a list names them, else None.
    obs_table
        What a table says of cells; None without one.
    """

    files: list[InputFacts]
    failed: list[FailedFile]
    universe: Universe
    listed: Choice | None = None
    obs_table: ObsTable | None = None
    left_out: Sequence[InputFacts] = ()

    @property
    def n_files(self) -> int:
        """Number of inputs, without those of other species."""
        return len(self.files) + len(self.failed)


def survey(context: Context, save: Callable[[Context, Surveyed], None] | None = None) -> Surveyed:
    """Read all headers, and refuse what the inputs must not be together.

    Parameters
    ----------
    save
        Stores what the workers need of it; `save_survey` for None.

    Raises
    ------
    ScvaeDataError
        More files failed than may, or the inputs are what they must not be together.
    """
    surveyed = read_headers(
        context.settings, context.engine, context.work, context.gene_files, context.standing, context.again
    )
    tell_failures(context, surveyed.n_files, surveyed.failed)
    check_together(surveyed.files, context.settings, table_columns(surveyed))
    check_rules(surveyed, context.settings, context.work.tables)
    tell_notes(surveyed.files)
    tell_by_kind(logging.WARNING, contradicted_species(surveyed.files, context.gene_files.reference))
    tell_shared_cells(surveyed.files)
    tell_left_out(surveyed.left_out, context.settings.genes.species)
    (save or save_survey)(context, surveyed)
    if (wanted := context.gene_files.wanted) is None:
        return surveyed
    return replace(surveyed, listed=list_choice(resolve(wanted, surveyed.universe), wanted))


def read_headers(
    settings: Settings,
    engine: Engine,
    work: WorkFolder,
    gene_files: GeneFiles,
    standing: Standing | None = None,
    again: Again | None = None,
) -> Surveyed:
    """Read all headers and what a table says of cells, and bring the genes of all files into one order.

    Raises
    ------
    ConfigError
        As `read_inputs`; or the table cannot be read.
    """
    obs_table = read_obs_table(settings.input)  # first: it is read in a moment
    return replace(read_inputs(settings, engine, work, gene_files, standing, again), obs_table=obs_table)


def read_inputs(
    settings: Settings,
    engine: Engine,
    work: WorkFolder,
    gene_files: GeneFiles,
    standing: Standing | None = None,
    again: Again | None = None,
) -> Surveyed:
    """Read all headers, and bring the genes of all files into one order.

    Of inputs of a directory that grows, those that it has are left out; where cells are made again, all but theirs.
    Files whose ids and symbols are of different genes have failed.

    Raises
    ------
    NothingNewError
        The directory that grows has all of them.
    ConfigError
        The settings name no file.
    """
    given, failed = survey_inputs(settings.input, engine, work, settings.genes.reference)
    files = files_meant(given, standing, again)
    if standing is not None and not (files or failed or again):
        raise NothingNewError(len(given))
    with collector_paused():
        files, left_out = of_species(files, work, gene_files.reference, settings.genes.species)
        universe = universe_of_files(files, work, gene_files, settings.genes.species or "")
    if engine.n_workers > 1:  # while workers need memory
        forget_names(gene_files.reference)
        held_clean_table.cache_clear()
    release_memory()
    files, unlike = without_unlike(files, universe)
    failed = sorted([*failed, *unlike], key=lambda file: file.source_file)
    return Surveyed(files, failed, universe, left_out=left_out)


def without_unlike(files: Sequence[InputFacts], universe: Universe) -> tuple[list[InputFacts], list[FailedFile]]:
    """Return the files whose genes are known, and those whose ids and symbols are of different genes."""
    known: list[InputFacts] = []
    unlike = []
    for file in files:
        wrong = next((universe.unlike[slot.table] for slot in file.slots if slot.table in universe.unlike), None)
        if wrong is None:
            known.append(file)
        else:
            failure = Failure("crossed_genes", f"{file.path}: {wrong}")
            unlike.append(FailedFile.of(file.source_file, "survey", failure, file.path))
    return known, unlike


def universe_of_files(files: Sequence[InputFacts], work: WorkFolder, gene_files: GeneFiles, wanted: str) -> Universe:
    """Bring the genes of all files into one order, or return the order that the same tables had the last time."""
    n_files = Counter(slot.table for file in files for slot in file.slots)
    species = {slot.table: slot.species for file in files for slot in file.slots}
    genes, path = gene_files.reference, work.surveyed("universe")
    classes = [(one.name, one.prefixes, sorted(one.symbols), sorted(one.ids)) for one in GENE_CLASSES]
    key = digest([ALIGNED, sorted(n_files.items()), gene_files.pairs, genes.digest, species, wanted, classes])
    if kept := kept_arrays(path, key):
        return universe_of(kept)
    universe = align(n_files, partial(held_clean_table, work.tables), gene_files.pairs, genes, species, wanted)
    keep_arrays(path, key, arrays_of(universe))
    return universe


def table_columns(surveyed: Surveyed) -> Sequence[str]:
    """Return the obs columns that a table of cells adds."""
    return () if surveyed.obs_table is None else surveyed.obs_table.columns


def check_rules(surveyed: Surveyed, settings: Settings, tables: Path) -> None:
    """Refuse files to which a rule cannot be applied, where ``qc.require_rules`` asks for it."""
    of_files = {file.source_file: file.slot.table for file in surveyed.files}
    tell_unapplied(settings.qc, unapplied_rules(settings.qc, surveyed.universe, of_files), tables, warn=False)


def tell_notes(files: Sequence[InputFacts]) -> None:
    """Tell what was noticed in the files, kind by kind."""
    tell_by_kind(logging.INFO, [(file.source_file, text) for file in files for text in file.notes])
    tell_by_kind(logging.WARNING, [(file.source_file, text) for file in files for text in file.warnings])


def tell_left_out(files: Sequence[InputFacts], wanted: str | None) -> None:
    """Warn of files of other species than the wanted one, species by species."""
    of_species: defaultdict[str, list[str]] = defaultdict(list)
    for file in files:
        of_species[" and ".join(file.slot.species)].append(file.source_file)
    for species, names in sorted(of_species.items()):
        log.warning(
            "genes.species=%s: %s of %s left out, e.g. %s", wanted, counted(len(names), "file"), species, names[0]
        )


def save_survey(context: Context, surveyed: Surveyed) -> None:
    """Store what the workers need: the genes, and what a table says of the cells of each file."""
    if surveyed.obs_table is not None:
        surveyed.obs_table.save(context.work, surveyed.files)
    save_universe(context.work, surveyed.universe)


def save_universe(work: WorkFolder, universe: Universe) -> None:
    """Store the genes, and each table's map to them, for the workers."""
    for table, positions in universe.maps.items():
        np.save(work.gene_map(table), positions)
        work.gene_species(table).unlink(missing_ok=True)
    for table, codes in universe.species.items():
        np.save(work.gene_species(table), codes)
    np.save(work.universe("keys"), universe.keys.astype(str))
    np.save(work.universe("flags"), universe.flags)
    np.save(work.universe("hashes"), hash_keys(universe.keys))
