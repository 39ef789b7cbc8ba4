"""Callbacks that every run has: random states and configuration travel in checkpoints, each epoch has its row."""

from __future__ import annotations

import logging
import random
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import distributed

from scvae_data.system.stopping import Stopped, StopRequest
from scvae_data.training.loggers import MetricsCsv
from scvae_data.wording import shown

__all__ = ["RandomState", "RowPerEpoch", "RunRecord", "StopAtSignal"]


log = logging.getLogger(__name__)


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
        """The states of all ranks as plain types and tensors; called by all of them."""
        states = {} if self._states is None else _saved(self._states)
        if not states or not distributed.is_initialized():
            return states
        of_ranks: list[Any] = [None] * distributed.get_world_size()
        distributed.all_gather_object(of_ranks, states)
        return {"ranks": of_ranks}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from ``state_dict`` at the next step; ranks that were not there begin streams of their own."""
        saved = state_dict.get("ranks", [state_dict] if state_dict else [])
        rank = distributed.get_rank() if distributed.is_initialized() else 0
        self._states = _of_saved(saved[rank]) if rank < len(saved) else None


class RowPerEpoch(Callback):
    """Log training at least once an epoch, and tell the tables of metrics what is of an epoch and what of a step.

    It is to be the first callback: others log at the start of an epoch.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Shorten the logging interval to an epoch where it is longer."""
        n_batches = int(trainer.num_training_batches)
        if trainer.log_every_n_steps > n_batches:  # type: ignore[attr-defined]
            trainer.log_every_n_steps = n_batches  # type: ignore[attr-defined]

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What is logged until the first step is of the epoch."""
        self._now_of(trainer, trainer.current_epoch)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """From here on it is of steps."""
        self._now_of(trainer, None)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validation is of the epoch."""
        self._now_of(trainer, trainer.current_epoch)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """So are the means that are logged now."""
        self._now_of(trainer, trainer.current_epoch)
        for logger in trainer.loggers:
            if isinstance(logger, MetricsCsv):
                logger.epoch_is_over = True

    def _now_of(self, trainer: Trainer, epoch: int | None) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, MetricsCsv):
                logger.epoch = epoch


class StopAtSignal(Callback):
    """End training between two steps, with a checkpoint, where a signal has asked any rank to.

    What one rank was asked for the others learn while they compute the next
    step, so that all end after the same one.

    Parameters
    ----------
    request
        What signals have asked this process for.
    run_dir
        Gets ``checkpoints/last.ckpt``.
    """

    def __init__(self, request: StopRequest, run_dir: Path) -> None:
        self.request = request
        self.path = run_dir / "checkpoints" / "last.ckpt"
        self._told: tuple[torch.Tensor, Any] | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on there are moments to end at."""
        self.request.awaited = True

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """End here, if anybody was asked to; after an epoch's last step, in its validation or after the next step."""
        if not trainer.is_last_batch and (signum := self._asked()):
            self._end(trainer, signum)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """End in the middle of validation, which is then done again from its first batch."""
        if self.request.awaited and (signum := self._asked()):
            progress = trainer.fit_loop.epoch_loop.val_loop.batch_progress.current
            for name, n in {"ready": 1, "started": 1, "processed": 1, "completed": 0}.items():
                setattr(progress, name, n)
            self._end(trainer, signum)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What comes now has its checkpoint; a signal that came too late for a step counts."""
        self.request.awaited = False
        self._asked()
        if signum := self._asked():
            raise Stopped(signum)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """There are no further moments."""
        self.request.awaited = False

    def _end(self, trainer: Trainer, signum: int) -> NoReturn:
        trainer.save_checkpoint(self.path)
        log.info("saved %s in epoch %d, step %d", shown(self.path), trainer.current_epoch + 1, trainer.global_step)
        raise Stopped(signum)

    def _asked(self) -> int:
        """The signal that this process was sent, of several ranks the largest as of one step ago; 0 for none."""
        if not distributed.is_initialized():
            return self.request.signum
        signum = 0
        if self._told is not None:
            told, work = self._told
            work.wait()
            signum = int(told)
        told = torch.tensor(self.request.signum)
        self._told = None if signum else (told, distributed.all_reduce(told, distributed.ReduceOp.MAX, async_op=True))
        return signum


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
    states: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state(legacy=True),  # noqa: NPY002 -- the state is the subject
        "python": random.getstate(),
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state_all()
    return states


def _restore(states: dict[str, Any]) -> None:
    torch.set_rng_state(states["torch"])
    np.random.set_state(states["numpy"])  # noqa: NPY002 -- as above
    random.setstate(states["python"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda"])


def _saved(states: dict[str, Any]) -> dict[str, Any]:
    """States as plain types and tensors; only checkpoints need them so, and a step has no time for it."""
    name, keys, *rest = states["numpy"]
    version, internal, gauss_next = states["python"]
    numpy_state = [name, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest]
    return {**states, "numpy": numpy_state, "python": [version, list(internal), gauss_next]}


def _of_saved(saved: dict[str, Any]) -> dict[str, Any]:
    name, keys, *rest = saved["numpy"]
    version, internal, gauss_next = saved["python"]
    states = {
        **saved,
        "torch": saved["torch"].cpu(),
        "numpy": (name, keys.cpu().numpy().astype(np.uint32), *rest),
        "python": (version, tuple(internal), gauss_next),
    }
    return {**states, "cuda": [state.cpu() for state in saved["cuda"]]} if "cuda" in saved else states
