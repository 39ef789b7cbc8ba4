"""The older way to feed a VAE and the present one, from the command to the first training step and beyond.

Old: at each start read the whole H5AD, quality control, normalise, shuffle,
cut into chunks in memory (scanpy). New: `process.py` once, then
`ChunkedDataModule` at each start. Both train the same small autoencoder with
Lightning and serve the same batches of float32. "floor" is what no loader can
undercut: the same first step on a batch of random numbers. Every figure is from a new
process; rounds are interleaved and the best is printed, because anything else that
runs on the machine only adds to it.

    python benchmarks/old_vs_new.py                               # 100,000 cells × 20,000 genes; 8 GB of memory
    python benchmarks/old_vs_new.py --cells 5000 --rounds 1       # a quick look
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
N_SRX = 8
BATCH = 256

COMMON = """
import json, resource, sys, time, warnings
warnings.simplefilter("ignore")
IMPORTS
path, what, started = sys.argv[1], sys.argv[2], float(sys.argv[3])
batch_size, chunk_size = int(sys.argv[4]), int(sys.argv[5])
marks = {}

def mark(name):
    marks[name] = time.time() - started
    marks[name + " cpu"] = time.process_time()
    marks[name + " memory"] = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

class Autoencoder(L.LightningModule):
    def __init__(self, n_vars):
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(n_vars, 128), torch.nn.ReLU(), torch.nn.Linear(128, n_vars))
    def training_step(self, batch, batch_idx):
        x = batch["x"]
        return torch.nn.functional.mse_loss(self.net(x), x)
    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())
    def on_train_batch_start(self, batch, batch_idx):
        mark("first batch")
    def on_train_batch_end(self, outputs, batch, batch_idx):
        mark("first step")

def train(n_vars, **data):
    import logging
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    off = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    L.Trainer(max_steps=1, limit_val_batches=0, accelerator="cpu", **off).fit(Autoencoder(n_vars), **data)

def epoch(name, loader):
    started = time.time()
    cells = sum(len(batch["x"]) for batch in loader)
    marks[name] = (time.time() - started) / cells

def random_cells(name, n_obs, read):
    rows = np.random.default_rng(0).integers(0, n_obs, (5, batch_size))
    started = time.time()
    for one in rows:
        assert read(np.unique(one)).shape[1] > 0
    marks[name] = (time.time() - started) / 5
"""

TORCH = "import numpy as np, torch, lightning as L"
# The package first: it imports torch and Lightning as `python train.py` does.
OURS = f"from scvae_data import ChunkedDataModule, ChunkedDataset\n{TORCH}"

OLD = f"""
{COMMON.replace("IMPORTS", TORCH)}
import anndata as ad, scanpy as sc
mark("imports")
adata = ad.read_h5ad(path)
adata.var["mt"] = adata.var_names.str.startswith("MT-")
sc.pp.calculate_qc_metrics(adata, qc_vars=["mt"], percent_top=(50,), inplace=True)
obs = adata.obs
adata = adata[(obs.n_genes_by_counts >= 200) & (obs.total_counts >= 500) & ~(obs.pct_counts_mt > 20)].copy()
sc.pp.filter_genes(adata, min_cells=3)
sc.pp.normalize_total(adata, target_sum=1e4)
sc.pp.log1p(adata)
if what == "experiment":
    adata = adata[adata.obs["SRX_accession"] == "SRX1"].copy()
    mark("experiment")
    print(json.dumps(marks)), sys.exit()
order = np.random.default_rng(0).permutation(adata.n_obs)
chunks = [adata[order[first : first + chunk_size]].copy() for first in range(0, adata.n_obs, chunk_size)]

class Loader:
    def __iter__(self):
        rng = np.random.default_rng()
        for number in rng.permutation(len(chunks)):
            x = chunks[number].X
            rows = rng.permutation(x.shape[0])
            for first in range(0, len(rows), batch_size):
                yield {{"x": torch.from_numpy(x[rows[first : first + batch_size]].toarray())}}
    def __len__(self):
        return sum(-(-len(chunk) // batch_size) for chunk in chunks)

train(adata.n_vars, train_dataloaders=Loader())
if what == "all":
    random_cells("random cells", adata.n_obs, lambda rows: adata[rows].X.toarray())
    marks["random cells cached"] = marks["random cells"]
    epoch("epoch 1", Loader())
    epoch("epoch 2", Loader())
    mark("end")
print(json.dumps(marks))
"""

NEW = f"""
{COMMON.replace("IMPORTS", OURS)}
mark("imports")
if what == "experiment":
    adata = ChunkedDataset(path).to_anndata(srx="SRX1")
    mark("experiment")
    print(json.dumps(marks)), sys.exit()
data = ChunkedDataModule(path, batch_size=batch_size, chunk_cache_size=20, split=None)
data.setup()
train(data.n_vars, datamodule=data)
if what == "all":
    cells = ChunkedDataset(path, chunk_cache_size=20)
    random_cells("random cells", len(cells), lambda rows: cells.to_anndata(rows).X.toarray())
    for _ in cells.blocks():
        pass
    random_cells("random cells cached", len(cells), lambda rows: np.stack([cells[row]["x"] for row in rows]))
    del cells
    data = ChunkedDataModule(path, batch_size=batch_size, chunk_cache_size=20, split=None)
    data.setup()
    epoch("epoch 1", data.train_dataloader())
    epoch("epoch 2", data.train_dataloader())
    mark("end")
print(json.dumps(marks))
"""

FLOOR = f"""
{COMMON.replace("IMPORTS", TORCH)}
mark("imports")
n_vars = json.load(open(path + "/chunk_index.json"))["n_vars"]
batches = [{{"x": torch.rand(batch_size, n_vars)}}]
train(n_vars, train_dataloaders=torch.utils.data.DataLoader(batches, batch_size=None))
print(json.dumps(marks))
"""


def simulate(path: Path, n_cells: int, n_genes: int) -> None:
    """Write one gzip H5AD whose cells belong to eight experiments in turn."""
    import anndata.io
    import h5py
    import numpy as np

    from scvae_data.simulate import simulate_files

    (made,) = simulate_files(
        path.parent / "making", n_files=1, cells_per_file=n_cells, n_genes=n_genes, seed=1, shared_genes=1.0
    )
    with h5py.File(made, "r+") as file:
        obs = anndata.io.read_elem(file["obs"])
        obs["SRX_accession"] = np.array([f"SRX{1 + row % N_SRX}" for row in range(n_cells)])
        anndata.io.write_elem(file, "obs", obs)
    made.replace(path)


def process(raw: Path, target: Path, chunk_size: int) -> float:
    """Run process.py once; return its seconds."""
    started = time.perf_counter()
    command = [sys.executable, str(ROOT / "process.py"), "input=files", f'input.paths="{raw}"', "engine=local",
               f"chunk_size={chunk_size}", f"paths.processed_dir={target}", f"hydra.run.dir={target}.log"]  # fmt: skip
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


def run(script: str, path: Path, what: str, chunk_size: int) -> dict[str, float]:
    """Run a script; return its marks: seconds since the command, seconds of all cores, bytes."""
    command = [sys.executable, "-c", script, str(path), what, str(time.time()), str(BATCH), str(chunk_size)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    marks: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    if what == "experiment":
        return {what: marks[what]}
    for until in ("first batch", "first step"):
        for unit in ("", " cpu"):
            marks[f"imports to {until}{unit}"] = marks[f"{until}{unit}"] - marks[f"imports{unit}"]
    return marks


ROWS = (
    ("command to first training step, s", "first step", 1, ".2f"),
    ("of which imports, s", "imports", 1, ".2f"),
    ("after imports, to the first batch, s", "imports to first batch", 1, ".2f"),
    ("after imports, to the first step, s", "imports to first step", 1, ".2f"),
    ("command to first training step, CPU s", "first step cpu", 1, ".2f"),
    ("after imports, to the first batch, CPU s", "imports to first batch cpu", 1, ".2f"),
    ("after imports, to the first step, CPU s", "imports to first step cpu", 1, ".2f"),
    ("peak memory at the first step, MB", "first step memory", 1e-6, ",.0f"),
    ("peak memory after two epochs, MB", "end memory", 1e-6, ",.0f"),
    ("on disk, MB", "bytes", 1e-6, ",.0f"),
    ("command to the cells of one experiment, s", "experiment", 1, ".2f"),
    (f"{BATCH} random cells, new from disk, ms", "random cells", 1e3, ".0f"),
    (f"{BATCH} random cells, new from cached chunks, ms", "random cells cached", 1e3, ".0f"),
    ("first epoch, loading only, µs a cell", "epoch 1", 1e6, ".1f"),
    ("second epoch, loading only, µs a cell", "epoch 2", 1e6, ".1f"),
)


def table(runs: dict[str, list[dict[str, float]]]) -> str:
    """Lay out the best of all rounds, old, new and floor beside each other."""
    lines = ["| | old | new | old / new | floor |", "|---|--:|--:|--:|--:|"]
    for label, key, scale, form in ROWS:
        best = [min((marks[key] for marks in runs[side] if key in marks), default=float("nan")) for side in runs]
        old, new, floor = (f"{scale * value:{form}}".replace("nan", "") for value in best)
        lines.append(f"| {label} | {old} | {new} | {best[0] / best[1]:.1f} | {floor} |")
    return "\n".join(lines)


def main() -> None:
    """Simulate, process, run the rounds, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=100_000)
    parser.add_argument("--genes", type=int, default=20_000)
    parser.add_argument("--chunk-size", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data", type=Path, default=Path("outputs/benchmark"), help="where files are made and left")
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    folder = arguments.data.absolute() / f"old_vs_new-{arguments.cells}x{arguments.genes}"
    raw, target = folder / "raw.h5ad", folder / f"chunks-{arguments.chunk_size}"
    folder.mkdir(parents=True, exist_ok=True)
    if not raw.exists():
        simulate(raw, arguments.cells, arguments.genes)
    once_file = folder / f"{target.name}.seconds"
    if not (target / "chunk_index.json").exists():
        once_file.write_text(str(process(raw, target, arguments.chunk_size)))
    scripts = {"old": (OLD, raw), "new": (NEW, target), "floor": (FLOOR, target)}
    for what in ("first step", "experiment"):  # a first run compiles row kernels and fills the page cache
        run(NEW, target, what, arguments.chunk_size)
    runs: dict[str, list[dict[str, float]]] = {side: [] for side in scripts}
    for number in range(arguments.rounds):
        for side, (script, path) in scripts.items():
            more = () if side == "floor" else ("experiment", "all") if number == 0 else ("experiment",)
            for what in ("first step", *more):
                runs[side].append(run(script, path, what, arguments.chunk_size))
                print(f"  {side}, {what}: done", file=sys.stderr)
    for side, files in (("old", [raw]), ("new", list(target.glob("*")))):
        runs[side].append({"bytes": sum(file.stat().st_size for file in files)})
    once = float(once_file.read_text())
    print(f"{arguments.cells:,} cells × {arguments.genes:,} genes, best of {arguments.rounds} interleaved rounds;")
    print(f"process.py ran once before, {once:.1f} s\n\n{table(runs)}")
    if arguments.json:
        facts: dict[str, Any] = {"arguments": vars(arguments), "runs": runs, "once": once}
        arguments.json.write_text(json.dumps(facts, default=str, indent=1))


if __name__ == "__main__":
    main()
