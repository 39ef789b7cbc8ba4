"""Callbacks that every run has: random states and configuration travel in checkpoints, each epoch has its row."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

__all__ = ["RandomState", "RowPerEpoch", "RunRecord"]


class RandomState(Callback):
    """Let training draw from random streams that nothing between its steps disturbs, and save them in checkpoints.

    Each step starts from the state that the step before it left behind. What
    validation, loaders or logging draw in between is undone, so a run that is
    resumed from a checkpoint draws what the uninterrupted run would have.
    """

    def __init__(self) -> None:
        self._states: dict[str, Any] | None = None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Take up the stream where the last step left it."""
        if self._states is not None:
            _restore(self._states)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Remember the stream."""
        self._states = _current()

    def state_dict(self) -> dict[str, Any]:
        """The states as plain types and tensors."""
        return self._states or {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from ``state_dict`` at the next step."""
        self._states = state_dict or None


class RowPerEpoch(Callback):
    """Log training at least once an epoch, however few batches an epoch has."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Shorten the logging interval to an epoch where it is longer."""
        n_batches = int(trainer.num_training_batches)
        if trainer.log_every_n_steps > n_batches:  # type: ignore[attr-defined]
            trainer.log_every_n_steps = n_batches  # type: ignore[attr-defined]


class RunRecord(Callback):
    """Put the resolved configuration and the facts of the dataset into every checkpoint.

    Parameters
    ----------
    config
        Plain types.
    facts
        Plain types.
    """

    def __init__(self, config: dict[str, Any], facts: dict[str, Any]) -> None:
        self.config = config
        self.facts = facts

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add both under ``scvae_data``."""
        checkpoint["scvae_data"] = {"config": self.config, "facts": self.facts}


def _current() -> dict[str, Any]:
    """States of the global generators: torch's is drawn from by dropout and sampling, the others by user code."""
    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)  # noqa: NPY002 -- the state is the subject
    version, internal, gauss_next = random.getstate()
    states: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": [name, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, gauss],
        "python": [version, list(internal), gauss_next],
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state_all()
    return states


def _restore(states: dict[str, Any]) -> None:
    torch.set_rng_state(states["torch"].cpu())
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), *rest))  # noqa: NPY002 -- as above
    version, internal, gauss_next = states["python"]
    random.setstate((version, tuple(internal), gauss_next))
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([state.cpu() for state in states["cuda"]])
