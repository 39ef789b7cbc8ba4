"""A directory on S3 against the same on this machine: epochs from an empty and a warm folder of copies, bytes fetched.

    python benchmarks/remote.py --cells 40000 --json remote.json

An S3 server is started on this machine, so that figures are of what this
package adds to a network, not of one. Local and warm epochs take turns in one
run, now one first and now the other; ratios are of their medians. CPU time is
of the program and its workers, and tells on a busy machine as well.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import NamedTuple

import psutil

from scvae_data import ChunkedDataModule
from scvae_data.processing import pipeline
from scvae_data.processing.engine.local import LocalEngine
from scvae_data.processing.settings.genes import GeneRules
from scvae_data.processing.settings.inputs import SimulatedInput
from scvae_data.processing.settings.normalization import Normalization
from scvae_data.processing.settings.qc import QcRules
from scvae_data.processing.settings.run import Settings
from scvae_data.remote import objects
from scvae_data.remote.location import RemotePath
from scvae_data.store import Chunking, open_index

REMOTE = RemotePath("s3://bench/set")


@contextmanager
def s3_server() -> Iterator[None]:
    """A server with a bucket, and the environment that leads to it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.environ |= {"AWS_ENDPOINT_URL": address, "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}
    try:
        for _ in range(600):
            with suppress(OSError):
                urllib.request.urlopen(urllib.request.Request(f"{address}/bench", method="PUT")).close()
                break
            time.sleep(0.1)
        yield
    finally:
        server.kill()
        server.wait()


def make(directory: Path, n_cells: int) -> None:
    """Simulate cells and process them."""
    settings = Settings(
        input=SimulatedInput(directory=f"{directory}-raw", n_files=4, cells_per_file=n_cells // 4, n_genes=4000),
        qc=QcRules(),
        genes=GeneRules(),
        normalization=Normalization(),
        chunking=Chunking(chunk_size=max(500, n_cells // 40)),
    )
    pipeline.run(settings, LocalEngine(), directory)


class Fetched:
    """Counts the bytes that this process, and those that it forks, ask for."""

    def __init__(self) -> None:
        self.n_bytes = multiprocessing.Value("q", 0)
        self._read = objects.read
        objects.read = self.read

    def read(self, path: RemotePath, offset: int, n_bytes: int) -> bytes:
        """Read, and count."""
        with self.n_bytes:
            self.n_bytes.value += n_bytes
        return self._read(path, offset, n_bytes)

    def take(self) -> int:
        """Bytes since the last call."""
        with self.n_bytes:
            n_bytes, self.n_bytes.value = self.n_bytes.value, 0
        return n_bytes


def module(path: Path | RemotePath, folder: Path, disk_gb: float, workers: int) -> ChunkedDataModule:
    """A data module that decodes every chunk in every epoch."""
    data = ChunkedDataModule(
        path, chunk_cache_size=1, num_workers=workers, x_format="csr", cache_dir=str(folder), cache_disk_gb=disk_gb
    )
    data.setup()
    return data


class Pace(NamedTuple):
    """Of an epoch: cells a second, and microseconds of CPU time a cell."""

    speed: float
    cpu: float


def epoch(data: ChunkedDataModule) -> Pace:
    """Take all batches of an epoch."""
    cpu, started, n_cells = cpu_seconds(), time.perf_counter(), 0
    for batch in data.train_dataloader():
        n_cells += len(batch["index"])
    seconds = time.perf_counter() - started
    return Pace(n_cells / seconds, 1e6 * (cpu_seconds() - cpu) / n_cells)


def cpu_seconds() -> float:
    """CPU time of this process and those that it has started, so far."""
    here = psutil.Process()
    times = [process.cpu_times() for process in (here, *here.children(recursive=True))]
    return sum(time.user + time.system for time in times)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=40_000)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    fetched = Fetched()
    with tempfile.TemporaryDirectory() as scratch, s3_server():
        folder = Path(scratch)
        make(folder / "set", options.cells)
        for path in sorted((folder / "set").glob("[!.]*")):
            objects.upload(path, REMOTE / path.name)
        n_bytes = sum(chunk.bytes for chunk in open_index(folder / "set").chunks)
        local = module(folder / "set", folder / "unused", 1, options.workers)
        remote = module(REMOTE, folder / "all", 10 * n_bytes / 1e9, options.workers)
        epoch(local)
        fetched.take()
        figures = {"cells": options.cells, "bytes": n_bytes, "cold": epoch(remote).speed, "cold_bytes": fetched.take()}
        paces: dict[str, list[Pace]] = {"local": [], "warm": []}
        for number in range(options.epochs):
            turns = [("local", local), ("warm", remote)]
            for name, data in turns[:: 1 if number % 2 else -1]:
                paces[name].append(epoch(data))
        for name, found in paces.items():
            figures |= {name: median(pace.speed for pace in found), f"{name}_cpu": median(pace.cpu for pace in found)}
        figures["warm_bytes"] = fetched.take()
        half = module(REMOTE, folder / "half", n_bytes / 2e9, options.workers)
        epoch(half)
        fetched.take()
        figures["half"] = median(epoch(half).speed for _ in range(options.epochs))
        figures["half_bytes"] = fetched.take() / options.epochs
    rows = [
        ("local", figures["local"], 0.0),
        ("warm", figures["warm"], figures["warm_bytes"] / options.epochs),
        ("first epoch", figures["cold"], figures["cold_bytes"]),
        ("room for half", figures["half"], figures["half_bytes"]),
    ]
    print(f"{options.cells:,} cells, {n_bytes / 1e6:,.1f} MB in chunks, {options.workers} workers")
    print(f"{'':<14} {'cells/s':>10} {'of local':>9} {'MB fetched':>11}")
    for name, speed, n_fetched in rows:
        print(f"{name:<14} {speed:>10,.0f} {speed / figures['local']:>9.2f} {n_fetched / 1e6:>11.1f}")
    print(f"µs of CPU time a cell: local {figures['local_cpu']:.2f}, warm {figures['warm_cpu']:.2f}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
