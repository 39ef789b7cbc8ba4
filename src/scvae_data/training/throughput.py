"""How fast training is and what it waits for: cells per second, share of time waiting for data, cache counters."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import distributed

__all__ = ["Throughput", "flat_counters"]


class Throughput(Callback):
    """Measure training speed and log it beside the losses.

    Logged: ``throughput/cells_per_s`` and ``throughput/wait_share`` over the
    steps between two rows of the log, and every number of the DataModule's
    ``counters()`` as ``cache/…``. Validation, checkpoints and the first step
    of the run, which compiles and warms up, do not count. The time between
    the end of a step and the arrival of the next batch is waiting.
    """

    def __init__(self) -> None:
        self.total = Clock()
        self.epoch = Clock()
        self.recent = Clock()
        self.counters: dict[str, float] = {}  # the DataModule's at the last look
        self._mark: float | None = None  # end of the last step; None after a pause that is not waiting for data
        self._started = False

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Wait for the first batch from here on."""
        self.epoch = Clock()
        self._mark = time.perf_counter()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """The batch is there: what passed since the last step was waiting."""
        now = time.perf_counter()
        if self._started and self._mark is not None:
            self._add(waited=now - self._mark)
        self._mark = now

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """The step is done: count its cells, and log now and then."""
        now = time.perf_counter()
        if self._started and self._mark is not None:
            # Ranks have batches of one size.
            self._add(computed=now - self._mark, n_cells=trainer.world_size * len(batch["index"]))
        self._started = True
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and trainer.global_step % every == 0:
            pl_module.log_dict(self._values(trainer), on_step=True, on_epoch=False, batch_size=1)
            self.recent = Clock()
        self._mark = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log what the cache did in this epoch even if it was shorter than the logging interval."""
        pl_module.log_dict(self._values(trainer), batch_size=1)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        self._mark = None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock again, for the next batch of training."""
        self._mark = time.perf_counter()

    def summary(self) -> dict[str, float]:
        """Speed over the whole training, of all ranks together, e.g. for a sweep table; called by all of them."""
        return over_ranks({"cells_per_s": self.total.cells_per_s, "wait_share": self.total.wait_share})

    def in_words(self) -> dict[str, str]:
        """The same over the current epoch, for a progress bar; nothing before there is anything to measure."""
        clock = self.epoch
        if not clock.n_cells:
            return {}
        return {"cells/s": f"{clock.cells_per_s:,.0f}", "waiting on data": f"{100 * clock.wait_share:.0f} %"}

    def _add(self, *, waited: float = 0.0, computed: float = 0.0, n_cells: int = 0) -> None:
        for clock in (self.total, self.epoch, self.recent):
            clock.waited += waited
            clock.computed += computed
            clock.n_cells += n_cells

    def _values(self, trainer: Trainer) -> dict[str, float]:
        clock = self.recent if self.recent.n_cells else self.total
        values: dict[str, float] = {}
        if clock.n_cells:
            values |= {"throughput/cells_per_s": clock.cells_per_s, "throughput/wait_share": clock.wait_share}
        counters = getattr(trainer.datamodule, "counters", None)  # type: ignore[attr-defined]
        if counters is not None:
            values |= {f"cache/{name}": value for name, value in flat_counters(counters()).items()}
        values = over_ranks(values)
        self.counters = {
            name.removeprefix("cache/"): value for name, value in values.items() if name.startswith("cache/")
        }
        return values


class Clock:
    """Seconds and cells added up."""

    def __init__(self) -> None:
        self.waited = 0.0
        self.computed = 0.0
        self.n_cells = 0

    @property
    def cells_per_s(self) -> float:
        """Cells per second of waiting and computing; 0 before the first step."""
        seconds = self.waited + self.computed
        return self.n_cells / seconds if seconds else 0.0

    @property
    def wait_share(self) -> float:
        """Share of the time that was waiting, 0 to 1."""
        seconds = self.waited + self.computed
        return self.waited / seconds if seconds else 0.0


def over_ranks(values: dict[str, float]) -> dict[str, float]:
    """Sums over all ranks, of shares, rates and speeds the means; called by all ranks with the same names."""
    if not distributed.is_initialized():
        return values
    sums = torch.tensor(list(values.values()), dtype=torch.float64)
    distributed.all_reduce(sums)
    n_ranks = distributed.get_world_size()
    return {
        name: value / n_ranks if name.endswith(("_share", "_rate", "_per_s")) else value
        for name, value in zip(values, sums.tolist(), strict=True)
    }


def flat_counters(counters: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Numbers of a nested mapping under names joined by ``/``; None and text are left out.

    >>> flat_counters({"train": {"hits": 3, "path": "x"}})
    {'train/hits': 3.0}
    """
    flat: dict[str, float] = {}
    for name, value in counters.items():
        if isinstance(value, Mapping):
            flat |= flat_counters(value, f"{prefix}{name}/")
        elif isinstance(value, (int, float)):
            flat[prefix + name] = float(value)
    return flat
