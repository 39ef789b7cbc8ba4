"""What verifying costs: CPU time of epochs with and without checksums and totals, in turns.

    python benchmarks/checksums.py              # 5,000 simulated cells: a minute
    python benchmarks/checksums.py --data DIR --cells 100000

One thread, everything in the page cache. Compiled code is linked to its checksum
once, so a process of its own runs without; the two take turns, epoch by epoch.
The figure is the median over the repeats of the ratio of neighbours.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from loading import make_data

SEVEN = 7
"""The checksum of every block, where none is computed."""


def verify_nothing() -> None:
    """From now on every block has the checksum 7, and nobody looks at totals."""
    import llvmlite.binding
    import numba

    from scvae_data.loading.batch import assemble
    from scvae_data.store import chunk_reader
    from scvae_data.store import native_decode as unpack

    unpack._libdeflate()
    signature = numba.types.uint32(numba.types.uint32, numba.types.uintp, numba.types.uintp)
    unpack.seven = numba.cfunc(signature)(lambda seed, at, n: SEVEN)  # type: ignore[attr-defined]
    llvmlite.binding.add_symbol("scvae_data_crc32", unpack.seven.address)  # type: ignore[attr-defined]
    real = unpack.unpack

    def unverified(fd: int, name: Any, blocks: Any, *rest: Any) -> Any:
        done = real(fd, name, replace(blocks, crc32=np.full_like(blocks.crc32, SEVEN)), *rest)
        assert done is not None or not rest[1].size
        return done

    chunk_reader.unpack = unverified  # type: ignore[attr-defined]
    assemble.check_totals = lambda *arguments: None  # type: ignore[attr-defined]


def epoch_seconds(directory: str, x_format: Any) -> float:
    """CPU seconds of one epoch of a new loader."""
    from scvae_data import ChunkedDataModule

    data = ChunkedDataModule(directory, x_format=x_format, num_threads=1, chunk_cache_size=1, split=None)
    data.setup()
    started = time.process_time()
    for batch in data.train_dataloader():
        del batch
    return time.process_time() - started


def serve(verified: bool) -> None:
    """Answer each line of the input, a directory and a format, with the seconds of an epoch."""
    if not verified:
        verify_nothing()
    for line in sys.stdin:
        directory, x_format = line.rstrip("\n").split("\t")
        sys.stdout.write(f"{epoch_seconds(directory, x_format)}\n")
        sys.stdout.flush()


def ask(process: subprocess.Popen[str], directory: Path, x_format: str) -> float:
    """Seconds of an epoch in a process that serves."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(f"{directory}\t{x_format}\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def main() -> None:
    """Print a line for each codec and format."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=5_000)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--serve", choices=["verified", "unverified"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve == "verified")
        return
    with tempfile.TemporaryDirectory() as scratch:
        paths = make_data(options.data or Path(scratch), options.cells, 20_000, min(options.cells // 2, 10_000))
        command = [sys.executable, __file__, "--serve"]
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        with (
            subprocess.Popen([*command, "verified"], **pipes) as checked,
            subprocess.Popen([*command, "unverified"], **pipes) as unchecked,
        ):
            for codec in ("gzip", "lz4"):
                for x_format in ("csr", "dense"):
                    ratios = [
                        ask(checked, paths[codec], x_format) / ask(unchecked, paths[codec], x_format)
                        for _ in range(options.repeats + 1)
                    ][1:]
                    low, cost, high = (100 * (q - 1) for q in statistics.quantiles(ratios, n=4))
                    print(f"{codec:<5} {x_format:<6} {cost:+5.1f} % CPU time for verifying ({low:+.1f} to {high:+.1f})")


if __name__ == "__main__":
    main()
