"""A progress bar that says what training waits for, and a line per epoch where there is no terminal."""

from __future__ import annotations

import logging
import sys
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar

from scvae_data.training.throughput import Throughput

__all__ = ["TrainingProgressBar"]

log = logging.getLogger(__name__)


class TrainingProgressBar(TQDMProgressBar):
    """Losses per cell, cells/s and "waiting on data: 3 %" beside the bar.

    Where stderr is not a terminal (log files, batch jobs), one line per epoch
    is logged instead.

    Parameters
    ----------
    refresh_rate
        Steps between redraws.
    """

    def __init__(self, refresh_rate: int = 5) -> None:
        super().__init__(refresh_rate=refresh_rate)
        if not sys.stderr.isatty():
            self.disable()

    def on_train_epoch_start(self, trainer: Trainer, *args: Any) -> None:
        """Count epochs as all other words do, from 1."""
        super().on_train_epoch_start(trainer, *args)
        if self.is_enabled:
            self.train_progress_bar.set_description(f"epoch {trainer.current_epoch + 1}")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Redraw with the fields in words."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if self.is_enabled and (batch_idx + 1) % self.refresh_rate == 0:
            self.train_progress_bar.set_postfix_str(self.fields(trainer))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the finished bar with its fields, or log them."""
        super().on_train_epoch_end(trainer, pl_module)
        if self.is_enabled:
            self.train_progress_bar.set_postfix_str(self.fields(trainer, "train/elbo_epoch"))
        else:
            log.info("epoch %d: %s", trainer.current_epoch + 1, self.fields(trainer, "train/elbo_epoch"))

    def fields(self, trainer: Trainer, elbo: str = "train/elbo") -> str:
        """E.g. ``elbo: -612.3, val elbo: -620.1, cells/s: 12,345, waiting on data: 3 %``; ``elbo`` is a metric."""
        metrics = trainer.callback_metrics
        shown = {"elbo": elbo, "val elbo": "val/elbo"}
        words = {label: f"{float(metrics[key]):.1f}" for label, key in shown.items() if key in metrics}
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, Throughput):
                words |= callback.in_words()
        return ", ".join(f"{name}: {value}" for name, value in words.items())
