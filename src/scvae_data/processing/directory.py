"""The output directory before and after a run: what may be overwritten, what is continued, who holds it."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scvae_data.errors import ConfigError
from scvae_data.store.files import sweep_temporaries

__all__ = ["INDEX_FILE", "WORK_FOLDER", "held_directory", "is_complete", "prepare"]

INDEX_FILE = "chunk_index.json"
WORK_FOLDER = ".work"
OURS = re.compile(
    r"chunk_\d{4,}\.h5|chunk_(index|summary)\.json|(gene_list|processing_config|failure_report)\.json|obs\.parquet"
)


def is_complete(directory: Path) -> bool:
    """Whether the directory holds a finished dataset: its index is written last."""
    return (directory / INDEX_FILE).exists()


def prepare(directory: Path, *, overwrite: bool, resume: bool) -> Path:
    """Make the directory ready for a run; return its work folder.

    Raises
    ------
    ConfigError
        It holds a dataset or an unfinished run, and neither ``overwrite`` nor ``resume`` says what to do.
    """
    work = directory / WORK_FOLDER
    if overwrite and resume:
        raise ConfigError("overwrite=true and resume=true contradict each other; give one")
    if not overwrite and not resume:
        if is_complete(directory):
            raise ConfigError(f"{directory} already holds a dataset; overwrite=true replaces it")
        if started(work) or any(OURS.fullmatch(path.name) for path in listing(directory)):
            raise ConfigError(
                f"{directory} holds an unfinished run; resume=true continues it, overwrite=true starts anew"
            )
    if overwrite:
        # The index goes first: from then on nobody takes the rest for a dataset.
        (directory / INDEX_FILE).unlink(missing_ok=True)
        for path in listing(directory):
            if OURS.fullmatch(path.name):
                path.unlink()
        shutil.rmtree(work, ignore_errors=True)
    for folder in ("tables", "maps", "scan", "chunks"):
        (work / folder).mkdir(parents=True, exist_ok=True)
    sweep_temporaries(directory)
    return work


def started(work: Path) -> bool:
    """Whether an earlier run got as far as scanning a file: before that there is nothing to continue."""
    return bool(listing(work / "scan"))


def listing(directory: Path) -> list[Path]:
    """Return the files of a directory that may not exist."""
    return sorted(directory.iterdir()) if directory.is_dir() else []


@contextmanager
def held_directory(directory: Path) -> Iterator[None]:
    """Hold the directory against a second run; the system lets go when the process ends, however it ends.

    Raises
    ------
    ConfigError
        Another run holds it.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        handle = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise ConfigError(f"paths.processed_dir={directory} cannot be written: {error.strerror}") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"{directory} is being written by another process.py; wait, or choose another paths.processed_dir"
            ) from None
        yield
    finally:
        os.close(handle)
