"""Seconds to compile each kernel, and from a new process to the first batch with none and with all of them compiled.

The kernels are those that default runs of process.py and train.py call, compiled one after the other in one process.
Each line below them is a process of its own. numba keeps compiled code in a folder made
for this run: empty for the first process of each format, filled by it for the next.

    python benchmarks/start.py                            # 20,000 simulated cells, made once
    python benchmarks/start.py --data DIR                 # a directory that process.py wrote
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any


def measure(data: str, x_format: str) -> None:
    """Load one batch and print what each step took."""
    times = [time.perf_counter()]
    from scvae_data import ChunkedDataModule

    times.append(time.perf_counter())
    module = ChunkedDataModule(data, x_format=x_format)  # type: ignore[arg-type]
    module.setup()
    times.append(time.perf_counter())
    batches = iter(module.train_dataloader())
    next(batches)
    times.append(time.perf_counter())
    batches.close()  # type: ignore[attr-defined]
    print(json.dumps([end - start for start, end in pairwise(times)]))


def measure_kernels() -> None:
    """Compile all kernels and print what each took, with what it calls."""
    from numba.core import event

    from scvae_data.commands.compile import main as compile_all

    class Clock(event.Listener):  # type: ignore[misc]
        def __init__(self) -> None:
            self.begun: list[float] = []
            self.kernels: list[tuple[float, str, str]] = []

        def on_start(self, event: Any) -> None:
            self.begun.append(time.perf_counter())

        def on_end(self, event: Any) -> None:
            seconds = time.perf_counter() - self.begun.pop()
            if not self.begun:  # else it is part of the one that calls it
                function = event.data["dispatcher"].py_func
                types = re.sub(r"array\((\w+), (\d)d, C\)", r"\1[\2d]", ", ".join(map(str, event.data["args"])))
                self.kernels.append((seconds, f"{function.__module__.partition('.')[2]}.{function.__name__}", types))

    clock = Clock()
    event.register("numba:compile", clock)
    compile_all([])
    print(json.dumps(clock.kernels))


def child(cache: str, *arguments: str) -> Any:
    """Run this program in a new process; return what it printed."""
    answer = subprocess.run(
        [sys.executable, __file__, *arguments],
        env={**os.environ, "NUMBA_CACHE_DIR": cache}, check=True, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    return json.loads(answer.stdout)


def main() -> None:
    """Print a line per kernel, then one per process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=None, help="a dataset directory")
    parser.add_argument("--repeats", type=int, default=3, help="processes with compiled code")
    parser.add_argument("--case", nargs=2, default=None, help=argparse.SUPPRESS)
    parser.add_argument("--kernels", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.kernels:
        measure_kernels()
        return
    if arguments.case is not None:
        measure(*arguments.case)
        return
    if arguments.data is None:
        from loading import make_data

        arguments.data = make_data(Path("outputs/benchmark"), 20_000, 20_000, 10_000)["gzip"]
    with tempfile.TemporaryDirectory() as cache:
        kernels = sorted(child(cache, "--kernels"), reverse=True)
    for seconds, name, types in kernels:
        print(f"{seconds:6.2f} s {name:35} {types}")
    print(f"{sum(seconds for seconds, _, _ in kernels):6.2f} s for {len(kernels)} kernels\n", flush=True)
    print(f"{'x_format':>9} {'compiled before':>16} {'import s':>9} {'setup s':>8} {'first batch s':>14}")
    for x_format in ("dense", "csr", "compact"):
        with tempfile.TemporaryDirectory() as cache:
            for repeat in range(arguments.repeats + 1):
                imported, setup, first = child(cache, "--case", str(arguments.data), x_format)
                before = "all" if repeat else "nothing"
                print(f"{x_format:>9} {before:>16} {imported:9.2f} {setup:8.3f} {first:14.3f}", flush=True)


if __name__ == "__main__":
    main()
