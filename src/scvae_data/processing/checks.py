"""Settings, and the files that stages fail on, in; what stops a run, and the report of failed files, out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from scvae_data.errors import ConfigError, ScvaeDataError
from scvae_data.processing.context import Context
from scvae_data.processing.control import ControlSubset
from scvae_data.processing.duplicates import KEEP
from scvae_data.processing.report import MAY_FAIL, FailedFile, failure_table
from scvae_data.store.files import write_atomic, write_json
from scvae_data.wording import counted

__all__ = ["check_failures", "check_settings", "tell_failures"]

log = logging.getLogger(__name__)


def check_settings(max_failed_fraction: float, keep_duplicates: str, control: ControlSubset | None) -> None:
    """Refuse settings that no inputs can suit.

    Parameters
    ----------
    max_failed_fraction, keep_duplicates
        As of :func:`~scvae_data.processing.pipeline.run`.
    control
        None where all cells are wanted.

    Raises
    ------
    ConfigError
        With the key and what it may be.
    """
    if not 0 <= max_failed_fraction <= 1:
        raise ConfigError(f"max_failed_fraction={max_failed_fraction} must be a share from 0 to 1")
    if keep_duplicates not in KEEP:
        raise ConfigError(f"keep_duplicates={keep_duplicates!r} must be one of {', '.join(KEEP)}")
    if control is not None and not control.columns:
        raise ConfigError("control.column is an empty list; name the obs column that tells controls")


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
