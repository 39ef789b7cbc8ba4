"""The ELBO of cells in, batch by batch; sums of each experiment, of fixed size, out.

Of each experiment the sums of products of its cells' ELBO and of what it is
expected from are kept, 25 numbers whatever the number of cells: means, spreads
and regressions over cells follow from them.
"""

from __future__ import annotations

from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed

from scvae_data.results.cells import device_batches
from scvae_data.store import SRX_COLUMN, CellIndex
from scvae_data.training.ranks import Ranks

__all__ = ["N_BLOCKS", "ExperimentElbo", "ScoredPart", "measure", "score_cells", "scored_part"]

ScoredPart = Literal["test", "val", "predict"]
"""Cells that are scored: those held out, else all that are selected."""

TYPICAL_LOG_COUNTS = 3.5
"""Decimal logarithm of a cell's counts that powers are taken of differences from."""
GENES = 1000.0
"""Unit of detected genes, so that sums are of like size."""
N_BLOCKS = 200
"""Blocks that cells are dealt into by their rows, to resample groups of cells where single ones are not kept."""
GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # multiplied by it, successive numbers spread evenly (Knuth)
COLUMNS = (SRX_COLUMN, "total_counts", "n_genes_by_counts", "pct_counts_mt")


class ExperimentElbo:
    """Sums over the cells of each experiment, and of each block.

    Parameters
    ----------
    index
        The directory of the cells.
    part
        Which of them are scored.
    """

    def __init__(self, index: CellIndex, part: ScoredPart) -> None:
        self.index = index
        self.part = part
        n_codes = len(index.categories(SRX_COLUMN)) + 1
        self.moments = np.zeros((n_codes, 5, 5))
        """Sums of products of 1, log counts, its square, genes and ELBO; the last one is of cells of no experiment."""
        self.mitochondrial = np.zeros((n_codes, 2))
        """Number of cells whose mitochondrial counts were measured, and the sum of their percentages."""
        self.blocks = np.zeros((N_BLOCKS, 2))
        """Number of cells of each block, and the sum of their ELBO."""
        self._chunk: tuple[int, dict[str, Any]] | None = None

    def add(self, rows: NDArray[np.int64], elbo: NDArray[np.floating[Any]]) -> None:
        """Add cells by their global rows, best in ascending order, with the ELBO of each in nats."""
        values = elbo.astype(np.float64)
        chunk_ids, local = self.index.locate(rows)
        for chunk_id in np.unique(chunk_ids).tolist():
            here = chunk_ids == chunk_id
            self._add(chunk_id, local[here], values[here])
        block = blocks_of(rows)
        self.blocks += np.column_stack([np.bincount(block, weights, N_BLOCKS) for weights in (None, values)])

    def over_ranks(self, ranks: Ranks, device: torch.device) -> None:
        """Add up what all ranks have scored; called by each of them."""
        if ranks.size == 1:
            return
        for sums in (self.moments, self.mitochondrial, self.blocks):
            shared = torch.from_numpy(sums).to(device)
            distributed.all_reduce(shared)
            sums[:] = shared.cpu().numpy()

    def _add(self, chunk_id: int, local: NDArray[np.int64], elbo: NDArray[np.float64]) -> None:
        columns = self._columns(chunk_id)
        code, mt = columns[SRX_COLUMN][local], columns["pct_counts_mt"][local].astype(np.float64)
        log_counts = np.log10(np.maximum(columns["total_counts"][local], 1)) - TYPICAL_LOG_COUNTS
        genes = columns["n_genes_by_counts"][local] / GENES
        values = np.column_stack([np.ones_like(elbo), log_counts, log_counts**2, genes, elbo])
        np.add.at(self.moments, code, values[:, :, None] * values[:, None, :])
        known = ~np.isnan(mt)
        np.add.at(self.mitochondrial, code[known], np.column_stack([known[known], mt[known]]))

    def _columns(self, chunk_id: int) -> dict[str, Any]:
        """What obs says of a chunk; kept until another one is asked for, as many batches are of one."""
        if self._chunk is None or self._chunk[0] != chunk_id:
            self._chunk = chunk_id, self.index.cells.arrays(chunk_id, COLUMNS)
        return self._chunk[1]


def blocks_of(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Block of each global row: the same in every run, and of equal size however held-out cells lie in chunks."""
    return ((rows.astype(np.uint64) * GOLDEN >> np.uint64(32)) % np.uint64(N_BLOCKS)).astype(np.int64)


def scored_part(data: Any) -> ScoredPart:
    """Test cells where there are any, else validation cells, else all that are selected."""
    n_cells = getattr(data, "n_cells", None)  # cells that a model is shown after training are of no part
    held_out: tuple[ScoredPart, ...] = ("test", "val")
    return next((part for part in held_out if n_cells is not None and n_cells(part)), "predict")


def score_cells(model: Any, data: Any, scores: ExperimentElbo, device: torch.device) -> None:
    """Score the cells of the part that ``scores`` is about, this rank's share of them.

    The noise is that of validation, so that means over all validation cells are ``val/elbo``.
    """
    make_loader = getattr(data, f"{scores.part}_dataloader")
    with torch.inference_mode():
        for number, batch in enumerate(device_batches(data, make_loader(), device, "scores")):
            measure(model, batch, number, scores)


def measure(model: Any, batch: dict[str, Any], number: int, scores: ExperimentElbo) -> Tensor:
    """Score a batch by its number; return the latent means."""
    terms = model.elbo_terms(batch, noise_seed=number)
    scores.add(batch["index"].cpu().numpy(), (terms["recon"] - terms["kl"]).cpu().numpy())
    return cast(Tensor, terms["latent"])
