"""The output directory before and after a run: what may be overwritten, what is continued, who holds it."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from scvae_data.errors import ConfigError, ScvaeDataError
from scvae_data.processing.work import WorkFolder
from scvae_data.store import INDEX_FILE
from scvae_data.store.files import sweep_temporaries
from scvae_data.store.names import CHUNK_FILE

__all__ = [
    "WORK_FOLDER",
    "check_target",
    "clear",
    "disk_faults",
    "held_directory",
    "held_file",
    "is_complete",
    "prepare",
    "remove_strays",
]

WORK_FOLDER = ".work"
# Tables of genes are not among them: they are replaced or removed when genes are chosen.
DATASET = re.compile(
    CHUNK_FILE.pattern + r"|chunk_(index|summary)\.json|(gene_list|processing_config)\.json"
    r"|obs(_\d{4})?\.parquet|(rows|gene_sets)(_\d{4})?\.bin|(dropped_cells|experiments)\.parquet"
)
REPORTS = ("failure_report.json", "quarantine.txt")


def is_complete(directory: Path) -> bool:
    """Whether the directory holds a finished dataset: its index is written last."""
    return (directory / INDEX_FILE).exists()


def check_target(directory: Path, *, overwrite: bool, resume: bool) -> None:
    """Refuse a directory that a run would not write into.

    Raises
    ------
    ConfigError
        It holds a dataset or an unfinished run, and neither ``overwrite`` nor ``resume`` says what to do.
    """
    if overwrite and resume:
        raise ConfigError("overwrite=true and resume=true contradict each other; give one")
    if overwrite or resume:
        return
    if is_complete(directory):
        raise ConfigError(f"{directory} already holds a dataset; overwrite=true replaces it")
    if WorkFolder(directory / WORK_FOLDER).started or any(DATASET.fullmatch(path.name) for path in listing(directory)):
        raise ConfigError(f"{directory} holds an unfinished run; resume=true continues it, overwrite=true starts anew")


def prepare(directory: Path, *, overwrite: bool, resume: bool) -> WorkFolder:
    """Make the directory ready for a run; return its work folder.

    Raises
    ------
    ConfigError
        As :func:`check_target`.
    """
    work = WorkFolder(directory / WORK_FOLDER)
    check_target(directory, overwrite=overwrite, resume=resume)
    if overwrite:
        # The dataset itself stays until the new one can be written: see `clear`.
        work.remove()
        for name in REPORTS:
            (directory / name).unlink(missing_ok=True)
    work.make()
    work.sweep()
    sweep_temporaries(directory)
    return work


def clear(directory: Path) -> None:
    """Remove a dataset that is overwritten, the index first: from then on nobody takes the rest for one."""
    (directory / INDEX_FILE).unlink(missing_ok=True)
    for path in listing(directory):
        if DATASET.fullmatch(path.name):
            path.unlink()


def remove_strays(directory: Path, chunks: Collection[str]) -> None:
    """Remove chunk files that are none of ``chunks``: an interrupted run had cut the cells in another way."""
    for path in listing(directory):
        if CHUNK_FILE.fullmatch(path.name) and path.name not in chunks:
            path.unlink()


def listing(directory: Path) -> list[Path]:
    """Return the files of a directory that may not exist."""
    return sorted(directory.iterdir()) if directory.is_dir() else []


@contextmanager
def disk_faults(directory: Path) -> Iterator[None]:
    """Turn what the system says of a full or failing disk into an error of one line.

    Raises
    ------
    ScvaeDataError
        With the file, and how to go on.
    """
    try:
        yield
    except OSError as error:
        raise ScvaeDataError(
            f"{error.filename or directory}: {error.strerror or error}; "
            "nothing is lost: once the disk has room and works, resume=true continues"
        ) from error


@contextmanager
def held_directory(directory: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold the directory against a second run; shards hold it together.

    Raises
    ------
    ConfigError
        Another run holds it, or it cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        os.close(os.open(directory / ".lock", os.O_RDWR | os.O_CREAT, 0o666))
    except OSError as error:
        raise ConfigError(f"paths.processed_dir={directory} cannot be written: {error.strerror}") from error
    refusal = f"{directory} is being written by another process.py; wait, or choose another paths.processed_dir"
    with held_file(directory / ".lock", fcntl.LOCK_SH if shared else fcntl.LOCK_EX, refusal):
        yield


@contextmanager
def held_file(path: Path, kind: int = fcntl.LOCK_EX, refusal: str = "") -> Iterator[None]:
    """Hold a file, and wait for whoever holds it; the system lets go when the process ends, however it ends.

    Parameters
    ----------
    kind
        A lock of `fcntl.flock`.
    refusal
        What to say instead of waiting.

    Raises
    ------
    ConfigError
        The refusal.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(handle, kind | (fcntl.LOCK_NB if refusal else 0))
        except BlockingIOError:
            raise ConfigError(refusal) from None
        yield
    finally:
        os.close(handle)
