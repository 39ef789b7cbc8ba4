"""A Hydra callback: a row per job of a multirun in, one table and one picture in the sweep's directory out."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

__all__ = ["TABLE", "SweepTable", "end_sweep", "read_table", "sweep_row", "table_text"]

TABLE = "sweep_table.csv"
PLOT = "sweep_plot.png"
LOG_WIDTH = 200  # characters
COLUMNS = (
    "job", "status", "overrides", "cells_per_s", "wait_share", "hit_rate", "predicted_hit_rate",
    "holds_all_chunks", "bytes_read", "val_loss", "error", "run_dir",
)  # fmt: skip


class SweepTable(Callback):
    """Append one row per job to ``sweep_table.csv`` as soon as the job ends, and draw the table.

    Rows are written job by job because Hydra does not call
    ``on_multirun_end`` when a job fails; failed jobs have a row as well.
    """

    started: ClassVar[DictConfig | None] = None
    """Configuration of the sweep that this process runs."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Remember the sweep for :func:`end_sweep`."""
        SweepTable.started = config

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Add the job's row. A single run has no table."""
        from scvae_data.training.sweep_plot import sweep_plot  # here: a single run starts sooner without it

        if config.hydra.mode is None or config.hydra.mode.name != "MULTIRUN":
            return
        table = Path(config.hydra.sweep.dir) / TABLE
        _append(table, sweep_row(config, job_return))
        sweep_plot(read_table(table), table.with_name(PLOT))


def end_sweep() -> str:
    """Log the table of the sweep that this process ran, if any, with its picture; return it as text, with the files.

    To W&B they go as a run of their own in the sweep's group, made when all
    jobs have ended: whichever of them failed, it shows every one. Its exit
    status is 1 if any failed.
    """
    config, SweepTable.started = SweepTable.started, None
    if config is None:
        return ""
    sweep_dir = Path(config.hydra.sweep.dir)
    if not (sweep_dir / TABLE).is_file():
        return ""
    rows = read_table(sweep_dir / TABLE)
    node = OmegaConf.select(config, "logger.wandb")
    if node is not None:
        _log(rows, sweep_dir, node)
    return "\n".join([table_text(rows), *(str(sweep_dir / name) for name in (TABLE, PLOT))])


def _log(rows: Sequence[Mapping[str, str]], sweep_dir: Path, node: DictConfig) -> None:
    from scvae_data.config import instantiate
    from scvae_data.tracking import finish_wandb

    own = {"save_dir": str(sweep_dir), "group": sweep_dir.name, "tags": ["sweep", "summary"]}
    set_by_user = {str(key): value for key, value in node.items() if value is not None}
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


def table_text(rows: Sequence[Mapping[str, str]]) -> str:
    """The table as people read it: columns that say something, settings that differ."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    # What all jobs have in common is in the file; on the console it would hide what differs.
    common = set.intersection(*(set(row["overrides"].split(" ")) for row in rows)) if len(rows) > 1 else set()
    own = [" ".join(part for part in row["overrides"].split(" ") if part not in common) for row in rows]
    cells = {
        name: own if name == "overrides" else [_cell(name, row[name]) for row in rows]
        for name in COLUMNS
        if name != "run_dir"
    }
    shown = {name: texts for name, texts in cells.items() if any(texts)}
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in shown:
        table.add_column(name.replace("_", " "), overflow="fold")
    for texts in zip(*shown.values(), strict=True):
        table.add_row(*texts)
    # In a log file a table folded to the default 80 columns is hard to read.
    console = Console(width=None if sys.stdout.isatty() else LOG_WIDTH)
    with console.capture() as captured:
        console.print(table)
    return "\n".join(line.rstrip() for line in captured.get().splitlines() if line.strip())


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
    if name == "cells_per_s":
        return f"{number:,.0f}"
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
