"""The VAE against SCVI of scvi-tools, and loader orders against each other: held-out likelihood and time per epoch.

Both models get the same cells, genes, split, batches, epochs, likelihood,
sizes, optimiser and KL warm-up; they learn from the same loader. Cells held
out are scored by one function that belongs to neither: the negative binomial
of scipy in float64, as an importance-weighted estimate of log p(cell) with
``--samples`` draws of the latent, and at the latent's mean. Runs are
interleaved, differences are paired over seeds.

    python benchmarks/model.py --data ../shared/data                 # needs scvi-tools for the comparison
    python benchmarks/model.py --data ../shared/data --epochs 5 --seeds 1

The data are pbmc3k (its 2,000 most variable genes by scanpy) and a
glioblastoma data set of five patients (its 300 genes).
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import lightning
import numpy as np
import scanpy as sc
import torch
from lightning.pytorch import Callback, Trainer
from scipy.special import logsumexp
from scipy.stats import nbinom, norm

from scvae_data import VAE, ChunkedDataModule, open_index

ROOT = Path(__file__).resolve().parents[1]
FILES = {"pbmc3k": "h5ad/pbmc3k_2700.h5ad", "glioblastoma": "h5ad/glioblastoma_zhao_5000.h5ad"}
N_TOP_GENES = 2000
CHUNK_SIZE = 500
BATCH_SIZE = 128
WARMUP_EPOCHS = 10
SIZES = {"n_latent": 10, "n_hidden": 128, "n_layers": 1}

Encode = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]  # counts → mean and standard deviation of z
Decode = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]  # z, library → mean, theta


class EpochTimes(Callback):
    """Seconds of each training epoch."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_epoch_start(self, *args: Any) -> None:
        """Start the clock."""
        self.started = time.perf_counter()

    def on_train_epoch_end(self, *args: Any) -> None:
        """Stop the clock."""
        self.seconds.append(time.perf_counter() - self.started)


def processed(source: Path, directory: Path, order: str) -> Path:
    """A dataset directory of ``source``, with the genes that are compared."""
    adata = anndata.read_h5ad(source)
    if adata.n_vars > N_TOP_GENES:
        scaled = sc.pp.log1p(sc.pp.normalize_total(adata, copy=True), copy=True)
        adata = adata[:, sc.pp.highly_variable_genes(scaled, n_top_genes=N_TOP_GENES, inplace=False)["highly_variable"]]
    directory.mkdir(parents=True)
    adata.copy().write_h5ad(directory / "counts.h5ad")
    (directory / "manifest.csv").write_text(f"path,srx_accession\n{directory / 'counts.h5ad'},SRX1\n")
    target = directory / "chunks"
    command = [
        sys.executable, str(ROOT / "process.py"), "input=manifest", f"input.manifest={directory / 'manifest.csv'}",
        "qc=none", "genes.min_cells=1", f"chunk_size={CHUNK_SIZE}", f"paths.processed_dir={target}", *order.split(),
        f"hydra.run.dir={directory / 'process'}",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return target


def train_ours(path: Path, epochs: int, seed: int, window: int = 1) -> tuple[Encode, Decode, list[float]]:
    """Our model, trained."""
    lightning.seed_everything(seed, verbose=False)
    data, times = served(path, seed, window), EpochTimes()
    model = VAE(likelihood="nb", kl_warmup_epochs=WARMUP_EPOCHS, **SIZES)
    Trainer(
        max_epochs=epochs, callbacks=[times], logger=False, enable_checkpointing=False, enable_progress_bar=False,
        limit_val_batches=0, num_sanity_val_steps=0, enable_model_summary=False, accelerator="cpu",
    ).fit(model, datamodule=data)  # fmt: skip
    model.eval()

    def encode(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean, log_var = model.encoder(torch.log1p(x), None)
        return mean, torch.exp(0.5 * log_var)

    def decode(z: torch.Tensor, library: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.softmax(model.decoder(z, None)["scale"], dim=1) * library, model.log_dispersion[0].exp()

    return encode, decode, times.seconds


def train_scvi(path: Path, epochs: int, seed: int) -> tuple[Encode, Decode, list[float]]:
    """SCVI, trained from the same loader."""
    import scvi

    from scvae_data.scvi import ScviDataModule

    lightning.seed_everything(seed, verbose=False)
    data, times = ScviDataModule(served(path, seed)), EpochTimes()
    model = scvi.model.SCVI(registry=data.registry, gene_likelihood="nb", **SIZES)
    model.train(
        datamodule=data, max_epochs=epochs, callbacks=[times], enable_progress_bar=False, limit_val_batches=0,
        plan_kwargs={"n_epochs_kl_warmup": WARMUP_EPOCHS}, accelerator="cpu", logger=False,
    )  # fmt: skip
    module = model.module.eval()

    def encode(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        posterior = module.inference(x, batch_index=torch.zeros(len(x), 1, dtype=torch.int64))["qz"]
        return posterior.loc, posterior.scale

    def decode(z: torch.Tensor, library: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        codes = torch.zeros(len(z), 1, dtype=torch.int64)
        px = module.generative(z=z, library=library.log(), batch_index=codes)["px"]
        return px.mu, px.theta

    return encode, decode, times.seconds


def served(path: Path, seed: int, window: int = 1) -> ChunkedDataModule:
    """The loader of a run."""
    cache = max(4, window)
    return ChunkedDataModule(
        path, BATCH_SIZE, cache, window, batch_key=None, split={"val": 0.1}, normalized=False, seed=seed
    )


@torch.inference_mode()
def held_out(path: Path, encode: Encode, decode: Decode, samples: int) -> tuple[float, float]:
    """Mean over held-out cells of log p(cell) in nats: importance-weighted, and at the mean of the latent."""
    data = served(path, 0)
    data.setup("fit")
    rng = np.random.default_rng(0)
    weighted, at_mean = [], []
    for batch in data.val_dataloader():
        x = batch["x"]
        library = x.sum(dim=1, keepdim=True)
        mean, scale = encode(x)
        at_mean.append(log_density(x, *decode(mean, library)))
        log_weights = []
        for _ in range(samples):
            noise = rng.standard_normal(mean.shape)
            z = mean.double().numpy() + scale.double().numpy() * noise
            prior_over_posterior = norm.logpdf(z) - norm.logpdf(noise) + np.log(scale.double().numpy())
            density = log_density(x, *decode(torch.tensor(z, dtype=torch.float32), library))
            log_weights.append(density + prior_over_posterior.sum(axis=1))
        weighted.append(logsumexp(log_weights, axis=0) - np.log(samples))
    return float(np.concatenate(weighted).mean()), float(np.concatenate(at_mean).mean())


def log_density(x: torch.Tensor, mean: torch.Tensor, theta: torch.Tensor) -> np.ndarray:
    """Log-probability of each cell's counts, (n,)."""
    mean_64, theta_64 = mean.double().numpy(), theta.double().numpy()
    return nbinom.logpmf(x.numpy(), theta_64, theta_64 / (theta_64 + mean_64)).sum(axis=1)


def paired(ours: list[float], theirs: list[float]) -> str:
    """Mean difference and its standard error."""
    difference = np.subtract(ours, theirs)
    error = f" ± {difference.std(ddof=1) / np.sqrt(len(difference)):.2f}" if len(difference) > 1 else ""
    return f"{difference.mean():+.2f}{error}"


def compare_models(name: str, path: Path, arguments: argparse.Namespace) -> None:
    """One row of the first table."""
    scores: dict[str, list[tuple[float, float]]] = {"ours": [], "scvi": []}
    seconds: dict[str, list[float]] = {"ours": [], "scvi": []}
    for seed in range(arguments.seeds):
        for who, train in (("ours", train_ours), ("scvi", train_scvi))[:: 1 if seed % 2 == 0 else -1]:
            encode, decode, times = train(path, arguments.epochs, seed)
            scores[who].append(held_out(path, encode, decode, arguments.samples))
            seconds[who] += times[1:]  # the first compiles
    means = [f"{np.mean([score[0] for score in scores[who]]):,.2f}" for who in ("ours", "scvi")]
    differences = [paired([s[i] for s in scores["ours"]], [s[i] for s in scores["scvi"]]) for i in (0, 1)]
    times_ms = [f"{1000 * statistics.median(seconds[who]):,.0f} ms" for who in ("ours", "scvi")]
    index = open_index(path)
    cells = [f"{name}, {index.n_obs:,} × {index.n_vars:,}", *means, *differences, *times_ms]
    print("| " + " | ".join(cells) + " |", flush=True)


def compare_orders(name: str, path: Path, grouped: Path, arguments: argparse.Namespace) -> None:
    """One row of the second table."""
    everything = len(open_index(path).chunks)
    runs = {"random": (path, everything), "hash": (path, 1), "source": (grouped, 1)}
    scores: dict[str, list[float]] = {order: [] for order in runs}
    for seed in range(arguments.seeds):
        for order, (where, window) in runs.items():
            encode, decode, _ = train_ours(where, arguments.epochs, seed, window)
            scores[order].append(held_out(path, encode, decode, arguments.samples)[0])
    noise = f"{np.std(scores['random'], ddof=1):.2f}" if arguments.seeds > 1 else "–"
    against = [paired(scores[order], scores["random"]) for order in ("hash", "source")]
    print(f"| {name} | {np.mean(scores['random']):,.2f} | {noise} | {against[0]} | {against[1]} |", flush=True)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder of the real files")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=25, help="draws of the latent per held-out cell")
    parser.add_argument("--sets", nargs="+", choices=list(FILES), default=list(FILES))
    parser.add_argument("--skip-orders", action="store_true")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    files = {name: arguments.data / FILES[name] for name in arguments.sets}
    if absent := [str(path) for path in files.values() if not path.is_file()]:
        print(f"not run: no {', '.join(absent)}; give --data")
        return
    with tempfile.TemporaryDirectory() as scratch:
        paths = {name: processed(path, Path(scratch) / name, "chunking.order=hash") for name, path in files.items()}
        if importlib.util.find_spec("scvi") is None:
            print("not run: the comparison with SCVI, because scvi-tools is not installed")
        else:
            print("| cells × genes | ours | SCVI | difference | at the mean | ours, epoch | SCVI, epoch |")
            print("|---|---|---|---|---|---|---|")
            for name, path in paths.items():
                compare_models(name, path, arguments)
        if not arguments.skip_orders:
            print(
                "\n| | in-memory random | its sd over seeds | hash − random | source − random |\n|---|---|---|---|---|"
            )
            for name, path in paths.items():
                grouped = processed(files[name], Path(scratch) / f"{name}_source", "chunking.order=source")
                compare_orders(name, path, grouped, arguments)


if __name__ == "__main__":
    main()
