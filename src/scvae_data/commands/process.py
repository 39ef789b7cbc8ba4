"""``process.py``: a config in, a directory of chunk files out."""

from __future__ import annotations

import gc
import logging
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict

from scvae_data.calling import program
from scvae_data.commands.app import run_app, task_overrides
from scvae_data.config import given_settings, instantiate, resolved
from scvae_data.errors import ConfigError, ScvaeDataError
from scvae_data.processing.engine.base import Engine
from scvae_data.remote.location import Location, location
from scvae_data.system.quick_import import collector_paused

if TYPE_CHECKING:
    from scvae_data.processing.run.context import Record
    from scvae_data.processing.run.summary import Summary
    from scvae_data.processing.settings.run import Settings

__all__ = ["main", "process"]

log = logging.getLogger(__name__)

STAGES = ("input", "qc", "genes", "normalization", "chunking")
FROZEN = (
    "seed", "chunk_size", "keep_duplicates", "subset_to_control_cells", "qc", "genes", "normalization", "chunking",
    "control",
)  # fmt: skip
"""Keys of the config that stay what they are when a directory grows."""
MOVED = {
    "scvae_data.processing.control.ControlSubset": "scvae_data.processing.settings.control.ControlSubset",
    "scvae_data.processing.gene_list.ListRules": "scvae_data.processing.settings.genes.ListRules",
    "scvae_data.processing.genes.GeneRules": "scvae_data.processing.settings.genes.GeneRules",
    "scvae_data.processing.hvg.HvgRules": "scvae_data.processing.settings.genes.HvgRules",
    "scvae_data.processing.normalize.Normalization": "scvae_data.processing.settings.normalization.Normalization",
    "scvae_data.processing.qc.QcRules": "scvae_data.processing.settings.qc.QcRules",
}
"""What directories of format version 1 call the classes of their settings."""


def process(cfg: DictConfig) -> None:
    """Run the pipeline that ``cfg`` describes and print what it did, or would do."""
    directory = one_directory(cfg)
    if cfg.append:
        refuse_beside_append(cfg)
        keep_settings(cfg, recorded_config(directory), task_overrides(), directory)
    config = resolved(cfg)
    if input_was_not_named():
        log.info("no input given: simulated demo")
    engine: Engine = instantiate(cfg.engine)
    engine.warm_up()  # while this process imports and instantiates the rest
    with collector_paused():
        settings = settings_of(cfg)
        settings.input.check_named()
        gc.freeze()  # what was imported stays: no collection need look at it
    how: dict[str, Any] = {"overwrite": cfg.overwrite, "resume": cfg.resume, "scratch": Path(cfg.paths.scratch_dir)}
    if cfg.dry_run:
        predict(settings, engine, directory, **how, check_disk=cfg.check_disk)
        return

    if cfg.shard is not None or cfg.merge is not False:
        print(run_part(cfg, settings, engine, directory, config))
        return

    with collector_paused():
        from scvae_data.processing import pipeline
        from scvae_data.processing.run.wandb_run import wandb_run

        gc.freeze()
    with wandb_run(config) as log_summary:
        kept: dict[str, Any] = {"record": record_of(config), "check_disk": cfg.check_disk}
        if cfg.append:
            summary = pipeline.append(settings, engine, directory, **kept, resume=cfg.resume, scratch=how["scratch"])
        else:
            summary = pipeline.run(settings, engine, directory, **kept, **how)
        log_summary(summary)
    print(with_report(cfg, summary))


def one_directory(cfg: DictConfig) -> Location:
    """The directory that is to be made; raise ConfigError if several are named."""
    if not isinstance(cfg.paths.processed_dir, str):
        raise ConfigError(
            f"paths.processed_dir={cfg.paths.processed_dir} must be one path; {program('process')} input=dataset "
            "'input.paths=[A,B]' makes one directory of several"
        )
    return location(cfg.paths.processed_dir)


def with_report(cfg: DictConfig, summary: Summary) -> Summary:
    """Write the report of what was done, as far as one is wanted, and have the summary name it."""
    if not cfg.report:
        return summary
    from scvae_data.processing.finished.report import keep_report

    report = keep_report(summary.processed_dir, changed=not summary.left_alone)
    return replace(summary, report=report)


def run_part(
    cfg: DictConfig, settings: Settings, engine: Engine, directory: Location, config: Mapping[str, Any]
) -> Summary | str:
    """Do the work of a shard, or join all shards; return what was done."""
    from scvae_data.processing.run.wandb_run import wandb_run
    from scvae_data.processing.settings.shard import Shard
    from scvae_data.processing.shards import decide_for_shards, merge, run_shard

    if cfg.merge not in (False, True, "decide"):
        raise ConfigError(f"merge={cfg.merge} must be true, false or decide")
    if cfg.shard is not None and cfg.merge:
        raise ConfigError(f"shard={cfg.shard} and merge={cfg.merge} are two commands; give one")
    if cfg.overwrite:
        raise ConfigError("overwrite=true would throw away what other shards made; remove the directory by hand")
    scratch = Path(cfg.paths.scratch_dir)
    if cfg.shard is not None:
        shard = Shard.parse(cfg.shard)
        return run_shard(settings, engine, directory, shard, scratch=scratch, check_disk=cfg.check_disk)
    if cfg.merge == "decide":
        return decide_for_shards(settings, engine, directory, scratch=scratch)
    with wandb_run(config) as log_summary:
        summary = merge(settings, engine, directory, record=record_of(config), scratch=scratch)
        log_summary(summary)
    return with_report(cfg, summary)


def record_of(config: Mapping[str, Any]) -> Record:
    """Return how the run was asked for."""
    from scvae_data.processing.run.context import Record

    return Record(config, given_settings())


def refuse_beside_append(cfg: DictConfig) -> None:
    """Refuse what contradicts ``append=true``."""
    for key in ("overwrite", "dry_run", "shard", "merge"):
        if cfg[key]:
            raise ConfigError(f"append=true and {key}={str(cfg[key]).lower()} contradict each other; give one")


def recorded_config(directory: Location) -> dict[str, Any]:
    """Return the config that a directory was made with.

    Raises
    ------
    ScvaeDataError
        There is no finished directory that can grow, or its record is damaged.
    """
    from scvae_data.processing.finished.append import open_growing
    from scvae_data.store import read_json
    from scvae_data.store.files import expecting
    from scvae_data.store.verify import CONFIG_FILE

    open_growing(directory)
    record = read_json(directory / CONFIG_FILE)
    with expecting(directory / CONFIG_FILE):
        return {key: by_present_name(value) for key, value in record["config"].items()}


def by_present_name(section: Any) -> Any:
    """Return a section of a config with its class under the name that it has now."""
    if not isinstance(section, dict) or section.get("_target_") not in MOVED:
        return section
    return {**section, "_target_": MOVED[section["_target_"]]}


def keep_settings(cfg: DictConfig, recorded: dict[str, Any], given: Collection[str], directory: Location) -> None:
    """Put the settings of a directory that grows in place of those that are not given; refuse given ones that differ.

    Parameters
    ----------
    cfg
        Changed in place.
    recorded
        What the directory was made with.
    given
        Keys that the command line sets.

    Raises
    ------
    ConfigError
        Naming the settings that differ.
    """
    from scvae_data.processing.finished.check import different_settings

    now = resolved(cfg)
    asked = {key.split(".")[0].split("@")[0] for key in given}
    sections = [key for key in FROZEN if key in recorded]
    if different := different_settings(
        *({key: one[key] for key in sections if key in asked} for one in (recorded, now))
    ):
        raise ConfigError(f"append=true keeps the settings of {directory}, made with {different}; leave them out")
    with open_dict(cfg):
        for key in sections:
            cfg[key] = recorded[key]


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
