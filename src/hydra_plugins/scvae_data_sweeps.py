"""Sweepers of Hydra's that go on with a sweep: the jobs that there are stay, each goes on in its own directory.

Hydra takes sweepers from the package ``hydra_plugins`` only, and imports this
module whenever a program starts.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobStatus

__all__ = ["MissingJobs"]

log = logging.getLogger(__name__)


class MissingJobs(BasicSweeper):
    """The jobs of a grid that are not completed and not running."""

    def split_arguments(self, overrides: list[Override], max_batch_size: int | None) -> list[list[list[str]]]:  # type: ignore[override]
        """Return their overrides, in batches."""
        (every,) = BasicSweeper.split_arguments(overrides, None)
        assert self.config is not None
        states = _states(Path(self.config.hydra.sweep.dir))
        missing = [_in_directory(job, number) for number, job in enumerate(every) if not _stays(states, number)]
        log.info("%d of %d jobs are to be done", len(missing), len(every))
        return list(BasicSweeper.split_overrides_to_chunks(missing, max_batch_size)) if missing else []


if importlib.util.find_spec("hydra_plugins.hydra_optuna_sweeper") is not None:
    from hydra_plugins.hydra_optuna_sweeper.optuna_sweeper import OptunaSweeper

    class ContinuedSearch(OptunaSweeper):  # type: ignore[misc]
        """The trials of a study that have not ended, and as many new ones as are still to be completed."""

        def sweep(self, arguments: list[str]) -> None:
            """Tell the study what jobs have ended meanwhile, go on with those that have not, then search on."""
            import optuna
            from optuna.trial import TrialState

            search = self.sweeper
            sweep_dir = Path(search.sweep_dir)
            study = optuna.load_study(study_name=search.study_name, storage=search.storage)
            states = _states(sweep_dir)
            unfinished = []
            for trial in study.get_trials(states=(TrialState.RUNNING,)):
                if states.get(trial.number) == "completed":
                    study.tell(trial.number, _objective(sweep_dir / str(trial.number)))
                elif not _stays(states, trial.number):
                    unfinished.append(trial)
            if unfinished:
                settings = [[f"{key}={value}" for key, value in (t.params | t.user_attrs).items()] for t in unfinished]
                jobs = [_in_directory(job, t.number) for job, t in zip(settings, unfinished, strict=True)]
                returns = search.launcher.launch(jobs, initial_job_idx=unfinished[0].number)
                for trial, done in zip(unfinished, returns, strict=True):
                    completed = done.status == JobStatus.COMPLETED and done.return_value is not None
                    how = {"values": done.return_value} if completed else {"state": TrialState.FAIL}
                    study.tell(trial.number, **how)
            n_completed = len(study.get_trials(states=(TrialState.COMPLETE,)))
            search.job_idx = len(study.trials)
            search.n_trials = max(0, search.n_trials - n_completed)
            # A sampler that starts anew from its seed would draw the first trials once more.
            search.sampler.reseed_rng()
            log.info("%d trials are completed, %d are to be done", n_completed, search.n_trials)
            super().sweep(arguments)

    __all__ += ["ContinuedSearch"]


def _states(sweep_dir: Path) -> dict[int, str]:
    from scvae_data.training.sweep_jobs import jobs_of

    return {job["job"]: job["status"] for job in jobs_of(sweep_dir)}


def _stays(states: dict[int, str], number: int) -> bool:
    """Whether a job is to be left as it is."""
    status = states.get(number)
    if status == "running":
        log.warning("job %d is left alone: it still runs; if it does not, delete %d/.running", number, number)
    return status in ("running", "completed")


def _in_directory(overrides: Sequence[str], number: int) -> list[str]:
    """Add to a job's overrides the directory it has: the launcher numbers those that it is given from the first."""
    return [*overrides, f"hydra.sweep.subdir={number}"]


def _objective(run_dir: Path) -> Any:
    import json

    return json.loads((run_dir / "result.json").read_text())["val/elbo"]
