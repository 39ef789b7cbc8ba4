"""Settings, and the files that stages fail on, in; what stops a run, and the report of failed files, out."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from scvae_data.errors import ScvaeDataError
from scvae_data.processing.run.context import Context
from scvae_data.processing.run.summary import FailedFile
from scvae_data.processing.settings.qc import GENE_CLASSES, QcRules
from scvae_data.store.files import write_atomic, write_json
from scvae_data.wording import counted

__all__ = [
    "MAY_FAIL",
    "check_failures",
    "failure_table",
    "few_cells",
    "lost_text",
    "tell_failures",
    "warn_of_fractions",
    "warn_of_losses",
]

log = logging.getLogger(__name__)


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


def tell_failures(context: Context, found: Sequence[FailedFile]) -> None:
    """Tell of files that a stage has failed on; stop where too many have. The report stays for the next try.

    Raises
    ------
    ScvaeDataError
        As `check_failures`.
    """
    failed = sorted([*context.summary.failed, *found], key=lambda file: file.source_file)
    context.summary.failed[:] = failed
    n_files = context.summary.n_files
    report, quarantine = context.directory / "failure_report.json", context.directory / "quarantine.txt"
    if not failed:
        for earlier in (report, quarantine):
            earlier.unlink(missing_ok=True)
        return
    write_atomic(quarantine, "".join(f"{file.path}\n" for file in failed).encode())
    write_json(
        report,
        {"format": "scvae-data failure report", "n_files": n_files, "failed": [vars(file) for file in failed]},
    )
    if found and n_files > 1:
        log.warning("%d of %s failed:\n%s", len(found), counted(n_files, "file"), failure_table(found))
    check_failures(failed, n_files, context.max_failed_fraction, report)


MAY_FAIL = "leave them out or raise max_failed_fraction, then resume=true"
"""What to do where too many files failed."""


def failure_table(failed: Sequence[FailedFile], most: int = 20, indent: int = 2) -> str:
    """Lay failed files out as lines: file, reason, message."""
    lines = [f"{'':{indent}}{file.source_file}: {file.reason}: {file.message}" for file in failed[:most]]
    if len(failed) > most:
        lines.append(f"{'':{indent}}… and {len(failed) - most:,} more")
    return "\n".join(lines)


FEW = 0.1
"""Share of the cells that is so small that a setting is likelier wrong than the cells."""


def lost_text(lost: Mapping[str, int]) -> str:
    """Return the rules that lost cells, e.g. ``"12 min_genes, 3 max_pct_counts_mt"``."""
    return ", ".join(f"{count:,} {rule}" for rule, count in lost.items() if count)


def fractions(qc: QcRules) -> list[str]:
    """Return the percentage limits that are set as if they were shares of one."""
    names = [f"max_pct_counts_{name}" for name in GENE_CLASSES]
    return [name for name in names if getattr(qc, name) is not None and 0 < getattr(qc, name) <= 1]


def warn_of_fractions(qc: QcRules) -> None:
    """Warn of limits that are hardly meant as percentages."""
    for name in fractions(qc):
        log.warning("qc.%s=%g is %s", name, getattr(qc, name), in_per_cent(getattr(qc, name)))


def in_per_cent(value: float) -> str:
    """Say how a limit is read."""
    return f"{value:g} per cent of the counts; a share of {value:g} is written {100 * value:g}"


def few_cells(lost: Mapping[str, int], n_obs: int, qc: QcRules) -> str:
    """Say how few cells are kept, and by which rule most are lost; empty where they are not few.

    Cells that are no controls and droplets without a count are not counted: they are lost as they should be.

    Parameters
    ----------
    lost
        Cells not kept, per rule.
    n_obs
        All cells.
    """
    by_rules = {rule: count for rule, count in lost.items() if rule not in ("not_control", "zero_counts")}
    n_kept = n_obs - sum(lost.values())
    n_judged = n_kept + sum(by_rules.values())
    if n_kept >= FEW * n_judged:
        return ""
    rule = max(by_rules, key=lambda name: by_rules[name])
    limit = f"qc.{rule}={value:g}" if isinstance(value := getattr(qc, rule, None), int | float) else rule
    unit = f" ({in_per_cent(getattr(qc, rule))})" if rule in fractions(qc) else ""
    return f"only {n_kept:,} of {counted(n_judged, 'cell')} are kept, {lost[rule]:,} are lost by {limit}{unit}"


def warn_of_losses(lost: Mapping[str, int], n_obs: int, qc: QcRules) -> None:
    """Warn where hardly a cell is kept."""
    if text := few_cells(lost, n_obs, qc):
        log.warning("%s", text)
