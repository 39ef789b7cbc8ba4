"""How many CPU cores this process may use."""

from __future__ import annotations

import os

__all__ = ["n_cpus"]


def n_cpus() -> int:
    """Return the cores that this process may run on: those of its container or job where the system tells, else all."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
