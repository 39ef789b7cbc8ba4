"""Configured inputs in, the headers of all files out; and what the files must not be together."""

from __future__ import annotations

import json
import logging
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from scvae_data.errors import ConfigError
from scvae_data.processing.engine.base import Engine
from scvae_data.processing.engine.task import Failure, Task, stop_without_room
from scvae_data.processing.facts import FailedFile, InputFacts
from scvae_data.processing.genes.names import clean_table
from scvae_data.processing.genes.reference import Reference, load_reference
from scvae_data.processing.genes.species import is_of, judge, species_of_rows
from scvae_data.processing.genes.tables import held_clean_table
from scvae_data.processing.run.context import Again, Standing
from scvae_data.processing.settings.genes import COMMON_NAMES, common_name
from scvae_data.processing.settings.inputs import ACCESSION_COLUMNS, Inputs, source_names
from scvae_data.processing.settings.run import Settings
from scvae_data.processing.sort.obs_schema import is_ours
from scvae_data.processing.survey.file import SPECIES_COLUMNS, SurveyJob, survey_file
from scvae_data.processing.survey.kept import digest, keep_arrays, keep_facts, kept_arrays, kept_facts, stamp_all
from scvae_data.processing.work import WorkFolder
from scvae_data.progress import progress
from scvae_data.readers.recognise import open_reader
from scvae_data.remote.fetched import scratch_folder
from scvae_data.remote.location import is_remote
from scvae_data.store import SRX_COLUMN
from scvae_data.wording import counted

__all__ = ["NothingNewError", "check_together", "contradicted_species", "files_meant", "of_species", "survey_inputs"]

log = logging.getLogger(__name__)

MAX_OBS_COLUMNS = 50
# Raised where the species of a table may be told otherwise.
JUDGED = 4


class NothingNewError(ConfigError):
    """A directory that grows has all the inputs that are given.

    Parameters
    ----------
    n_files
        Number of these.
    """

    def __init__(self, n_files: int) -> None:
        super().__init__("there is nothing to append")
        self.n_files = n_files


def survey_inputs(
    inputs: Inputs, engine: Engine, work: WorkFolder, reference: str | None = "builtin"
) -> tuple[list[InputFacts], list[FailedFile]]:
    """Read the headers of all files, but of those that are unchanged since the last survey; keep what they say.

    Gene tables and copies of remote inputs go to the work folder.

    Parameters
    ----------
    reference
        Of genes, see `GeneRules`.

    Returns
    -------
    The headers of files that can be read, and the others with the reason; both in order of their names.

    Raises
    ------
    ConfigError
        The settings name no file.
    """
    given = inputs.files()
    names = source_names([file.path for file in given])
    order = sorted(range(len(given)), key=lambda number: names[number])
    genes = load_reference(reference)
    stamped = stamp_all([given[number] for number in order], inputs, genes.digest)
    kept = kept_facts(work, stamped)
    found = {at: replace(facts, source_file=names[order[at]]) for at, facts in kept.items()}
    if found:
        log.info("survey: %s unchanged since the last one", counted(len(found), "file"))
    scratch = scratch_folder(work.fetched, inputs.scratch_gb)
    job = SurveyJob(work.tables, scratch, inputs.full_hash, inputs.opening, inputs.counts, reference)
    left = [at for at in range(len(order)) if at not in found]
    tasks = [Task(survey_file, (given[order[at]], names[order[at]], job)) for at in left]
    failed = []
    with ThreadPoolExecutor(1) as beside:
        if tasks:
            beside.submit(getattr, genes, "table")  # read while workers read the files
        for number, outcome in progress(engine.run(tasks), total=len(tasks), desc="survey") if tasks else ():
            stop_without_room(outcome)
            file = order[left[number]]
            if isinstance(outcome, Failure):
                failed.append(FailedFile.of(names[file], "survey", outcome, str(given[file].path)))
            else:
                found[left[number]] = outcome
    if len(found) > len(kept):
        keep_facts(work, stamped, found)
    return [found[position] for position in sorted(found)], sorted(failed, key=lambda file: file.source_file)


def files_meant(files: Sequence[InputFacts], standing: Standing | None, again: Again | None) -> list[InputFacts]:
    """Return those of the files that a run is about: all, those that a directory lacks, or those of cells made again.

    Raises
    ------
    ConfigError
        As `new_files` and `files_again`.
    """
    if again is not None:
        return files_again(files, again)
    return list(files) if standing is None else new_files(files, standing)


def files_again(files: Sequence[InputFacts], again: Again) -> list[InputFacts]:
    """Return those of the files that damaged cells were made of.

    Raises
    ------
    ConfigError
        One of them is not given, or has other content.
    """
    if (wanted := again.inputs) is None:
        return [file for file in files if file.source_file not in again.others]
    found = {file.source_file: file for file in files if file.source_file in wanted}
    missing = [name for name in wanted if name not in found]
    changed = [name for name, file in found.items() if file.fingerprint != wanted[name]]
    if wrong := missing or changed:
        what = "not among the inputs" if missing else "of other content now"
        more = f" (and {len(wrong) - 1:,} more)" if len(wrong) > 1 else ""
        raise ConfigError(
            f"{again.path}: damaged files were made of {wrong[0]}{more}, which is {what}; give it as it was, take the "
            "files from a copy of the directory, or process all inputs anew with overwrite=true"
        )
    return list(found.values())


def new_files(files: Sequence[InputFacts], standing: Standing) -> list[InputFacts]:
    """Return those of the files that a directory does not have, and say how many it has, unless it is all.

    Raises
    ------
    ConfigError
        An input of its name has other content, or an experiment is in it already.
    """
    for file in files:
        if standing.inputs.get(file.source_file, file.fingerprint) != file.fingerprint:
            raise ConfigError(
                f"{file.path}: {standing.path} has an input {file.source_file} of other content; give the new file "
                "another name, or process all inputs anew"
            )
    # A file is called by its path below the folder that all given ones share, which is another one with other files.
    held = {(PurePosixPath(name).name, fingerprint) for name, fingerprint in standing.inputs.items()}
    new = [file for file in files if (PurePosixPath(file.source_file).name, file.fingerprint) not in held]
    if 0 < len(new) < len(files):
        log.info(
            "%s of %s are in %s already", f"{len(files) - len(new):,}", counted(len(files), "input"), standing.path
        )
    place = standing.columns[SRX_COLUMN].place
    for file in new:
        if known := [accession for accession in file.accessions if accession in place]:
            raise ConfigError(
                f"{file.path}: {standing.path} has cells of {known[0]} already; leave the file out, give its cells "
                "another accession in a manifest, or process all inputs anew"
            )
    return new


def of_species(
    files: Sequence[InputFacts], work: WorkFolder, reference: Reference, wanted: str | None
) -> tuple[list[InputFacts], list[InputFacts]]:
    """Say of which species each matrix of each file is; return the files of the wanted one, and the others.

    Parameters
    ----------
    work
        Has the gene tables.
    wanted
        The species, see `GeneRules`; None for all.

    Raises
    ------
    ConfigError
        No file is of the wanted species.
    """
    names = sorted({slot.table for file in files for slot in file.slots})
    species = species_of(work, names, reference)
    told = [
        replace(file, slots=tuple(replace(slot, species=species[slot.table]) for slot in file.slots)) for file in files
    ]
    if wanted is None:
        return told, []
    kept = [file for file in told if is_of(file.slot.species, wanted)]
    if told and not kept:
        found = Counter(name for file in told for name in file.slot.species)
        named = ", ".join(f"{name} ({counted(n, 'file')})" for name, n in sorted(found.items()))
        raise ConfigError(f"genes.species={wanted}: no input is of it; there are {named}")
    return kept, [file for file in told if not is_of(file.slot.species, wanted)]


def species_of(work: WorkFolder, tables: Sequence[str], reference: Reference) -> dict[str, tuple[str, ...]]:
    """Return the species of each gene table; what was told of the same tables the last time is kept."""
    key = digest([JUDGED, tables, reference.digest])
    kept = kept_arrays(work.surveyed("species"), key)
    if kept:
        return {table: tuple(names) for table, names in json.loads(kept["species"].tobytes()).items()}
    species = judge(tables, partial(held_clean_table, work.tables), reference)
    told = np.frombuffer(json.dumps(species).encode(), np.uint8)
    keep_arrays(work.surveyed("species"), key, {"species": told})
    return species


def check_together(files: Sequence[InputFacts], settings: Settings, added: Sequence[str] = ()) -> None:
    """Refuse what the inputs must not be together.

    Parameters
    ----------
    added
        Obs columns that a table of cells adds.

    Raises
    ------
    ConfigError
        Several species, one accession in several files, too many obs columns, or none of a name that settings
        want; the message names them and the key that allows it.
    """
    if not settings.genes.allow_mixed_species:
        check_species(files, settings)
        check_named_species(files, load_reference(settings.genes.reference))
    if not settings.input.merge_same_accession:
        check_accessions(files)
    check_obs_columns(files, settings.input, added)
    check_group_column(files, settings.input, settings.chunking.group_column, added)


def check_obs_columns(files: Sequence[InputFacts], inputs: Inputs, added: Sequence[str] = ()) -> None:
    """Refuse too many obs columns, and wanted ones that no file has."""
    own = {column for file in files for column in file.obs_columns}
    joined = {column for columns in (inputs.join_columns or {}).values() for column in columns}
    if absent := sorted(joined - own - set(inputs.cell_columns)):
        raise ConfigError(
            f"input.join_columns: no file has {', '.join(absent)}; there are: {', '.join(sorted(own)) or 'none'}"
        )
    if taken := [name for name in inputs.join_columns or () if is_ours(name)]:
        raise ConfigError(f"input.join_columns: {taken[0]} is a column that processing adds; choose another name")
    called = {inputs.obs_names.get(column, column) for column in own}
    known = {*added, *called, *inputs.cell_columns, *(column for file in files for column in file.obs_values)}
    for key in ("obs_columns", "numeric_columns"):
        if unknown := sorted(set(getattr(inputs, key) or ()) - known):
            raise ConfigError(
                f"input.{key}: no file has {', '.join(unknown)}; there are: {', '.join(sorted(known)) or 'none'}"
            )
    if inputs.obs_columns is None:
        columns = sorted(called)
        if len(columns) > MAX_OBS_COLUMNS:
            raise ConfigError(
                f"the inputs have {len(columns)} obs columns together, more than {MAX_OBS_COLUMNS}; choose with "
                f"input.obs_columns='[{columns[0]},{columns[1]},…]' ([] keeps none); there are: {', '.join(columns)}"
            )


def check_species(files: Sequence[InputFacts], settings: Settings) -> None:
    """Refuse several species, unless one of them is wanted."""
    if settings.genes.species is not None:
        return
    example: dict[str, str] = {}
    count: Counter[str] = Counter()
    for file in files:
        for species in file.slot.species:
            example.setdefault(species, file.source_file)
            count[species] += 1
    if len(example) > 1:
        named = ", ".join(
            f"{species} ({counted(count[species], 'file')}, e.g. {example[species]})" for species in sorted(example)
        )
        raise ConfigError(
            f"mixed species: {named}{shares_of_first(files, settings)}; genes.species={min(example)} keeps the files, "
            "cells and genes of one, genes.allow_mixed_species=true those of all"
        )


def check_named_species(files: Sequence[InputFacts], reference: Reference) -> None:
    """Refuse files of another species by a table of inputs than by their genes: symbols tell few species apart."""
    if not any(file.obs_values for file in files):
        return
    known = {*reference.species, *COMMON_NAMES.values()}
    told: list[tuple[InputFacts, str, str]] = []
    for file in files:
        for column, value in file.obs_values.items():
            name = common_name(str(value)) if column.casefold() in SPECIES_COLUMNS else ""
            if name in known and file.slot.species and name not in map(common_name, file.slot.species):
                told.append((file, column, name))
    if told:
        file, column, name = told[0]
        more = f" (and {counted(len(told) - 1, 'more file')})" if len(told) > 1 else ""
        raise ConfigError(
            f"{file.source_file}{more}: {column} says {name}, its genes are called as those of "
            f"{' and '.join(file.slot.species)}; correct the column, give the file with gene ids of its species, or "
            "take its genes for what they are called with genes.allow_mixed_species=true"
        )


def contradicted_species(files: Sequence[InputFacts], reference: Reference) -> list[tuple[str, str]]:
    """Say which files call their cells another species than their genes are of, as after a change to its orthologs."""
    telling = [file for file in files if file.species_columns]
    known = {*reference.species, *COMMON_NAMES.values()} if telling else set()  # read again only where it is asked
    found = []
    for file in telling:
        of_genes = {common_name(name) for name in file.slot.species}
        for column, labels in file.species_columns.items():
            named = {common_name(text) for text in labels}
            if of_genes and named and named <= known and named.isdisjoint(of_genes):
                text = f"its genes are called as those of {' and '.join(sorted(of_genes))}"
                found.append((file.source_file, f"obs column {column} says {' and '.join(sorted(named))}, {text}"))
    return found


def shares_of_first(files: Sequence[InputFacts], settings: Settings) -> str:
    """Say what share of the first counts of the first file of several species each has; empty if there is none."""
    file = next((file for file in files if len(file.slot.species) > 1 and not is_remote(file.path)), None)
    if file is None:
        return ""
    species = file.slot.species
    with open_reader(Path(file.path), settings.input.opening) as reader:
        rows = species_of_rows(
            clean_table(reader.genes(file.slot.name)), species, load_reference(settings.genes.reference)
        )
        block = next(iter(reader.blocks(file.slot.name)))
    codes = np.array([species.index(name) + 1 if name else 0 for name in rows])
    sums = np.bincount(codes[block.indices], block.data, len(species) + 1)[1:]
    named = ", ".join(f"{100 * n / max(sums.sum(), 1):.1f} % {name}" for n, name in zip(sums, species, strict=True))
    return f"; of the counts of the first {counted(block.n_rows, 'cell')} of {file.source_file} {named}"


def check_accessions(files: Sequence[InputFacts]) -> None:
    """Refuse one accession in several files."""
    owners: defaultdict[str, list[InputFacts]] = defaultdict(list)
    for file in files:
        for accession in file.accessions:
            owners[accession].append(file)
    shared = {name: found for name, found in owners.items() if len(found) > 1}
    if shared:
        name = min(shared)
        first, second, *_ = shared[name]
        told = ", as a part of a name or a folder says" if first.named_otherwise or second.named_otherwise else ""
        more = f" (and {counted(len(shared) - 1, 'more accession')})" if len(shared) > 1 else ""
        raise ConfigError(
            f"accession {name} belongs to {len(shared[name])} files: {first.source_file}, {second.source_file}{more}"
            f"{told}; leave one out if they hold the same cells, else name each in a manifest (input=manifest), or "
            "join them with input.merge_same_accession=true"
        )


def check_group_column(
    files: Sequence[InputFacts], inputs: Inputs, column: str | None, added: Sequence[str] = ()
) -> None:
    """Refuse a column to group by that no file has; one that some lack makes those a group."""
    if column is None or column in ACCESSION_COLUMNS:
        return
    wanted = inputs.obs_columns
    known = {*added, *inputs.cell_columns}
    own = {name for file in files for name in file.obs_columns}
    known |= {inputs.obs_names.get(name, name) for name in own} | {name for file in files for name in file.obs_values}
    known = {name for name in known if wanted is None or name in wanted}
    if column not in known:
        raise ConfigError(
            f"chunking.group_column={column}: no input has this obs column, or input.obs_columns leaves it out; "
            f"there are: {', '.join(sorted({'SRX_accession', *known}))}"
        )
