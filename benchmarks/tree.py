"""A command in, its wall time and the peak memory of its whole process tree out."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass

import psutil

__all__ = ["Measured", "measure"]

PERIOD = 0.05


@dataclass(frozen=True)
class Measured:
    """One run: seconds, and bytes resident in all its processes at the worst moment (shared pages count once each)."""

    seconds: float
    peak_rss: int
    output: str


def measure(command: Sequence[str], env: dict[str, str] | None = None) -> Measured:
    """Run a command to its end; raises RuntimeError with its output where it fails."""
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env) as process:
        peak = 0
        root = psutil.Process(process.pid)
        while process.poll() is None:
            peak = max(peak, tree_rss(root))
            time.sleep(PERIOD)
        seconds = time.perf_counter() - started
        output = process.stdout.read() if process.stdout else ""
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with status {process.returncode}:\n{output}")
    return Measured(seconds, peak, output)


def tree_rss(root: psutil.Process) -> int:
    """Sum the resident memory of a process and its descendants, as far as they still run."""
    total = 0
    try:
        for process in [root, *root.children(recursive=True)]:
            try:
                total += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
    except psutil.NoSuchProcess:
        return total
    return total
