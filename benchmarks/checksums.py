"""What verifying costs: CPU time of an epoch with and without checksums and totals, in turns.

    python benchmarks/checksums.py              # 5,000 simulated cells: a minute
    python benchmarks/checksums.py --data DIR --cells 100000

One thread, everything in the page cache. The figure is the median over the repeats of the ratio of neighbours.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

from loading import make_data
from scvae_data import ChunkedDataModule


class AnyNumber:
    """Equal to every checksum."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return True


@contextmanager
def nothing_verified() -> Iterator[None]:
    """Read blocks without their checksums, and batches without a look at their totals."""
    unchecked = SimpleNamespace(crc32=lambda stored: AnyNumber())
    with (
        patch("scvae_data.store.chunk_reader.deflate", unchecked),
        patch("scvae_data.loading.stream.check_totals", lambda *arguments: None),
    ):
        yield


def epoch_seconds(directory: Path, x_format: str) -> float:
    """CPU seconds of one epoch of a new loader."""
    data = ChunkedDataModule(directory, x_format=x_format, num_threads=1, chunk_cache_size=1, split=None)
    data.setup()
    started = time.process_time()
    for batch in data.train_dataloader():
        del batch
    return time.process_time() - started


def main() -> None:
    """Print a line for each codec and format."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cells", type=int, default=5_000)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--data", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        paths = make_data(options.data or Path(scratch), options.cells, 20_000, 2_500)
        for codec in ("gzip", "lz4"):
            for x_format in ("csr", "dense"):
                epoch_seconds(paths[codec], x_format)
                ratios = []
                for _ in range(options.repeats):
                    verified = epoch_seconds(paths[codec], x_format)
                    with nothing_verified():
                        ratios.append(verified / epoch_seconds(paths[codec], x_format))
                cost = 100 * (statistics.median(ratios) - 1)
                print(f"{codec:<5} {x_format:<6} {cost:+5.1f} % CPU time for verifying")


if __name__ == "__main__":
    main()
