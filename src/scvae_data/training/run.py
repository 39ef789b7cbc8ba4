"""``train(cfg)``: a resolved configuration in, a run directory with model, latents, pictures and log out."""

from __future__ import annotations

import json
import logging
import secrets
import signal
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.accelerators import AcceleratorRegistry
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import Logger, WandbLogger
from omegaconf import DictConfig, OmegaConf

from scvae_data.config import given_settings, instantiate, resolved
from scvae_data.errors import ConfigError
from scvae_data.models.likelihoods import import_likelihood
from scvae_data.store.files import write_atomic
from scvae_data.store.names import RUN_FILE
from scvae_data.system.jit import compile_ahead
from scvae_data.system.stopping import StopRequest, exit_code_of, stoppable
from scvae_data.tracking import define_metrics, finish_wandb, log_dataset, one_line_errors
from scvae_data.training.callbacks import RowPerEpoch, RunRecord, StopAtSignal
from scvae_data.training.leakage import held_out, without_value
from scvae_data.training.loggers import MetricsCsv
from scvae_data.training.outputs import Outputs
from scvae_data.training.pages import REPORT, next_lines, only_a_page
from scvae_data.training.ranks import Ranks, strategy_of, together
from scvae_data.training.report import Finished, report
from scvae_data.training.resume import check_same_dataset, continued, last_checkpoint
from scvae_data.training.throughput import Throughput
from scvae_data.wording import first_line

__all__ = ["train", "train_along"]

log = logging.getLogger(__name__)

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
SEEDS_APART = 1_000_003


def train(cfg: DictConfig) -> dict[str, Any]:
    """Train what ``cfg`` describes and leave everything about it in ``cfg.paths.output_dir``.

    Parameters
    ----------
    cfg
        With the keys of ``scvae_data.config.TrainConfig``. ``resume_from``
        continues the run in that directory, with its configuration.

    Returns
    -------
    ``val/loss`` and other metrics of the best checkpoint, speed and cache
    counters; also in ``result.json``.

    Raises
    ------
    ScvaeDataError
        What is wrong with configuration or data. The W&B run, if any, ends
        with the process's exit status in every case, SIGTERM included.
    """
    if cfg.get("resume_from"):
        cfg = continued(cfg, _overridden_keys())
    return _train(resolved(cfg))


def train_along() -> None:
    """Train as one of several ranks what the first one trains."""
    _train({"trainer": {}})


def _train(config: dict[str, Any]) -> dict[str, Any]:
    failure: BaseException | None = None
    try:
        with stoppable(*STOP_SIGNALS) as request, _quiet(), together(config) as (ranks, shared):
            return _Run(shared, ranks, request).go()
    except BaseException as error:
        failure = error
        raise
    finally:
        finish_wandb(exit_code_of(failure))


class _Run:
    """One training run: its objects, in the order they are made; the same on all ranks."""

    def __init__(self, config: dict[str, Any], ranks: Ranks, request: StopRequest) -> None:
        self.config = config
        self.ranks = ranks
        self.request = request
        _check_accelerator(config["trainer"].get("accelerator"))
        self.run_dir = Path(config["paths"]["output_dir"])
        self.run_dir.mkdir(parents=True, exist_ok=True)
        self.resuming = bool(config.get("resume_from"))
        self.outputs: Outputs = instantiate(config["outputs"]) if config.get("outputs") else Outputs()
        # Ranks start from the weights of the first, and draw noise of their own.
        seed = (config["seed"] + SEEDS_APART * ranks.rank) % 2**32
        lightning.seed_everything(seed, workers=True, verbose=False)
        self.data = instantiate(config["data"])
        import_likelihood(config["model"].get("likelihood"))
        self.model = instantiate(config["model"])
        self.callbacks: list[Callback] = [instantiate(node) for node in _nodes(config, "callbacks")]
        self.throughput = next((found for found in self.callbacks if isinstance(found, Throughput)), Throughput())

    def go(self) -> dict[str, Any]:
        """Fit, evaluate the best checkpoint, write the outputs."""
        self.data.setup("fit")
        self.outputs.check(self.data.index.obs_columns)
        if without := without_value(self.data, self.config["data"].get("split")):
            log.warning("%s", without)
        facts = _facts(self.data)
        wandb_id = check_same_dataset(self.run_dir, facts)["wandb_id"] if self.resuming else secrets.token_hex(4)
        self._record(facts, wandb_id)
        trainer = self._trainer(facts, wandb_id)
        if self.ranks.size > 1:
            self._tell_ranks(facts)
        compile_ahead("train")
        goes_on_from = last_checkpoint(self.run_dir) if self.resuming else None
        trainer.fit(self.model, datamodule=self.data, ckpt_path=goes_on_from)
        cache = _cache_summary(self.throughput.counters, facts)
        metrics = self._evaluate(trainer) | self.throughput.summary() | cache | _skipped(self.data)
        self._write("result.json", json.dumps(metrics, indent=1) + "\n")
        made = self._outputs(trainer)
        return self._finish(trainer, facts, metrics, made) if self.ranks.is_first else metrics

    def _finish(
        self, trainer: Trainer, facts: dict[str, Any], metrics: dict[str, Any], made: Mapping[str, Path]
    ) -> dict[str, Any]:
        """Score what was made and tell of it; returns the metrics with the scores."""
        not_scored: dict[str, str] = {}
        if "latents" in made:
            scores, not_scored = self._scores(trainer, made["latents"])
            metrics |= scores
            self._write("result.json", json.dumps(metrics, indent=1) + "\n")
        self._report(facts, metrics, made, not_scored)
        _log_pictures(trainer, made)
        log.info("run directory: %s", self.run_dir)
        for line in next_lines(made["latents"]) if "latents" in made else ():
            log.info("  %s", line)
        return metrics

    def _tell_ranks(self, facts: Mapping[str, Any]) -> None:
        n, batch_size = self.ranks.size, self.data.batch_size
        log.info(
            "%d ranks: %d cells a batch and rank, %d a step; %d steps an epoch; the learning rate is as given (%g)",
            n, batch_size, n * batch_size, facts["batches_per_epoch"], self.config["model"]["lr"],
        )  # fmt: skip

    def _record(self, facts: dict[str, Any], wandb_id: str) -> None:
        self._write("config.yaml", OmegaConf.to_yaml(OmegaConf.create(self.config)))
        self._write(RUN_FILE, json.dumps({"wandb_id": wandb_id, "facts": facts}, indent=1) + "\n")

    def _trainer(self, facts: dict[str, Any], wandb_id: str) -> Trainer:
        identity = {"save_dir": str(self.run_dir), "id": wandb_id, "job_type": "train", **_names(self.run_dir, facts)}
        self.callbacks = [*self.callbacks, *([] if self.throughput in self.callbacks else [self.throughput])]
        nodes = _nodes(self.config, "logger") if self.ranks.is_first else []
        loggers: list[Logger] = [instantiate(_filled(node, identity)) for node in nodes]
        for callback in self.callbacks:
            if isinstance(callback, ModelCheckpoint):
                callback.dirpath = callback.dirpath or str(self.run_dir / "checkpoints")
                if not facts["n_val"] and str(callback.monitor).startswith("val/"):
                    callback.monitor = None  # nothing tells which one is best: the last counts as such
        # Lightning refuses to monitor the learning rate for nobody.
        needless = () if loggers else (LearningRateMonitor,)
        callbacks = [callback for callback in self.callbacks if not isinstance(callback, needless)]
        own = [RunRecord(self.config, facts), StopAtSignal(self.request, self.run_dir)]
        callbacks = [RowPerEpoch(), *callbacks, *own]
        # Partial, because Hydra copies the arguments it passes, and a logger must not be copied.
        build = instantiate({**self.config["trainer"], "_partial_": True})
        named = {"callbacks": callbacks, "logger": loggers, "default_root_dir": str(self.run_dir)}
        try:
            trainer: Trainer = build(**named, **strategy_of(self.ranks, self.config["trainer"]))
        except (AssertionError, MisconfigurationException, TypeError, ValueError) as error:
            raise ConfigError(f"trainer: Lightning refuses it: {first_line(error)}") from error
        # Lightning's handlers have ranks wait for one another for ever; ours is `request`.
        trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
        for logger in loggers:
            if isinstance(logger, WandbLogger):
                with one_line_errors():
                    define_metrics(logger.experiment)
                    for directory in self.data.index.members:
                        log_dataset(logger.experiment, directory, "input")
            logger.log_hyperparams({**self.config, "dataset": facts})
        return trainer

    def _evaluate(self, trainer: Trainer) -> dict[str, float]:
        """Metrics of the best checkpoint on validation and test cells, as far as there are any."""
        best = _best_checkpoint(trainer)
        metrics: dict[str, float] = {}
        # Logged under names of their own: the curves of val/… belong to the epochs.
        # Tables of epochs and steps have no row for them; they are in result.json.
        loggers, trainer.loggers = trainer.loggers, []
        parts = ((self.data.val_dataloader, trainer.validate), (self.data.test_dataloader, trainer.test))
        for loader, run in parts:
            if _n_batches(loader()):
                metrics |= run(self.model, datamodule=self.data, ckpt_path=best, verbose=False)[0]
        trainer.loggers = loggers
        for logger in not_tables(loggers):
            logger.log_metrics({f"best/{name}": value for name, value in metrics.items()}, step=trainer.global_step)
        return {name: float(value) for name, value in metrics.items()}

    def _outputs(self, trainer: Trainer) -> dict[str, Path]:
        best = _best_checkpoint(trainer)
        model = self.model if best is None else type(self.model).load_from_checkpoint(best)
        for logger in trainer.loggers:
            logger.save()
        device = trainer.strategy.root_device
        return self.outputs.make(
            self.run_dir, model, self.data, device=device, seed=self.config["seed"], ranks=self.ranks
        )

    def _scores(self, trainer: Trainer, latents: Path) -> tuple[dict[str, float], dict[str, str]]:
        scores, absent = self.outputs.scores(latents, self.model, self.data, seed=self.config["seed"])
        for logger in not_tables(trainer.loggers):
            logger.log_metrics({f"latents/{name}": value for name, value in scores.items()}, step=trainer.global_step)
            logger.save()
        return scores, absent

    def _report(
        self, facts: Mapping[str, Any], metrics: Mapping[str, Any], made: Mapping[str, Path], not_scored: dict[str, str]
    ) -> None:
        """Write the page about the run."""
        with only_a_page(self.run_dir):
            shared = held_out(self.data, self.config["data"].get("split"))
            for one in shared.shared:
                if one.names:
                    log.info("held out for %s: %s %s", one.part, one.column, one.names)
            overrides = given_settings() if HydraConfig.initialized() else None
            labels = self.outputs.labels(self.data)
            run = Finished(self.run_dir, self.config, facts, metrics, made, shared, not_scored, overrides, labels)
            self._write(REPORT, report(run))

    def _write(self, name: str, text: str) -> None:
        if self.ranks.is_first:
            write_atomic(self.run_dir / name, text.encode())


def not_tables(loggers: Iterable[Logger]) -> list[Logger]:
    """Loggers that take what is measured once."""
    return [logger for logger in loggers if not isinstance(logger, MetricsCsv)]


def _best_checkpoint(trainer: Trainer) -> str | None:
    """Path of the best checkpoint; None if none was saved, so that the weights at hand count."""
    path = getattr(trainer.checkpoint_callback, "best_model_path", "")
    return path or None


def _n_batches(loader: Any) -> int:
    """Batches of a loader; 0 if there is none for this part of the cells."""
    return 0 if loader is None else len(loader)


def _facts(data: Any) -> dict[str, Any]:
    """What the index says and the configuration cannot know."""
    return {"chunk_size": int(data.index.chunk_size), **data.facts()}


def _cache_summary(counters: Mapping[str, float], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Counters of the training cache, measured beside predicted."""
    names = ("hits", "misses", "evictions", "bytes_read", "hit_rate", "predicted_hit_rate")
    summary: dict[str, Any] = {name: counters[f"train/{name}"] for name in names if f"train/{name}" in counters}
    return summary | {"holds_all_chunks": bool(facts["holds_everything"])}


def _skipped(data: Any) -> dict[str, int]:
    """Cells that all epochs and parts left out with damaged chunks; nothing where there are none.

    Each worker process meets a damaged chunk by itself: with several nobody knows how many are the same.
    """
    counters = data.counters()
    n_cells = sum(int(part["skipped_cells"]) for part in counters.values())
    n_chunks = 0 if data.num_workers > 1 else int(counters["train"]["bad_chunks"])
    return ({"skipped_cells": n_cells} | ({"bad_chunks": n_chunks} if n_chunks else {})) if n_cells else {}


def _check_accelerator(name: Any) -> None:
    """Refuse an accelerator that this machine lacks before anything is made; Lightning judges the names."""
    kinds = {"gpu": ("cuda", "mps")}.get(name, (name,))
    known = [AcceleratorRegistry[kind]["accelerator"] for kind in kinds if kind in AcceleratorRegistry]
    if known and not any(accelerator.is_available() for accelerator in known):
        raise ConfigError(
            f"trainer.accelerator={name}: this machine has none; trainer.accelerator=auto takes what it has"
        )


def _names(run_dir: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Name, group and tags of the W&B run: the jobs of a sweep share a group named after its directory."""
    tags = ["simulated demo"] if facts["simulated"] else []
    if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        hydra = HydraConfig.get()
        group = Path(hydra.sweep.dir).name
        return {"name": f"{group}_{run_dir.name}", "group": group, "tags": [*tags, "sweep"]}
    return {"name": run_dir.name, "tags": tags}


def _nodes(config: Mapping[str, Any], group: str) -> list[dict[str, Any]]:
    """The nodes of a group in order; a node switched off by null is left out."""
    nodes = list((config.get(group) or {}).values())
    for node in nodes:
        if node is not None and "_target_" not in node:
            raise ConfigError(f"an entry of {group} has no _target_: {node}; remove it or set it to null")
    return [node for node in nodes if node is not None]


def _filled(node: Mapping[str, Any], identity: Mapping[str, Any]) -> dict[str, Any]:
    """``node`` with the run's own values where it leaves them null."""
    return {key: identity.get(key) if value is None else value for key, value in node.items()}


def _log_pictures(trainer: Trainer, made: Mapping[str, Path]) -> None:
    pictures = {name: path for name, path in made.items() if path.suffix == ".png"}
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            for name, path in pictures.items():
                logger.log_image(key=name.replace(" ", "_"), images=[str(path)])


def _overridden_keys() -> list[str]:
    """Keys that this command line sets."""
    if not HydraConfig.initialized():
        return []
    return [text.partition("=")[0].lstrip("+~") for text in HydraConfig.get().overrides.task]


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Lightning's advertisements, and its advice that does not apply here."""
    chatter = logging.getLogger("lightning.pytorch")
    level = chatter.level
    chatter.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        # Batches are decoded by the DataModule's threads, not by loader processes.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        # RowPerEpoch shortens the interval.
        warnings.filterwarnings("ignore", message="The number of training batches .* is smaller than the logging")
        # A part of the cells that is empty by configuration.
        warnings.filterwarnings("ignore", message="Total length of .* across ranks is zero")
        # A run that is resumed goes on in its own directory.
        warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")
        # On every login node of a cluster; docs/cluster.md says when srun is wanted.
        warnings.filterwarnings("ignore", message="The `srun` command is available")
        # Speed and cache are summed over ranks before they are logged.
        warnings.filterwarnings("ignore", message=r"It is recommended to use `self.log\('(cache|throughput)/")
        # Lightning's own use of torch, which changed.
        warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated")
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")
        try:
            yield
        finally:
            chatter.setLevel(level)
