"""Peak memory and CPU time of the results of a model on growing datasets: memory must not grow with the cells.

Each dataset has a process of its own; between the results the kernel's
high-water mark is reset (Linux). The figure is the peak resident memory less
what was resident after the imports and a first pass over the smallest
selection. The model is not trained: that costs nothing here.

    python benchmarks/results.py                # 3,000 and 12,000 simulated cells
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CELLS = (3_000, 12_000)

CHILD = """
import json, logging, sys, time
from pathlib import Path
logging.disable(logging.CRITICAL)
import anndata, pandas, torch
from scvae_data import VAE, ChangeTest, ChunkedDataModule
from scvae_data.models.dataset_facts import facts_of
from scvae_data.results.cells import served
from scvae_data.results.expression import Decoding, expression
from scvae_data.results.files import Content, write_cells

torch.set_num_threads(1)
path, folder = sys.argv[1], Path(sys.argv[2])
data = ChunkedDataModule(path, normalized=False)
data.setup("predict")
model = VAE(likelihood="nb", batch_key="SRX_accession", facts=facts_of(data, "SRX_accession"))
model.configure_model()
model.seen[:] = True
names = data.var_names

def write(out, genes, where=None):
    cells = served(model, path, where)
    blocks = expression(model, cells, genes, Decoding())
    write_cells(folder / out, blocks, cells.index.cells.obs_tables, Content("X", "", list(genes or names),
        pandas.DataFrame(index=pandas.Index(list(genes or names), dtype=str))))

def memory(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(key))

results = {
    "latents": lambda: sum(len(block.rows) for block in model.latents(path)),
    "elbo": lambda: sum(len(block.rows) for block in model.elbo(path)),
    "express .h5ad": lambda: write("all.h5ad", None),
    "express .parquet": lambda: write("few.parquet", names[:50]),
    "ppc": lambda: model.predictive_check(path),
    "de": lambda: model.differential_expression(path, "cell_type == 'B cell'", test=ChangeTest(n_samples=2000)),
}
write("first.h5ad", names[:2], "total_counts > 20000")
before, answers = memory("VmRSS"), {}
for name, make in results.items():
    Path("/proc/self/clear_refs").write_text("5")
    started = time.process_time()
    make()
    answers[name] = [memory("VmHWM") - before, time.process_time() - started]
print(json.dumps({"cells": data.n_obs, "results": answers}))
"""


def main() -> None:
    """Print a line per dataset and result, and how far the largest exceeds the smallest dataset's memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, nargs="+", default=CELLS)
    parser.add_argument("--genes", type=int, default=2_000)
    parser.add_argument("--chunk-size", type=int, default=1_000)
    arguments = parser.parse_args()
    from scvae_data.simulate import simulate_files

    peaks: dict[str, list[float]] = {}
    print(f"{'cells':>8}  {'result':<17} {'peak MB':>8} {'CPU s':>7}", flush=True)
    for n_cells in arguments.cells:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            simulate_files(folder / "raw", n_files=2, cells_per_file=n_cells // 2, n_genes=arguments.genes, seed=1)
            process = [
                sys.executable, str(ROOT / "process.py"), "input=files", f'input.paths="{folder / "raw"}/*.h5ad"',
                "qc=none", f"chunk_size={arguments.chunk_size}", f"paths.processed_dir={folder / 'chunks'}",
                f"hydra.run.dir={folder / 'process'}",
            ]  # fmt: skip
            subprocess.run(process, check=True, capture_output=True)
            child = [sys.executable, "-c", CHILD, str(folder / "chunks"), str(folder)]
            answer = json.loads(subprocess.run(child, check=True, capture_output=True, text=True).stdout)
        for name, (peak, seconds) in answer["results"].items():
            peaks.setdefault(name, []).append(peak)
            print(f"{answer['cells']:8,}  {name:<17} {peak / 1e6:8.0f} {seconds:7.1f}", flush=True)
    for name, found in peaks.items():
        print(f"{name:<17} last minus first dataset: {(found[-1] - found[0]) / 1e6:+.0f} MB")


if __name__ == "__main__":
    main()
