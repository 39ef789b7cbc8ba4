"""Many runs in, few runs out: an output chunk then touches a bounded number of files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from scvae_data.processing.decide.decision import Decision, load_decision
from scvae_data.processing.engine.task import Task
from scvae_data.processing.run.context import Context
from scvae_data.processing.sort.gather import gather
from scvae_data.processing.sort.packed import pack_rows
from scvae_data.processing.sort.sorted_run import MAX_RUNS, SortedRunWriter, open_runs
from scvae_data.processing.work import WorkFolder
from scvae_data.store.files import read_note, write_note

__all__ = ["merge", "merge_groups", "merge_runs"]

PIECE_BYTES = 8 << 20
"""Of packed rows that are merged at once."""
SAMPLES = 16
"""Keys that are looked at for each of these pieces."""


def merge(context: Context, decision: Decision) -> Decision:
    """Merge runs until a chunk touches few enough of them."""
    level = 0
    while groups := merge_groups(decision.runs):
        digest = decision.save(context.work)
        tasks = [
            Task(merge_runs, (context.work, digest, group, context.work.merged_run(digest, level, number)))
            for number, group in enumerate(groups)
        ]
        decision = replace(decision, runs=context.collect("merge", tasks, unit="run"))
        level += 1
    return decision


def merge_groups(runs: Sequence[str]) -> list[list[str]]:
    """Split runs into groups to merge; no group where there are few enough."""
    if len(runs) <= MAX_RUNS:
        return []
    return [list(runs[start : start + MAX_RUNS]) for start in range(0, len(runs), MAX_RUNS)]


def merge_runs(work: WorkFolder, digest: str, group: Sequence[str], target: str) -> str:
    """Merge a group of runs into one, in memory that does not grow with their rows; an existing whole target is kept.

    Rows come out in the directory's schema; genes keep the universe's numbering.
    """
    path = work.path / target
    note = path.with_suffix(".json")
    if read_note(note).get("rows_of") == list(group):
        return target
    decision: Decision = load_decision(work, digest)
    path.parent.mkdir(parents=True, exist_ok=True)
    identity = np.arange(decision.n_universe, dtype=np.int32)
    kept_only = np.where(decision.gene_map >= 0, identity, -1).astype(np.int32)
    bounds = piece_bounds(work, group)
    writer = None
    for low, high in zip(bounds, [*bounds[1:], None], strict=True):
        with open_runs(work, group) as runs:  # anew for each piece: what was read of their mappings goes with them
            rows = gather(
                runs, low, high, kept_only, decision.schema,
                sort_by="key", n_genes=decision.n_universe, max_count=decision.max_count,
            )  # fmt: skip
            if not len(rows.keys):
                continue
            writer = writer or SortedRunWriter(path, rows.obs.schema, decision.n_universe)
            (x,) = rows.parts(int(rows.indptr[-1]))
            packed = pack_rows(x.indptr, x.indices, x.data.astype(np.uint32, copy=False))
            writer.append(rows.keys, *packed, rows.obs, totals=(rows.totals, np.diff(x.indptr)))
    if writer is None:
        raise ValueError(f"{target}: no row to merge")
    writer.close()
    write_note(note, {"rows_of": list(group)}, writer.files)
    return target


def piece_bounds(work: WorkFolder, group: Sequence[str]) -> list[int]:
    """Return the lowest key of each piece that is merged at once, of about `PIECE_BYTES`, by a sample of all keys."""
    with open_runs(work, group) as runs:
        n_bytes = sum(int(run.array("starts")[-1]) for run in runs)
        step = max(1, sum(run.n_rows for run in runs) * PIECE_BYTES // max(n_bytes, 1))
        keys = np.sort(np.concatenate([run.some_keys(max(1, step // SAMPLES)) for run in runs]))
        return [int(key) for key in np.unique(keys[:: min(step, SAMPLES)])]
