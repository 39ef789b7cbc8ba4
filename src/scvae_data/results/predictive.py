"""A model and cells in, a table out that compares their counts with those the model simulates for them, by gene."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from scvae_data.results.align import AlignedData
from scvae_data.results.cells import batches, check_samples, drawing
from scvae_data.results.expression import genes_of
from scvae_data.results.model import Model

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["predictive_check"]

NAMES = ("mean", "variance", "zeros")


def predictive_check(model: Model, data: AlignedData, n_samples: int, seed: int) -> pd.DataFrame:
    """Mean, variance and share of zeros of each gene, observed and simulated.

    Simulated counts are drawn from each cell's posterior predictive
    distribution, given its total. Cells that were not measured for a gene do not
    count for it. Memory does not grow with the cells.

    Returns
    -------
    A row for each gene of the model: ``gene_symbol``, ``n_cells``, and
    ``observed_`` and ``simulated_`` ``mean``, ``variance`` and ``zeros``; NaN where no cell was measured for it.

    Raises
    ------
    ConfigError
        If the likelihood cannot be drawn from.
    """
    import pandas as pd  # here: training needs none of it

    check_samples(n_samples)
    genes = genes_of(model)
    sums = {name: torch.zeros(4, genes.n_vars, dtype=torch.float64) for name in ("observed", "simulated")}
    for number, batch in enumerate(batches(model, data, data.predict_dataloader(), "ppc")):
        with torch.inference_mode(), drawing(seed, number, model.device):
            sums["observed"] += moments(batch["x"], batch["measured"])
            for _ in range(n_samples):
                sums["simulated"] += moments(model.simulated(batch), batch["measured"])
    table: dict[str, Any] = {"gene_symbol": genes.symbols, "n_cells": sums["observed"][0].long().numpy()}
    for what, (n, total, squares, zeros) in sums.items():
        mean = total / n
        found = (mean, squares / n - mean.square(), zeros / n)
        table |= {f"{what}_{name}": values.numpy() for name, values in zip(NAMES, found, strict=True)}
    return pd.DataFrame(table, index=pd.Index(genes.names, dtype=object, name="gene"))


def moments(counts: Tensor, measured: Tensor | None) -> Tensor:
    """Number of cells, sums of counts and of their squares, and number of zeros of each gene; float64 (4, n_vars)."""
    counted = torch.ones_like(counts) if measured is None else measured.to(counts.dtype)
    x = counts.double() * counted
    return torch.stack([counted.sum(0), x.sum(0), x.square().sum(0), ((counts == 0) * counted).sum(0)]).cpu()
