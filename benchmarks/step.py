"""Time a training step: dense rows and plain torch beside sparse rows and fused operators, in one run, interleaved.

Both begin from the same weights at the default sizes. Plain is what a GPU does too: dense rows, densities of whole
matrices, Adam as torch chooses. Prints milliseconds of each part (medians), CPU milliseconds of a step, and how far
the losses are apart: the cells have no structure to learn, so that the latent begins at a saddle, where training
enlarges any rounding.

    python benchmarks/step.py --json step.json
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as train.py does, before torch reads it

import numpy as np
import torch

from scvae_data import VAE
from scvae_data.loading.batch.sparse import SparseRows
from scvae_data.models.vae import log1p

BATCH_SIZE = 256
NONZEROS = {20_000: 2_070, 2_000: 500}  # genes: of a cell
PARTS = ("forward", "backward", "Adam")


def batch_of(n_vars: int, seed: int) -> dict[str, Any]:
    """Counts of cells whose genes are found as unequally often as in nature: a log-normal of two natural units."""
    rng = np.random.default_rng(seed)
    popularity = np.random.default_rng(0).normal(0, 2, n_vars)
    n = NONZEROS[n_vars]
    keys = rng.gumbel(size=(BATCH_SIZE, n_vars)) + popularity
    columns = np.sort(np.argpartition(-keys, n, axis=1)[:, :n], axis=1)
    counts = 1 + rng.poisson(np.exp(popularity[columns] / 2 - 1))
    indptr = torch.arange(BATCH_SIZE + 1) * n
    data = torch.from_numpy(counts.astype(np.float32).ravel())
    rows = SparseRows(indptr, torch.from_numpy(columns.astype(np.int32).ravel()), data, n_vars)
    return {
        "x": rows,
        "obs": {"batch": torch.from_numpy(rng.integers(0, 4, BATCH_SIZE))},
        "gene_set": torch.zeros(BATCH_SIZE, dtype=torch.int64),
    }


class Trained:
    """One of the two ways to train, with weights, optimiser and times of its own."""

    def __init__(self, n_vars: int, fused: bool, likelihood: str) -> None:
        torch.manual_seed(0)
        facts = {"n_vars": n_vars, "categories": list("abcd")}
        self.model = VAE(likelihood, batch_key="batch", facts=facts)
        self.model.configure_model()
        self.model.train()
        if fused:
            self.optimizer = self.model.configure_optimizers()
        else:
            linear = self.model.encoder.mlp.layers[0].linear
            linear.weight = torch.nn.Parameter(linear.weight.detach().contiguous())
            options = {key: self.model.hparams[key] for key in ("lr", "eps", "weight_decay")}
            self.optimizer = torch.optim.Adam(self.model.parameters(), **options)
        self.seconds: dict[str, list[float]] = defaultdict(list)

    def step(self, batch: dict[str, Any], number: int) -> float:
        """Train on a batch and note the times; returns the loss."""
        torch.manual_seed(number)
        cpu, marks = time.process_time(), [time.perf_counter()]
        terms = self.model.elbo_terms(batch)
        loss = (terms["kl"] - terms["recon"]).mean()
        marks.append(time.perf_counter())
        self.optimizer.zero_grad()
        loss.backward()
        marks.append(time.perf_counter())
        self.optimizer.step()
        marks.append(time.perf_counter())
        for name, seconds in zip(PARTS, np.diff(marks), strict=True):
            self.seconds[name].append(float(seconds))
        self.seconds["step"].append(marks[-1] - marks[0])
        self.seconds["CPU"].append(time.process_time() - cpu)
        return float(loss.detach())


def compare(n_vars: int, steps: int, likelihood: str) -> float:
    """Print a row for each path; returns how many times faster the fused one is, by medians."""
    sparse = [batch_of(n_vars, seed) for seed in range(8)]
    if likelihood == "gaussian":
        sparse = [{**batch, "x": log1p(batch["x"])} for batch in sparse]
    dense = [{**batch, "x": batch["x"].to_dense()} for batch in sparse]
    paths = {"plain": (Trained(n_vars, False, likelihood), dense), "fused": (Trained(n_vars, True, likelihood), sparse)}
    apart = []
    for number in range(steps):
        order = list(paths) if number % 2 else list(paths)[::-1]
        losses = {name: paths[name][0].step(paths[name][1][number % len(sparse)], number) for name in order}
        apart.append(abs(losses["fused"] / losses["plain"] - 1))
    warm = steps // 5
    medians = {
        name: {part: 1000 * statistics.median(values[warm:]) for part, values in path.seconds.items()}
        for name, (path, _) in paths.items()
    }
    for name, values in medians.items():
        cells = [f"{values[part]:,.1f}" for part in (*PARTS, "step", "CPU")]
        print("| " + " | ".join([f"{n_vars:,}", likelihood, name, *cells]) + " |", flush=True)
    speedup = medians["plain"]["step"] / medians["fused"]["step"]
    print(f"  {speedup:.2f} times as fast; losses apart {apart[0]:.1e} at first, at most {max(apart):.1e}", flush=True)
    return speedup


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--genes", type=int, nargs="+", choices=list(NONZEROS), default=list(NONZEROS))
    parser.add_argument("--likelihood", choices=["nb", "zinb", "gaussian"], default="nb")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="file for the speed-ups")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(
        f"ms, batch {BATCH_SIZE}, {arguments.threads} threads; medians of {arguments.steps} steps less the first fifth"
    )
    print(f"| genes | likelihood | | {' | '.join(PARTS)} | step | CPU |\n|--:|---|---|" + "--:|" * 5)
    speedups = {str(n_vars): compare(n_vars, arguments.steps, arguments.likelihood) for n_vars in arguments.genes}
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"speedup": speedups}) + "\n")


if __name__ == "__main__":
    main()
