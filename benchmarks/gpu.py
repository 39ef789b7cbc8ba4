"""How fast batches reach the device, and how long a training step takes there and waits, by format and batch size.

    python benchmarks/gpu.py                               # 20,000 simulated cells; on CPU where there is no GPU
    python benchmarks/gpu.py --data DIR --precision 32-true bf16-mixed --workers 0 4

For each case, in one process: ``to device``, cells a second of an epoch whose
batches are copied to the device, without waiting for the copies but the last,
and made dense there; ``training``, cells a second of the default VAE under
Lightning, the share of that time that waited for batches, milliseconds of a
step, and how often a step made the host wait for the device (counted by torch,
on GPUs only). Batches come from pinned memory where there is a GPU. Every case
has an epoch before it that is not counted.
"""

from __future__ import annotations

import argparse
import logging
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

EPOCHS = 2  # counted


class Case(NamedTuple):
    """One line of the table."""

    x_format: str
    batch_size: int
    workers: int
    precision: str


def module_of(case: Case, data: Path) -> Any:
    """The data module of a case, with all chunks cached."""
    from scvae_data import ChunkedDataModule

    return ChunkedDataModule(
        data, batch_size=case.batch_size, split=None, normalized=False, x_format=case.x_format,
        num_workers=case.workers, chunk_cache_size=10_000,
    )  # fmt: skip


def finish(device: Any) -> None:
    """Wait for all that the device was asked for."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


def to_device(case: Case, data: Path, device: Any) -> float:
    """Cells a second that arrive at the device and are dense there."""
    from lightning.fabric.utilities.apply_func import move_data_to_device

    module = module_of(case, data)
    module.setup()
    n_cells, started = 0, 0.0
    for epoch in range(1 + EPOCHS):
        if epoch == 1:
            finish(device)
            n_cells, started = 0, time.perf_counter()
        for batch in module.train_dataloader():
            moved = module.on_after_batch_transfer(move_data_to_device(batch, device), 0)
            n_cells += len(moved["index"])
    finish(device)
    rate = n_cells / (time.perf_counter() - started)
    module.teardown()
    return rate


class Waits:
    """Counts how often the host waited for the device; torch warns of each time."""

    def __init__(self, device: Any) -> None:
        self._on = device.type == "cuda"
        self._caught = warnings.catch_warnings(record=True)
        self.found: list[Any] = []

    def __enter__(self) -> Waits:
        import torch

        self.found = self._caught.__enter__() or []
        warnings.simplefilter("always")
        if self._on:
            torch.cuda.set_sync_debug_mode("warn")
        return self

    def __exit__(self, *error: object) -> None:
        import torch

        if self._on:
            torch.cuda.set_sync_debug_mode("default")
        self._caught.__exit__(*error)  # type: ignore[arg-type]

    @property
    def n(self) -> int:
        """Number of waits so far."""
        return sum("synchronizing" in str(warning.message) for warning in self.found)


def training(case: Case, data: Path, device: Any) -> dict[str, float]:
    """Speed of the default VAE's steps after the first epoch."""
    from lightning import Callback, Trainer

    from scvae_data import VAE

    class Clock(Callback):
        """Seconds of steps and of what lies between them."""

        def __init__(self) -> None:
            self.waited = self.computed = 0.0
            self.n_cells = self.n_steps = 0
            self.mark: float | None = None

        def on_train_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
            finish(device)
            self.mark = time.perf_counter() if trainer.current_epoch else None

        def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
            if self.mark is not None:
                now = time.perf_counter()
                self.waited, self.mark = self.waited + now - self.mark, now

        def on_train_batch_end(
            self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
        ) -> None:
            if self.mark is None:
                return
            if trainer.is_last_batch:
                finish(device)
            now = time.perf_counter()
            self.computed, self.mark = self.computed + now - self.mark, now
            self.n_cells += len(batch["index"])
            self.n_steps += 1

    clock = Clock()
    module = module_of(case, data)
    with Waits(device) as waits:
        trainer = Trainer(
            max_epochs=1 + EPOCHS, accelerator=device.type, devices=1, precision=case.precision, callbacks=[clock],  # type: ignore[arg-type]
            logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(VAE(), datamodule=module)
    module.teardown()
    seconds = clock.waited + clock.computed
    return {
        "cells_per_s": clock.n_cells / seconds,
        "wait_share": clock.waited / seconds,
        "step_ms": 1e3 * seconds / clock.n_steps,
        "waits": waits.n / trainer.global_step if device.type == "cuda" else float("nan"),
    }


def main() -> None:
    """Print a line per case."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=None, help="a dataset directory")
    parser.add_argument("--formats", nargs="*", default=["dense", "csr", "compact"])
    parser.add_argument("--batch-sizes", type=int, nargs="*", default=[1024, 4096])
    parser.add_argument("--workers", type=int, nargs="*", default=[0])
    parser.add_argument("--precision", nargs="*", default=["32-true", "bf16-mixed"])
    arguments = parser.parse_args()
    if arguments.data is None:
        from loading import make_data

        arguments.data = make_data(Path("outputs/benchmark"), 20_000, 20_000, 10_000)["gzip"]
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{name}; host waits are of a step\n")
    print(
        "| x_format | batch | workers | precision | to device, cells/s | trained, cells/s | waiting | step, ms | waits|"
    )
    print("|---|--:|--:|---|--:|--:|--:|--:|--:|")
    for x_format in arguments.formats:
        for batch_size in arguments.batch_sizes:
            for workers in arguments.workers:
                arrived = to_device(Case(x_format, batch_size, workers, ""), arguments.data, device)
                for precision in arguments.precision:
                    case = Case(x_format, batch_size, workers, precision)
                    found = training(case, arguments.data, device)
                    print(
                        f"| {x_format} | {batch_size:,} | {workers} | {precision} | {arrived:,.0f} "
                        f"| {found['cells_per_s']:,.0f} | {found['wait_share']:.1%} | {found['step_ms']:,.1f} "
                        f"| {found['waits']:.2f} |".replace("nan", "–"),
                        flush=True,
                    )


if __name__ == "__main__":
    main()
