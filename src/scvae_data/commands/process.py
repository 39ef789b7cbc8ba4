"""``process.py``: a config in, a directory of chunk files out."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from scvae_data.commands.app import run_app, task_overrides
from scvae_data.config import instantiate, resolved
from scvae_data.errors import ScvaeDataError
from scvae_data.processing.engine.base import Engine

__all__ = ["main", "process"]

log = logging.getLogger(__name__)

STAGES = ("input", "qc", "genes", "normalization", "chunking", "control")


def process(cfg: DictConfig) -> None:
    """Run the pipeline that ``cfg`` describes and print what it did, or would do."""
    config = resolved(cfg)
    if input_was_not_named():
        log.info("no input given: simulated demo")
    engine: Engine = instantiate(cfg.engine)
    engine.warm_up()  # while this process imports and instantiates the rest
    stages: dict[str, Any] = {stage: instantiate(cfg[stage]) for stage in STAGES}

    if cfg.dry_run:
        from scvae_data.processing.run.losses import warn_of_fractions
        from scvae_data.processing.settings.run import check_settings
        from scvae_data.processing.survey.dry_run import dry_run

        check_settings(
            cfg.max_failed_fraction, cfg.keep_duplicates, stages["control"] if cfg.subset_to_control_cells else None
        )
        warn_of_fractions(stages["qc"])
        try:
            prediction = dry_run(
                stages["input"], stages["genes"], stages["chunking"], engine, Path(cfg.paths.processed_dir),
                max_failed_fraction=cfg.max_failed_fraction, overwrite=cfg.overwrite, resume=cfg.resume,
            )  # fmt: skip
        finally:
            engine.close()
        print(prediction, flush=True)
        if prediction.stops:  # as the run itself would
            raise ScvaeDataError(prediction.stops)
        return

    from scvae_data.processing import pipeline
    from scvae_data.processing.run.wandb_run import wandb_run

    with wandb_run(config) as record:
        summary = pipeline.run(
            **stages,
            engine=engine,
            seed=cfg.seed,
            overwrite=cfg.overwrite,
            resume=cfg.resume,
            max_failed_fraction=cfg.max_failed_fraction,
            subset_to_control_cells=cfg.subset_to_control_cells,
            keep_duplicates=cfg.keep_duplicates,
            processed_dir=Path(cfg.paths.processed_dir),
            config=config,
            overrides=list(HydraConfig.get().overrides.task),
        )
        record(summary)
    print(summary)


def input_was_not_named() -> bool:
    """Whether the demo was chosen by default rather than by the user."""
    choices = HydraConfig.get().runtime.choices
    return choices["input"] == "demo" and choices["experiment"] is None and "input" not in task_overrides()


def main() -> None:
    """Entry point."""
    run_app(process, "process")
