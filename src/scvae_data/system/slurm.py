"""The SLURM job that this process is a part of, if any: its name, whether it has been requeued, and requeueing it."""

from __future__ import annotations

import os
import shutil
import subprocess
import zlib
from collections.abc import Sequence

__all__ = ["job_name", "requeue", "was_requeued"]


def job_id() -> str:
    """Return the job's id, with the task's number for one of an array; empty outside a job."""
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        return f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ.get("SLURM_JOB_ID", "")


def job_name(arguments: Sequence[str]) -> str:
    """Return a name for what a command of a job does: the same for all its tasks, and when the job starts again.

    Parameters
    ----------
    arguments
        Of the command: a job may have several.
    """
    if not job_id():
        return ""
    step = os.environ.get("SLURM_STEP_ID", "")
    words = "\0".join(arguments).encode()
    return f"slurm-{job_id()}{f'.{step}' if step.isdigit() and int(step) < 2**31 else ''}-{zlib.crc32(words):08x}"


def was_requeued() -> bool:
    """Whether the job has been started again."""
    return bool(job_id()) and int(os.environ.get("SLURM_RESTART_COUNT") or 0) > 0


def requeue() -> str:
    """Put the job back into the queue; return what became of that, in words."""
    program = shutil.which("scontrol")
    if program is None:
        return f"job {job_id()} cannot be put back into the queue: there is no scontrol here"
    done = subprocess.run([program, "requeue", job_id()], capture_output=True, text=True)  # noqa: S603 - SLURM's own
    said = " ".join(done.stderr.split())
    if done.returncode:
        return f"job {job_id()} cannot be put back into the queue: {said}; submit it again"
    return f"job {job_id()} is back in the queue, and continues when it starts again"
