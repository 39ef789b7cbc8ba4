"""The work on SLURM: jobs of dask workers, which this process asks for and feeds."""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from typing import Any

from scvae_data.errors import ConfigError
from scvae_data.processing.engine.base import check_workers
from scvae_data.processing.engine.dask import QUIET, DaskEngine

__all__ = ["SlurmEngine"]

log = logging.getLogger(__name__)


class SlurmEngine(DaskEngine):
    """Jobs of a SLURM cluster; one that ends or is cancelled is asked for again, and what it was doing is done again.

    This process must run where ``sbatch`` does, and where jobs can connect to: on a login node or in a job of its own.

    Parameters
    ----------
    n_workers
        Processes in all, of one core each.
    workers_per_job
        How many of them a job has; it asks for as many cores.
    memory
        Memory of a job, e.g. ``"16GB"``.
    walltime, queue, account
        Of a job; the cluster's default for None.
    interface
        Network interface that jobs reach this process by, e.g. ``"ib0"``; None takes the default route's.
    retries
        How often a fault of disk or network is tried again.
    log_directory
        Where jobs write what they print; None keeps nothing.
    directives, directives_skip
        Further ``#SBATCH`` lines, e.g. ``--exclusive``, and beginnings of those that are left out, e.g. ``--mem``
        where the cluster gives no memory out.
    prologue
        Lines of shell before the workers start, e.g. ``module load hdf5``.
    """

    def __init__(
        self,
        n_workers: int = 8,
        workers_per_job: int = 8,
        memory: str = "16GB",
        walltime: str | None = None,
        queue: str | None = None,
        account: str | None = None,
        interface: str | None = None,
        retries: int = 1,
        log_directory: str | None = None,
        directives: Sequence[str] = (),
        directives_skip: Sequence[str] = (),
        prologue: Sequence[str] = (),
    ) -> None:
        super().__init__(n_workers, None, retries)
        self.workers_per_job = min(check_workers(workers_per_job), self.n_workers)
        self.n_jobs = -(-self.n_workers // self.workers_per_job)
        self.job = {
            "memory": memory,
            "walltime": walltime,
            "queue": queue,
            "account": account,
            "interface": interface,
            "log_directory": log_directory,
            "job_extra_directives": list(directives) + ([] if log_directory else ["-o /dev/null"]),
            "job_directives_skip": list(directives_skip),
            "job_script_prologue": list(prologue),
        }

    @property
    def where(self) -> str:
        """What the work is done on, in words."""
        return "the jobs on SLURM"

    def warm_up(self) -> None:
        """Do nothing: jobs are asked for when there is work."""

    def _start(self, opened: ExitStack) -> Any:
        """Return a cluster of jobs."""
        if find_spec("dask_jobqueue") is None:
            raise ConfigError("engine=slurm needs dask-jobqueue: pip install 'scvae-data[slurm]'")
        import dask
        from dask_jobqueue import SLURMCluster

        opened.enter_context(dask.config.set(QUIET))
        cluster = SLURMCluster(
            cores=self.workers_per_job,
            processes=self.workers_per_job,
            job_name="scvae-data",
            worker_extra_args=["--memory-limit", "0", "--no-dashboard"],  # SLURM knows what memory a job may take
            scheduler_options={"dashboard": False, "dashboard_address": ":0"},
            silence_logs=logging.CRITICAL,
            **self.job,
        )
        opened.enter_context(cluster)
        try_job(cluster.job_script())
        cluster.adapt(minimum_jobs=self.n_jobs, maximum_jobs=self.n_jobs)
        log.info("asked SLURM for %d jobs of %d workers", self.n_jobs, self.workers_per_job)
        return cluster


def try_job(script: str) -> None:
    """Ask SLURM whether it would take a job.

    Raises
    ------
    ConfigError
        It would not, or is not there.
    """
    try:
        answer = subprocess.run(
            ["sbatch", "--test-only"],  # noqa: S607 - that of the cluster
            input=script, capture_output=True, text=True, check=False,
        )  # fmt: skip
    except FileNotFoundError as error:
        raise ConfigError("engine=slurm needs sbatch; give the command on a login node, or in a job") from error
    if answer.returncode:
        said = " ".join(answer.stderr.split()) or f"exit status {answer.returncode}"
        raise ConfigError(
            f"engine=slurm: sbatch refuses a job: {said}; correct engine.queue, account, walltime, memory, "
            "workers_per_job, directives or directives_skip"
        )
