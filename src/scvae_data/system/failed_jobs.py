"""What a job of a sweep returned in; where it has failed, what raises that and says nothing more, out.

The job has told its error; Hydra keeps what it is given, and would tell it in
its own words as well.
"""

from __future__ import annotations

from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from scvae_data.errors import JobFailed

__all__ = ["Failed", "FailedJobs"]


class Failed(JobReturn):
    """What a job returned whose error has been told: raises that it failed, and prints nothing."""

    @property  # type: ignore[misc]  # nothing sets it any more
    def return_value(self) -> Any:
        """Nothing.

        Raises
        ------
        JobFailed
            Always.
        """
        raise JobFailed("the job failed") from self._return_value


class FailedJobs(Callback):
    """Lets no error of a sweep's job be told twice."""

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Look at what the job returned; a single run has told nothing yet."""
        if config.hydra.mode == RunMode.MULTIRUN and job_return.status == JobStatus.FAILED:
            job_return.__class__ = Failed
