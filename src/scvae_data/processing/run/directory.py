"""The output directory before and after a run: what may be overwritten, what is continued, who holds it."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import re
import secrets
import shutil
import socket
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from scvae_data.errors import ConfigError, RemoteError, ScvaeDataError
from scvae_data.processing.work import WorkFolder
from scvae_data.remote.location import Location, RemotePath
from scvae_data.remote.objects import Changed, delete, read_whole, swap, upload
from scvae_data.store import INDEX_FILE
from scvae_data.store.files import is_there, names_in, remove, sweep_temporaries, sync_directory
from scvae_data.store.names import CHUNK_FILE, CLAIM, UNFINISHED, WORK_FOLDER
from scvae_data.store.pages import PAGES
from scvae_data.wording import named

__all__ = [
    "SCRATCH",
    "begin_in",
    "check_own",
    "check_target",
    "claimed",
    "clear",
    "disk_faults",
    "dry_run_folder",
    "end_in",
    "held_directory",
    "held_file",
    "is_complete",
    "made_in",
    "move",
    "prepare",
    "remove_strays",
    "run_directory",
    "send",
]

log = logging.getLogger(__name__)

DRY_RUN = ".dry-run-"
LOCK = ".lock"
# Tables of genes are not among them: they are replaced or removed when genes are chosen.
DATASET = re.compile(
    CHUNK_FILE.pattern + r"|chunk_(index|summary)\.json|(gene_list|processing_config)\.json"
    r"|obs(_\d{4})?\.parquet|(rows|gene_sets)(_\d{4})?\.bin|(dropped_cells|experiments)\.parquet"
)
REPORTS = ("failure_report.json", "quarantine.txt")
OF_SOME_RUNS = (*REPORTS, "gene_report.parquet", "gene_statistics.parquet")
MOST_NAMED = 4
SCRATCH = Path("data/scratch")


def is_complete(directory: Location) -> bool:
    """Whether the directory holds a finished dataset: its index is written last."""
    return is_there(directory / INDEX_FILE)


def made_in(directory: Location, scratch: Path) -> Path:
    """The folder of this machine where a dataset directory is made; of one in a store, a folder below ``scratch``."""
    if isinstance(directory, Path):
        return directory
    digest = hashlib.sha256(directory.url.encode()).hexdigest()
    return scratch / f"{directory.name or 'bucket'}-{digest[:12]}"


def check_target(directory: Location, work: WorkFolder, *, overwrite: bool, resume: bool) -> None:
    """Refuse a directory that a run would not write into.

    Parameters
    ----------
    work
        The folder of its intermediate files.

    Raises
    ------
    ConfigError
        It holds a dataset or an unfinished run, and neither ``overwrite`` nor ``resume`` says what to do; or
        files of others, see :func:`check_own`.
    """
    if overwrite and resume:
        raise ConfigError("overwrite=true and resume=true contradict each other; give one")
    check_own(directory, work)
    if overwrite or resume:
        return
    if is_complete(directory):
        raise ConfigError(
            f"{directory} already holds a dataset; append=true adds cells of new inputs, overwrite=true replaces it"
        )
    if work.started or any(DATASET.fullmatch(name) for name in names_in(directory)):
        raise ConfigError(f"{directory} holds an unfinished run; resume=true continues it, overwrite=true starts anew")


def check_own(directory: Location, work: WorkFolder) -> None:
    """Refuse to replace or remove files that no run is known to have written.

    Raises
    ------
    ConfigError
        There is neither an index nor what an unfinished run has, but files of the names that those of a dataset have.
    """
    if work.path.is_dir() or is_complete(directory):
        return
    mark = UNFINISHED if isinstance(directory, RemotePath) else WORK_FOLDER
    if is_there(directory / mark):  # of a run on another machine, whose work folder is there
        return
    ours = (*PAGES, *OF_SOME_RUNS)
    if found := [name for name in names_in(directory) if DATASET.fullmatch(name) or name in ours]:
        raise ConfigError(
            f"{directory} has neither {INDEX_FILE} nor {mark}, so {named(found, MOST_NAMED)} may be of others, "
            "and a dataset would replace what is called so; choose another paths.processed_dir, or move or remove it"
        )


def prepare(directory: Path, target: Location, *, overwrite: bool, resume: bool) -> WorkFolder:
    """Make the directory ready for a run; return its work folder.

    Parameters
    ----------
    target
        The directory, or where in a store it goes.

    Raises
    ------
    ConfigError
        As :func:`check_target`.
    """
    work = WorkFolder(directory / WORK_FOLDER)
    check_target(target, work, overwrite=overwrite, resume=resume)
    if overwrite:
        # The dataset itself stays until the new one can be written: see `clear`.
        work.remove()
        for name in REPORTS:
            (directory / name).unlink(missing_ok=True)
    work.make()
    work.sweep()
    sweep_temporaries(directory)
    sweep_dry_runs(directory)
    return work


@contextmanager
def dry_run_folder(directory: Path) -> Iterator[Path]:
    """Give a folder in the directory that goes with the block; those that killed dry runs left go before."""
    directory.mkdir(parents=True, exist_ok=True)
    sweep_dry_runs(directory)
    with TemporaryDirectory(prefix=DRY_RUN, dir=directory) as name, held_file(Path(name, LOCK)):
        yield Path(name)


def sweep_dry_runs(directory: Path) -> None:
    """Remove the folders of dry runs that nobody holds."""
    for folder in directory.glob(f"{DRY_RUN}*"):
        with suppress(ConfigError), held_file(folder / LOCK, refusal="in use"):
            shutil.rmtree(folder)


def clear(directory: Location) -> None:
    """Remove a dataset that is overwritten, the index first: from then on nobody takes the rest for one."""
    remove(directory / INDEX_FILE)
    for name in names_in(directory):
        if DATASET.fullmatch(name) or name in PAGES:
            remove(directory / name)


def remove_strays(directory: Location, chunks: Collection[str]) -> None:
    """Remove chunk files that are none of ``chunks``: an interrupted run had cut the cells in another way."""
    for name in names_in(directory):
        if CHUNK_FILE.fullmatch(name) and name not in chunks:
            remove(directory / name)


@contextmanager
def claimed(directory: Location, made: Path, *, done: bool = True) -> Iterator[None]:
    """Hold a place in a store against other machines, by an object in it that says who writes; others are held already.

    One that a killed run left is for whoever goes on in the same folder.

    Parameters
    ----------
    made
        The folder where what is sent there is made, which is held.
    done
        Let go at the end. If not, the claim stays for the next process that writes there from this folder.

    Raises
    ------
    ConfigError
        Another machine writes there.
    RemoteError
        Nothing can be written there.
    """
    if not isinstance(directory, RemotePath):
        yield
        return
    mine, theirs = made / CLAIM, directory / CLAIM
    with held_file(mine):
        if not mine.stat().st_size:
            since = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
            mine.write_text(f"{socket.gethostname()} in {made.absolute()} since {since} ({secrets.token_hex(4)})")
        try:
            swap(mine, theirs, None)
        except Changed as error:
            mine.unlink()
            raise ConfigError(
                f"{directory} is being written by {told_by(theirs)}; wait for it or, if it is gone, remove {theirs}"
            ) from error
    try:
        yield
    finally:
        if done:
            let_go(mine, theirs)


def told_by(claim: RemotePath) -> str:
    """Return who has a claim, as it says."""
    try:
        return " ".join(read_whole(claim, 1000).decode(errors="replace").split())
    except FileNotFoundError:
        return "another machine"


def let_go(mine: Path, theirs: RemotePath) -> None:
    """Give up a claim."""
    try:
        delete(theirs)
        mine.unlink(missing_ok=True)
    except RemoteError as error:
        log.warning("%s stays until the next run from %s: %s", theirs, mine.parent, error)


def begin_in(store: RemotePath, made: Path) -> None:
    """Make a place in a store, which is claimed, ready for chunks; a dataset in it goes, chunks of no dataset stay.

    From then on another machine can tell that what is called like files of a
    dataset is of a run, and take its place.
    """
    upload(made / CLAIM, store / UNFINISHED)
    if is_complete(store):
        clear(store)
    for name in names_in(store):  # an earlier run may have sent what this one has none of
        if name in OF_SOME_RUNS or (DATASET.fullmatch(name) and not CHUNK_FILE.fullmatch(name)):
            delete(store / name)


def end_in(store: RemotePath) -> None:
    """Let a place in a store be finished."""
    delete(store / UNFINISHED)


def move(source: Path, target: Location) -> None:
    """Put a file of this machine in place of one of a directory, here or in a store; in one step."""
    if isinstance(target, RemotePath):
        upload(source, target)
        source.unlink()
    else:
        source.replace(target)
        sync_directory(target.parent)


def send(directory: Path, store: RemotePath) -> None:
    """Move all files of a directory to a store, the index last: until it is there, the rest is no dataset."""
    names = [name for name in names_in(directory) if not name.startswith(".")]
    for name in names:
        if name != INDEX_FILE:
            upload(directory / name, store / name)
    if INDEX_FILE in names:
        swap(directory / INDEX_FILE, store / INDEX_FILE, None)
    for name in names:
        remove(directory / name)


@contextmanager
def disk_faults(directory: Path, continues: str = "resume=true") -> Iterator[None]:
    """Turn what the system says of a full or failing disk into an error of one line.

    Parameters
    ----------
    continues
        What goes on where it stopped.

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
            f"nothing is lost: once the disk has room and works, {continues} continues"
        ) from error


@contextmanager
def held_directory(directory: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold the directory against a second run; shards hold it together.

    Raises
    ------
    ConfigError
        Another run holds it, or it cannot be written.
    """
    refusal = f"{directory} is being written by another process.py; wait, or choose another paths.processed_dir"
    with ExitStack() as held:
        try:
            directory.mkdir(parents=True, exist_ok=True)
            held.enter_context(held_file(directory / LOCK, fcntl.LOCK_SH if shared else fcntl.LOCK_EX, refusal))
        except FileExistsError as error:
            raise ConfigError(f"paths.processed_dir={directory} is a file; name a folder, or a new one") from error
        except OSError as error:
            raise ConfigError(f"paths.processed_dir={directory} cannot be written: {error.strerror}") from error
        yield


@contextmanager
def run_directory(directory: Path) -> Iterator[None]:
    """Hold the directory of a run; one that is refused before it has begun leaves nothing but what the survey found.

    Raises
    ------
    ConfigError
        As `held_directory`.
    """
    new = [folder for folder in (directory, *directory.parents) if not folder.exists()]
    with held_directory(directory):
        try:
            yield
        except ScvaeDataError:
            leave_nothing(directory, new)
            raise


def leave_nothing(directory: Path, new: Sequence[Path]) -> None:
    """Remove what a run has made that did not begin; ``new`` are the folders that it made, the deepest first."""
    work, complete = WorkFolder(directory / WORK_FOLDER), is_complete(directory)
    ours = [name for name in names_in(directory) if DATASET.fullmatch(name) or name in REPORTS]
    if work.begun or (ours and not complete and work.path.exists()):  # which shows whose they are
        return
    work.remove()
    if complete:
        return
    if not work.surveyed_files.exists():
        shutil.rmtree(work.survey, ignore_errors=True)
    (directory / LOCK).unlink()
    with suppress(OSError):  # there is something else in it
        for folder in new:
            folder.rmdir()


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
        if os.fstat(handle).st_nlink:
            yield
            return
    finally:
        os.close(handle)
    with held_file(path, kind, refusal):  # who held it has removed it
        yield
