"""Peak memory of processing on growing inputs: it must not grow with files, cells or file size.

Each case runs in a process of its own. The figure is the peak resident
memory of the run less what the imports alone take; the kernel's high-water
mark is reset in between (Linux). ``--tree`` looks at ``process.py`` as users
run it instead: peak memory of all its processes, imports included.

    python benchmarks/memory.py                 # 4 × 5,000, 16 × 5,000 and 1 × 80,000 simulated cells
    python benchmarks/memory.py --tree          # 4 × 25,000 and 16 × 25,000, two worker processes
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from tree import measure

ROOT = Path(__file__).resolve().parents[1]
CASES = ((4, 5_000), (16, 5_000), (1, 80_000))
TREE_CASES = ((4, 25_000), (16, 25_000))

CHILD = """
import json, logging, sys
from pathlib import Path
logging.disable(logging.CRITICAL)
folder, target, chunk_size = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
from scvae_data.processing import pipeline
from scvae_data.processing.engine.base import SerialEngine
from scvae_data.processing.settings.genes import GeneRules
from scvae_data.processing.settings.inputs import FileInput
from scvae_data.processing.settings.normalization import Normalization
from scvae_data.processing.settings.qc import QcRules
from scvae_data.processing.settings.run import Settings
from scvae_data.store import Chunking
from scvae_data.system.jit import make_ready
make_ready()

def memory(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(key))

Path("/proc/self/clear_refs").write_text("5")
before = memory("VmRSS")
settings = Settings(
    FileInput(paths=[str(path) for path in sorted(folder.glob("*.h5ad"))]), QcRules(), GeneRules(), Normalization(),
    Chunking(chunk_size=chunk_size),
)
summary = pipeline.run(settings, SerialEngine(), target)
print(json.dumps({"before": before, "peak": memory("VmHWM"), "cells": summary.n_obs, "seconds": summary.seconds}))
"""


def main() -> None:
    """Print a line per case and the largest difference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunk-size", type=int, default=5_000)
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the cells of each file")
    parser.add_argument("--tree", action="store_true", help="all processes of process.py engine=local")
    arguments = parser.parse_args()
    if arguments.tree:
        whole_tree(arguments.scale)
        return
    from scvae_data.simulate import simulate_files

    deltas = []
    print(
        f"{'files':>6} {'cells each':>11} {'kept':>8} {'imports MB':>11} {'peak MB':>9} {'difference MB':>14} {'s':>6}"
    )
    for n_files, n_cells in CASES:
        with tempfile.TemporaryDirectory() as folder:
            raw, target = Path(folder, "raw"), Path(folder, "out")
            cells = int(n_cells * arguments.scale)
            simulate_files(raw, n_files=n_files, cells_per_file=cells, seed=1)
            command = [sys.executable, "-c", CHILD, str(raw), str(target), str(arguments.chunk_size)]
            answer = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        delta = answer["peak"] - answer["before"]
        deltas.append(delta)
        print(
            f"{n_files:6} {cells:11,} {answer['cells']:8,} {answer['before'] / 1e6:11.0f} {answer['peak'] / 1e6:9.0f} "
            f"{delta / 1e6:14.0f} {sum(answer['seconds'].values()):6.1f}"
        )
    print(f"largest over smallest difference: {max(deltas) / min(deltas):.3f}")


def whole_tree(scale: float) -> None:
    """Print the peak memory of all processes of a run with two workers."""
    from scvae_data.simulate import simulate_files

    print(f"{'files':>6} {'cells each':>11} {'RSS GB':>8} {'PSS GB':>8} {'s':>6}")
    peaks = []
    for n_files, n_cells in TREE_CASES:
        with tempfile.TemporaryDirectory() as folder:
            raw, target = Path(folder, "raw"), Path(folder, "out")
            cells = int(n_cells * scale)
            simulate_files(
                raw, n_files=n_files, cells_per_file=cells, n_genes=20_000, seed=1, shared_genes=1.0,
                compression=None,
            )  # fmt: skip
            run = measure(
                [sys.executable, str(ROOT / "process.py"), "input=files", f'input.paths="{raw}/*.h5ad"',
                 "chunk_size=25000", "engine=local", "engine.n_workers=2", f"paths.processed_dir={target}",
                 f"hydra.run.dir={target}/log"], pss=True,
            )  # fmt: skip
        peaks.append(run.peak_rss)
        print(f"{n_files:6} {cells:11,} {run.peak_rss / 1e9:8.3f} {run.peak_pss / 1e9:8.3f} {run.seconds:6.1f}")
    print(f"largest over smallest: {max(peaks) / min(peaks):.3f}")


if __name__ == "__main__":
    main()
