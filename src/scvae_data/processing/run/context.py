"""What a run is and what it works with: its settings, engine and folders, handed to every stage and changed by none."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scvae_data.errors import ScvaeDataError
from scvae_data.processing.engine.base import Engine
from scvae_data.processing.engine.task import Failure, Task
from scvae_data.processing.facts import InputFacts, facts_digest
from scvae_data.processing.genes.wanted import GeneFiles
from scvae_data.processing.settings.run import Settings
from scvae_data.processing.work import WorkFolder
from scvae_data.progress import progress
from scvae_data.remote.location import Location, RemotePath
from scvae_data.store import DatasetIndex, ObsColumn

__all__ = ["Again", "Context", "Record", "Standing"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Record:
    """What is kept of how a run was asked for.

    Parameters
    ----------
    config
        The whole resolved config.
    overrides
        What the command line set, as ``key=value``; None where there was none.
    """

    config: Mapping[str, Any] = field(default_factory=dict)
    overrides: Sequence[str] | None = None


@dataclass(frozen=True)
class Standing:
    """What a directory has that grows, and what its new cells must fit.

    Parameters
    ----------
    index
        The directory, here or in a store.
    inputs
        Fingerprint of each input that it was made of, by name.
    """

    index: DatasetIndex
    inputs: Mapping[str, str]

    @property
    def path(self) -> Location:
        """Where it is."""
        return self.index.path

    @property
    def columns(self) -> Mapping[str, ObsColumn]:
        """Its obs columns."""
        return self.index.obs_columns


@dataclass(frozen=True)
class Again:
    """Which of the given inputs are those of cells of a directory that are made again.

    Parameters
    ----------
    path
        The directory.
    inputs
        Fingerprint of each of them, by name; None where no record tells them.
    others
        Names of the inputs that the other cells of the directory were made of.
    """

    path: Location
    inputs: Mapping[str, str] | None
    others: Collection[str]


@dataclass(frozen=True)
class Context:
    """One run.

    Parameters
    ----------
    directory, work
        Where the dataset directory is made, and the folder of the run's intermediate files.
    gene_files
        What the files say that ``settings.genes`` names.
    standing
        The directory that is to get the cells; None for a new one.
    again
        Which inputs are meant, where cells of a directory are made again; None for all.
    store
        Where in a store the directory goes, file by file; None where it stays.
    check_disk
        Refuse a run that will not fit the disk.
    """

    settings: Settings
    engine: Engine
    directory: Path
    work: WorkFolder
    gene_files: GeneFiles
    record: Record
    standing: Standing | None = None
    again: Again | None = None
    store: RemotePath | None = None
    check_disk: bool = True

    @property
    def target(self) -> Location:
        """Where the dataset directory is in the end."""
        return self.store or self.directory

    def collect(self, desc: str, tasks: Sequence[Task], unit: str) -> list[Any]:
        """Run tasks that must all succeed; return their results in order.

        Raises
        ------
        ScvaeDataError
            What the first task that failed says.
        """
        return list(self.in_order(desc, tasks, unit))

    def in_order(self, desc: str, tasks: Sequence[Task], unit: str, then: Sequence[Task] = ()) -> Iterator[Any]:
        """Run tasks that must all succeed; yield their results in order, each as soon as those before it are there.

        Parameters
        ----------
        then
            More of them, for workers that have nothing else to do: they come last, and progress does not count them.

        Raises
        ------
        ScvaeDataError
            What the first task that failed says.
        """
        waiting: dict[int, Any] = {}
        n_given = 0
        with closing(progress(range(len(tasks)), total=len(tasks), desc=desc, unit=unit)) as shown:
            next(shown, None)
            for number, outcome in self.engine.run([*tasks, *then]):
                if isinstance(outcome, Failure):
                    log.debug("%s", outcome.details)
                    raise outcome.error or ScvaeDataError(
                        f"{desc} failed: {outcome.message}; nothing is lost, resume=true continues"
                    )
                if number < len(tasks):
                    next(shown, None)
                waiting[number] = outcome
                while n_given in waiting:
                    yield waiting.pop(n_given)
                    n_given += 1

    def processing_id(self, files: Sequence[InputFacts]) -> str:
        """Hash what the chunks depend on, see `Settings.processing_id`."""
        return self.settings.processing_id(self.gene_files.settings, facts_digest(files))
