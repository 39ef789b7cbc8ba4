"""Time per epoch of a VAE trained from disk over that of the same VAE fed from tensors in RAM.

Both train on the same cells, in batches of the same size, with the model's
default sizes. In RAM all training cells lie in one dense tensor, whose rows
are taken in random order and nothing else. Epochs of the two alternate, so
that other work on the machine meets both; caches of decoded chunks are emptied
before each, so that every epoch reads from disk.

    python benchmarks/epoch.py                                     # 8,000 cells of a directory made once
    python benchmarks/epoch.py --data DIR --cells 8000 --epochs 5
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from scvae_data import VAE, ChunkedDataModule, open_index
from scvae_data.models.dataset_facts import facts_of

Batch = dict[str, Any]
BATCH_KEY = "SRX_accession"


def in_memory(module: ChunkedDataModule) -> Callable[[], Iterator[Batch]]:
    """A function that starts an epoch over the training cells, all copied to tensors first."""
    batches = list(module.train_dataloader())
    keys = ("x", "library_size", "size_factor", "gene_set", "index")
    cells = {key: torch.cat([batch[key] for batch in batches]) for key in keys}
    codes = torch.cat([batch["obs"][BATCH_KEY] for batch in batches])

    def epoch() -> Iterator[Batch]:
        for rows in torch.randperm(len(codes)).tensor_split(len(batches)):
            yield {**{key: values[rows] for key, values in cells.items()}, "obs": {BATCH_KEY: codes[rows]}}

    return epoch


def train(model: VAE, optimiser: torch.optim.Optimizer, batches: Iterable[Batch]) -> tuple[float, float]:
    """Seconds of one epoch, and those of them spent waiting for batches."""
    started = asked = time.perf_counter()
    waited = 0.0
    for batch in batches:
        waited += time.perf_counter() - asked
        terms = model.elbo_terms(batch)
        optimiser.zero_grad()
        (terms["kl"] - terms["recon"]).mean().backward()
        optimiser.step()
        asked = time.perf_counter()
    return time.perf_counter() - started, waited


def fresh(module: ChunkedDataModule) -> tuple[VAE, torch.optim.Optimizer]:
    """A model of the default sizes and its optimiser, with the same first weights each time."""
    torch.manual_seed(0)
    model = VAE(facts=facts_of(module, BATCH_KEY))
    model.configure_model()
    return model, torch.optim.Adam(model.parameters(), lr=1e-3)


def main() -> None:
    """Print the time of each epoch and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=None, help="a dataset directory")
    parser.add_argument("--cells", type=int, default=8_000, help="training cells")
    parser.add_argument("--epochs", type=int, default=5)
    arguments = parser.parse_args()
    if arguments.data is None:
        from loading import make_data

        arguments.data = make_data(Path("outputs/benchmark"), 20_000, 20_000, 10_000)["gzip"]
    n_obs = open_index(arguments.data).n_obs
    module = ChunkedDataModule(
        arguments.data, normalized=False, chunk_cache_size=1, split={"val": max(0.0, 1 - arguments.cells / n_obs)}
    )
    module.setup()
    memory = in_memory(module)
    models = {"RAM": fresh(module), "disk": fresh(module)}
    times: dict[str, list[tuple[float, float]]] = {"RAM": [], "disk": []}
    for epoch in range(arguments.epochs + 1):
        for source in ("RAM", "disk") if epoch % 2 else ("disk", "RAM"):
            if source == "disk":
                module.teardown()
            spent = train(*models[source], memory() if source == "RAM" else module.train_dataloader())
            if epoch:  # the first compiles and warms the page cache
                times[source].append(spent)
    print(
        f"{module.n_cells('train'):,} cells × {module.n_vars:,} genes, batches of {module.batch_size}, {n_obs:,} stored"
    )
    print(f"{'epoch':>5} {'RAM s':>8} {'disk s':>8} {'ratio':>7} {'waited s':>9}")
    ratios = []
    for epoch, ((ram, _), (disk, waited)) in enumerate(zip(times["RAM"], times["disk"], strict=True), 1):
        ratios.append(disk / ram)
        print(f"{epoch:5} {ram:8.2f} {disk:8.2f} {ratios[-1]:7.3f} {waited:9.3f}")
    print(f"median ratio {statistics.median(ratios):.3f}")


if __name__ == "__main__":
    main()
