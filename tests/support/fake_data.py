"""A DataModule held in memory, with the attributes that a model and a training run ask for."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule

from scvae_data.loading.batch.sparse import SparseRows

Batch = dict[str, Any]


def sparse_rows(x: torch.Tensor) -> SparseRows:
    """The rows of a matrix as a loader makes them with ``x_format="csr"``."""
    where = x.nonzero()
    indptr = torch.zeros(len(x) + 1, dtype=torch.int64)
    indptr[1:] = torch.bincount(where[:, 0], minlength=len(x)).cumsum(0)
    return SparseRows(indptr, where[:, 1].int().clone(), x[where[:, 0], where[:, 1]].clone(), x.shape[1])


class Batches:
    """Batches that Lightning takes for one loader."""

    def __init__(self, batches: list[Batch]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.batches)


class FakeData(LightningDataModule):
    """Counts of two groups of cells from two experiments; ``SRX1`` has even rows.

    Parameters
    ----------
    normalized
        Serve log1p of the counts instead of the counts.
    poison
        Global rows whose first value is NaN.
    unseen
        Category of ``SRX_accession`` that only validation cells have.
    categorical, continuous
        Covariates by name, with a value for each cell.
    """

    def __init__(
        self,
        n_obs: int = 64,
        n_vars: int = 12,
        normalized: bool = False,
        poison: tuple[int, ...] = (),
        unseen: bool = False,
        gene_sets: np.ndarray | None = None,
        batch_size: int = 16,
        categorical: dict[str, list[str | None]] | None = None,
        continuous: dict[str, list[float]] | None = None,
    ) -> None:
        super().__init__()
        self.normalized = normalized
        self.counts = False
        self.n_vars = n_vars
        self.var_names = [f"gene{j}" for j in range(n_vars)]
        self.categories = {"SRX_accession": ["SRX1", "SRX2", *(["SRX3"] if unseen else [])]}
        self.gene_sets = np.ones((1, n_vars), dtype=bool) if gene_sets is None else gene_sets
        names = np.array(self.var_names, dtype=object)
        self.index = SimpleNamespace(
            content_hash="c" * 64,
            gene_list_hash="g" * 64,
            gene_sets=self.gene_sets,
            genes=SimpleNamespace(names=names, ids=names, symbols=names),
            n_vars=n_vars,
            normalization={"method": "log1p", "target_sum": 1e4, "size_factor_genes": "kept"},
        )
        self.batch_size = batch_size
        rng = np.random.default_rng(0)
        group = np.arange(n_obs) // 2 % 2
        mean = np.where((np.arange(n_vars) % 2 == 0) == (group[:, None] == 0), 8.0, 0.5)
        x = rng.poisson(mean).astype(np.float32) * self.gene_sets[0]
        x = np.log1p(x) if normalized else x
        x[list(poison), 0] = np.nan
        self.x = torch.from_numpy(x.astype(np.float32))
        self.codes = torch.arange(n_obs) % 2
        self.val_rows = torch.arange(0, n_obs, 4)
        if unseen:
            self.codes[self.val_rows[::2]] = 2
        self.obs = {"SRX_accession": self.codes}
        self.categorical_covariates, self.continuous_covariates = tuple(categorical or ()), tuple(continuous or ())
        for name, values in (categorical or {}).items():
            names = self.categories[name] = sorted({value for value in values if value is not None})
            self.obs[name] = torch.tensor([len(names) if value is None else names.index(value) for value in values])
        for name, numbers in (continuous or {}).items():
            self.obs[name] = torch.tensor(numbers, dtype=torch.float32)

    def covariate_facts(self) -> dict[str, Any]:
        train = ~torch.isin(torch.arange(len(self.x)), self.val_rows)
        known: dict[str, Any] = {"categorical": {}, "continuous": {}}
        for name in self.categorical_covariates:
            n_missing = int((self.obs[name][train] == len(self.categories[name])).sum())
            known["categorical"][name] = {"categories": self.categories[name], "n_missing": n_missing}
        for name in self.continuous_covariates:
            numbers = self.obs[name][train].numpy()
            known["continuous"][name] = {
                "mean": float(np.nanmean(numbers)), "sd": float(np.nanstd(numbers)),
                "n_missing": int(np.isnan(numbers).sum()),
            }  # fmt: skip
        return known

    def gene_mask(self, codes: np.ndarray) -> np.ndarray:
        return self.gene_sets[codes]

    def batch(self, rows: torch.Tensor) -> Batch:
        return {
            "x": self.x[rows],
            "library_size": self.x[rows].sum(dim=1),
            "size_factor": torch.ones(len(rows)),
            "obs": {name: values[rows] for name, values in self.obs.items()},
            "index": rows,
            "gene_set": torch.zeros(len(rows), dtype=torch.int64),
        }

    def _batches(self, rows: torch.Tensor) -> Batches:
        return Batches([self.batch(part) for part in rows.split(self.batch_size)])

    def train_dataloader(self) -> Batches:
        rows = torch.arange(len(self.x))
        return self._batches(rows[~torch.isin(rows, self.val_rows)])

    def val_dataloader(self) -> Batches:
        return self._batches(self.val_rows)

    def test_dataloader(self) -> list[Batch]:
        return []

    def predict_dataloader(self) -> Batches:
        return self._batches(torch.arange(len(self.x)))
