"""What is made of a trained model: latents of all cells, their scores, pictures."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from scvae_data.errors import ConfigError, StoreError
from scvae_data.progress import progress
from scvae_data.store import SRX_COLUMN
from scvae_data.training.ranks import ALONE, Ranks

__all__ = ["Outputs", "latent_batches"]

log = logging.getLogger(__name__)

PICTURES = ("umap", "pca", "none")
MAX_SCORED_CELLS = 5_000
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
    """obs columns to colour by; None: cell type, batch, depth, as far as there are any and they differ."""
    cell_type_key: str | None = None
    """obs column of cell types, which latents are scored by; None: ``cell_type`` or another usual name."""

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
        ranks: Ranks = ALONE,
    ) -> dict[str, Path]:
        """Write the files into ``run_dir``, ``facts`` along with the latents; returns what was written by name.

        Called by all ``ranks``: each predicts its share of the cells, the first writes.
        """
        # Here: training starts without pandas and what draws.
        from scvae_data.training.latents import joined_shares, predict_share, write_latents
        from scvae_data.training.plots import latent_picture, training_curves

        made: dict[str, Path] = {}
        if not ranks.is_first:
            if self.latents:
                predict_share(run_dir, latent_batches(model, data, device), ranks)
            return made
        metrics, curves = run_dir / "metrics.csv", run_dir / "training_curves.png"
        if metrics.is_file() and training_curves(metrics, curves):
            made["training curves"] = curves
        if not self.latents:
            return made
        made["latents"] = run_dir / "latents.h5ad"
        uns = {"content_hash": str(data.index.content_hash), "run_dir": run_dir.name, **facts}
        latents = joined_shares(run_dir, latent_batches(model, data, device), ranks)
        n_obs = write_latents(made["latents"], latents, data.index.cells.obs_tables, uns)
        if n_obs != data.n_obs:
            made["latents"].unlink()
            raise StoreError(f"{made['latents']}: {n_obs:,} latents of {data.n_obs:,} cells; mode=embed makes them all")
        if self.picture != "none":
            slow = ", which may take a minute" if self.picture == "umap" else ""
            log.info("drawing the latents by %s%s", self.picture.upper(), slow)
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
        """Refuse what are no obs columns, before training takes its time.

        Raises
        ------
        ConfigError
            With the names and the columns there are.
        """
        named = {"colours": self.colours or (), "cell_type_key": [self.cell_type_key] if self.cell_type_key else ()}
        for setting, names in named.items():
            if unknown := [name for name in names if name not in columns]:
                raise ConfigError(
                    f"outputs.{setting}: no obs column {', '.join(unknown)}; there are {', '.join(columns)}"
                )

    def scores(self, latents: Path, model: Any, data: Any, *, seed: int) -> tuple[dict[str, float], dict[str, str]]:
        """How well the latents keep cell types apart and batches together, over at most 5,000 cells.

        Returns
        -------
        As :func:`~scvae_data.training.scores.latent_scores`, and why others could not be computed, by name.
        """
        from scvae_data.training.sample import sample_cells
        from scvae_data.training.scores import absent_scores, latent_scores

        cell_type, batch = self._cell_type(data), _batch_column(model)
        columns = [name for name in (cell_type, batch) if name]
        z, obs = sample_cells(latents, columns, MAX_SCORED_CELLS, seed)
        types, batches = (obs.get(name) if name else None for name in (cell_type, batch))
        found = latent_scores(z, types, batches)
        return found, absent_scores(types, batches, found)

    def _cell_type(self, data: Any) -> str | None:
        """The column of cell types, if there is one."""
        columns: Mapping[str, Any] = data.index.obs_columns
        return self.cell_type_key or next((name for name in CELL_TYPE_COLUMNS if name in columns), None)

    def _default_colours(self, model: Any, data: Any) -> list[str]:
        columns = data.index.obs_columns
        named = (self._cell_type(data) or "", _batch_column(model), "log1p_total_counts")
        categories = {name: columns[name].categories for name in named if name in columns}
        # One category alone has nothing to show.
        return [name for name, found in categories.items() if found is None or len(found) > 1]


def _batch_column(model: Any) -> str:
    """What the model corrects for, else the experiment."""
    return str(model.hparams.get("batch_key") or SRX_COLUMN)


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
