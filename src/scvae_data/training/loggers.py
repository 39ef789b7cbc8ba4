"""Loggers that a config can name: W&B that never asks, and a CSV file that survives a restart."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from scvae_data.errors import ConfigError
from scvae_data.remote.location import local_path
from scvae_data.tracking import run_settings
from scvae_data.training.metrics import METRICS_FILE, STEPS_FILE, MetricsTable, take_for_steps

__all__ = ["MetricsCsv", "wandb_logger"]


def wandb_logger(
    save_dir: str | None = None,
    project: str = "scvae-data",
    name: str | None = None,
    group: str | None = None,
    tags: Sequence[str] = (),
    id: str | None = None,
    log_model: bool = False,
    job_type: str | None = None,
) -> WandbLogger:
    """A W&B logger that is offline where there is no key, so that it neither asks nor fails.

    Parameters
    ----------
    save_dir
        Folder for ``wandb/``; the current directory if None.
    project, name, group, tags
        As W&B shows them.
    id
        Of the W&B run to continue; a new one if None.
    log_model
        Whether checkpoints are stored as artifacts.
    job_type
        What the run is one of, by which W&B groups runs.

    Notes
    -----
    ``WandbLogger(offline=True)`` is not used: it overrides
    ``WANDB_MODE=disabled``, leaves a mode behind in the environment for later
    runs of the process, and refuses ``log_model``.
    """
    settings = run_settings(str(local_path("logger.save_dir", save_dir or ".")))
    logger = WandbLogger(
        save_dir=settings.pop("dir"),
        project=project,
        name=name,
        group=group,
        tags=list(tags),
        id=id,
        log_model=log_model,
        job_type=job_type,
        **settings,
    )
    # Lightning always passes on this setting, which W&B dropped and warns about.
    logger._wandb_init.pop("anonymous", None)
    return logger


class MetricsCsv(Logger):
    """Metrics as tables: ``metrics.csv`` has a row an epoch, ``steps.csv`` a row a step; epochs count from 0.

    Files that exist are continued, so that a resumed run keeps its history.

    Parameters
    ----------
    save_dir
        Folder of the files; the current directory if None.
    flush_rows
        Rows of steps kept in memory between writes.
    """

    def __init__(self, save_dir: str | None = None, flush_rows: int = 50) -> None:
        super().__init__()
        if flush_rows < 1:
            raise ConfigError(f"flush_rows={flush_rows} must be at least 1")
        self.folder = local_path("logger.save_dir", save_dir or ".")
        take_for_steps(self.folder)
        self.flush_rows = flush_rows
        self.epoch: int | None = None
        """Of which comes what is logged now; None where it is of a step."""
        self.epoch_is_over = False
        self._epochs = MetricsTable(self.folder / METRICS_FILE, "epoch")
        self._steps = MetricsTable(self.folder / STEPS_FILE, "step")
        self._of_epoch: dict[str, float] = {}
        self._of_steps: list[dict[str, float]] = []

    @property
    def name(self) -> str:
        """Kind of log."""
        return "csv"

    @property
    def version(self) -> str:
        """There is one per run."""
        return ""

    @property
    def save_dir(self) -> str:
        """Folder of the files."""
        return str(self.folder)

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing: the configuration has a file of its own."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add to the row of the epoch, or a row of a step."""
        at = float("nan") if step is None else step
        if self.epoch is None:
            self._of_steps.append({"step": at, **metrics})
            if len(self._of_steps) >= self.flush_rows:
                self.save()
            return
        if self._of_epoch.get("epoch", self.epoch) != self.epoch:
            self.save()
            self._of_epoch, self.epoch_is_over = {}, False  # of an epoch that was cut off, nothing is kept
        self._of_epoch |= {"epoch": self.epoch, "step": at, **metrics}

    @rank_zero_only
    def save(self) -> None:
        """Write the rows kept so far; that of an epoch when it is over."""
        self._steps.add(self._of_steps)
        self._of_steps = []
        if self.epoch_is_over and self._of_epoch:
            self._epochs.add([self._of_epoch])
            self._of_epoch, self.epoch_is_over = {}, False

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write what is left."""
        self.save()
