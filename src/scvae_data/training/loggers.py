"""Loggers that a config can name: W&B that never asks, and a CSV file that survives a restart."""

from __future__ import annotations

import csv
from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from scvae_data.errors import ConfigError
from scvae_data.remote.location import local_path
from scvae_data.tracking import run_settings

__all__ = ["MetricsCsv", "wandb_logger"]


def wandb_logger(
    save_dir: str | None = None,
    project: str = "scvae-data",
    name: str | None = None,
    group: str | None = None,
    tags: Sequence[str] = (),
    id: str | None = None,
    log_model: bool = False,
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
        **settings,
    )
    # Lightning always passes on this setting, which W&B dropped and warns about.
    logger._wandb_init.pop("anonymous", None)
    return logger


class MetricsCsv(Logger):
    """Metrics in a CSV file: a row per call, a column per metric, empty where a call had none.

    A file that exists is continued, so that a resumed run keeps its history.

    Parameters
    ----------
    save_dir
        Folder of ``metrics.csv``; the current directory if None.
    flush_rows
        Rows kept in memory between writes.
    """

    def __init__(self, save_dir: str | None = None, flush_rows: int = 50) -> None:
        super().__init__()
        if flush_rows < 1:
            raise ConfigError(f"flush_rows={flush_rows} must be at least 1")
        self.path = local_path("logger.save_dir", save_dir or ".") / "metrics.csv"
        self.flush_rows = flush_rows
        self._columns: list[str] = []
        self._rows: list[dict[str, float]] = []

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
        """Folder of the file."""
        return str(self.path.parent)

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing: the configuration has a file of its own."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add a row."""
        self._rows.append({"step": float("nan") if step is None else step, **metrics})
        if len(self._rows) >= self.flush_rows:
            self.save()

    @rank_zero_only
    def save(self) -> None:
        """Write the rows kept so far."""
        if not self._rows:
            return
        old = self._existing_columns()
        new = [name for row in self._rows for name in row if name not in old]
        columns = old + list(dict.fromkeys(new))
        if new and old:
            self._rewrite(columns)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", newline="") as file:
            writer = csv.DictWriter(file, columns)
            if not old:
                writer.writeheader()
            writer.writerows(self._rows)
        self._columns, self._rows = columns, []

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write what is left."""
        self.save()

    def _existing_columns(self) -> list[str]:
        if not self._columns and self.path.is_file():
            with self.path.open(newline="") as file:
                self._columns = next(csv.reader(file), [])
        return self._columns

    def _rewrite(self, columns: list[str]) -> None:
        """Widen the header of the file to ``columns``, keeping its rows."""
        temporary = self.path.with_suffix(".csv.tmp")
        with self.path.open(newline="") as source, temporary.open("w", newline="") as target:
            writer = csv.DictWriter(target, columns)
            writer.writeheader()
            writer.writerows(csv.DictReader(source))
        temporary.replace(self.path)
