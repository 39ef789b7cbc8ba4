"""A Hydra callback: a row per job of a multirun in, one table and one picture in the sweep's directory out."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode, TaskFunction
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from scvae_data.errors import ConfigError, SelectionError
from scvae_data.store.files import write_atomic
from scvae_data.system.failed_jobs import Failed
from scvae_data.system.slurm import requeue, was_requeued
from scvae_data.system.stopping import Stopped
from scvae_data.training.metrics import write_rows
from scvae_data.training.pages import REPORT, only_a_page
from scvae_data.training.saturation import PLOT as SATURATION_PLOT
from scvae_data.training.saturation import told_of, write_saturation
from scvae_data.training.sweep_jobs import JobFile, Left, arguments_of, begin_sweep, jobs_of, left_of, number_of_jobs
from scvae_data.wording import first_line, shown

__all__ = [
    "TABLE", "SweepTable", "check_direction", "end_sweep", "interruption_told", "table_text", "write_table",
]  # fmt: skip

log = logging.getLogger(__name__)

TABLE = "sweep_table.csv"
PLOT = "sweep_plot.png"
LOG_WIDTH = 200  # characters
COLUMNS = (
    "job", "status", "overrides", "best", "val_elbo", "cells_per_s", "wait_share", "hit_rate", "predicted_hit_rate",
    "holds_all_chunks", "bytes_read", "val_loss", "error", "run_dir",
)  # fmt: skip
OF_RESULT = {"val_elbo": "val/elbo", "val_loss": "val/loss"}
# Errors of what a job is set to, which it would meet once more.
OF_SETTINGS = (ConfigError, SelectionError, HydraException, OmegaConfBaseException)
# The objective behind what it costs, where all jobs are to reach the same one.
OF_LOADER = ("best", "val_elbo")


class SweepTable(Callback):
    """Keep ``sweep_table.csv`` and its picture as the jobs of a sweep begin and end, wherever they run.

    Job by job, because Hydra does not call ``on_multirun_end`` when a job
    fails; failed jobs have a row as well.
    """

    started: ClassVar[DictConfig | None] = None
    """Configuration of the sweep that this process runs."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Remember the sweep for :func:`end_sweep`, and on disk for those who go on with it."""
        SweepTable.started = config
        goes_on = was_requeued() or config.resume_sweep is not None
        sweeper = str(config.hydra.sweeper._target_)
        begin_sweep(Path(config.hydra.sweep.dir), sweeper, _count(config.hydra), goes_on)

    def on_job_start(self, config: DictConfig, *, task_function: TaskFunction, **kwargs: Any) -> None:
        """Say which job of how many begins."""
        if not _speaks(config.hydra):
            return
        run_dir = Path(config.hydra.runtime.output_dir)
        overrides = [text for text in config.hydra.overrides.task if not text.startswith("resume_sweep=")]
        JobFile(run_dir).begin(overrides)
        number, n_jobs = int(run_dir.name), number_of_jobs(run_dir.parent)
        # A job is called by the number of its directory, which is one less than its place.
        place = f" ({number + 1} of {n_jobs})" if n_jobs is not None else ""
        # What is given as it stands all jobs have in common.
        own = " ".join(text for text in overrides if text not in arguments_of(run_dir.parent))
        log.info("job %d%s: %s, in %s", number, place, own or "as given", shown(run_dir))

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Add the job's row. A single run has no table."""
        if not _speaks(config.hydra):
            return
        run_dir = Path(config.hydra.runtime.output_dir)
        if job_return.status == JobStatus.COMPLETED:
            _end_job(run_dir, "completed")
            return
        error = job_return._return_value
        _end_job(run_dir, "failed", _fault(error), fails_again=isinstance(error, OF_SETTINGS))
        job_return.__class__ = Failed


@contextmanager
def interruption_told() -> Iterator[None]:
    """Give a job of a sweep its row where Hydra does not tell that it ends: when a signal interrupts it."""
    try:
        yield
    except (Stopped, KeyboardInterrupt) as end:
        hydra = HydraConfig.get()
        if _speaks(hydra):
            name = end.signum.name if isinstance(end, Stopped) else "SIGINT"
            _end_job(Path(hydra.runtime.output_dir), "interrupted", f"stopped by {name}")
            # Others started this process, and do not see to it.
            if "SUBMITIT_EXECUTOR" in os.environ and name == "SIGUSR1" and os.environ.get("SLURM_JOB_ID"):
                log.info("stopped by %s; %s", name, requeue())
        raise


def check_direction() -> None:
    """Refuse a search that would look for the worst model.

    Raises
    ------
    ConfigError
        With the setting.
    """
    hydra = HydraConfig.get()
    direction = hydra.sweeper.get("direction") if hydra.mode == RunMode.MULTIRUN else None
    if direction is not None and getattr(direction, "name", direction) != "maximize":
        raise ConfigError(
            "hydra.sweeper.direction=minimize, but val/elbo is the better the higher it is; set "
            "hydra.sweeper.direction=maximize, or take hydra/sweeper=search, which does"
        )


def _end_job(run_dir: Path, status: str, error: str = "", *, fails_again: bool = False) -> None:
    JobFile(run_dir).end(status, error, fails_again=fails_again)
    write_table(run_dir.parent)


def _speaks(hydra: Any) -> bool:
    """Whether this process tells about a job of a sweep: the first of those that SLURM started together for it."""
    return hydra.mode == RunMode.MULTIRUN and os.environ.get("SLURM_PROCID", "0") == "0"


def _count(hydra: DictConfig) -> int | None:
    """How many jobs a sweep has, as far as its sweeper says so beforehand."""
    sweeper = hydra.sweeper
    if "n_trials" in sweeper:
        return int(sweeper.n_trials)
    if "max_batch_size" not in sweeper:
        return None
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    texts = [f"{key}={value}" for key, value in (sweeper.params or {}).items()] + list(hydra.overrides.task)
    return len(BasicSweeper.split_arguments(parser.parse_overrides(texts), None)[0])


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
    rows = write_table(sweep_dir)
    if not rows:
        return ""
    node = OmegaConf.select(config, "logger.wandb")
    if node is not None:
        _log(rows, sweep_dir, node)
    left = left_of(sweep_dir)
    _write_report(sweep_dir, rows, left)
    files = [shown(path) for path in (sweep_dir / name for name in (TABLE, PLOT, REPORT)) if path.is_file()]
    to_do = f"{left.count}; to go on with them: {left.command}" if left.command else left.count
    return "\n".join([table_text(rows), *told_of(sweep_dir), *files, *filter(None, (to_do, left.refused))])


def _write_report(sweep_dir: Path, rows: Sequence[Mapping[str, str]], left: Left) -> None:
    """Write the page about a sweep."""
    pictures = {
        PLOT: "A point for each job; one that was not completed is a cross below the axis.",
        SATURATION_PLOT: "What more training cells bring: ELBO of held-out cells and scores of the latents",
    }
    with only_a_page(sweep_dir):
        from scvae_data.training.sweep_report import sweep_report

        told = next(iter(told_of(sweep_dir)), "")
        text = sweep_report(sweep_dir, rows, arguments_of(sweep_dir), pictures, told=told, left=left)
        write_atomic(sweep_dir / REPORT, text.encode())


def _log(rows: Sequence[Mapping[str, str]], sweep_dir: Path, node: DictConfig) -> None:
    from scvae_data.config import instantiate
    from scvae_data.tracking import finish_wandb

    own = {"save_dir": str(sweep_dir), "group": sweep_dir.name, "tags": ["sweep", "summary"], "job_type": "sweep"}
    set_by_user = {str(key): value for key, value in node.items() if value is not None}
    logger = instantiate({**own, **set_by_user, "name": f"{sweep_dir.name}_summary", "id": None})
    logger.log_table(
        key="sweep_table", columns=list(COLUMNS), data=[[_number(row[name]) for name in COLUMNS] for row in rows]
    )
    pictures = {"sweep_plot": sweep_dir / PLOT, "saturation": sweep_dir / SATURATION_PLOT}
    for name, path in pictures.items():
        if path.is_file():
            logger.log_image(key=name, images=[str(path)])
    finish_wandb(int(any(row["status"] != "completed" for row in rows)))


def write_table(sweep_dir: Path) -> list[dict[str, str]]:
    """Write table and picture over the jobs of a sweep that have begun; return the rows.

    Jobs may do so at the same time: each looks again when it has written, so
    that the last table to be written has the last job to end.
    """
    from scvae_data.training.sweep_plot import sweep_plot  # here: a single run starts sooner without it

    rows: list[dict[str, str]] = []
    while (found := _rows(sweep_dir)) != rows:
        rows = found
        write_rows(sweep_dir / TABLE, COLUMNS, rows)
        sweep_plot(rows, sweep_dir / PLOT)
        write_saturation(sweep_dir, rows)
    return rows


def _rows(sweep_dir: Path) -> list[dict[str, str]]:
    from scvae_data.training.sweep_plot import best_row

    rows = [_row(sweep_dir / str(job["job"]), job) for job in jobs_of(sweep_dir)]
    if (best := best_row(rows)) is not None:
        rows[best]["best"] = "best"
    return rows


def _row(run_dir: Path, job: Mapping[str, Any]) -> dict[str, str]:
    """One job in words and numbers; what it did not measure is empty."""
    path = run_dir / "result.json"
    result = json.loads(path.read_text()) if path.is_file() else {}
    row = {name: result.get(OF_RESULT.get(name, name), "") for name in COLUMNS}
    row |= {name: job[name] for name in ("job", "status", "error")}
    row |= {"overrides": " ".join(job["overrides"]), "run_dir": run_dir.name}
    return {name: _text(row[name]) for name in COLUMNS}


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
        for name in _order(rows)
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


def _order(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """The columns with those first that the sweep is about."""
    from scvae_data.training.sweep_plot import is_about_loading

    behind = OF_LOADER if is_about_loading(rows) else ()
    front = [name for name in COLUMNS if name not in behind]
    at = front.index("val_loss")
    return [*front[:at], *behind, *front[at:]]


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


def _fault(error: BaseException) -> str:
    """The first line of an error, with its kind where the line alone says too little."""
    said, kind = first_line(error), type(error).__name__
    return f"{kind} {said}" if isinstance(error, (KeyError, StopIteration)) and said != kind else said


def _text(value: Any) -> str:
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else f"{value:.6g}"
    return str(value)
