"""The VAE against SCVI of scvi-tools, and loader orders against each other: held-out likelihood, time, latents.

Both models get the same cells, genes, split, batches, epochs, likelihood,
sizes, optimiser and KL warm-up. Ours learns from its loader as train.py does,
from sparse rows; SCVI from the same loader, dense, and in the first table also
as its users train it, from an AnnData in RAM. Cells held out are scored by one
function that belongs to neither: the negative binomial of scipy in float64, as
an importance-weighted estimate of log p(cell) with ``--samples`` draws of the
latent, and at the latent's mean. Runs are interleaved, differences are paired
over seeds.

    python benchmarks/model.py --data ../shared/data                 # needs scvi-tools for the comparison
    python benchmarks/model.py --data ../shared/data --tables orders
    python benchmarks/model.py --tables latents --epochs 5 --seeds 1

The data are pbmc3k (its 2,000 most variable genes by scanpy) and a
glioblastoma data set (its 300 genes), whose five patients lie one after the
other in the file and count as experiments. Latents are scored on
four simulated experiments with batch effects and known cell types (2,000
variable genes), with batch correction, beside the first ten principal
components of the log-normalised values.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as train.py does, before torch reads it

import anndata
import lightning
import numpy as np
import pandas as pd
import scanpy as sc
import torch
from lightning.pytorch import Callback, Trainer
from scipy.sparse import csr_matrix
from scipy.special import logsumexp
from scipy.stats import nbinom, norm

from scvae_data import VAE, ChunkedDataModule, ChunkedDataset, open_index
from scvae_data.training.scores import SCORES, latent_scores

ROOT = Path(__file__).resolve().parents[1]
FILES = {"pbmc3k": "h5ad/pbmc3k_2700.h5ad", "glioblastoma": "h5ad/glioblastoma_zhao_5000.h5ad"}
EXPERIMENTS = {"glioblastoma": "patient_id"}  # obs column; none: one experiment
N_TOP_GENES = 2000
TABLES = ("models", "orders", "latents")
BATCH_KEY = "SRX_accession"
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


def processed(name: str, source: Path, directory: Path, order: str) -> Path:
    """A dataset directory of ``source``, with the genes that are compared."""
    adata = anndata.read_h5ad(source)
    if adata.n_vars > N_TOP_GENES:
        scaled = sc.pp.log1p(sc.pp.normalize_total(adata, copy=True), copy=True)
        adata = adata[:, sc.pp.highly_variable_genes(scaled, n_top_genes=N_TOP_GENES, inplace=False)["highly_variable"]]
    adata = adata.copy()
    experiment = adata.obs[EXPERIMENTS[name]].astype("category").cat.codes if name in EXPERIMENTS else 0
    adata.obs[BATCH_KEY] = ("SRX" + pd.Series(experiment, index=adata.obs_names).add(1).astype(str)).astype("category")
    directory.mkdir(parents=True)
    adata.write_h5ad(directory / "counts.h5ad")
    paths = ["input=files", f"input.paths={directory / 'counts.h5ad'}", f"chunking.order={order}"]
    return process(directory, *paths, "qc=none", "genes.min_cells=1")


def simulated(directory: Path) -> Path:
    """A dataset directory of four simulated experiments."""
    return process(directory, f"paths.data_dir={directory}", "genes=hvg", f"genes.n_top_genes={N_TOP_GENES}")


def process(directory: Path, *settings: str) -> Path:
    """Run process.py; returns the dataset directory it made in ``directory``."""
    target = directory / "chunks"
    command = [
        sys.executable, str(ROOT / "process.py"), *settings, f"chunk_size={CHUNK_SIZE}",
        f"paths.processed_dir={target}", f"hydra.run.dir={directory / 'process'}",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return target


def train_ours(
    path: Path, epochs: int, seed: int, window: int | None = None, batch_key: str | None = None
) -> tuple[Encode, Decode, list[float]]:
    """Our model, trained."""
    lightning.seed_everything(seed, verbose=False)
    data, times = served(path, seed, window, batch_key, "csr"), EpochTimes()
    model: Any = VAE(likelihood="nb", kl_warmup_epochs=WARMUP_EPOCHS, batch_key=batch_key, **SIZES)
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


def train_scvi(path: Path, epochs: int, seed: int, batch_key: str | None = None) -> tuple[Encode, Decode, list[float]]:
    """SCVI, trained from our loader."""
    import scvi

    from scvae_data.scvi import ScviDataModule

    lightning.seed_everything(seed, verbose=False)
    data, times = ScviDataModule(served(path, seed, batch_key=batch_key)), EpochTimes()
    model = scvi.model.SCVI(registry=data.registry, gene_likelihood="nb", **SIZES)
    model.train(
        datamodule=data, max_epochs=epochs, callbacks=[times], enable_progress_bar=False, limit_val_batches=0,
        plan_kwargs={"n_epochs_kl_warmup": WARMUP_EPOCHS}, accelerator="cpu", logger=False,
    )  # fmt: skip
    return *functions_of(model.module.eval()), times.seconds


def train_scvi_alone(path: Path, epochs: int, seed: int) -> tuple[Encode, Decode, list[float]]:
    """SCVI, trained from an AnnData of the same training cells by its own loader."""
    import scvi

    lightning.seed_everything(seed, verbose=False)
    data, times = served(path, 0), EpochTimes()
    data.setup("fit")
    cells = anndata.AnnData(csr_matrix(torch.cat([batch["x"] for batch in data.train_dataloader()]).numpy()))
    scvi.model.SCVI.setup_anndata(cells)
    model = scvi.model.SCVI(cells, gene_likelihood="nb", **SIZES)
    model.train(
        max_epochs=epochs, train_size=1.0, batch_size=BATCH_SIZE, callbacks=[times], enable_progress_bar=False,
        plan_kwargs={"n_epochs_kl_warmup": WARMUP_EPOCHS}, accelerator="cpu", logger=False,
    )  # fmt: skip
    return *functions_of(model.module.eval()), times.seconds


def functions_of(module: Any) -> tuple[Encode, Decode]:
    """What a trained SCVI computes."""

    def encode(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        posterior = module.inference(x, batch_index=torch.zeros(len(x), 1, dtype=torch.int64))["qz"]
        return posterior.loc, posterior.scale

    def decode(z: torch.Tensor, library: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        codes = torch.zeros(len(z), 1, dtype=torch.int64)
        px = module.generative(z=z, library=library.log(), batch_index=codes)["px"]
        return px.mu, px.theta

    return encode, decode


def served(
    path: Path, seed: int, window: int | None = None, batch_key: str | None = None, x_format: str = "dense"
) -> ChunkedDataModule:
    """The loader of a run: with the defaults of the directory, or with ``window`` chunks mixed at a time."""
    mixing = {} if window is None else {"chunk_cache_size": max(4, window), "max_chunks_in_memory": window}
    return ChunkedDataModule(
        path,
        BATCH_SIZE,
        batch_key=batch_key,
        split={"val": 0.1},
        normalized=False,
        seed=seed,
        x_format=x_format,
        **mixing,
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
    ways = {"ours": train_ours, "SCVI": train_scvi, "SCVI alone": train_scvi_alone}
    scores: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for seed in range(arguments.seeds):
        for way in list(ways)[:: 1 if seed % 2 == 0 else -1]:
            encode, decode, times = ways[way](path, arguments.epochs, seed)
            scores[way].append(held_out(path, encode, decode, arguments.samples))
            seconds[way] += times[1:]  # the first compiles
    means = [f"{np.mean([score[0] for score in scores[way]]):,.2f}" for way in ways]
    differences = [paired([s[i] for s in scores["ours"]], [s[i] for s in scores["SCVI"]]) for i in (0, 1)]
    medians = [statistics.median(seconds[way]) for way in ways]
    times_ms = [f"{1000 * median:,.0f} ms" for median in medians]
    ratios = [f"{medians[0] / median:.2f}" for median in medians[1:]]
    index = open_index(path)
    cells = [f"{name}, {index.n_obs:,} × {index.n_vars:,}", *means, *differences, *times_ms, *ratios]
    print("| " + " | ".join(cells) + " |", flush=True)


def compare_orders(name: str, path: Path, grouped: Path, arguments: argparse.Namespace) -> None:
    """One row of the second table."""
    everything = len(open_index(path).chunks)
    runs = {"random": (path, everything), "hash": (path, None), "source": (grouped, None), "source, 2": (grouped, 2)}
    scores: dict[str, list[float]] = {order: [] for order in runs}
    for seed in range(arguments.seeds):
        for order, (where, window) in runs.items():
            encode, decode, _ = train_ours(where, arguments.epochs, seed, window)
            scores[order].append(held_out(path, encode, decode, arguments.samples)[0])
    noise = f"{np.std(scores['random'], ddof=1):.2f}" if arguments.seeds > 1 else "–"
    against = [paired(scores[order], scores["random"]) for order in ("hash", "source", "source, 2")]
    print("| " + " | ".join([name, f"{np.mean(scores['random']):,.2f}", noise, *against]) + " |", flush=True)


def compare_latents(path: Path, arguments: argparse.Namespace) -> None:
    """A row per model: mean and standard deviation of the scores over seeds."""
    counts = ChunkedDataset(path).to_anndata(range(open_index(path).n_obs))
    types, batches = (counts.obs[name].reset_index(drop=True) for name in ("cell_type", BATCH_KEY))
    x = torch.from_numpy(counts.X.toarray().astype(np.float32))
    found: dict[str, list[dict[str, float]]] = {"ours": [], "SCVI": []}
    for seed in range(arguments.seeds):
        for who, train in (("ours", train_ours), ("SCVI", train_scvi)):
            if who == "SCVI" and not has_scvi():
                continue
            encode, _, _ = train(path, arguments.epochs, seed, batch_key=BATCH_KEY)
            with torch.inference_mode():
                found[who].append(latent_scores(encode(x)[0].numpy(), types, batches))
    sc.pp.normalize_total(counts)
    sc.pp.log1p(counts)
    sc.pp.pca(counts, n_comps=SIZES["n_latent"])
    found["PCA"] = [latent_scores(counts.obsm["X_pca"], types, batches)]
    for who, scores in found.items():
        if scores:
            columns = [[one[name] for one in scores] for name in SCORES]
            print(
                "| " + " | ".join([who, *(f"{np.mean(c):.3f} ± {np.std(c):.3f}" for c in columns)]) + " |", flush=True
            )


def has_scvi() -> bool:
    """Whether scvi-tools is installed."""
    return importlib.util.find_spec("scvi") is not None


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder of the real files")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--samples", type=int, default=25, help="draws of the latent per held-out cell")
    parser.add_argument("--sets", nargs="+", choices=list(FILES), default=list(FILES))
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=TABLES)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    warnings.simplefilter("ignore")
    for noisy in ("lightning.pytorch", "lightning.fabric", "scvi"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    if not has_scvi():
        print("not run: SCVI, because scvi-tools is not installed")
    with tempfile.TemporaryDirectory() as scratch:
        if set(arguments.tables) & {"models", "orders"}:
            real_data(Path(scratch), arguments)
        if "latents" in arguments.tables:
            print("\n| latents | cell type separation | batch mixing |\n|---|---|---|", flush=True)
            compare_latents(simulated(Path(scratch) / "simulated"), arguments)


def real_data(scratch: Path, arguments: argparse.Namespace) -> None:
    """Both tables of held-out likelihoods."""
    files = {name: arguments.data / FILES[name] for name in arguments.sets}
    if absent := [str(path) for path in files.values() if not path.is_file()]:
        print(f"not run: no {', '.join(absent)}; give --data")
        return
    paths = {name: processed(name, path, scratch / name, "hash") for name, path in files.items()}
    if "models" in arguments.tables and has_scvi():
        print(
            "| cells × genes | ours | SCVI | SCVI alone | difference | at the mean | ours, epoch | SCVI, epoch "
            "| SCVI alone, epoch | ours / SCVI | ours / SCVI alone |"
        )
        print("|---" * 11 + "|", flush=True)
        for name, path in paths.items():
            compare_models(name, path, arguments)
    if "orders" in arguments.tables:
        print(
            "\n| | in-memory random | its sd over seeds | hash − random | source − random | source, 2 chunks − random |"
        )
        print("|---|---|---|---|---|---|", flush=True)
        for name, path in paths.items():
            source = processed(name, files[name], scratch / f"{name}_source", "source")
            compare_orders(name, path, source, arguments)


if __name__ == "__main__":
    main()
