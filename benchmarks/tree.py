"""A command in, its wall time and the peak memory of its whole process tree out."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass

import psutil

__all__ = ["Measured", "measure"]

PERIOD = 0.05


@dataclass(frozen=True)
class Measured:
    """One run: its seconds, and its memory at the worst moment, in bytes.

    Pages that several processes share count once for each in ``peak_rss``,
    once in all in ``peak_pss``.
    """

    seconds: float
    peak_rss: int
    peak_pss: int
    output: str


def measure(command: Sequence[str], env: dict[str, str] | None = None, *, pss: bool = False) -> Measured:
    """Run a command to its end; raises RuntimeError with its output where it fails. ``pss`` costs some time.

    Modules that Python has compiled are kept: packages that are installed come compiled, and ours shall be no worse.
    What commands before it left for the disk to write is written first.
    """
    kept = {key: value for key, value in (env or os.environ).items() if key != "PYTHONDONTWRITEBYTECODE"}
    os.sync()
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=kept) as process:
        peak = peak_pss = 0
        root = psutil.Process(process.pid)
        while process.poll() is None:
            peak = max(peak, tree_memory(root))
            if pss:
                peak_pss = max(peak_pss, tree_memory(root, "pss"))
            time.sleep(PERIOD)
        seconds = time.perf_counter() - started
        output = process.stdout.read() if process.stdout else ""
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with status {process.returncode}:\n{output}")
    return Measured(seconds, peak, peak_pss, output)


def tree_memory(root: psutil.Process, kind: str = "rss") -> int:
    """Sum the memory of a process and its descendants, as far as they still run."""
    total = 0
    try:
        for process in [root, *root.children(recursive=True)]:
            try:
                info = process.memory_full_info() if kind == "pss" else process.memory_info()
                total += getattr(info, kind)
            except (psutil.NoSuchProcess, psutil.AccessDenied):  # a process that ends denies it
                continue
    except psutil.NoSuchProcess:
        return total
    return total
