"""Configured inputs in, the headers of all files out; and what the files must not be together."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from scvae_data.errors import ConfigError
from scvae_data.processing.engine.base import Engine
from scvae_data.processing.engine.task import Failure, Task, stop_without_room
from scvae_data.processing.facts import ACCESSION_COLUMNS, FailedFile, InputFacts
from scvae_data.processing.settings.inputs import Inputs, source_names
from scvae_data.processing.settings.run import Settings
from scvae_data.processing.survey.file import survey_file
from scvae_data.progress import progress
from scvae_data.wording import counted

__all__ = ["check_together", "survey_inputs"]

MAX_OBS_COLUMNS = 50


def survey_inputs(
    inputs: Inputs, engine: Engine, tables: Path, reference: str | None = "builtin"
) -> tuple[list[InputFacts], list[FailedFile]]:
    """Read all headers; gene tables go to ``tables``, a folder that exists.

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
    settings = (tables, inputs.full_hash, inputs.opening, inputs.counts, reference)
    tasks = [Task(survey_file, (given[number], names[number], *settings)) for number in order]
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
        check_species(files)
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


def check_species(files: Sequence[InputFacts]) -> None:
    """Refuse several species."""
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
            f"mixed species: {named}; process each species by itself, or allow it with genes.allow_mixed_species=true"
        )


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
            f"accession {name} belongs to {len(paths)} files: {paths[0]}, {paths[1]}{more}; name each in a manifest "
            "(input=manifest), or join them with input.merge_same_accession=true"
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
