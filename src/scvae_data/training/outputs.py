"""What is made of a trained model: latents of all cells, their scores, pictures."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from scvae_data.errors import ConfigError, StoreError
from scvae_data.progress import waiting
from scvae_data.results.cells import device_batches
from scvae_data.store import SRX_COLUMN
from scvae_data.training.experiment_elbo import ExperimentElbo, measure, score_cells, scored_part
from scvae_data.training.pages import Labels
from scvae_data.training.ranks import ALONE, Ranks

__all__ = ["Outputs", "latent_batches"]

if TYPE_CHECKING:
    import pyarrow as pa

Latents = tuple[NDArray[np.int64], NDArray[np.float32]]

PICTURES = ("pca", "umap", "none")
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
    picture: str = "pca"
    """How to draw the latents: ``"pca"``, within a second, ``"umap"``, or ``"none"``."""
    max_picture_cells: int = 10_000
    """Cells in the picture; a random choice if there are more."""
    colours: tuple[str, ...] | list[str] | None = None
    """obs columns to colour by; None: cell type, batch, depth, as far as there are any and they differ."""
    experiment_scores: bool = True
    """Whether to write ``experiment_scores.parquet``: how well the held-out cells of each experiment are explained."""
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
        from scvae_data.training.latents import joined_shares, predict_share

        model = model.to(device).eval()
        scores = self._to_score(model, data)
        # Where all cells are scored, one pass gives both.
        along = scores if scores is not None and scores.part == "predict" and self.latents else None
        if scores is not None and along is None:
            score_cells(model, data, scores, device)
            scores.over_ranks(ranks, device)
        latents = latent_batches(model, data, device, along, ranks)
        if not ranks.is_first:
            if self.latents:
                predict_share(run_dir, latents, ranks)
            return {}
        made = _curves(run_dir)
        if self.latents:
            cells = joined_shares(run_dir, latents, ranks)
            made["latents"] = _write(run_dir, model, data, cells, facts)
            if self.picture != "none":
                made["latent picture"] = self._draw(made["latents"], model, data, seed)
        return made if scores is None else made | write_experiments(run_dir, data, scores, self.picture != "none")

    def _to_score(self, model: Any, data: Any) -> ExperimentElbo | None:
        """Sums to score cells into; None where none are to be scored, or the model has no ELBO of single cells."""
        if not self.experiment_scores or not hasattr(model, "elbo_terms"):
            return None
        return ExperimentElbo(data.index, scored_part(data))

    def _draw(self, latents: Path, model: Any, data: Any, seed: int) -> Path:
        """Draw the picture of the latents; return its file."""
        from scvae_data.training.plots import latent_picture

        slow = ", which takes half a minute for 10,000 cells" if self.picture == "umap" else ""
        png = latents.with_suffix(".png")
        colours = self.colours if self.colours is not None else self._default_colours(model, data)
        how: dict[str, Any] = {"method": self.picture, "max_cells": self.max_picture_cells, "seed": seed}
        with waiting(f"drawing the latents by {self.picture.upper()}{slow}"):
            latent_picture(latents, png, colours=colours, **how)
        return png

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

    def labels(self, data: Any) -> Labels | None:
        """The two most frequent cell types among the selected cells of a DataModule; None without a column of them."""
        column = self._cell_type(data)
        known = data.index.obs_columns.get(column)
        if column is None or known is None or known.categories is None:
            return None
        n_cells = data.group_counts(column, "predict")[:-1]
        most = np.argsort(-n_cells, kind="stable")[:2].tolist()
        return Labels(column, [known.categories[code] for code in most if n_cells[code]])

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


def _curves(run_dir: Path) -> dict[str, Path]:
    """Draw the training curves of a run that has measured any; return their file by name."""
    from scvae_data.training.plots import training_curves

    metrics, curves = run_dir / "metrics.csv", run_dir / "training_curves.png"
    return {"training curves": curves} if metrics.is_file() and training_curves(metrics, curves) else {}


def _write(run_dir: Path, model: Any, data: Any, latents: Iterator[Latents], facts: Mapping[str, Any]) -> Path:
    """Write ``latents.h5ad``; return it.

    Raises
    ------
    StoreError
        If there are no latents for some of the cells.
    """
    from scvae_data.training.latents import write_latents

    path = run_dir / "latents.h5ad"
    uns = {"content_hash": str(data.index.content_hash), "run_dir": run_dir.name, **facts}
    n_obs = write_latents(path, latents, model.hparams["n_latent"], functools.partial(obs_of, data), uns)
    if n_obs != data.n_obs:
        path.unlink()
        raise StoreError(f"{path}: {n_obs:,} latents of {data.n_obs:,} cells; mode=embed makes them all")
    return path


def obs_of(data: Any, rows: NDArray[np.int64]) -> Iterable[pa.Table]:
    """The obs of cells, with their side of the split where ``data`` know of one."""
    from scvae_data.training.latents import with_split

    tables: Iterable[pa.Table] = data.index.cells.obs_tables(rows)
    return with_split(tables, data.parts_of(rows)) if hasattr(data, "parts_of") else tables


def write_experiments(run_dir: Path, data: Any, scores: ExperimentElbo, drawn: bool) -> dict[str, Path]:
    """Write ``experiment_scores.parquet`` and, if wanted, a picture of several; returns them by name."""
    from scvae_data.training import experiment_scores as of
    from scvae_data.training.experiment_plot import experiment_picture

    # Cells that a model is shown after training are compared with those it was trained on.
    expected = getattr(data, "expectation", None) or of.expectation_of(scores.moments[:-1])
    table = of.score_table(scores, expected, of.qc_flags(data.index))
    made = {"experiment scores": run_dir / of.SCORES_FILE}
    of.write_scores(made["experiment scores"], scores, expected, table)
    if drawn and expected is not None and len(table) > 1:
        made["experiments"] = run_dir / "experiment_scores.png"
        experiment_picture(table, made["experiments"])
    return made


def latent_batches(
    model: Any, data: Any, device: torch.device, scores: ExperimentElbo | None = None, ranks: Ranks = ALONE
) -> Iterator[Latents]:
    """Global rows and latent means of every selected cell, batch by batch; their ELBO goes into ``scores``.

    Each of the ``ranks`` has its share; ``scores`` are over all of them when the last batch has been taken.
    """
    model = model.to(device).eval()
    with torch.inference_mode():
        for number, batch in enumerate(device_batches(data, data.predict_dataloader(), device, "latents")):
            latent = measure(model, batch, number, scores) if scores else model.predict_step(batch, 0)["latent"]
            yield batch["index"].cpu().numpy(), latent.float().cpu().numpy()
        if scores is not None:
            scores.over_ranks(ranks, device)
