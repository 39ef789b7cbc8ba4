"""A Hydra callback: a row per job of a multirun in, one table and one picture in the sweep's directory out."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from scvae_data.training.sweep_plot import PLOT, sweep_plot

__all__ = ["TABLE", "SweepTable", "log_sweep", "read_table", "sweep_row"]

TABLE = "sweep_table.csv"
LOG_WIDTH = 200  # characters
COLUMNS = (
    "job", "status", "overrides", "cells_per_s", "wait_share", "hit_rate", "predicted_hit_rate",
    "holds_all_chunks", "bytes_read", "val_loss", "error", "run_dir",
)  # fmt: skip


class SweepTable(Callback):
    """Append one row per job to ``sweep_table.csv`` as soon as the job ends, show the table and draw it.

    Rows are written job by job because Hydra does not call
    ``on_multirun_end`` when a job fails; failed jobs have a row as well.
    """

    started: ClassVar[DictConfig | None] = None
    """Configuration of the sweep that this process runs."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Remember the sweep for :func:`log_sweep`."""
        SweepTable.started = config

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Add the job's row. A single run has no table."""
        if config.hydra.mode is None or config.hydra.mode.name != "MULTIRUN":
            return
        row = sweep_row(config, job_return)
        table = Path(config.hydra.sweep.dir) / TABLE
        _append(table, row)
        _show(table)
        sweep_plot(read_table(table), table.with_name(PLOT))


def log_sweep() -> None:
    """Log table and picture of the sweep that this process ran, if any, as a W&B run of their own in its group.

    One more run beside those of the jobs, made when all have ended: whichever
    of them failed, it shows every one. Its exit status is 1 if any failed.
    """
    config, SweepTable.started = SweepTable.started, None
    node = None if config is None else OmegaConf.select(config, "logger.wandb")
    if config is None or node is None:
        return
    sweep_dir = Path(config.hydra.sweep.dir)
    if not (sweep_dir / TABLE).is_file():
        return
    from scvae_data.config import instantiate
    from scvae_data.training.loggers import finish_wandb

    rows = read_table(sweep_dir / TABLE)
    own = {"save_dir": str(sweep_dir), "group": sweep_dir.name, "tags": ["sweep", "summary"]}
    set_by_user = {key: value for key, value in node.items() if value is not None}
    logger = instantiate({**own, **set_by_user, "name": f"{sweep_dir.name}_summary", "id": None})
    logger.log_table(
        key="sweep_table", columns=list(COLUMNS), data=[[_number(row[name]) for name in COLUMNS] for row in rows]
    )
    logger.log_image(key="sweep_plot", images=[str(sweep_dir / PLOT)])
    finish_wandb(int(any(row["status"] == "failed" for row in rows)))


def sweep_row(config: DictConfig, job_return: JobReturn) -> dict[str, str]:
    """One job in words and numbers; what it did not measure is empty."""
    run_dir = Path(config.hydra.runtime.output_dir)
    result = _result(run_dir / "result.json")
    failed = job_return.status != JobStatus.COMPLETED
    row = {
        "job": config.hydra.job.num,
        "status": "failed" if failed else "completed",
        "overrides": " ".join(config.hydra.overrides.task),
        "error": _first_line(job_return._return_value) if failed else "",
        "run_dir": run_dir.name,
        "val_loss": result.get("val/loss", ""),
    }
    row |= {name: result.get(name, "") for name in COLUMNS if name not in row}
    return {name: _text(row[name]) for name in COLUMNS}


def read_table(path: Path) -> list[dict[str, str]]:
    """Rows of a table, in the order the jobs ended."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _append(path: Path, row: Mapping[str, str]) -> None:
    new = not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    # One write per row: jobs of a parallel launcher append to the same file.
    with path.open("a", newline="", buffering=1 << 20) as file:
        writer = csv.DictWriter(file, COLUMNS)
        if new:
            writer.writeheader()
        writer.writerow(row)


def _show(path: Path) -> None:
    """Print the table to stdout."""
    from rich.console import Console
    from rich.table import Table

    rows = read_table(path)
    shown = [name for name in COLUMNS if name != "run_dir" and any(row[name] for row in rows)]
    table = Table(title=str(path), title_justify="left")
    for name in shown:
        table.add_column(name.replace("_", " "), overflow="fold")
    # What all jobs have in common is in the file; on the console it would hide what differs.
    common = set.intersection(*(set(row["overrides"].split(" ")) for row in rows)) if len(rows) > 1 else set()
    for row in rows:
        own = " ".join(part for part in row["overrides"].split(" ") if part not in common)
        table.add_row(*(_cell(name, {**row, "overrides": own}[name]) for name in shown))
    # In a log file a table folded to the default 80 columns is hard to read.
    Console(width=None if sys.stdout.isatty() else LOG_WIDTH).print(table)


def _cell(name: str, text: str) -> str:
    """A number as people read it."""
    if name == "holds_all_chunks":
        return "all in cache" if text == "True" else ""
    try:
        number = float(text)
    except ValueError:
        return text
    if name in ("wait_share", "hit_rate", "predicted_hit_rate"):
        return f"{100 * number:.1f} %"
    return f"{number / 1e6:,.1f} MB" if name == "bytes_read" else f"{number:,.6g}"


def _number(text: str) -> float | str | None:
    """A number where it is one, None where there is nothing."""
    try:
        return float(text) if text else None
    except ValueError:
        return text


def _result(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def _first_line(error: object) -> str:
    """The first line that says something, with the kind of error where it alone would not."""
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return (
        line if line and not isinstance(error, (KeyError, StopIteration)) else f"{type(error).__name__} {line}".strip()
    )


def _text(value: Any) -> str:
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else f"{value:.6g}"
    return str(value)
