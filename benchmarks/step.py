"""Time a training step: dense rows and plain torch beside sparse rows and fused operators, in one run, interleaved.

Both begin from the same weights at the default sizes. Plain is what a GPU does too: dense rows, densities of whole
matrices, Adam as torch chooses. Prints milliseconds of each part (medians), CPU milliseconds of a step, and how far
the losses are apart.

    python benchmarks/step.py --json step.json

``--drift`` compares instead how far losses, and weights for the way that they have come, grow apart from those of plain
float32 by what changes nothing but rounding: Adam in one pass, gradients of which each element is moved to a float32
beside it, at random, and the fused operators; and how far plain and fused are from float64.

    python benchmarks/step.py --drift --steps 200 --genes 2000
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
N_TYPES = 8
NARROW, WIDE = torch.float32, torch.float64
DRIFTS = (
    ("one pass", "plain"),
    ("nudged", "plain"),
    ("fused", "plain"),
    ("fused", "float64"),
    ("plain", "float64"),
)


def batch_of(n_vars: int, seed: int) -> dict[str, Any]:
    """Counts of cells of some types; genes are found as unequally often as in nature: a log-normal of two units."""
    rng, of_genes = np.random.default_rng(seed), np.random.default_rng(0)
    popularity = of_genes.normal(0, 2, n_vars) + of_genes.normal(0, 0.7, (N_TYPES, n_vars))
    popularity = popularity[rng.integers(0, N_TYPES, BATCH_SIZE)]
    n = NONZEROS[n_vars]
    keys = rng.gumbel(size=(BATCH_SIZE, n_vars)) + popularity
    columns = np.sort(np.argpartition(-keys, n, axis=1)[:, :n], axis=1)
    counts = 1 + rng.poisson(np.exp(np.take_along_axis(popularity, columns, axis=1) / 2 - 1))
    indptr = torch.arange(BATCH_SIZE + 1) * n
    data = torch.from_numpy(counts.astype(np.float32).ravel())
    rows = SparseRows(indptr, torch.from_numpy(columns.astype(np.int32).ravel()), data, n_vars)
    return {
        "x": rows,
        "obs": {"batch": torch.from_numpy(rng.integers(0, 4, BATCH_SIZE))},
        "gene_set": torch.zeros(BATCH_SIZE, dtype=torch.int64),
    }


class Trained:
    """One of the ways to train, with weights, optimiser and times of its own."""

    def __init__(self, n_vars: int, likelihood: str, way: str) -> None:
        torch.manual_seed(0)
        facts = {"n_vars": n_vars, "categories": list("abcd")}
        self.model = VAE(likelihood, batch_key="batch", facts=facts)
        self.model.configure_model()
        self.model.train()
        self.sparse, self.nudged, self.kind = way == "fused", way == "nudged", WIDE if way == "float64" else NARROW
        if not self.sparse:
            linear = self.model.encoder.mlp.layers[0].linear
            linear.weight = torch.nn.Parameter(linear.weight.detach().contiguous())
        self.model.to(self.kind)
        options = {key: self.model.hparams[key] for key in ("lr", "eps", "weight_decay")}
        self.optimizer = torch.optim.Adam(
            self.model.parameters(), **options, fused=way in ("fused", "one pass") or None
        )
        self.seconds: dict[str, list[float]] = defaultdict(list)

    def step(self, batch: dict[str, Any], number: int) -> float:
        """Train on a batch and note the times; returns the loss."""
        batch = batch if self.sparse else {**batch, "x": batch["dense"].to(self.kind)}
        torch.manual_seed(number)
        cpu, marks = time.process_time(), [time.perf_counter()]
        terms = self.model.elbo_terms(batch)
        loss = (terms["kl"] - terms["recon"]).mean()
        marks.append(time.perf_counter())
        self.optimizer.zero_grad()
        loss.backward()
        marks.append(time.perf_counter())
        if self.nudged:
            self._nudge()
        self.optimizer.step()
        marks.append(time.perf_counter())
        for name, seconds in zip(PARTS, np.diff(marks), strict=True):
            self.seconds[name].append(float(seconds))
        self.seconds["step"].append(marks[-1] - marks[0])
        self.seconds["CPU"].append(time.process_time() - cpu)
        return float(loss.detach())

    def weights(self) -> torch.Tensor:
        """All of them, one after the other."""
        return torch.cat([weights.detach().flatten() for weights in self.model.parameters()])

    def _nudge(self) -> None:
        for weights in self.model.parameters():
            if weights.grad is not None:
                side = torch.where(torch.rand_like(weights) < 0.5, -torch.inf, torch.inf)
                weights.grad = torch.nextafter(weights.grad, side)


def batches_of(n_vars: int, likelihood: str) -> list[dict[str, Any]]:
    """Some batches, of which each has its rows dense as well."""
    batches = [batch_of(n_vars, seed) for seed in range(8)]
    if likelihood == "gaussian":
        batches = [{**batch, "x": log1p(batch["x"])} for batch in batches]
    return [{**batch, "dense": batch["x"].to_dense()} for batch in batches]


def losses_of(ways: dict[str, Trained], batches: list[dict[str, Any]], steps: int) -> dict[str, list[float]]:
    """Train in turn."""
    losses: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(steps):
        for name in list(ways)[:: 1 if number % 2 else -1]:
            losses[name].append(ways[name].step(batches[number % len(batches)], number))
    return losses


def apart(one: list[float], other: list[float]) -> np.ndarray:
    """Relative differences of losses."""
    return np.abs(np.divide(one, other) - 1)


def drift(n_vars: int, steps: int, likelihood: str) -> None:
    """Print how far losses grow apart: those of ways that differ in nothing but rounding."""
    ways = {way: Trained(n_vars, likelihood, way) for way in ("plain", "one pass", "nudged", "fused", "float64")}
    start = ways["plain"].weights()
    losses = losses_of(ways, batches_of(n_vars, likelihood), steps)
    for one, other in DRIFTS:
        found = apart(losses[one], losses[other])
        of_one, of_other = (ways[way].weights() for way in (one, other))
        weights = float((of_one - of_other).norm() / (of_other - start).norm())
        cells = [f"{n_vars:,}", likelihood, one, other, *(f"{x:.1e}" for x in (np.median(found), found.max(), weights))]
        print("| " + " | ".join(cells) + " |", flush=True)


def compare(n_vars: int, steps: int, likelihood: str) -> float:
    """Print a row for each path; returns how many times faster the fused one is, by medians."""
    paths = {way: Trained(n_vars, likelihood, way) for way in ("plain", "fused")}
    losses = losses_of(paths, batches_of(n_vars, likelihood), steps)
    differences = apart(losses["fused"], losses["plain"])
    warm = steps // 5
    medians = {
        name: {part: 1000 * statistics.median(values[warm:]) for part, values in path.seconds.items()}
        for name, path in paths.items()
    }
    for name, values in medians.items():
        cells = [f"{values[part]:,.1f}" for part in (*PARTS, "step", "CPU")]
        print("| " + " | ".join([f"{n_vars:,}", likelihood, name, *cells]) + " |", flush=True)
    speedup = medians["plain"]["step"] / medians["fused"]["step"]
    print(
        f"  {speedup:.2f} times as fast; losses apart {differences[0]:.1e} at first, at most {differences.max():.1e}",
        flush=True,
    )
    return speedup


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--genes", type=int, nargs="+", choices=list(NONZEROS), default=list(NONZEROS))
    parser.add_argument("--likelihood", choices=["nb", "zinb", "gaussian"], default="nb")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="file for the speed-ups")
    parser.add_argument("--drift", action="store_true", help="compare losses instead of times")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.drift:
        print(
            f"losses apart over {arguments.steps} steps\n| genes | likelihood | way | from | median | most | weights |"
        )
        print("|--:|---|---|---|--:|--:|--:|")
        for n_vars in arguments.genes:
            drift(n_vars, arguments.steps, arguments.likelihood)
        return
    print(
        f"ms, batch {BATCH_SIZE}, {arguments.threads} threads; medians of {arguments.steps} steps less the first fifth"
    )
    print(f"| genes | likelihood | | {' | '.join(PARTS)} | step | CPU |\n|--:|---|---|" + "--:|" * 5)
    speedups = {str(n_vars): compare(n_vars, arguments.steps, arguments.likelihood) for n_vars in arguments.genes}
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"speedup": speedups}) + "\n")


if __name__ == "__main__":
    main()
