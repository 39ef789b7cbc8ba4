"""A checkpoint and a dataset directory in, the latents of the directory's cells out."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from scvae_data.config import given_settings, instantiate, resolved
from scvae_data.errors import ConfigError
from scvae_data.models.likelihoods import import_likelihood
from scvae_data.models.vae import VAE
from scvae_data.remote.location import local_path
from scvae_data.results.align import AlignedData
from scvae_data.results.model import served_columns
from scvae_data.store import SRX_COLUMN, CellIndex, open_dataset
from scvae_data.store.files import write_atomic
from scvae_data.tracking import log_dataset, tracked
from scvae_data.training.embed_report import Embedded, embed_report
from scvae_data.training.experiment_scores import SCORES_FILE, Scored, read_scores
from scvae_data.training.outputs import Outputs
from scvae_data.training.pages import REPORT, next_lines, only_a_page
from scvae_data.training.runs import checkpoint_of
from scvae_data.training.trusted import load_vae

__all__ = ["embed"]

log = logging.getLogger(__name__)

RESULT = "embed.json"


def embed(cfg: DictConfig) -> dict[str, Any]:
    """Embed every selected cell of ``cfg.data`` with the model of ``cfg.ckpt`` into ``cfg.paths.output_dir``.

    The model, its genes, its ``batch_key``, its covariates and whether it wants normalised
    values come from the checkpoint; everything under ``data`` and ``outputs``
    from the configuration.

    Returns
    -------
    What was embedded and what was missing; also in ``embed.json``, together
    with the names of the missing genes, and for people in ``report.html``.

    Raises
    ------
    ScvaeDataError
        For a checkpoint or a directory that cannot be used.
    """
    if not cfg.get("ckpt"):
        raise ConfigError("mode=embed needs a trained model: ckpt=RUN_DIR, or one of its checkpoints")
    ckpt = checkpoint_of(local_path("ckpt", cfg.ckpt).expanduser().absolute(), "ckpt")
    import_likelihood(cfg.model.get("likelihood"))
    model, facts = load_vae(ckpt)
    config = resolved(cfg)
    data = _served(config["data"], model.hparams)
    reference = reference_of(ckpt)
    expectation = None if reference is None else reference.expectation
    Path(config["paths"]["output_dir"]).mkdir(parents=True, exist_ok=True)
    with tracked(config, "embed") as run:
        return _embedded(config, model, AlignedData(data, model, facts, expectation), ckpt, reference, run)


def _embedded(
    config: Mapping[str, Any], model: VAE, aligned: AlignedData, ckpt: Path, reference: Scored | None, run: Any
) -> dict[str, Any]:
    """Write what is made of the cells, and tell W&B's ``run``, if there is one."""
    data = aligned.data
    report = {**aligned.report(), "content_hash": data.index.content_hash, "checkpoint": str(ckpt)}
    run_dir = Path(config["paths"]["output_dir"])
    outputs: Outputs = instantiate(config["outputs"]) if config.get("outputs") else Outputs()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    made = outputs.make(run_dir, model, aligned, device=device, seed=config["seed"], facts=report)
    not_scored: dict[str, str] = {}
    if "latents" in made:
        scores, not_scored = outputs.scores(made["latents"], model, aligned, seed=config["seed"])
        report |= scores
    if "experiment scores" in made:
        unseen = aligned.unseen.get(SRX_COLUMN, ())
        report |= elbo_beside(read_scores(made["experiment scores"]), reference, unseen)
    lists = {"missing_genes": list(aligned.genes.missing), "unseen_categories": aligned.unseen}
    whole = {**report, **lists, "not_scored": not_scored}
    write_atomic(run_dir / RESULT, (json.dumps(whole, indent=1) + "\n").encode())
    with only_a_page(run_dir):
        overrides = given_settings() if HydraConfig.initialized() else None
        labels = outputs.labels(data)
        told = Embedded(run_dir, config, ckpt, model.hparams, aligned.facts, data.index, whole, made, overrides, labels)
        write_atomic(run_dir / REPORT, embed_report(told).encode())
    if run is not None:
        _tell(run, report, made, data.index)
    for line in next_lines(made["latents"]) if "latents" in made else ():
        log.info("  %s", line)
    return report


def _tell(run: Any, report: Mapping[str, Any], made: Mapping[str, Path], index: CellIndex) -> None:
    import wandb

    run.summary.update(report)
    pictures = {name: path for name, path in made.items() if path.suffix == ".png"}
    run.log({name.replace(" ", "_"): wandb.Image(str(path)) for name, path in pictures.items()})
    for directory in index.members:
        log_dataset(run, directory, "input")


def reference_of(ckpt: Path) -> Scored | None:
    """How well the model's own run explains the cells that it held out; None if the run's directory does not say."""
    path = ckpt.parent.parent / SCORES_FILE
    if path.is_file():
        return read_scores(path)
    log.info("%s is not there: the ELBO of these cells is compared with nothing", path)
    return None


def elbo_beside(scored: Scored, reference: Scored | None, unseen: Collection[str]) -> dict[str, Any]:
    """Nats per cell: of these cells, of what training expects of their depth, of the cells that training held out.

    Where training has seen some of their experiments and not others, also of the ``unseen`` ones alone.
    """
    found: dict[str, Any] = {"elbo": scored.mean("elbo"), "n_flagged_experiments": int(scored.table["flagged"].sum())}
    if 0 < len(unseen) < len(scored.table):
        found["elbo_of_unseen"] = scored.mean("elbo", unseen)
    if reference is not None:
        found |= {"elbo_of_training": reference.mean("elbo"), "part_of_training": reference.part}
        if reference.expectation is not None:
            found["elbo_expected"] = scored.mean("expected")
    return found


def _served(node: dict[str, Any], model: Mapping[str, Any]) -> Any:
    """The configured DataModule, set up to serve counts of all genes and cells; of the model's columns those it has."""
    columns = served_columns(model, open_dataset(node["data_path"]).obs_columns)
    own = {**columns, "normalized": False, "counts": False, "split": None}
    # One cell is enough to embed; that there is a whole batch of them is checked for training.
    data = instantiate({**node, **own, **({"genes": None} if "genes" in node else {}), "batch_size": 1})
    data.setup("predict")
    data.batch_size = node["batch_size"]
    return data
