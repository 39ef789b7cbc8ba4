"""What every engine is, and the one that works in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from scvae_data.errors import ConfigError
from scvae_data.processing.engine.task import Outcome, Task, with_retries
from scvae_data.system.cpus import n_cpus

__all__ = ["Engine", "SerialEngine", "check_retries", "check_workers"]


class Engine(Protocol):
    """Runs tasks; the results do not depend on which engine does."""

    n_workers: int

    @property
    def peak_rss(self) -> int:
        """Peak memory of the largest worker process so far, in bytes; 0 without workers."""
        ...

    def warm_up(self) -> None:
        """Begin to make workers ready, and return at once."""
        ...

    def must_see(self, folder: Path) -> None:
        """Name a folder in which workers leave what others read; one that is on a machine without it ends the run."""
        ...

    def run(self, tasks: Sequence[Task]) -> Iterator[tuple[int, Outcome]]:
        """Yield (position, result or `Failure`) of every task, in any order."""
        ...

    def close(self) -> None:
        """Let workers go; the next `run` starts new ones."""
        ...


@dataclass(frozen=True)
class SerialEngine:
    """One task after the other, in this process.

    Parameters
    ----------
    n_workers
        Always 1.
    retries
        How often a fault of disk or network is tried again.
    """

    n_workers: int = 1
    retries: int = 1

    def __post_init__(self) -> None:
        if self.n_workers != 1:
            raise ConfigError(f"engine.n_workers={self.n_workers}: engine=serial has one worker; use engine=local")
        check_retries(self.retries)

    @property
    def peak_rss(self) -> int:
        """Always 0: the work is done in this process."""
        return 0

    def warm_up(self) -> None:
        """Do nothing: there is no worker."""

    def must_see(self, folder: Path) -> None:
        """Do nothing: the work is done where the folder is."""

    def run(self, tasks: Sequence[Task]) -> Iterator[tuple[int, Outcome]]:
        """Yield the outcome of every task in order."""
        for position, task in enumerate(with_retries(tasks, self.retries)):
            yield position, task()

    def close(self) -> None:
        """Do nothing: there is no worker."""


def check_retries(retries: int) -> int:
    """Return a number of retries, or refuse it."""
    if retries < 0:
        raise ConfigError(f"engine.retries={retries} must be 0 or more")
    return retries


def check_workers(n_workers: int | None) -> int:
    """Return a number of workers, one per available core for None, or refuse it."""
    if n_workers is not None and n_workers < 1:
        raise ConfigError(f"engine.n_workers={n_workers} must be 1 or more, or null for one per core")
    return n_workers or n_cpus()
