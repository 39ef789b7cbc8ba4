"""Peak memory of processing on growing inputs: it must not grow with files, cells or file size.

Each case runs in a process of its own. The figure is the peak resident
memory of the run less what the imports alone take; the kernel's high-water
mark is reset in between (Linux).

    python benchmarks/memory.py                 # 4 × 5,000, 16 × 5,000 and 1 × 80,000 simulated cells
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

CASES = ((4, 5_000), (16, 5_000), (1, 80_000))

CHILD = """
import json, logging, sys
from pathlib import Path
logging.disable(logging.CRITICAL)
folder, target, chunk_size = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
from scvae_data.processing import control, engine, genes, inputs, normalize, pipeline, qc
import anndata, pyarrow.feather, pyarrow.parquet
from scvae_data.store import Chunking

def memory(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(key))

Path("/proc/self/clear_refs").write_text("5")
before = memory("VmRSS")
summary = pipeline.run(
    input=inputs.FileInput(paths=[str(path) for path in sorted(folder.glob("*.h5ad"))]), qc=qc.QcRules(),
    genes=genes.GeneRules(), normalization=normalize.Normalization(), chunking=Chunking(chunk_size=chunk_size),
    control=control.ControlSubset(), engine=engine.SerialEngine(), seed=0, overwrite=True, resume=False,
    max_failed_fraction=0.0, subset_to_control_cells=False, processed_dir=target, config={},
)
print(json.dumps({"before": before, "peak": memory("VmHWM"), "cells": summary.n_obs, "seconds": summary.seconds}))
"""


def main() -> None:
    """Print a line per case and the largest difference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunk-size", type=int, default=5_000)
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the cells of each file")
    arguments = parser.parse_args()
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


if __name__ == "__main__":
    main()
