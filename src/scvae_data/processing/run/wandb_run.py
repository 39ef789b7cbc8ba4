"""A W&B run of processing: progress while it works; attrition, timings and the dataset when it is done."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any

from scvae_data.processing.run.summary import Summary
from scvae_data.progress import watched
from scvae_data.store import open_index
from scvae_data.store.files import read_json
from scvae_data.store.names import generation_file
from scvae_data.tracking import log_dataset, tracked

__all__ = ["wandb_run"]

Table = tuple[list[str], list[list[Any]]]
"""Names of columns, and rows."""
MAX_FILES = 10_000  # rows of the table of files; W&B shows no more
EVERY = 2.0  # seconds between rows of progress


@contextmanager
def wandb_run(config: Mapping[str, Any]) -> Iterator[Callable[[Summary], None]]:
    """Log what happens inside as a W&B run, which ends with the exit status of what happens.

    Parameters
    ----------
    config
        Of ``process.py``, resolved. Without ``logger.wandb`` nothing is logged.

    Yields
    ------
    To be called with the summary of the finished run.
    """
    with tracked(config, "process") as run:
        if run is None:
            yield lambda summary: None
            return
        with watched(ProgressLog(run)):
            yield lambda summary: log_summary(run, summary)


class ProgressLog:
    """A row of ``progress/STAGE``, 0 to 1, every few seconds and at the end of each stage."""

    def __init__(self, run: Any) -> None:
        self.run = run
        self._last = time.monotonic()

    def __call__(self, desc: str, done: int, total: int | None) -> None:
        """Take note of an item that is done."""
        now = time.monotonic()
        if total and (done == total or now - self._last >= EVERY):
            self._last = now
            self.run.log({f"progress/{desc.replace(' ', '_')}": done / total})


def log_summary(run: Any, summary: Summary) -> None:
    """Log what was kept, what was lost to which rule, how long it took, and the directory."""
    import wandb

    index = open_index(summary.processed_dir)
    if not summary.left_alone:
        run.summary.update(numbers(summary))
        account = generation_file("chunk_summary.json", len(index.generations) - 1)
        attrition = read_json(summary.processed_dir / account)["attrition"]
        tables = {"attrition": attrition_by_rule(summary), "files": attrition_by_file(attrition)}
        run.log({name: wandb.Table(columns=columns, data=rows) for name, (columns, rows) in tables.items()})
    log_dataset(run, index, "output")


def numbers(summary: Summary) -> dict[str, float]:
    """Size, speed and losses of a run as flat names."""
    seconds = sum(summary.seconds.values())
    return {
        "files": summary.n_files,
        "files_failed": len(summary.failed),
        "cells_in": summary.n_obs_in,
        "cells": summary.n_obs,
        "genes_in": summary.n_genes_in,
        "genes": summary.n_vars,
        "counts": summary.nnz,
        "chunks": summary.n_chunks,
        "bytes": summary.bytes,
        "peak_rss_bytes": summary.peak_rss,
        "cells_per_s": summary.n_obs_in / max(seconds, 1e-9),
        **{f"lost/{rule}": count for rule, count in summary.lost.items()},
        **{f"seconds/{stage}": round(stage_seconds, 3) for stage, stage_seconds in summary.seconds.items()},
    }


def attrition_by_rule(summary: Summary) -> Table:
    """Cells before any rule, lost to each, and kept; with their shares."""
    counts = {"in": summary.n_obs_in, **summary.lost, "kept": summary.n_obs}
    return ["rule", "cells", "share"], [[name, n, n / max(summary.n_obs_in, 1)] for name, n in counts.items()]


def attrition_by_file(attrition: Mapping[str, Any]) -> Table:
    """The same for the first ``MAX_FILES`` files, from the ``attrition`` of ``chunk_summary.json``."""
    columns = {name: attrition[name] for name in ("source_file", "n_obs_in", "n_obs_kept")}
    columns |= attrition["lost"] | {"seconds": attrition["seconds"]}
    rows = islice(zip(*columns.values(), strict=True), MAX_FILES)
    return list(columns), [list(row) for row in rows]
