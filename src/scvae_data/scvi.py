"""A :class:`~scvae_data.ChunkedDataModule` in, a data module that the models of scvi-tools train from out.

>>> data = ScviDataModule(ChunkedDataModule("outputs/chunked_processed", normalized=False))    # doctest: +SKIP
>>> model = scvi.model.SCVI(registry=data.registry)                                           # doctest: +SKIP
>>> model.train(datamodule=data, max_epochs=20)                                               # doctest: +SKIP
>>> z = model.get_latent_representation(dataloader=data.inference_dataloader())               # doctest: +SKIP

scvi-tools is not imported here; ``pip install 'scvae-data[scvi]'`` brings it along.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from numpy.typing import NDArray
from torch import Tensor

from scvae_data.errors import ConfigError
from scvae_data.loading.datamodule import ChunkedDataModule

__all__ = ["ScviDataModule"]

UNKNOWN = "unknown"


class ScviDataModule(LightningDataModule):
    """Serve the batches of a data module under the names and in the shapes that scvi-tools expects.

    ``X`` float32 (n, n_vars), counts; ``batch`` int64 (n, 1), codes of
    ``data.batch_key``; ``labels`` int64 (n, 1); where there are covariates,
    ``extra_categorical_covs`` int64 (n, number of them) and
    ``extra_continuous_covs`` float32, standardised over the training cells,
    0 where missing. Cells without a category are of the category "unknown",
    which comes last and exists where there are any.

    Parameters
    ----------
    data
        Serves counts: ``ChunkedDataModule(…, normalized=False)``. Opened here.
    label_key
        obs column of labels, one of ``data.obs_keys``; None for none.
    unlabeled_category
        The label that stands for none, for SCANVI.
    model_name
        Of the scvi-tools model the registry is for.

    Raises
    ------
    ConfigError
        If scvi-tools is not installed, or the data are not counts, or do not have ``label_key``.
    """

    def __init__(
        self,
        data: ChunkedDataModule,
        label_key: str | None = None,
        unlabeled_category: str = UNKNOWN,
        model_name: str = "SCVI",
    ) -> None:
        super().__init__()
        if data.normalized and not data.counts:
            raise ConfigError("scvi-tools models counts; use ChunkedDataModule(…, normalized=False)")
        if label_key is not None and label_key not in data.obs_keys:
            raise ConfigError(
                f"label_key={label_key} is not served; use ChunkedDataModule(…, label_keys=[{label_key!r}])"
            )
        self.data = data
        self.label_key = label_key
        self.unlabeled_category = unlabeled_category
        self.model_name = model_name
        self._scvi_version = _scvi_version()
        data.setup("fit")
        self.batch_labels = self._categories(data.batch_key)
        self.label_names = self._categories(label_key, unknown=unlabeled_category)
        self.covariate_names = {name: self._categories(name) for name in data.categorical_covariates}
        known = data.covariate_facts()["continuous"].values() if data.continuous_covariates else ()
        self.moments = torch.tensor([[one["mean"], one["sd"]] for one in known]).reshape(-1, 2).T

    # ---- what scvi-tools asks for ---------------------------------------------------------------------------------

    @property
    def n_obs(self) -> int:
        """Number of selected cells."""
        return self.data.n_obs

    @property
    def n_vars(self) -> int:
        """Number of genes."""
        return self.data.n_vars

    @property
    def var_names(self) -> NDArray[np.object_]:
        """Names of the genes."""
        return np.array(self.data.var_names, dtype=object)

    @property
    def n_batch(self) -> int:
        """Number of batch categories, at least 1."""
        return len(self.batch_labels)

    @property
    def n_labels(self) -> int:
        """Number of labels, at least 1."""
        return len(self.label_names)

    @property
    def n_samples(self) -> int:
        """Samples are a notion of other models."""
        return 0

    @property
    def label_keys(self) -> list[str] | None:
        """The column of labels as a list, None if there is none."""
        return None if self.label_key is None else [self.label_key]

    @property
    def labels_(self) -> NDArray[np.object_]:
        """Label of every cell of the directory, (n_obs,)."""
        if self.label_key is None:
            return np.full(self.data.index.n_obs, self.unlabeled_category, dtype=object)
        found: NDArray[np.object_] = self.label_names[self.data.index.codes(self.label_key)]
        return found

    @property
    def registry(self) -> dict[str, Any]:
        """What ``setup_anndata`` would have registered."""
        return {
            "scvi_version": self._scvi_version,
            "model_name": self.model_name,
            "setup_method_name": "setup_datamodule",
            "setup_args": {
                "layer": None,
                "batch_key": self.data.batch_key,
                "labels_key": self.label_key,
                "size_factor_key": None,
                "categorical_covariate_keys": list(self.data.categorical_covariates) or None,
                "continuous_covariate_keys": list(self.data.continuous_covariates) or None,
            },
            "field_registries": {
                "X": _field(
                    {"n_obs": self.n_obs, "n_vars": self.n_vars, "column_names": self.var_names},
                    {"n_vars": self.n_vars, "n_cells": self.n_obs},
                ),
                "batch": _field(
                    {"categorical_mapping": self.batch_labels, "original_key": self.data.batch_key},
                    {"n_batch": self.n_batch},
                ),
                "labels": _field(
                    {
                        "categorical_mapping": self.label_names,
                        "original_key": self.label_key,
                        "unlabeled_category": self.unlabeled_category,
                    },
                    {"n_labels": self.n_labels},
                ),
                "size_factor": _field({}, {}),
                "extra_categorical_covs": self._categorical_field(),
                "extra_continuous_covs": self._continuous_field(),
            },
        }

    def inference_dataloader(self) -> ConvertedBatches:
        """Every selected cell in the order of global rows, converted: scvi-tools bypasses the hooks here."""
        return ConvertedBatches(self)

    # ---- Lightning's hooks ----------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Let the data know the trainer, whose ranks decide its order."""
        self.data.trainer = self.trainer
        self.data.setup(stage)

    def train_dataloader(self) -> Any:
        """As the data module's."""
        return self.data.train_dataloader()

    def val_dataloader(self) -> Any:
        """As the data module's."""
        return self.data.val_dataloader()

    def test_dataloader(self) -> Any:
        """As the data module's."""
        return self.data.test_dataloader()

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """As the data module's."""
        return self.data.on_before_batch_transfer(batch, dataloader_idx)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """As the data module's."""
        return self.data.transfer_batch_to_device(batch, device, dataloader_idx)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> dict[str, Tensor]:
        """Convert, on the device."""
        return self.converted(self.data.on_after_batch_transfer(batch, dataloader_idx))

    def state_dict(self) -> dict[str, Any]:
        """Position in training."""
        return self.data.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue at a position."""
        self.data.load_state_dict(state_dict)

    def teardown(self, stage: str) -> None:
        """End worker processes and free decoded chunks."""
        self.data.teardown(stage)

    def converted(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """A batch of the data module as scvi-tools expects it."""
        return {
            "X": batch["counts"] if self.data.normalized else batch["x"],
            "batch": self._column(batch, self.data.batch_key),
            "labels": self._column(batch, self.label_key),
            "ind_x": batch["index"][:, None],
            **self._covariates(batch),
        }

    def _covariates(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """What there is of covariates."""
        codes, numbers = (
            [batch["obs"][name] for name in names]
            for names in (self.data.categorical_covariates, self.data.continuous_covariates)
        )
        made = {"extra_categorical_covs": torch.stack(codes, dim=1)} if codes else {}
        if numbers:
            mean, sd = self.moments.to(numbers[0].device)
            standard = (torch.stack(numbers, dim=1) - mean) / sd
            made["extra_continuous_covs"] = standard.masked_fill(standard.isnan(), 0)
        return made

    def _categorical_field(self) -> dict[str, Any]:
        names = self.covariate_names
        state = {"field_keys": list(names), "mappings": names, "n_cats_per_key": [len(one) for one in names.values()]}
        return _field(state if names else {}, {"n_extra_categorical_covs": len(names)})

    def _continuous_field(self) -> dict[str, Any]:
        names = self.data.continuous_covariates
        state = {"columns": np.array(names, dtype=object)}
        return _field(state if names else {}, {"n_extra_continuous_covs": len(names)})

    def _column(self, batch: dict[str, Any], key: str | None) -> Tensor:
        """Codes of a column, int64 (n, 1); zero without one."""
        codes: Tensor = torch.zeros_like(batch["index"]) if key is None else batch["obs"][key]
        return codes[:, None]

    def _categories(self, column: str | None, unknown: str = UNKNOWN) -> NDArray[np.object_]:
        """Categories of a column by code."""
        if column is None:
            return np.array([unknown], dtype=object)
        index, names = self.data.index, self.data.categories[column]
        any_unknown = any(len(names) in index.codes(column, chunk) for chunk in range(len(index.chunks)))
        return np.array([*names, *([unknown] if any_unknown else [])], dtype=object)


class ConvertedBatches:
    """The batches of the whole selection, converted."""

    def __init__(self, data: ScviDataModule) -> None:
        self._data = data
        self._loader = data.data.predict_dataloader()

    def __len__(self) -> int:
        """Number of batches."""
        return len(self._loader)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for batch in self._loader:
            yield self._data.on_after_batch_transfer(batch, 0)


def _field(state: dict[str, Any], stats: dict[str, Any]) -> dict[str, Any]:
    return {"data_registry": {}, "state_registry": state, "summary_stats": stats}


def _scvi_version() -> str:
    try:
        return version("scvi-tools")
    except PackageNotFoundError:
        raise ConfigError("ScviDataModule needs scvi-tools; pip install 'scvae-data[scvi]'") from None
