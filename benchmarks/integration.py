"""Integration of batches by our VAE and by SCVI, scored with scib-metrics; prints tables in Markdown.

Ours has its defaults, or shows no cell as one of an unknown batch. All models
have the same cells, variable genes, held-out cells, batches, sizes, epochs,
optimiser and KL warm-up, and learn from the same loader, with three seeds.
The latents are scored by the metrics and weights of scIB as
`scib-metrics` computes them, beside the principal components of the
log-normalised values. Labels are those of the authors or, in simulations, the
truth; only singlets are scored where that is known.

    pip install 'scvae-data[scvi]' scib-metrics
    python benchmarks/integration.py --data ../shared/data --work outputs/integration
    python benchmarks/integration.py --work outputs/integration --tables-only

What is done is left in ``--work`` (``results.json``, latents, directories of
chunks), and a run that was stopped goes on from there. Times are CPU seconds of
the training steps, on one thread; the time to equal likelihood is that to the
lower of the two models' best held-out ELBO.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import anndata
import lightning
import numpy as np
import pandas as pd
import scanpy as sc
import scipy.sparse as sp
import torch
from lightning.pytorch import Callback, Trainer
from model import BATCH_SIZE, ROOT, SIZES, WARMUP_EPOCHS, process, served

from scvae_data import VAE, ChunkedDataset

BATCH, LABEL = "SRX_accession", "label"
N_TOP_GENES = 2000
MAX_CELLS = 5_000
LEAST_EPOCHS, LEAST_STEPS = 20, 400  # an epoch has 4 to 36 steps
MAX_SIMULATED = 500  # cells of each simulated experiment
OURS, SCVI, KNOWN, UNINTEGRATED = "ours", "SCVI", "ours, unknown_dropout=0", "PCA"
CELSEQ = "sc_celseq2", "sc_dropseq"
PLATES = "sc_celseq2_5cl_p1", "sc_celseq2_5cl_p2", "sc_celseq2_5cl_p3"
NOT_SCORED = {
    "pbmc3k": "one batch and no labels: neither mixing nor separation has anything to compare",
    "1k_pbmc_v2_chemistry": "one batch and no labels",
    "mouse_bm_362": "two batches without labels: mixing alone would reward mixing different cells",
    "zellkonverter_example_anndata": "labels, but one batch: there is nothing to mix",
    "yeast_844": "its clusters were made within each treatment, so labels and batches are the same thing",
}


@dataclass(frozen=True)
class Source:
    """Cells with batches and labels."""

    words: str
    """What batches and labels are."""
    load: Callable[[Path, Path], anndata.AnnData]
    """Folder of real files, scratch folder → counts with :data:`BATCH` and :data:`LABEL` in obs."""


def mixology(*names: str) -> Callable[[Path, Path], anndata.AnnData]:
    """Files of the cell mixtures, each a batch, over the genes that all have."""

    def load(data: Path, scratch: Path) -> anndata.AnnData:
        parts = []
        for name in names:
            counts = pd.read_csv(data / "csv/sc_mixology" / f"{name}.count.csv.gz", index_col=0).T
            cells = pd.read_csv(data / "csv/sc_mixology" / f"{name}.metadata.csv.gz", index_col=0).loc[counts.index]
            lines = cells["cell_line" if "cell_line" in cells else "cell_line_demuxlet"]
            obs = pd.DataFrame({BATCH: name, LABEL: lines.astype(str).to_numpy()}, index=name + "_" + counts.index)
            x = sp.csr_matrix(counts.to_numpy(np.float32))
            whole = anndata.AnnData(x, obs, pd.DataFrame(index=counts.columns.astype(str)))
            parts.append(whole[(cells["demuxlet_cls"] == "SNG").to_numpy()].copy())
        return anndata.concat(parts, join="inner")

    return load


def annotated(file: str, batch: str, label: str) -> Callable[[Path, Path], anndata.AnnData]:
    """An H5AD file whose obs has both, at most :data:`MAX_CELLS` of its cells."""

    def load(data: Path, scratch: Path) -> anndata.AnnData:
        adata = anndata.read_h5ad(data / file)
        adata.obs_names_make_unique()
        chosen = np.sort(np.random.default_rng(0).permutation(adata.n_obs)[:MAX_CELLS])
        adata = adata[chosen].copy()
        adata.obs = adata.obs[[batch, label]].astype(str).set_axis([BATCH, LABEL], axis="columns")
        return adata

    return load


def simulated(*, complete: bool) -> Callable[[Path, Path], anndata.AnnData]:
    """Four simulated experiments of known types; if not complete, each lacks a quarter of the types."""

    def load(data: Path, scratch: Path) -> anndata.AnnData:
        path = scratch / "simulated" / "chunks"
        if not (path / "chunk_index.json").is_file():
            process(scratch / "simulated", f"paths.data_dir={scratch / 'simulated'}")
        cells = ChunkedDataset(path).to_anndata()
        good = ~(cells.obs["is_doublet"] | cells.obs["is_low_quality"]).to_numpy(bool)
        batches, types = (pd.factorize(cells.obs[name], sort=True)[0] for name in (BATCH, "cell_type"))
        if not complete:
            good &= types % 4 != batches
        place = pd.Series(1, index=cells.obs_names)[good].groupby(batches[good]).cumsum()
        chosen = place.index[place.to_numpy() <= MAX_SIMULATED]
        adata = cells[chosen].copy()
        adata.obs = adata.obs[[BATCH, "cell_type"]].astype(str).set_axis([BATCH, LABEL], axis="columns")
        return adata

    return load


SOURCES = {
    "protocols": Source("sc_mixology, CEL-seq2 and Drop-seq × 3 cell lines", mixology(*CELSEQ)),
    "plates": Source("sc_mixology, 3 CEL-seq2 plates × 5 cell lines", mixology(*PLATES)),
    "all five": Source("sc_mixology, all five files × 5 cell lines", mixology(*CELSEQ, *PLATES)),
    "demo": Source("simulated, 4 experiments × 8 types", simulated(complete=True)),
    "demo, types missing": Source(
        "simulated, the same, each experiment without 2 of the types", simulated(complete=False)
    ),
    "glioblastoma": Source(
        "5 patients × untreated, panobinostat", annotated("h5ad/glioblastoma_zhao_5000.h5ad", "patient_id", "condition")
    ),
    "papalexi": Source(
        "3 replicates × gene knocked out (most do little)",
        annotated("h5ad/papalexi_lowmoi_20729.h5ad", "bio_rep", "gene"),
    ),
}


class Results:
    """What is known so far, kept in a file."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "results.json"
        self.found: dict[str, Any] = json.loads(self.path.read_text()) if self.path.is_file() else {}

    def of(self, name: str) -> dict[str, Any]:
        """The entry of a set."""
        entry: dict[str, Any] = self.found.setdefault(name, {"runs": {}})
        return entry

    def save(self) -> None:
        """Replace the file."""
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(json.dumps(self.found, indent=1) + "\n")
        temporary.replace(self.path)


class Curve(Callback):
    """CPU seconds of training so far and the held-out ELBO, after each epoch."""

    def __init__(self, metric: str, sign: float) -> None:
        self.metric, self.sign = metric, sign
        self.seconds: list[float] = []
        self.elbo: list[float] = []
        self._spent = 0.0

    def on_train_epoch_start(self, *args: Any) -> None:
        """Start the clock."""
        self._started = time.process_time()

    def on_validation_start(self, *args: Any) -> None:
        """Stop the clock: validation comes at the end of an epoch."""
        self._spent += time.process_time() - self._started
        self.seconds.append(self._spent)

    def on_validation_end(self, trainer: Trainer, *args: Any) -> None:
        """Note what the model logged."""
        self.elbo.append(self.sign * float(trainer.callback_metrics[self.metric]))


def directory(name: str, arguments: argparse.Namespace) -> Path:
    """A dataset directory of a set's cells and variable genes, made once."""
    folder = arguments.work / name.replace(", ", "_").replace(" ", "_")
    if (folder / "chunks" / "chunk_index.json").is_file():
        return folder / "chunks"
    adata = SOURCES[name].load(arguments.data, arguments.work)
    adata.obs = adata.obs.astype("category")
    if adata.n_vars > N_TOP_GENES:
        scaled = sc.pp.log1p(sc.pp.normalize_total(adata, copy=True), copy=True)
        ranked = sc.pp.highly_variable_genes(scaled, n_top_genes=N_TOP_GENES, batch_key=BATCH, inplace=False)
        adata = adata[:, ranked["highly_variable"].to_numpy()].copy()
    folder.mkdir(parents=True, exist_ok=True)
    adata.write_h5ad(folder / "counts.h5ad")
    return process(folder, "input=files", f"input.paths={folder / 'counts.h5ad'}", "qc=none", "genes.min_cells=1")


def train_ours(path: Path, epochs: int, seed: int, **settings: Any) -> tuple[np.ndarray, Curve]:
    """Latent means in the order of the directory, and the curve of training."""
    data, curve = served(path, seed, batch_key=BATCH), Curve("val/elbo", 1.0)
    model = VAE(likelihood="nb", kl_warmup_epochs=WARMUP_EPOCHS, batch_key=BATCH, **SIZES, **settings)
    Trainer(
        max_epochs=epochs, callbacks=[curve], logger=False, enable_checkpointing=False, enable_progress_bar=False,
        num_sanity_val_steps=0, enable_model_summary=False, accelerator="cpu",
    ).fit(model, datamodule=data)  # fmt: skip
    model.eval()
    with torch.inference_mode():
        latents = [model(data.on_after_batch_transfer(batch, 0)).numpy() for batch in data.predict_dataloader()]
    return np.concatenate(latents), curve


def train_scvi(path: Path, epochs: int, seed: int) -> tuple[np.ndarray, Curve]:
    """The same of SCVI."""
    import scvi

    from scvae_data.scvi import ScviDataModule

    data, curve = ScviDataModule(served(path, seed, batch_key=BATCH)), Curve("elbo_validation", -1.0)
    model = scvi.model.SCVI(registry=data.registry, gene_likelihood="nb", **SIZES)
    model.train(
        datamodule=data, max_epochs=epochs, callbacks=[curve], enable_progress_bar=False, logger=False,
        check_val_every_n_epoch=1, plan_kwargs={"n_epochs_kl_warmup": WARMUP_EPOCHS}, accelerator="cpu",
    )  # fmt: skip
    return model.get_latent_representation(dataloader=data.inference_dataloader()), curve


MODELS = {OURS: train_ours, SCVI: train_scvi, KNOWN: partial(train_ours, unknown_dropout=0.0)}


def train_all(name: str, path: Path, arguments: argparse.Namespace, results: Results) -> Iterator[tuple[str, Path]]:
    """Train what is not yet trained; yields the name and the latents of each run."""
    entry = results.of(name)
    cells = ChunkedDataset(path)
    obs = cells.obs([BATCH, LABEL])
    entry["shape"] = len(cells), cells.index.n_vars, obs[BATCH].nunique(), obs[LABEL].nunique()
    entry["epochs"] = max(LEAST_EPOCHS, round(LEAST_STEPS / np.ceil(0.9 * len(cells) / BATCH_SIZE)))
    for seed in range(arguments.seeds):
        for model in list(MODELS)[:: 1 if seed % 2 == 0 else -1]:
            run, latents = f"{model} {seed}", path.parent / f"{model.replace(', ', '_')}_{seed}.npy"
            if run not in entry["runs"]:
                lightning.seed_everything(seed, verbose=False)
                z, curve = MODELS[model](path, entry["epochs"], seed)
                np.save(latents, z)
                entry["runs"][run] = {"seconds": curve.seconds, "elbo": curve.elbo}
                results.save()
                print(f"{name}: {run}, {curve.seconds[-1]:.0f} s, ELBO {curve.elbo[-1]:.1f}", flush=True)
            yield run, latents


def score(path: Path, latents: dict[str, Path]) -> dict[str, dict[str, float]]:
    """Scores of latents of a set, and of principal components."""
    from scib_metrics.benchmark import Benchmarker
    from scib_metrics.nearest_neighbors import NeighborsResults
    from sklearn.neighbors import NearestNeighbors

    def neighbours(x: np.ndarray, n: int) -> NeighborsResults:
        distances, indices = NearestNeighbors(n_neighbors=n).fit(x).kneighbors(x)
        return NeighborsResults(indices, distances)

    adata = ChunkedDataset(path).to_anndata()
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    sc.pp.pca(adata, n_comps=50)
    adata.obsm[UNINTEGRATED] = adata.obsm["X_pca"][:, : SIZES["n_latent"]]
    for run, file in latents.items():
        adata.obsm[run] = np.load(file)
    benchmarker = Benchmarker(
        adata, BATCH, LABEL, [UNINTEGRATED, *latents], pre_integrated_embedding_obsm_key="X_pca", progress_bar=False
    )
    benchmarker.prepare(neighbours)
    benchmarker.benchmark()
    table = benchmarker.get_results().drop(index="Metric Type").astype(float)
    return {str(run): {str(metric): float(value) for metric, value in row.items()} for run, row in table.iterrows()}


def show(results: Results) -> None:
    """Print both tables of what is known."""
    columns = ("Total", "Bio conservation", "Batch correction", "KMeans NMI", "Silhouette label", "iLISI", "KBET")
    print("| cells × genes, batches × labels | latents | " + " | ".join(columns) + " |")
    print("|---|---|" + "---|" * len(columns))
    for name, entry in results.found.items():
        for model in (*MODELS, UNINTEGRATED):
            runs = [scores for run, scores in entry.get("scores", {}).items() if model_of(run) == model]
            cells = [spread([run[column] for run in runs]) if runs else "–" for column in columns]
            print("| " + " | ".join([what(name, entry) if model == OURS else "", model, *cells]) + " |")
    print("\n| | epochs | held-out ELBO, ours | SCVI | CPU s an epoch, ours | SCVI | to equal ELBO, ours | SCVI |")
    print("|---|---|---|---|---|---|---|---|")
    for name, entry in results.found.items():
        both = [
            [entry["runs"][run] for run in sorted(entry["runs"]) if model_of(run) == model] for model in (OURS, SCVI)
        ]
        if all(both):
            best = [f"{np.mean([max(run['elbo']) for run in runs]):,.1f}" for runs in both]
            epoch = [f"{np.median([pace(run) for run in runs]):.2f}" for runs in both]
            pairs = list(zip(*both, strict=False))
            equal = [f"{np.mean([to_equal(pair)[i] for pair in pairs]):.1f}" for i in range(2)]
            print("| " + " | ".join([name, str(entry["epochs"]), *best, *epoch, *equal]) + " |")
    print("\nNot scored: " + "; ".join(f"{name} ({why})" for name, why in NOT_SCORED.items()) + ".")


def model_of(run: str) -> str:
    """The model of a run; principal components have no seed."""
    return run if run == UNINTEGRATED else run.rpartition(" ")[0]


def what(name: str, entry: dict[str, Any]) -> str:
    """A set in words."""
    n_cells, n_genes, n_batches, n_labels = entry["shape"]
    return f"{name}, {n_cells:,} × {n_genes:,}, {n_batches} × {n_labels}"


def spread(values: list[float]) -> str:
    """Mean and standard deviation over seeds."""
    return f"{np.mean(values):.3f}" + (f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else "")


def pace(run: dict[str, list[float]]) -> float:
    """CPU seconds of an epoch, but for the first, which compiles."""
    return (run["seconds"][-1] - run["seconds"][0]) / (len(run["seconds"]) - 1)


def to_equal(pair: tuple[dict[str, list[float]], dict[str, list[float]]]) -> list[float]:
    """CPU seconds until each of two runs first has the lower of their best held-out likelihoods."""
    level = min(max(run["elbo"]) for run in pair)
    return [pace(run) * (1 + int(np.argmax(np.array(run["elbo"]) >= level))) for run in pair]


def can_run(data: Path) -> bool:
    """Whether packages and files are there; says what is not."""
    absent = [name for name in ("scvi", "scib_metrics") if importlib.util.find_spec(name) is None]
    if absent:
        print(f"not run: {' and '.join(absent)} not installed")
    if not data.is_dir():
        print(f"not run: no {data}; give --data")
    return not absent and data.is_dir()


def main() -> None:
    """Train, score and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder of the real files")
    parser.add_argument("--work", type=Path, default=ROOT / "outputs" / "integration", help="where results are kept")
    parser.add_argument("--sets", nargs="+", choices=list(SOURCES), default=list(SOURCES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tables-only", action="store_true", help="print what is known")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    for noisy in ("lightning.pytorch", "lightning.fabric", "scvi"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    torch.set_num_threads(1)
    results = Results(arguments.work)
    wanted = [] if arguments.tables_only or not can_run(arguments.data) else arguments.sets
    paths = {name: directory(name, arguments) for name in wanted}
    latents = {name: dict(train_all(name, paths[name], arguments, results)) for name in wanted}
    for name in wanted:
        scores = results.of(name).setdefault("scores", {})
        if missing := {run: file for run, file in latents[name].items() if run not in scores}:
            scores |= score(paths[name], missing)
            results.save()
    show(results)


if __name__ == "__main__":
    main()
