"""``process.py``: a config in, a directory of chunk files out."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from scvae_data.commands.app import run_app, task_overrides
from scvae_data.config import instantiate, resolved
from scvae_data.errors import ScvaeDataError
from scvae_data.processing.engine.base import Engine
from scvae_data.remote.location import Location, location

if TYPE_CHECKING:
    from scvae_data.processing.settings.run import Settings

__all__ = ["main", "process"]

log = logging.getLogger(__name__)

STAGES = ("input", "qc", "genes", "normalization", "chunking")


def process(cfg: DictConfig) -> None:
    """Run the pipeline that ``cfg`` describes and print what it did, or would do."""
    config = resolved(cfg)
    if input_was_not_named():
        log.info("no input given: simulated demo")
    engine: Engine = instantiate(cfg.engine)
    engine.warm_up()  # while this process imports and instantiates the rest
    settings = settings_of(cfg)
    directory, how = location(cfg.paths.processed_dir), {"overwrite": cfg.overwrite, "resume": cfg.resume}
    scratch = Path(cfg.paths.scratch_dir)
    if cfg.dry_run:
        predict(settings, engine, directory, scratch=scratch, **how)
        return

    from scvae_data.processing import pipeline
    from scvae_data.processing.run.context import Record
    from scvae_data.processing.run.wandb_run import wandb_run

    record = Record(config, list(HydraConfig.get().overrides.task))
    with wandb_run(config) as log_summary:
        summary = pipeline.run(
            settings, engine, directory, record=record, scratch=scratch, check_disk=cfg.check_disk, **how
        )
        log_summary(summary)
    print(summary)


def settings_of(cfg: DictConfig) -> Settings:
    """Return the settings that a config describes, each stage instantiated and all checked together."""
    from scvae_data.processing.settings.run import Settings

    stages: dict[str, Any] = {stage: instantiate(cfg[stage]) for stage in STAGES}
    control = instantiate(cfg.control)
    return Settings(
        **stages,
        control=control if cfg.subset_to_control_cells else None,
        seed=cfg.seed,
        max_failed_fraction=cfg.max_failed_fraction,
        keep_duplicates=cfg.keep_duplicates,
    )


def predict(settings: Settings, engine: Engine, directory: Location, **how: Any) -> None:
    """Print what a run would find and need; end as the run itself would."""
    from scvae_data.processing.run.losses import warn_of_fractions
    from scvae_data.processing.survey.dry_run import dry_run

    warn_of_fractions(settings.qc)
    try:
        prediction = dry_run(settings, engine, directory, **how)
    finally:
        engine.close()
    print(prediction, flush=True)
    if prediction.stops:
        raise ScvaeDataError(prediction.stops)


def input_was_not_named() -> bool:
    """Whether the demo was chosen by default rather than by the user."""
    choices = HydraConfig.get().runtime.choices
    return choices["input"] == "demo" and choices["experiment"] is None and "input" not in task_overrides()


def main() -> None:
    """Entry point."""
    run_app(process, "process")
