"""The headers of all files in; the scans of those whose counts can be read out, in order of the files' names."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

from scvae_data.errors import ConfigError
from scvae_data.processing.engine.task import Failure, Task, stop_without_room
from scvae_data.processing.facts import FileFacts, ScanResult
from scvae_data.processing.run.context import Context
from scvae_data.processing.run.losses import lost_text, tell_failures, warn_of_losses
from scvae_data.processing.run.records import total_lost
from scvae_data.processing.run.summary import FailedFile
from scvae_data.processing.scan.file import scan_file
from scvae_data.processing.scan.job import ScanJob
from scvae_data.processing.sort.key import OrderKey
from scvae_data.processing.survey.stage import Headers
from scvae_data.progress import progress
from scvae_data.wording import counted

__all__ = ["scan_inputs"]

log = logging.getLogger(__name__)


def scan_inputs(context: Context, headers: Headers) -> list[ScanResult]:
    """Scan every file; the results come back in order of the files' names.

    Raises
    ------
    ScvaeDataError
        More files failed than may, or no cell is left.
    """
    results = scan_all(context, headers.files, scan_tasks(context, headers))
    context.summary.n_obs_in = sum(result.n_obs for result in results)
    context.summary.lost = total_lost(results)
    check_cells_left(context, results)
    warn_of_empty_files(results)
    warn_of_losses(context.summary.lost, context.summary.n_obs_in, context.qc)
    return results


def scan_tasks(context: Context, headers: Headers) -> list[Task]:
    """Return the scan of every file as a task."""
    order = OrderKey(context.seed, context.chunking.order, context.chunking.group_column)
    job = ScanJob(
        context.work, len(headers.universe.keys), context.qc, context.control, order, context.inputs.obs_columns,
        context.inputs.count_tolerance, context.inputs.limits,
    )  # fmt: skip
    meanings = headers.universe.meanings()
    seen: Counter[str] = Counter()
    tasks = []
    for number, file in enumerate(headers.files):
        rank = max((seen[accession] for accession in file.accessions), default=0)
        seen.update(file.accessions)
        tasks.append(Task(scan_file, (job, file, number, rank, [meanings[slot.table] for slot in file.slots])))
    return tasks


def scan_all(context: Context, files: Sequence[FileFacts], tasks: Sequence[Task]) -> list[ScanResult]:
    """Run the scans; tell of files that are left out, and stop where too many failed."""
    results: dict[int, ScanResult] = {}
    dropped: list[str] = []
    failed: list[FailedFile] = []
    for number, outcome in progress(context.engine.run(tasks), total=len(tasks), desc="scan"):
        stop_without_room(outcome)
        if not isinstance(outcome, Failure):
            results[number] = outcome
        elif outcome.reason == "no_control_column" and context.control and context.control.missing == "drop_file":
            dropped.append(files[number].source_file)
        else:
            file = files[number]
            failed.append(FailedFile.of(file.source_file, "scan", outcome, file.path))
    if dropped:
        log.warning("left out, without a control column: %s, e.g. %s", counted(len(dropped), "file"), min(dropped))
    tell_failures(context, failed)
    return [results[number] for number in sorted(results)]


def check_cells_left(context: Context, results: Sequence[ScanResult]) -> None:
    """Refuse to go on where every cell is lost."""
    if any(result.n_kept for result in results):
        return
    summary = context.summary
    remedy = "relax qc, e.g. qc=none"
    if summary.lost.get("not_control") == summary.n_obs_in:
        remedy = "set control.values to values that the control column has"
    raise ConfigError(f"no cell of {summary.n_obs_in:,} is left ({lost_text(summary.lost)}); {remedy}")


def warn_of_empty_files(results: Sequence[ScanResult], most: int = 5) -> None:
    """Warn of files that have cells and lose all of them."""
    empty = [result for result in results if result.n_obs and not result.n_kept]
    if empty:
        named = ", ".join(f"{result.source_file} ({lost_text(result.lost)})" for result in empty[:most])
        log.warning("no cell is kept of %s: %s", counted(len(empty), "file"), named)
