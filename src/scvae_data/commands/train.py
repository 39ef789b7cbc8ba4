"""``train.py``: a config in, a run directory with model, latents and log out."""

from __future__ import annotations

import gc
import logging
import os
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from scvae_data.calling import again, command, override, program
from scvae_data.commands.app import is_first_rank, run_app, task_overrides
from scvae_data.config import resolved
from scvae_data.errors import ConfigError, ScvaeDataError
from scvae_data.progress import waiting
from scvae_data.remote.location import local_path
from scvae_data.system.quick_import import collector_paused
from scvae_data.system.slurm import was_requeued
from scvae_data.system.stopping import Stopped, interruptible
from scvae_data.wording import shown

__all__ = ["main", "train"]

log = logging.getLogger(__name__)


def train(cfg: DictConfig) -> Any:
    """Train, or embed, what ``cfg`` describes; returns what a search maximises."""
    from scvae_data.training.sweep import check_direction, interruption_told

    check_direction()
    with interruption_told():
        return train_or_embed(cfg)


def train_or_embed(cfg: DictConfig) -> Any:
    """Do what :func:`train` says."""
    if "chunking.compression" in task_overrides():
        from scvae_data.store.codec import imported_codec

        imported_codec(cfg.chunking.compression)  # so that a directory may be opened that it compresses
    if {"chunk_size", "chunking"} & task_overrides().keys():
        check_against_index(cfg.chunk_size, resolved(cfg)["data"]["data_path"])

    # Before torch loads OpenMP: its threads spin some milliseconds while they wait, on the cores that decode chunks and
    # compute fused operators. Some tenths do from one operation to the next; without any, each waits to be woken.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    if cfg.mode == "embed":
        return embed(cfg)
    if cfg.mode != "fit":
        raise ConfigError(f"mode={cfg.mode} is not one of fit, embed")
    if cfg.ckpt is not None:
        raise ConfigError("ckpt is for mode=embed; to continue a run give resume_from=RUN_DIR")
    with loading_libraries(), collector_paused():
        from scvae_data.training import run

        gc.freeze()  # what was imported stays: no collection need look at it

    run_dir = local_path("resume_from", cfg.resume_from or cfg.paths.output_dir)
    again = was_requeued() or cfg.resume_sweep is not None
    if again and cfg.resume_from is None and last_of(run_dir).exists():
        cfg.resume_from = str(run_dir)
        log.info("the job was started again: the run continues from %s", shown(last_of(run_dir)))
    try:
        metrics = run.train(cfg)
    except Stopped as stop:
        stop.remedy = how_to_go_on(run_dir)
        raise
    if HydraConfig.get().mode == RunMode.RUN and is_first_rank():  # a sweep shows its table instead
        print(summary(run_dir, metrics))
    return metrics.get("val/elbo")


def loading_libraries() -> AbstractContextManager[None]:
    """Say that large libraries are loaded, where they are not yet."""
    return nullcontext() if "lightning" in sys.modules else waiting("loading PyTorch and Lightning")


def how_to_go_on(run_dir: Path) -> str:
    """Say what a run that was stopped has left."""
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        return f"to go on with the sweep: {command('train', override('resume_sweep', run_dir.parent.absolute()))}"
    if (last := last_of(run_dir)).exists():
        return f"to continue from {shown(last)}: {command('train', override('resume_from', shown(run_dir)))}"
    return f"there is no checkpoint yet; to start anew: {again()}"


def last_of(run_dir: Path) -> Path:
    """Return where the last checkpoint of a run lies, if there is one."""
    return run_dir / "checkpoints" / "last.ckpt"


def embed(cfg: DictConfig) -> None:
    """Embed the cells of a directory with a trained model and print what was done."""
    with loading_libraries():
        from scvae_data.training.embed import embed as embed_cells

    report = embed_cells(cfg)
    n_missing, n_genes = report["n_missing_genes"], report["n_genes_of_model"]
    print(summary(Path(cfg.paths.output_dir), {}))
    print(f"{'cells':<10} {report['n_cells']:,}")
    print(f"{'genes':<10} {n_missing:,} of the model's {n_genes:,} missing ({100 * n_missing / n_genes:.1f} %)")
    n_unknown, n_categories = report["n_unknown_cells"], report["n_unseen_categories"]
    told = f"{n_unknown:,} cells; categories that the model was not trained on: {n_categories:,}"
    print(f"{'unknown':<10} {told if n_unknown or n_categories else 'none: the model was trained on all categories'}")
    if "elbo" in report:
        print(f"{'elbo':<10} {elbo_in_words(report)}")


def elbo_in_words(report: Mapping[str, Any]) -> str:
    """Say how well the model explains cells that it was shown after training, beside those of its training."""
    parts = [f"{report['elbo']:,.1f} nats per cell"]
    if "elbo_of_unseen" in report:
        parts.append(f"{report['elbo_of_unseen']:,.1f} of experiments that training has not seen")
    if "elbo_expected" in report:
        parts.append(f"{report['elbo_expected']:,.1f} expected of cells of their depth")
    if "elbo_of_training" in report:
        cells = "trained on" if report["part_of_training"] == "predict" else "held out in training"
        parts.append(f"{report['elbo_of_training']:,.1f} of the cells {cells}")
    return ", ".join(parts)


def summary(run_dir: Path, metrics: Mapping[str, Any]) -> str:
    """Lay out as aligned lines how well and how fast a run went and where its files are."""
    from scvae_data.training.experiment_scores import SCORES_FILE
    from scvae_data.training.pages import REPORT
    from scvae_data.training.report import in_words

    rows = {"run": shown(run_dir)}
    if "val/elbo" in metrics:
        rows["best model"] = f"val/elbo {metrics['val/elbo']:,.1f} nats per cell"
    if "test/elbo" in metrics:
        rows["test cells"] = f"test/elbo {metrics['test/elbo']:,.1f} nats per cell"
    rows |= in_words(metrics)
    files_of = {"latents": "latents.h5ad", "scores": SCORES_FILE, "pictures": "*.png", "report": REPORT}
    for label, pattern in files_of.items():
        if files := sorted(run_dir.glob(pattern)):
            rows[label] = ", ".join(shown(file) for file in files)
    return "\n".join(f"{name:<10} {text}" for name, text in rows.items())


def check_against_index(chunk_size: int, data_path: str | list[str]) -> None:
    """Refuse a chunk size that is not the dataset's: training cannot change it.

    Raises
    ------
    ConfigError
        With both numbers.
    """
    from scvae_data.store import open_dataset

    for index in open_dataset(data_path).members:
        if index.chunk_size != chunk_size:
            raise ConfigError(
                f"chunk_size={chunk_size} disagrees with {index.where}, processed with chunk_size={index.chunk_size}; "
                f"leave it out, or first run {program('process')} chunk_size={chunk_size} paths.processed_dir=…"
            )


def main() -> None:
    """Entry point."""
    with interruptible():
        from scvae_data.training.sweep import end_sweep
        from scvae_data.training.sweep_jobs import continued_arguments

        # What batch systems are asked to say when time is nearly over, wherever a launcher submits jobs.
        os.environ.setdefault("SUBMITIT_PREEMPT_SIGNAL", "USR1")
        try:
            sys.argv[1:] = continued_arguments(sys.argv[1:])
        except ScvaeDataError as error:
            sys.exit(f"error: {error}")
        try:
            run_app(train, "train")
        finally:
            if table := end_sweep():  # whichever jobs failed
                print(table)
