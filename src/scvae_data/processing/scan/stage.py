"""The headers of all files in; the scans of those whose counts can be read out, in order of the files' names."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from scvae_data.errors import ConfigError
from scvae_data.processing.engine.task import Failure, Outcome, Task, stop_without_room
from scvae_data.processing.facts import FailedFile, FileScan
from scvae_data.processing.run.context import Context
from scvae_data.processing.run.losses import lost_text, tell_failures, total_lost, warn_of_losses
from scvae_data.processing.run.rules import tell_unapplied, unapplied_rules
from scvae_data.processing.scan.file import scan_file
from scvae_data.processing.scan.job import ScanJob
from scvae_data.processing.settings.inputs import Origin
from scvae_data.processing.sort.key import OrderKey
from scvae_data.processing.survey.notes import tell_by_kind
from scvae_data.processing.survey.stage import Surveyed
from scvae_data.progress import progress
from scvae_data.remote.fetched import FetchAhead, scratch_folder
from scvae_data.remote.location import is_remote, location
from scvae_data.wording import counted

__all__ = ["Scanned", "scan"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scanned:
    """All that is known once every count is read.

    Parameters
    ----------
    scans
        Of the files whose counts can be read, in order of the files' names.
    failed
        All inputs that are not in the directory, and why.
    """

    scans: list[FileScan]
    failed: list[FailedFile]


def scan(context: Context, surveyed: Surveyed) -> Scanned:
    """Scan every file.

    Raises
    ------
    ScvaeDataError
        More files failed than may, or no cell is left.
    """
    scanned = scan_all(context, surveyed, scan_tasks(context, surveyed))
    check_cells_left(scanned.scans)
    warn_of_empty_files(scanned.scans)
    tell_unmatched(scanned.scans, "obs_metadata" if context.settings.input.cell_metadata else "input.obs_table")
    tell_unscored(scanned.scans)
    warn_of_losses(scanned.scans, context.settings.qc)
    of_files = {one.source_file: one.table for one in scanned.scans}
    qc = context.settings.qc
    tell_unapplied(qc, unapplied_rules(qc, surveyed.universe, of_files), context.work.tables)
    return scanned


def scan_tasks(context: Context, surveyed: Surveyed) -> list[Task]:
    """Return the scan of every file as a task."""
    settings, inputs = context.settings, context.settings.input
    order = OrderKey(settings.seed, settings.chunking.order, settings.chunking.group_column)
    job = ScanJob(
        work=context.work,
        n_genes=len(surveyed.universe.keys),
        qc=settings.qc,
        control=settings.control,
        order=order,
        obs_columns=inputs.obs_columns,
        count_tolerance=inputs.count_tolerance,
        numeric_columns=tuple(inputs.numeric_columns),
        missing_labels=tuple(inputs.missing_labels),
        obs_table=str(inputs.of_content.get("obs_table", "")),
        cell_metadata=inputs.cell_metadata,
        obs_names=tuple(inputs.obs_names.items()),
        where=inputs.cells_where,
        origins=first_origins(inputs.origins, len(surveyed.files)),
        opening=inputs.opening,
        scratch=scratch_folder(context.work.fetched, inputs.scratch_gb),
    )
    meanings = surveyed.universe.meanings()
    seen: Counter[str] = Counter()
    tasks = []
    for number, file in enumerate(surveyed.files):
        rank = max((seen[accession] for accession in file.accessions), default=0)
        seen.update(file.accessions)
        tasks.append(Task(scan_file, (job, file, number, rank, [meanings[slot.table] for slot in file.slots])))
    return tasks


def first_origins(origins: Sequence[Origin], n_files: int) -> tuple[tuple[str, int], ...]:
    """Return the number of the first input of each directory, counted on from the inputs of this run."""
    first: dict[str, int] = {}
    for number, origin in enumerate(origins, start=n_files):
        first.setdefault(origin.directory, number)
    return tuple(first.items())


def scan_all(context: Context, surveyed: Surveyed, tasks: Sequence[Task]) -> Scanned:
    """Run the scans; tell of files that are left out, and stop where too many failed."""
    scans: dict[int, FileScan] = {}
    dropped: list[str] = []
    failed: list[FailedFile] = []
    control = context.settings.control
    for number, outcome in fetching(context, surveyed, tasks):
        stop_without_room(outcome)
        file = surveyed.files[number]
        if not isinstance(outcome, Failure):
            scans[number] = outcome
        elif outcome.reason == "no_control_column" and control and control.missing == "drop_file":
            dropped.append(file.source_file)
        else:
            failed.append(FailedFile.of(file.source_file, "scan", outcome, file.path))
    if dropped:
        log.warning("left out, without a control column: %s, e.g. %s", counted(len(dropped), "file"), min(dropped))
    found = [scans[number] for number in sorted(scans)]
    tell_by_kind(logging.INFO, [(scan.source_file, evidence_text(scan)) for scan in found if scan.evidence])
    tell_by_kind(logging.WARNING, [(scan.source_file, renamed_text(scan)) for scan in found if scan.n_renamed])
    failed = tell_failures(context, surveyed.n_files, failed, surveyed.failed)
    return Scanned(found, failed)


def fetching(context: Context, surveyed: Surveyed, tasks: Sequence[Task]) -> Iterator[tuple[int, Outcome]]:
    """Run the scans, while remote files that come next are fetched."""
    inputs, work = context.settings.input, context.work
    unread = [
        (number, location(file.path))
        for number, file in enumerate(surveyed.files)
        if is_remote(file.path) and not work.scan(number).done.exists()
    ]
    scratch = scratch_folder(work.fetched, inputs.scratch_gb)
    with FetchAhead(unread, scratch, inputs.fetch_ahead) as ahead:
        for number, outcome in progress(context.engine.run(tasks), total=len(tasks), desc="scan"):
            ahead.done(number)
            yield number, outcome


def evidence_text(scan: FileScan) -> str:
    """Say which matrix of a file was taken, and why."""
    return f"counts are those of {scan.slot}; {'; '.join(scan.evidence)}"


def renamed_text(scan: FileScan) -> str:
    """Say how many cells have a name that another one of their file has, and what they are called."""
    return (
        f"{scan.n_renamed:,} of {counted(scan.n_obs, 'cell')} have the name of an earlier one; they are called with "
        "-1, -2, … behind it; give samples that were joined as files of their own"
    )


def check_cells_left(scans: Sequence[FileScan]) -> None:
    """Refuse to go on where every cell is lost."""
    if any(scan.n_kept for scan in scans):
        return
    lost, n_obs = total_lost(scans), sum(scan.n_obs for scan in scans)
    remedy = "relax qc, e.g. qc=none"
    if lost.get("not_where") == n_obs:
        remedy = "input.where is true of none"
    if lost.get("not_control") == n_obs:
        remedy = "set control.values to values that the control column has"
    raise ConfigError(f"no cell of {n_obs:,} is left ({lost_text(lost)}); {remedy}")


def warn_of_empty_files(scans: Sequence[FileScan], most: int = 5) -> None:
    """Warn of files that have cells and lose all of them."""
    empty = [scan for scan in scans if scan.n_obs and not scan.n_kept]
    if empty:
        named = ", ".join(f"{scan.source_file} ({lost_text(scan.lost)})" for scan in empty[:most])
        log.warning("no cell is kept of %s: %s", counted(len(empty), "file"), named)


def tell_unmatched(scans: Sequence[FileScan], table: str, most: int = 5) -> None:
    """Warn of cells that the table of cells has no row for, and of its rows that are of no cell, file by file."""
    apart = [scan for scan in scans if scan.unmatched.get("cells") or scan.unmatched.get("rows")]
    for scan in apart[:most]:
        found = scan.unmatched
        examples = ", ".join(
            f"e.g. {where} {found[one]}" for one, where in (("cell", "cell"), ("row", "row")) if found[one] is not None
        )
        log.warning(
            "%s: %s: %s of %s without a row, %s without a cell, %s",
            table, scan.source_file, f"{found['cells']:,}", counted(scan.n_obs, "cell"), counted(found["rows"], "row"),
            examples,
        )  # fmt: skip
    if len(apart) > most:
        n_cells, n_rows = (sum(scan.unmatched[what] for scan in apart) for what in ("cells", "rows"))
        log.warning(
            "%s: %s in all, %s without a row, %s without a cell; chunk_summary.json lists them",
            table, counted(len(apart), "such file"), counted(n_cells, "cell"), counted(n_rows, "row"),
        )  # fmt: skip


def tell_unscored(scans: Sequence[FileScan], most: int = 5) -> None:
    """Warn of experiments whose doublets are not known."""
    without = []
    for scan in scans:
        for one in scan.experiments:
            if one.get("unscored"):
                without.append(f"{scan.source_file} ({one['accession']}): {one['unscored']}; no doublet scores")
            elif one.get("n_scored") and one["doublet_threshold"] is None:
                without.append(
                    f"{scan.source_file} ({one['accession']}): scrublet finds no threshold between its singlets and "
                    "doublets; none is predicted"
                )
    for text in without[:most]:
        log.warning("qc.doublets: %s", text)
    if len(without) > most:
        log.warning(
            "qc.doublets: so it is with %s; experiments.parquet has all",
            counted(len(without) - most, "more experiment"),
        )
