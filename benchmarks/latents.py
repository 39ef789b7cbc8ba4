"""Peak memory of writing latents, picture and scores of growing datasets: it must not grow with the cells.

Each case runs in a process of its own. The figure is the peak resident
memory less what the imports alone take; the kernel's high-water mark is
reset in between (Linux). The model is not trained: that costs nothing here.

    python benchmarks/latents.py                # 10,000, 50,000 and 100,000 simulated cells
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CELLS = (10_000, 50_000, 100_000)

CHILD = """
import json, logging, sys, time
from pathlib import Path
logging.disable(logging.CRITICAL)
import anndata, matplotlib.backends.backend_agg, sklearn.metrics, torch
from scvae_data import VAE, ChunkedDataModule
from scvae_data.models.dataset_facts import facts_of
from scvae_data.training.outputs import Outputs

def memory(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(key))

Path("/proc/self/clear_refs").write_text("5")
before = memory("VmRSS")
data = ChunkedDataModule(sys.argv[1], normalized=False)
data.setup("predict")
model = VAE(likelihood="nb", batch_key="SRX_accession", facts=facts_of(data, "SRX_accession"))
model.configure_model()
started = time.perf_counter()
outputs = Outputs(picture="pca")
made = outputs.make(Path(sys.argv[2]), model, data, device=torch.device("cpu"), seed=0)
outputs.scores(made["latents"], model, data, seed=0)
seconds = time.perf_counter() - started
print(json.dumps({
    "before": before, "peak": memory("VmHWM"), "cells": data.n_obs, "bytes": made["latents"].stat().st_size,
    "seconds": seconds,
}))
"""


def main() -> None:
    """Print a line per case and the largest difference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, nargs="+", default=CELLS)
    parser.add_argument("--genes", type=int, default=2_000)
    parser.add_argument("--chunk-size", type=int, default=1_000)
    arguments = parser.parse_args()
    from scvae_data.simulate import simulate_files

    deltas = []
    print(
        f"{'cells':>8} {'latents MB':>11} {'imports MB':>11} {'peak MB':>8} {'difference MB':>14} {'s':>6}", flush=True
    )
    for n_cells in arguments.cells:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            simulate_files(folder / "raw", n_files=2, cells_per_file=n_cells // 2, n_genes=arguments.genes, seed=1)
            process = [
                sys.executable, str(ROOT / "process.py"), "input=files", f"input.paths='{folder / 'raw'}/*.h5ad'",
                "qc=none", f"chunk_size={arguments.chunk_size}", f"paths.processed_dir={folder / 'chunks'}",
                f"hydra.run.dir={folder / 'process'}",
            ]  # fmt: skip
            subprocess.run(process, check=True, capture_output=True)
            child = [sys.executable, "-c", CHILD, str(folder / "chunks"), str(folder)]
            answer = json.loads(subprocess.run(child, check=True, capture_output=True, text=True).stdout)
        delta = answer["peak"] - answer["before"]
        deltas.append(delta)
        print(
            f"{answer['cells']:8,} {answer['bytes'] / 1e6:11.1f} {answer['before'] / 1e6:11.0f} "
            f"{answer['peak'] / 1e6:8.0f} {delta / 1e6:14.0f} {answer['seconds']:6.1f}",
            flush=True,
        )
    print(f"largest over smallest difference: {max(deltas) / min(deltas):.3f}")


if __name__ == "__main__":
    main()
