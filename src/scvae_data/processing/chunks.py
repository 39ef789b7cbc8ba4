"""A plan in; the chunk files of all its ranges, or of some, out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from scvae_data.processing.context import Context
from scvae_data.processing.plan import Plan
from scvae_data.processing.task import Task
from scvae_data.processing.write import WriteJob, write_obs_of, write_one
from scvae_data.store import ChunkEntry

__all__ = ["write_chunks", "write_obs_of_chunks"]


def write_chunks(context: Context, plan: Plan, numbers: Sequence[int] | None = None) -> list[ChunkEntry]:
    """Write all chunks, or those of some numbers; their entries come back in order."""
    chosen = range(len(plan.ranges)) if numbers is None else numbers
    tasks = write_tasks(context, plan, write_one, chosen)
    return [ChunkEntry(**plain) for plain in context.collect("write", tasks, unit="chunk")]


def write_obs_of_chunks(context: Context, plan: Plan) -> None:
    """Write nothing but the obs of all chunks, for the table of all cells."""
    tasks = write_tasks(context, plan, write_obs_of, range(len(plan.ranges)))
    context.collect("obs", tasks, unit="chunk")


def write_tasks(context: Context, plan: Plan, function: Any, numbers: Sequence[int]) -> list[Task]:
    """Return a call of the function for each chunk as a task."""
    chunking = context.chunking
    # Threads help where processes leave cores idle; the bytes do not depend on them.
    n_threads = 2 if context.engine.n_workers == 1 else 1
    job = WriteJob(
        context.work, context.directory, plan.digest, chunking.codec, chunking.block_elements,
        "hash" if chunking.order == "hash" else "key", n_threads, f"{plan.digest}:{chunking}",
    )  # fmt: skip
    return [Task(function, (job, number, plan.ranges[number])) for number in numbers]
