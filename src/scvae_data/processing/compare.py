"""The scans of all files in; the account of equal cells, and scans without those that shall not be kept, out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scvae_data.errors import ConfigError
from scvae_data.processing.context import Context
from scvae_data.processing.duplicates import find_copies, n_parts, remove_copies, report_copies, restore_scan
from scvae_data.processing.report import total_lost
from scvae_data.processing.scan_result import ScanResult
from scvae_data.processing.survey import FileFacts
from scvae_data.processing.task import Task

__all__ = ["compare"]


def compare(context: Context, files: Sequence[FileFacts], results: Sequence[ScanResult]) -> list[ScanResult]:
    """Find cells that equal another one, and drop those that shall not be kept.

    Raises
    ------
    ConfigError
        No cell is left.
    """
    keep, work = context.keep_duplicates, context.work
    names = {number: file.source_file for number, file in enumerate(files)}
    np.save(work / "source_files.npy", np.array(list(names.values()), str))
    numbers, parts = [result.number for result in results], n_parts(sum(result.n_kept for result in results))
    tasks = [Task(find_copies, (work, numbers, part, parts, keep)) for part in range(parts)]
    context.summary.duplicates = report_copies(context.collect("compare", tasks, unit="part"), names, keep)
    if keep == "all" or not context.summary.duplicates["n_copies"]:
        for number in numbers:
            restore_scan(work, number)
        return list(results)
    return drop_copies(context, results, parts)


def drop_copies(context: Context, results: Sequence[ScanResult], parts: int) -> list[ScanResult]:
    """Make the runs of all files anew without the cells that shall not be kept."""
    tasks = [Task(remove_copies, (context.work, result, parts, context.qc.metrics)) for result in results]
    kept: list[ScanResult] = context.collect("drop copies", tasks, unit="file")
    context.summary.lost = total_lost(kept)
    if not any(result.n_kept for result in kept):
        raise ConfigError(f"keep_duplicates={context.keep_duplicates} leaves no cell: every cell equals another one")
    return kept
