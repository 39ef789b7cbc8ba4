"""What is made of a trained model: latents of all cells, pictures, a report."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from scvae_data.errors import ConfigError
from scvae_data.progress import progress
from scvae_data.store import OBS_FILE
from scvae_data.training.latents import obs_tables, write_latents
from scvae_data.training.plots import latent_picture, training_curves

__all__ = ["Outputs", "latent_batches"]

log = logging.getLogger(__name__)

PICTURES = ("umap", "pca", "none")
CELL_TYPE_COLUMNS = ("cell_type", "celltype", "CellType", "cell_label", "cell_ontology_class", "leiden", "louvain")


@dataclass(frozen=True)
class Outputs:
    """Which files a training run leaves behind beside checkpoints and logs.

    Raises
    ------
    ConfigError
        For a value outside its range.
    """

    latents: bool = True
    """Whether to write ``latents.h5ad``."""
    picture: str = "umap"
    """How to draw the latents: ``"umap"``, ``"pca"`` (fast) or ``"none"``."""
    max_picture_cells: int = 10_000
    """Cells in the picture; a random choice if there are more."""
    colours: tuple[str, ...] | list[str] | None = None
    """obs columns to colour by; None: a cell type column if there is one, the batch, the depth."""

    def __post_init__(self) -> None:
        if self.picture not in PICTURES:
            raise ConfigError(f"outputs.picture={self.picture} is not one of {', '.join(PICTURES)}")
        if self.max_picture_cells < 1:
            raise ConfigError(f"outputs.max_picture_cells={self.max_picture_cells} must be at least 1")

    def make(
        self,
        run_dir: Path,
        model: Any,
        data: Any,
        *,
        device: torch.device,
        seed: int,
        facts: Mapping[str, Any] = MappingProxyType({}),
    ) -> dict[str, Path]:
        """Write the files into ``run_dir``, ``facts`` along with the latents; returns what was written by name."""
        made: dict[str, Path] = {}
        metrics, curves = run_dir / "metrics.csv", run_dir / "training_curves.png"
        if metrics.is_file() and training_curves(metrics, curves):
            made["training curves"] = curves
        if not self.latents:
            return made
        made["latents"] = run_dir / "latents.h5ad"
        uns = {"content_hash": str(data.index.content_hash), "run_dir": run_dir.name, **facts}
        obs = partial(obs_tables, Path(data.index.path) / OBS_FILE)
        write_latents(made["latents"], latent_batches(model, data, device), obs, uns)
        if self.picture != "none":
            log.info("drawing the latents (%s)", self.picture)
            made["latent picture"] = run_dir / "latents.png"
            colours = self.colours if self.colours is not None else self._default_colours(model, data)
            latent_picture(
                made["latents"],
                made["latent picture"],
                colours=colours,
                method=self.picture,
                max_cells=self.max_picture_cells,
                seed=seed,
            )
        return made

    def check(self, columns: Collection[str]) -> None:
        """Refuse colours that are no obs columns, before training takes its time.

        Raises
        ------
        ConfigError
            With the names and the columns there are.
        """
        unknown = [name for name in self.colours or () if name not in columns]
        if unknown:
            raise ConfigError(f"outputs.colours: no obs column {', '.join(unknown)}; there are {', '.join(columns)}")

    @staticmethod
    def _default_colours(model: Any, data: Any) -> list[str]:
        columns: Mapping[str, Any] = data.index.obs_columns
        cell_type = [name for name in CELL_TYPE_COLUMNS if name in columns][:1]
        batch = model.hparams.get("batch_key") or "SRX_accession"
        return [*cell_type, batch, "log1p_total_counts"]


def latent_batches(
    model: Any, data: Any, device: torch.device
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Global rows and latent means of every selected cell, batch by batch."""
    loader = data.predict_dataloader()
    model = model.to(device).eval()
    with torch.inference_mode():
        for batch in progress(loader, total=len(loader), desc="latents", unit="batch"):
            on_device = data.transfer_batch_to_device(data.on_before_batch_transfer(batch, 0), device, 0)
            predicted = model.predict_step(data.on_after_batch_transfer(on_device, 0), 0)
            yield predicted["index"].cpu().numpy(), predicted["latent"].float().cpu().numpy()
