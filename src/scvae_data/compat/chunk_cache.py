"""Raw files in, a dataset directory with their cells out: made on first use, found again by content.

A directory's name is a hash of what the files hold, what they are called
(the names give accessions) and the settings, so a moved file is found again
and a changed one is processed anew. What was hashed is remembered by size,
time and inode, so that a later start reads nothing but that.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from scvae_data.calling import override
from scvae_data.compat.json_config import pattern_of
from scvae_data.errors import ConfigError, DamagedFileError, ScvaeDataError
from scvae_data.processing.settings.inputs import FileInput, accession_from_path, source_names
from scvae_data.progress import progress
from scvae_data.remote.location import local_path
from scvae_data.store import FORMAT_VERSION, INDEX_FILE
from scvae_data.store.files import read_json, sha256_file, write_json

__all__ = ["CACHE_DIR", "chunked", "input_overrides", "is_raw", "process", "raw_files"]

CACHE_DIR = "outputs/chunk_cache"
SEEN_FILE = "seen_files.json"
SETTLED_NS = 2_000_000_000
"""A file that is younger may change again without a new time: clocks of file systems tick slowly."""
WARNING_LINE = re.compile(r"^[\d:]+ WARNING +(.*(?:\n .*)*)", re.MULTILINE)
"""A warning, and the indented lines that belong to it."""
ALLOW_FAILED = 'take them away, or allow it with process_overrides=["max_failed_fraction=0.95"]'
PROCESS = "from scvae_data.cli import main; main()"

log = logging.getLogger(__name__)


def is_raw(path: Path) -> bool:
    """Whether a path is a raw file, or a folder of H5AD files, and no dataset directory."""
    return path.is_file() or (path.is_dir() and not (path / INDEX_FILE).exists() and any(path.rglob("*.h5ad")))


def raw_files(path: Path) -> list[Path]:
    """Return the absolute path of a file, or those of all H5AD files in a folder, sorted."""
    files = FileInput(paths=[pattern_of(str(path.absolute()))]).files()
    return [local_path("data_path", file.path) for file in files]


def chunked(path: Path, cache_dir: Path, settings: Sequence[str] = ()) -> Path:
    """Return the dataset directory of raw files, after making it where it is not there.

    Parameters
    ----------
    path
        A raw file, or a folder of H5AD files.
    cache_dir
        Holds one dataset directory for each content.
    settings
        Overrides of ``process.py``, e.g. ``["qc=none", "chunk_size=10000"]``.

    Raises
    ------
    ScvaeDataError
        The files cannot be processed; the message is that of ``process.py``.
    ConfigError
        Nothing can be written to ``cache_dir``.
    """
    cache_dir = cache_dir.expanduser().absolute()
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cache_dir={cache_dir} cannot be written: {error.strerror}; choose another") from error
    target = cache_dir / content_key(path, cache_dir, settings)
    if not (target / INDEX_FILE).exists():
        with held(target.with_suffix(".lock")):  # whoever waited here finds it made
            if not (target / INDEX_FILE).exists():
                make(target, [*input_overrides([path]), "engine=local", *settings])
    return target


def make(target: Path, overrides: Sequence[str]) -> None:
    """Process raw files for a caller who gives settings in Python, as ``process_overrides``."""
    try:
        process(target, overrides)
    except ScvaeDataError as error:
        from scvae_data.processing.run.losses import MAY_FAIL

        raise ScvaeDataError(str(error).replace(MAY_FAIL, ALLOW_FAILED)) from None


def content_key(path: Path, cache_dir: Path, settings: Sequence[str]) -> str:
    """Hash the content and names of raw files, the settings and the versions of format and package; 16 hex digits."""
    from scvae_data import __version__

    files = raw_files(path)
    hashes = content_hashes(files, cache_dir / SEEN_FILE)
    rows = [
        [name, accession_from_path(file), content]
        for name, file, content in zip(source_names(files), files, hashes, strict=True)
    ]
    identity = json.dumps([rows, list(settings), FORMAT_VERSION, __version__])
    return hashlib.sha256(identity.encode()).hexdigest()[:16]


def content_hashes(files: Sequence[Path], memory: Path) -> list[str]:
    """Return the SHA-256 of each file; one that looks as it did when it was hashed is not read again."""
    try:
        seen = read_json(memory)
    except DamagedFileError:
        seen = {}
    looks = {str(file): look(file) for file in files}
    unknown = [name for name, now in looks.items() if seen.get(name, [None])[:-1] != now]
    fresh = {
        name: sha256_file(Path(name))
        for name in (progress(unknown, total=len(unknown), desc="hash") if unknown else ())
    }
    settled = {name: [*looks[name], digest] for name, digest in fresh.items() if is_settled(looks[name])}
    if settled:
        write_json(memory, seen | settled)
    return [fresh[name] if name in fresh else seen[name][-1] for name in looks]


def look(file: Path) -> list[int]:
    """Return what changes when a file does: size, time in ns, inode."""
    facts = file.stat()
    return [facts.st_size, facts.st_mtime_ns, facts.st_ino]


def is_settled(facts: Sequence[int]) -> bool:
    """Whether a file is old enough for its time to tell the next change."""
    return time.time_ns() - facts[1] > SETTLED_NS


def process(target: Path, overrides: Sequence[str]) -> None:
    """Run ``process.py`` into a directory, or go on with what is there.

    In a process of its own: its workers would import the user's script again,
    and what it does to this process's memory would last as long as training.

    Raises
    ------
    ScvaeDataError
        What stopped it, in its words.
    """
    command = [sys.executable, "-c", PROCESS, "process", *overrides, "resume=true"]
    command += [override("paths.processed_dir", str(target)), override("hydra.run.dir", f"{target}.log")]
    # On a terminal the progress bars are shown as they are; elsewhere the lines are kept for the error.
    errors = None if sys.stderr.isatty() else subprocess.PIPE
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=errors, text=True)  # noqa: S603 - our own program
    printed = done.stderr or ""
    if done.returncode:
        lines = printed.strip().splitlines() or [f"{target}: not made, for the reason above"]
        raise ScvaeDataError(lines[-1].removeprefix("error: "))
    for warning in WARNING_LINE.findall(printed):
        log.warning("%s", warning)


def input_overrides(paths: Sequence[Path]) -> list[str]:
    """Return the overrides of ``process.py`` that name raw files and folders of H5AD files."""
    return ["input=files", override("input.paths", [pattern_of(str(path.absolute())) for path in paths])]


@contextmanager
def held(lock: Path) -> Iterator[None]:
    """Hold a lock file; waits for another process that holds it, which the system frees when that process ends."""
    handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
