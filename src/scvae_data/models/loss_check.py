"""Losses in, an error about one that is not finite out: a step later, so that no step waits for the device."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from scvae_data.errors import ScvaeDataError
from scvae_data.models.dataset_facts import not_finite

__all__ = ["LossCheck"]


class Noted(NamedTuple):
    """A loss whose value is on its way to the host."""

    finite: Tensor
    """On the host once ``arrived``."""
    arrived: torch.cuda.Event | None
    """None where it is there already."""
    cells: dict[str, Any]
    """What of the batch names its cells."""
    per_cell: Tensor
    step: int


class LossCheck:
    """Remembers the last loss until it is known to be finite.

    Parameters
    ----------
    model
        Whose loss it is.
    """

    def __init__(self, model: LightningModule) -> None:
        self._model = model
        self._noted: Noted | None = None

    def note(self, loss: Tensor, per_cell: Tensor, batch: dict[str, Any]) -> None:
        """Have the host told whether ``loss`` is finite; waits for nothing."""
        finite = torch.isfinite(loss.detach()).to("cpu", non_blocking=True)
        arrived = None
        if loss.device.type == "cuda":
            arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            arrived.record(torch.cuda.current_stream(loss.device))
        cells = {"index": batch["index"], "obs": batch["obs"]}
        self._noted = Noted(finite, arrived, cells, per_cell.detach(), self._model.global_step)

    def check(self) -> None:
        """Wait for what was noted last.

        Raises
        ------
        ScvaeDataError
            It is not finite.
        """
        noted, self._noted = self._noted, None
        if noted is None:
            return
        if noted.arrived is not None:
            noted.arrived.synchronize()
        if not noted.finite:
            raise ScvaeDataError(not_finite(self._model, noted.cells, noted.per_cell, noted.step))
