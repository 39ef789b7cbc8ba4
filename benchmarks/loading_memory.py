"""Memory that loading says it takes, and what it was seen to take, for several cache sizes and numbers of workers.

Each case runs two epochs and their validation in a process of its own. What
was taken is the largest sum of the process's resident memory and what its
workers have for themselves (not shared with it), looked at every 20 ms.

    python benchmarks/loading_memory.py                   # 20,000 simulated cells in 20 chunks
    python benchmarks/loading_memory.py --data DIR        # a directory that process.py wrote
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

CACHES = (1, 2, 5)


def watch(found: dict[str, int], stop: threading.Event) -> None:
    """Keep the largest sum of this process's resident memory and its children's own."""
    import psutil

    me = psutil.Process(os.getpid())
    while not stop.wait(0.02):
        total = me.memory_info().rss
        for process in me.children(recursive=True):
            try:
                total += process.memory_full_info().uss
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        found["peak"] = max(found["peak"], total)


def measure(settings: dict[str, object]) -> None:
    """Load two epochs; print what was said and what was seen."""
    from scvae_data import ChunkedDataModule

    epochs = 2
    module = ChunkedDataModule(**settings)  # type: ignore[arg-type]
    module.setup()
    need, window = module.memory_need(), module.train_dataloader().spec.sampler.window
    found, stop = {"peak": 0}, threading.Event()
    watcher = threading.Thread(target=watch, args=(found, stop))
    watcher.start()
    for _ in range(epochs):
        for loader in (module.train_dataloader(), module.val_dataloader()):
            for _batch in loader:
                pass
    stop.set()
    watcher.join()
    chunks = module.train_dataloader().spec.cache_groups
    counters = module.counters()["train"]
    module.teardown()
    answer = {"said": need.total(chunks, window), "before": need.resident, "chunks": chunks, **found}
    print(json.dumps({**answer, "held": counters["cached_blocks"]}))


def main() -> None:
    """Print a line per case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=None, help="a dataset directory")
    parser.add_argument("--workers", type=int, nargs="*", default=[0, 2])
    parser.add_argument("--memory-gb", type=float, nargs="*", default=[], help="budgets to try instead of cache sizes")
    parser.add_argument("--case", default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case is not None:
        measure(json.loads(arguments.case))
        return
    if arguments.data is None:
        from loading import make_data

        arguments.data = make_data(Path("outputs/benchmark"), 20_000, 20_000, 1_000)["gzip"]
    cases: list[dict[str, object]] = [
        {"chunk_cache_size": cache, "x_format": x_format, "num_workers": workers}
        for workers in arguments.workers
        for x_format in ("dense", "compact")
        for cache in CACHES
    ]
    if arguments.memory_gb:
        cases = [
            {"memory_gb": gb, "num_workers": workers} for gb in arguments.memory_gb for workers in arguments.workers
        ]
    print(f"{'settings':64} {'chunks':>6} {'before':>8} {'said GB':>8} {'seen GB':>8} {'seen/said':>9}")
    for case in cases:
        request = json.dumps({"data_path": str(arguments.data), "normalized": False, **case})
        command = [sys.executable, __file__, "--case", request]
        answer = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        shown = " ".join(f"{key}={value}" for key, value in case.items())
        print(
            f"{shown:64} {answer['chunks']:6} {answer['before'] / 1e9:8.3f} {answer['said'] / 1e9:8.3f} "
            f"{answer['peak'] / 1e9:8.3f} {answer['peak'] / answer['said']:9.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
