"""Seconds from a new process to the first batch, with nothing compiled before and with everything compiled.

Each line is a process of its own. numba keeps compiled code in a folder made
for this run: empty for the first process of each format, filled by it for the next.

    python benchmarks/start.py                            # 20,000 simulated cells, made once
    python benchmarks/start.py --data DIR                 # a directory that process.py wrote
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path


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


def main() -> None:
    """Print a line per process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=None, help="a dataset directory")
    parser.add_argument("--repeats", type=int, default=3, help="processes with compiled code")
    parser.add_argument("--case", nargs=2, default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case is not None:
        measure(*arguments.case)
        return
    if arguments.data is None:
        from loading import make_data

        arguments.data = make_data(Path("outputs/benchmark"), 20_000, 20_000, 10_000)["gzip"]
    print(f"{'x_format':>9} {'compiled before':>16} {'import s':>9} {'setup s':>8} {'first batch s':>14}")
    for x_format in ("dense", "csr", "compact"):
        with tempfile.TemporaryDirectory() as cache:
            for repeat in range(arguments.repeats + 1):
                answer = subprocess.run(
                    [sys.executable, __file__, "--case", str(arguments.data), x_format],
                    env={**os.environ, "NUMBA_CACHE_DIR": cache}, check=True, stdout=subprocess.PIPE, text=True,
                )  # fmt: skip
                imported, setup, first = json.loads(answer.stdout)
                before = "all" if repeat else "nothing"
                print(f"{x_format:>9} {before:>16} {imported:9.2f} {setup:8.3f} {first:14.3f}", flush=True)


if __name__ == "__main__":
    main()
