"""Configured inputs in, the headers of all files out: what a run, a dry run and a finished directory start from."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from scvae_data.processing.engine import Engine
from scvae_data.processing.inputs import Inputs, source_names
from scvae_data.processing.report import FailedFile
from scvae_data.processing.survey import FileFacts, survey_file
from scvae_data.processing.task import Failure, Task, stop_without_room
from scvae_data.progress import progress

__all__ = ["Corpus", "survey_inputs"]


@dataclass(frozen=True)
class Corpus:
    """All inputs, in order of their names.

    Parameters
    ----------
    files
        The headers of those that can be read.
    failed
        The others, and why.
    """

    files: list[FileFacts]
    failed: list[FailedFile] = field(default_factory=list)

    @property
    def n_files(self) -> int:
        """Number of inputs."""
        return len(self.files) + len(self.failed)


def survey_inputs(inputs: Inputs, engine: Engine, tables: Path) -> Corpus:
    """Read all headers; gene tables go to ``tables``, a folder that exists.

    Raises
    ------
    ConfigError
        The settings name no file.
    """
    given = inputs.files()
    names = source_names([file.path for file in given])
    order = sorted(range(len(given)), key=lambda number: names[number])
    settings = (tables, inputs.full_hash, inputs.limits)
    tasks = [Task(survey_file, (given[number], names[number], *settings)) for number in order]
    found: dict[int, FileFacts] = {}
    failed = []
    for position, outcome in progress(engine.run(tasks), total=len(tasks), desc="survey"):
        stop_without_room(outcome)
        if isinstance(outcome, Failure):
            number = order[position]
            failed.append(FailedFile.of(names[number], "survey", outcome, str(given[number].path)))
        else:
            found[position] = outcome
    return Corpus([found[position] for position in sorted(found)], sorted(failed, key=lambda file: file.source_file))
