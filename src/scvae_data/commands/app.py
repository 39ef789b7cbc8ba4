"""A function of a config in, a command-line program out: composition, error lines, exit status."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import secrets
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from itertools import takewhile
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from scvae_data.calling import Program, again
from scvae_data.commands.complaints import one_line
from scvae_data.commands.explain import explain
from scvae_data.config import absolute_paths, check_chunk_size, conf_dir
from scvae_data.errors import ConfigError, JobFailed, ScvaeDataError
from scvae_data.remote.location import local_path
from scvae_data.system.closed_output import until_closed
from scvae_data.system.slurm import job_name, requeue
from scvae_data.system.stopping import Stopped, stoppable

__all__ = ["is_first_rank", "quoted", "run_app", "task_overrides"]

log = logging.getLogger(__name__)

Task = Callable[[DictConfig], Any]

FILTERS = ("data.filter", "input.where")
FULL_ERROR = "HYDRA_FULL_ERROR"  # Hydra raises instead of printing and exiting
DEBUG = "SCVAE_DATA_DEBUG"
RUN = "SCVAE_DATA_RUN"  # what the directory of this run is called
GO_ON = ("append=", "shard=", "merge=", "dry_run=")  # whose runs go on by themselves
FOLDERS_OF_HYDRA = ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir")


def run_app(task: Task, config_name: Program) -> None:
    """Compose ``config_name`` from the command line and run ``task`` on it, once or as a sweep.

    An error raised on purpose ends the program with one line on stderr and
    exit status 1; ``SCVAE_DATA_DEBUG=1`` or ``HYDRA_FULL_ERROR=1`` shows the
    traceback as well. Anything else is a bug and keeps its traceback.

    Parameters
    ----------
    task
        What to run.
    config_name
        ``"process"`` or ``"train"``, also the name of the job.
    """
    asked = next((at for at, argument in enumerate(sys.argv) if argument in ("--help", "-h")), None)
    sys.argv[1:] = [quoted(argument) for argument in sys.argv[1:]]
    debug = any(os.environ.get(name, "0") not in ("", "0") for name in (FULL_ERROR, DEBUG))
    os.environ[RUN] = job_name(sys.argv[1:]) or f"{time.strftime('%Y-%m-%d_%H-%M-%S')}_{secrets.token_hex(3)}"
    failures: list[ScvaeDataError] = []
    job = _job(task, config_name, failures)
    try:
        if asked is not None:
            with until_closed():
                print(explain(config_name, [*takewhile(lambda word: not word.startswith("-"), sys.argv[asked + 1 :])]))
            return
        _check_folders()
        ending = stoppable(signal.SIGTERM, signal.SIGUSR1)
        with until_closed(), ending, _environment(FULL_ERROR, "1"), _silent_unless_first():
            _run(job, config_name)
        if failures:
            raise failures[0]
    except (ScvaeDataError, HydraException, OmegaConfBaseException, YAMLError) as error:
        if debug:
            raise
        sys.exit(1 if isinstance(error, JobFailed) else f"error: {_in_a_line(error, config_name)}")
    except Stopped as stop:
        if is_first_rank():
            print(f"stopped by {stop.signum.name}; {_remedy(stop, config_name)}", file=sys.stderr)
        raise
    except KeyboardInterrupt:
        if debug:
            traceback.print_exc()
        print(f"interrupted; {how_to_go_on(config_name)}", file=sys.stderr)
        sys.exit(130)


def quoted(argument: str) -> str:
    """Put a filter into the quotes that Hydra asks for around text which its own grammar does not know.

    Examples
    --------
    >>> print(quoted("input.where=obs_count > 5 and tech == '10x'"))
    input.where="obs_count > 5 and tech == '10x'"
    >>> print(quoted("data.filter={donor: [d1, d2]}"))
    data.filter={donor: [d1, d2]}
    """
    key, _, text = argument.partition("=")
    if key not in FILTERS:
        return argument
    try:
        OverridesParser.create().parse_override(argument)
        return argument
    except HydraException:
        mark = "'" if '"' in text and "'" not in text else '"'
        return f"{key}={mark}{text.replace(mark, chr(92) + mark)}{mark}"


def how_to_go_on(name: Program) -> str:
    """Return the command after one that was interrupted."""
    if name == "train":
        return f"to start anew: {again()}"
    goes_on = any(argument.startswith(GO_ON) for argument in sys.argv[1:])
    return f"to continue: {again() if goes_on else again('resume=true', without=['overwrite'])}"


def task_overrides() -> dict[str, str]:
    """What the running job's command line sets: key → text of its value."""
    parts = (override.partition("=") for override in HydraConfig.get().overrides.task)
    return {key.lstrip("+~"): value for key, _, value in parts}


def is_first_rank() -> bool:
    """Whether this process speaks for those that were started together, if any were."""
    return os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) == "0"


def _check_folders() -> None:
    """Refuse folders of Hydra's in a remote store: it makes them before any of our code runs."""
    for argument in sys.argv[1:]:
        key, _, value = argument.partition("=")
        if key in FOLDERS_OF_HYDRA:
            local_path(key, value.strip("'\""))


def _remedy(stop: Stopped, name: Program) -> str:
    # By SIGUSR1 batch systems say that time is nearly over.
    in_time = stop.signum is signal.SIGUSR1 and job_name([])
    return requeue() if in_time else stop.remedy or how_to_go_on(name)


def _in_a_line(error: Exception, program: Program) -> str:
    return str(error) if isinstance(error, ScvaeDataError) else one_line(error, program)


def _run(job: Task, program: Program) -> None:
    """Run what the command line asks for.

    `hydra.main` composes every config twice, first to see whether it asks for
    a sweep. Once is enough for a single job; whatever else it turns out to be,
    an option, a sweep of an experiment or a mistake, is left to `hydra.main`.
    """
    begun = False

    @functools.wraps(job)
    def begin(cfg: DictConfig) -> Any:
        nonlocal begun
        begun = True
        return job(cfg)

    words = sys.argv[1:]
    if __debug__ and not any(word.startswith("-") for word in words):  # an assertion of Hydra's finds the sweep
        with hydra.initialize_config_dir(str(conf_dir()), job_name=program, version_base="1.3"):
            composer = GlobalHydra.instance().hydra
            assert composer is not None
            try:
                composer.run(program, begin, words)
                return
            except Exception:
                if begun:
                    raise
    hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=program)(job)()


def _job(task: Task, program: Program, failures: list[ScvaeDataError]) -> Task:
    """Wrap ``task`` with the checks every job starts with.

    A sweep logs each job that fails and goes on; Hydra sees the error. In a
    single run the error goes to ``failures`` instead, because Hydra would
    print its own words about it.
    """

    @functools.wraps(task)
    def job(cfg: DictConfig) -> Any:
        with _environment(FULL_ERROR, None):
            try:
                check_chunk_size(cfg)
                absolute_paths(cfg)
                return task(cfg)
            except Exception as error:
                expected = isinstance(error, ScvaeDataError | HydraException | OmegaConfBaseException)
                hydra_cfg = HydraConfig.get()
                if hydra_cfg.mode == RunMode.MULTIRUN:
                    text = _in_a_line(error, program) if expected else "an error of the program itself"
                    log.error("job %s failed: %s", hydra_cfg.job.num, text, exc_info=not expected)
                elif isinstance(error, ScvaeDataError):
                    failures.append(error)
                    return None
                raise

    return job


@contextlib.contextmanager
def _silent_unless_first() -> Iterator[None]:
    """Let Hydra leave nothing where another process, that was started together with this one, leaves it.

    Raises
    ------
    ConfigError
        For a sweep: each of the processes would run it.
    """
    if os.environ.get("WORLD_SIZE", os.environ.get("SLURM_STEP_NUM_TASKS", "1")) == "1":
        yield
        return
    if {"-m", "--multirun"} & set(sys.argv):
        raise ConfigError(
            "a sweep starts the ranks of its jobs itself (trainer.devices=2); do not start it with srun or torchrun"
        )
    if is_first_rank():
        yield
        return
    given = list(sys.argv)
    with tempfile.TemporaryDirectory(prefix="scvae-data-rank-") as folder:
        sys.argv += [f"hydra.run.dir={folder}", "hydra.output_subdir=null"]
        try:
            yield
        finally:
            sys.argv[:] = given


@contextlib.contextmanager
def _environment(name: str, value: str | None) -> Iterator[None]:
    """Set or unset an environment variable for a while."""
    before = os.environ.get(name)
    try:
        _set_environment(name, value)
        yield
    finally:
        _set_environment(name, before)


def _set_environment(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value
