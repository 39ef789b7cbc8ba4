"""Cells and files that are lost in; words on them, what stops a run, and the report of failed files, out."""

from __future__ import annotations

import heapq
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from scvae_data.errors import ScvaeDataError
from scvae_data.processing.facts import FailedFile, FileScan
from scvae_data.processing.run.context import Context
from scvae_data.processing.settings.qc import QcRules
from scvae_data.store.files import write_atomic, write_json
from scvae_data.wording import counted

__all__ = [
    "MAY_FAIL",
    "check_failures",
    "failure_table",
    "few_cells",
    "lost_text",
    "tell_failures",
    "total_lost",
    "warn_of_fractions",
    "warn_of_losses",
    "worst_files",
]

log = logging.getLogger(__name__)

MAY_FAIL = "leave them out or raise max_failed_fraction, then resume=true"
"""What to do where too many files failed."""
AS_THEY_SHOULD = ("not_control", "not_where", "other_species", "zero_counts")
FEW = 0.1
"""Share of the cells that is so small that a setting is likelier wrong than the cells."""


def check_failures(
    failed: Sequence[FailedFile], n_files: int, max_failed_fraction: float, report: Path | None = None
) -> None:
    """Refuse to go on where more files have failed than may.

    Raises
    ------
    ScvaeDataError
        With the first failure, and the ``report`` of all if one was written.
    """
    if not failed or (len(failed) <= max_failed_fraction * n_files and len(failed) < n_files):
        return
    if n_files == 1:
        raise ScvaeDataError(failed[0].message)
    everything = f"; all in {report}" if report else ""
    raise ScvaeDataError(
        f"{len(failed)} of {n_files} files failed, more than max_failed_fraction={max_failed_fraction:g} "
        f"allows; first: {failed[0].message}{everything}; {MAY_FAIL}"
    )


def tell_failures(
    context: Context, n_files: int, found: Sequence[FailedFile], earlier: Sequence[FailedFile] = ()
) -> list[FailedFile]:
    """Tell of files that a stage has failed on; stop where too many have. The report stays for the next try.

    Parameters
    ----------
    n_files
        Number of inputs.
    found, earlier
        Those that this stage failed on, and those of the stages before.

    Returns
    -------
    All of them, in order of their names.

    Raises
    ------
    ScvaeDataError
        As `check_failures`.
    """
    failed = sorted([*earlier, *found], key=lambda file: file.source_file)
    report, quarantine = context.directory / "failure_report.json", context.directory / "quarantine.txt"
    if not failed:
        for left in (report, quarantine):
            left.unlink(missing_ok=True)
        return failed
    write_atomic(quarantine, "".join(f"{file.path}\n" for file in failed).encode())
    write_json(
        report,
        {"format": "scvae-data failure report", "n_files": n_files, "failed": [vars(file) for file in failed]},
    )
    if found and n_files > 1:
        log.warning("%s of %s failed:\n%s", f"{len(found):,}", counted(n_files, "file"), failure_table(found))
    check_failures(failed, n_files, context.settings.max_failed_fraction, report)
    return failed


def failure_table(failed: Sequence[FailedFile], most: int = 20, indent: int = 2) -> str:
    """Lay failed files out as lines: file, reason, message."""
    lines = [
        f"{'':{indent}}{file.source_file}: {file.reason}: {file.message.removeprefix(f'{file.path}: ')}"
        for file in failed[:most]
    ]
    if len(failed) > most:
        lines.append(f"{'':{indent}}… and {len(failed) - most:,} more")
    return "\n".join(lines)


def lost_text(lost: Mapping[str, int]) -> str:
    """Return the rules that lost cells, e.g. ``"12 min_genes, 3 max_pct_counts_mt"``."""
    return ", ".join(f"{count:,} {rule}" for rule, count in lost.items() if count)


def fractions(qc: QcRules) -> list[str]:
    """Return the percentage limits that are set as if they were shares of one."""
    limits = [(name, getattr(qc, name)) for name in qc.percentages]
    return [name for name, limit in limits if limit is not None and 0 < limit <= 1]


def warn_of_fractions(qc: QcRules) -> None:
    """Warn of limits that are hardly meant as percentages."""
    for name in fractions(qc):
        log.warning("qc.%s=%g is %s", name, getattr(qc, name), in_per_cent(getattr(qc, name)))


def in_per_cent(value: float) -> str:
    """Say how a limit is read."""
    return f"{value:g} per cent of the counts; a share of {value:g} is written {100 * value:g}"


def few_cells(scans: Sequence[FileScan], qc: QcRules) -> str:
    """Say how few cells are kept, and by which rule most are lost; empty where they are not few.

    Cells that are no controls or of another species, and droplets without a count, are not counted: they are lost
    as they should be.
    """
    lost, n_obs = total_lost(scans), sum(scan.n_obs for scan in scans)
    by_rules = {rule: count for rule, count in lost.items() if rule not in AS_THEY_SHOULD}
    n_kept = n_obs - sum(lost.values())
    n_judged = n_kept + sum(by_rules.values())
    if n_kept >= FEW * n_judged:
        return ""
    rule = max(by_rules, key=lambda name: by_rules[name])
    limit = f"qc.{rule}={value:g}" if isinstance(value := getattr(qc, rule, None), int | float) else rule
    unit = f" ({in_per_cent(getattr(qc, rule))})" if rule in fractions(qc) else ""
    return f"only {n_kept:,} of {counted(n_judged, 'cell')} are kept, {lost[rule]:,} are lost by {limit}{unit}"


def warn_of_losses(scans: Sequence[FileScan], qc: QcRules) -> None:
    """Warn where hardly a cell is kept."""
    if text := few_cells(scans, qc):
        log.warning("%s", text)


def worst_files(scans: Sequence[FileScan], most: int = 5) -> list[tuple[str, int, dict[str, int]]]:
    """Return name, cells and losses per rule of the files that lost the largest shares of their cells, the worst first.

    Files that lost none are not among them. What is lost as it should be does not make a file bad.
    """

    def share(scan: FileScan) -> float:
        return sum(n for rule, n in scan.lost.items() if rule not in AS_THEY_SHOULD) / max(scan.n_obs, 1)

    worst = heapq.nlargest(most, scans, key=share)
    return [(scan.source_file, scan.n_obs, dict(scan.lost)) for scan in worst if share(scan)]


def total_lost(scans: Sequence[FileScan]) -> dict[str, int]:
    """Return the cells lost per rule over all files."""
    lost: Counter[str] = Counter()
    for scan in scans:
        lost.update(scan.lost)
    return dict(lost)
