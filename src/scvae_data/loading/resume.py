"""A saved position and a data module in, its loader at that position or a refusal out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from scvae_data.errors import SelectionError

if TYPE_CHECKING:
    from lightning import Trainer

__all__ = ["check_order", "shift_progress"]


def check_order(saved: Mapping[str, Any], mine: Mapping[str, Any]) -> None:
    """Refuse a position in another order of cells: ``mine`` are the facts that the order depends on."""
    for name, value in mine.items():
        if saved.get(name) != value:
            raise SelectionError(
                f"cannot resume: the saved run has {name}={saved.get(name)}, this one {value}; "
                "resume with the dataset and data settings of the saved run"
            )


def shift_progress(trainer: Trainer, n_batches: int) -> None:
    """Let the trainer count ``n_batches`` more of the epoch as done, so that it goes on to the end of the epoch."""
    progress = trainer.fit_loop.epoch_loop.batch_progress.current
    for name in ("ready", "started", "processed", "completed"):
        setattr(progress, name, getattr(progress, name) + n_batches)
