"""The jobs of a sweep as files: each writes how it stands into its directory, whoever asks reads them all.

Jobs may run in other processes and on other machines. None writes into a
file of another's, so nothing needs to be locked for writing; the lock that a
job holds while it runs tells those that run from those that were killed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from scvae_data.calling import command, override
from scvae_data.errors import ConfigError
from scvae_data.remote.location import local_path
from scvae_data.store.files import read_json, write_json
from scvae_data.wording import named

__all__ = [
    "JobFile", "Left", "arguments_of", "begin_sweep", "continued_arguments", "jobs_of", "left_of", "number_of_jobs",
    "settings_in",
]  # fmt: skip

SWEEP_FILE = "sweep.json"
JOB_FILE = "job.json"
LOCK_FILE = ".running"
OURS = "hydra_plugins.scvae_data_sweeps"
CONTINUED = {
    "hydra._internal.core_plugins.basic_sweeper.BasicSweeper": f"{OURS}.MissingJobs",
    "hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper": f"{OURS}.ContinuedSearch",
}
# What may change when a sweep goes on; anything else would make its jobs others.
MOST_NAMED = 3
MAY_CHANGE = ("hydra/launcher", "hydra.launcher.", "hydra.sweeper.n_trials", "hydra.sweeper.n_jobs", "resume_sweep")


class JobFile:
    """How one job stands, in ``job.json`` of its directory.

    Parameters
    ----------
    run_dir
        Directory of the job; its name is the job's number.
    """

    held: IO[bytes] | None = None
    """Lock of the job that this process runs."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.path = run_dir / JOB_FILE

    def begin(self, overrides: Sequence[str]) -> None:
        """Say that the job runs, until this process ends or says something else."""
        JobFile.held = _lock(self.run_dir / LOCK_FILE)
        facts = {"job": int(self.run_dir.name), "overrides": list(overrides), "host": socket.gethostname()}
        self._write({"sweep": _sweep(self.run_dir.parent)["id"], **facts, "pid": os.getpid()}, "running")

    def end(self, status: str, error: str = "", *, fails_again: bool = False) -> None:
        """Say how it ended: ``completed``, ``failed`` or ``interrupted``; and whether it would fail once more."""
        self._write(read_json(self.path), status, error, fails_again)
        if JobFile.held is not None:
            JobFile.held.close()
            JobFile.held = None

    def _write(self, facts: Mapping[str, Any], status: str, error: str = "", fails_again: bool = False) -> None:
        write_json(self.path, {**facts, "status": status, "error": error, "fails_again": fails_again})


@dataclass(frozen=True)
class Left:
    """What is left of a sweep."""

    sweep_dir: Path
    n_jobs: int
    """All its jobs."""
    n_left: int
    """Those that are not completed."""
    failing: Sequence[int] = ()
    """Numbers of those that would fail again, because what they are set to is refused."""

    @property
    def count(self) -> str:
        """How many jobs are left; empty where none is."""
        return f"{self.n_left} of {self.n_jobs} jobs are not completed" if self.n_left > 0 else ""

    @property
    def refused(self) -> str:
        """Which jobs would fail again, and what to do; empty where none would."""
        if not self.failing:
            return ""
        one = len(self.failing) == 1
        jobs, errors, them = ("job", "its error names", "it") if one else ("jobs", "their errors name", "them")
        which = f"{jobs} {named(self.failing, MOST_NAMED)}"
        return f"{which} would fail again: change what {errors}, and start {them} in a sweep of its own"

    @property
    def command(self) -> str:
        """What goes on with the jobs that may succeed; empty where there are none."""
        goes_on = command("train", override("resume_sweep", self.sweep_dir.absolute()))
        return goes_on if self.n_left > len(self.failing) else ""


def left_of(sweep_dir: Path) -> Left:
    """Return what is left of a sweep."""
    jobs = jobs_of(sweep_dir)
    n_jobs = number_of_jobs(sweep_dir) or len(jobs)
    n_left = n_jobs - sum(job["status"] == "completed" for job in jobs)
    # A job of an earlier version does not say whether it would fail again.
    return Left(sweep_dir, n_jobs, n_left, [job["job"] for job in jobs if job.get("fails_again")])


def jobs_of(sweep_dir: Path) -> list[dict[str, Any]]:
    """Return how the jobs of a sweep stand that have begun, by number.

    One that neither runs nor has said how it ended has the status ``killed``.
    """
    sweep = _sweep(sweep_dir)["id"]
    jobs = [read_json(path) for path in sweep_dir.glob(f"*/{JOB_FILE}")]
    for job in jobs:
        if job["status"] == "running" and not _is_locked(sweep_dir / str(job["job"]) / LOCK_FILE):
            job["status"] = "killed"
    return sorted((job for job in jobs if job["sweep"] == sweep), key=lambda job: int(job["job"]))


def begin_sweep(sweep_dir: Path, sweeper: str, n_jobs: int | None, goes_on: bool) -> None:
    """Leave in ``sweep.json`` what it takes to go on with a sweep.

    Parameters
    ----------
    sweep_dir
        Gets a directory per job.
    sweeper
        Import path of what makes the jobs.
    n_jobs
        How many there will be; None if that is not known.
    goes_on
        Whether the sweep is there already, and keeps the jobs that it has.
    """
    path = sweep_dir / SWEEP_FILE
    sweep_dir.mkdir(parents=True, exist_ok=True)
    if goes_on and path.exists():
        write_json(path, {**_sweep(sweep_dir), "n_jobs": n_jobs})
        return
    own = {"arguments": sys.argv[1:], "folder": str(Path.cwd()), "sweeper": sweeper, "n_jobs": n_jobs}
    write_json(path, {"id": secrets.token_hex(8), **own})


def arguments_of(sweep_dir: Path) -> list[str]:
    """Return the words that a sweep was started with."""
    words: list[str] = _sweep(sweep_dir)["arguments"]
    return words


def number_of_jobs(sweep_dir: Path) -> int | None:
    """Return how many jobs a sweep has; None if that is not known."""
    n_jobs: int | None = _sweep(sweep_dir)["n_jobs"]
    return n_jobs


def settings_in(row: Mapping[str, str]) -> dict[str, str]:
    """Return the settings of a job, by their keys, as its row of the sweep's table has them."""
    return dict(part.partition("=")[::2] for part in row["overrides"].split(" "))


def continued_arguments(arguments: Sequence[str]) -> list[str]:
    """Return the arguments that go on with the sweep which ``resume_sweep=DIR`` names; without one, ``arguments``.

    They are those that the sweep was started with. Relative paths among them
    count from where that was, so the current directory becomes that one.

    Raises
    ------
    ConfigError
        The directory is not that of a sweep, or something is set that would change its jobs.
    """
    given = [argument.partition("=")[2] for argument in arguments if argument.startswith("resume_sweep=")]
    if not given or given[-1] in ("", "null"):
        return list(arguments)
    sweep_dir = local_path("resume_sweep", given[-1].strip("'\"")).expanduser().absolute()
    if not (sweep_dir / SWEEP_FILE).is_file():
        raise ConfigError(f"resume_sweep={given[-1]} has no {SWEEP_FILE}; give the directory of a sweep")
    new = [argument for argument in arguments if argument not in ("-m", "--multirun")]
    if changing := [argument for argument in new if not argument.startswith(MAY_CHANGE)]:
        raise ConfigError(
            f"resume_sweep goes on with a sweep as it was started; leave out {' '.join(changing)}, "
            "or start a sweep of its own with it"
        )
    sweep = _sweep(sweep_dir)
    if sweep["sweeper"] not in CONTINUED:
        raise ConfigError(f"resume_sweep={given[-1]}: sweeps by {sweep['sweeper']} cannot go on; start it anew")
    if not Path(sweep["folder"]).is_dir():
        raise ConfigError(f"resume_sweep={given[-1]} was started in {sweep['folder']}, which is gone; make it again")
    os.chdir(sweep["folder"])
    place = str(sweep_dir).replace("\\", "\\\\").replace("'", "\\'")
    sweeper = CONTINUED[sweep["sweeper"]]
    own = [f"hydra.sweeper._target_={sweeper}", f"hydra.sweep.dir='{place}'", f"resume_sweep='{place}'"]
    new = [argument for argument in new if not argument.startswith("resume_sweep=")] + own
    changed = {argument.partition("=")[0] for argument in new}
    return [*(old for old in sweep["arguments"] if old.partition("=")[0] not in changed), *new]


def _sweep(sweep_dir: Path) -> dict[str, Any]:
    found: dict[str, Any] = read_json(sweep_dir / SWEEP_FILE)
    return found


def _lock(path: Path) -> IO[bytes] | None:
    """Take the lock of a job for as long as the file is open; None where files cannot be locked."""
    file = path.open("ab")
    for _ in range(50):  # who asks whether the job runs holds it for a moment
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except BlockingIOError:
            time.sleep(0.1)
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                raise
            break
    file.close()
    return None


def _is_locked(path: Path) -> bool:
    """Whether a job holds its lock, or may hold it: nobody knows where files cannot be locked."""
    try:
        with path.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False
