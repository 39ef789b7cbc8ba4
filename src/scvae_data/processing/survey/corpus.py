"""Configured inputs in, the headers of all files out; and what the files must not be together."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from scvae_data.errors import ConfigError
from scvae_data.processing.engine.base import Engine
from scvae_data.processing.engine.task import Failure, Task, stop_without_room
from scvae_data.processing.facts import ACCESSION_COLUMNS, FailedFile, InputFacts
from scvae_data.processing.genes.reference import Reference, load_reference
from scvae_data.processing.genes.species import is_of, judge, species_of_rows
from scvae_data.processing.genes.tables import load_table
from scvae_data.processing.settings.inputs import Inputs, source_names
from scvae_data.processing.settings.run import Settings
from scvae_data.processing.survey.file import SurveyJob, survey_file
from scvae_data.progress import progress
from scvae_data.readers.recognise import open_reader
from scvae_data.remote.fetched import scratch_folder
from scvae_data.remote.location import is_remote
from scvae_data.wording import counted

__all__ = ["check_together", "of_species", "survey_inputs"]

MAX_OBS_COLUMNS = 50


def survey_inputs(
    inputs: Inputs, engine: Engine, tables: Path, reference: str | None = "builtin"
) -> tuple[list[InputFacts], list[FailedFile]]:
    """Read all headers; gene tables go to ``tables``, a folder that exists, and copies of remote inputs beside it.

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
    scratch = scratch_folder(tables.parent / "fetched", inputs.scratch_gb)
    job = SurveyJob(tables, scratch, inputs.full_hash, inputs.opening, inputs.counts, reference)
    tasks = [Task(survey_file, (job, given[number], names[number])) for number in order]
    found: dict[int, InputFacts] = {}
    failed = []
    for position, outcome in progress(engine.run(tasks), total=len(tasks), desc="survey"):
        stop_without_room(outcome)
        if isinstance(outcome, Failure):
            number = order[position]
            failed.append(FailedFile.of(names[number], "survey", outcome, str(given[number].path)))
        else:
            found[position] = outcome
    return [found[position] for position in sorted(found)], sorted(failed, key=lambda file: file.source_file)


def of_species(
    files: Sequence[InputFacts], tables: Path, reference: Reference, wanted: str | None
) -> tuple[list[InputFacts], list[InputFacts]]:
    """Say of which species each matrix of each file is; return the files of the wanted one, and the others.

    Parameters
    ----------
    tables
        Folder of the gene tables.
    wanted
        The species, see `GeneRules`; None for all.

    Raises
    ------
    ConfigError
        No file is of the wanted species.
    """
    names = sorted({slot.table for file in files for slot in file.slots})
    species = judge(names, partial(load_table, tables), reference)
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
    return kept, [file for file in told if file not in kept]


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
    if not settings.input.merge_same_accession:
        check_accessions(files)
    check_obs_columns(files, settings.input, added)
    check_group_column(files, settings.input, settings.chunking.group_column, added)


def check_obs_columns(files: Sequence[InputFacts], inputs: Inputs, added: Sequence[str] = ()) -> None:
    """Refuse too many obs columns, and wanted ones that no file has."""
    known = {*added, *(column for file in files for column in (*file.obs_columns, *file.obs_values))}
    for key in ("obs_columns", "numeric_columns"):
        if unknown := sorted(set(getattr(inputs, key) or ()) - known):
            raise ConfigError(f"input.{key}: no file has {', '.join(unknown)}; there are: {', '.join(sorted(known))}")
    if inputs.obs_columns is None:
        columns = sorted({column for file in files for column in file.obs_columns})
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


def shares_of_first(files: Sequence[InputFacts], settings: Settings) -> str:
    """Say what share of the first counts of the first file of several species each has; empty if there is none."""
    file = next((file for file in files if len(file.slot.species) > 1 and not is_remote(file.path)), None)
    if file is None:
        return ""
    species = file.slot.species
    with open_reader(Path(file.path), settings.input.opening) as reader:
        rows = species_of_rows(reader.genes(file.slot.name), species, load_reference(settings.genes.reference))
        block = next(iter(reader.blocks(file.slot.name)))
    codes = np.array([species.index(name) + 1 if name else 0 for name in rows])
    sums = np.bincount(codes[block.indices], block.data, len(species) + 1)[1:]
    named = ", ".join(f"{100 * n / max(sums.sum(), 1):.1f} % {name}" for n, name in zip(sums, species, strict=True))
    return f"; of the counts of the first {counted(block.n_rows, 'cell')} of {file.source_file} {named}"


def check_accessions(files: Sequence[InputFacts]) -> None:
    """Refuse one accession in several files."""
    owners: defaultdict[str, list[str]] = defaultdict(list)
    for file in files:
        for accession in file.accessions:
            owners[accession].append(file.source_file)
    shared: Mapping[str, list[str]] = {name: paths for name, paths in owners.items() if len(paths) > 1}
    if shared:
        name, paths = min(shared.items())
        more = f" (and {counted(len(shared) - 1, 'more accession')})" if len(shared) > 1 else ""
        raise ConfigError(
            f"accession {name} belongs to {len(paths)} files: {paths[0]}, {paths[1]}{more}; leave one out if they "
            "hold the same cells, else name each in a manifest (input=manifest), or join them with "
            "input.merge_same_accession=true"
        )


def check_group_column(
    files: Sequence[InputFacts], inputs: Inputs, column: str | None, added: Sequence[str] = ()
) -> None:
    """Refuse a column to group by that no file has; one that some lack makes those a group."""
    if column is None or column in ACCESSION_COLUMNS:
        return
    wanted = inputs.obs_columns
    known = {*added, *(name for file in files for name in (*file.obs_columns, *file.obs_values))}
    known = {name for name in known if wanted is None or name in wanted}
    if column not in known:
        raise ConfigError(
            f"chunking.group_column={column}: no input has this obs column, or input.obs_columns leaves it out; "
            f"there are: {', '.join(sorted({'SRX_accession', *known}))}"
        )
