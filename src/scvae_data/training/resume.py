"""A run directory and a command line in, the configuration to continue the run with out."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from scvae_data.errors import ConfigError, SelectionError
from scvae_data.loading.loader import check_not_grown
from scvae_data.remote.location import local_path
from scvae_data.results.weights import read_plain
from scvae_data.store import open_dataset
from scvae_data.store.names import RUN_FILE
from scvae_data.training.trusted import check_targets

__all__ = ["check_same_dataset", "continued", "last_checkpoint"]


def continued(cfg: DictConfig, overrides: Iterable[str]) -> DictConfig:
    """The configuration of the run in ``cfg.resume_from``, with what the command line sets on top.

    The defaults of today do not count: the run goes on as it was started,
    unless a key is given explicitly (``trainer.max_epochs=200``).

    Parameters
    ----------
    cfg
        As composed for the new command.
    overrides
        Keys that its command line sets.

    Raises
    ------
    ConfigError
        If the directory is not that of a run, or its configuration names something that is not to be run.
    """
    run_dir = local_path("resume_from", cfg.resume_from).expanduser().absolute()
    saved_path = run_dir / "config.yaml"
    if not run_dir.is_dir():
        what = "is a file" if run_dir.exists() else "does not exist"
        raise ConfigError(f"resume_from={cfg.resume_from} {what}; give the directory of a training run")
    if not saved_path.is_file():
        raise ConfigError(f"resume_from={cfg.resume_from} has no config.yaml; give the directory of a training run")
    saved = OmegaConf.load(saved_path)
    assert isinstance(saved, DictConfig)
    keys = [key.replace("/", ".") for key in overrides]
    given = [key for key in keys if key.split(".")[0] not in ("resume_from", "resume_sweep", "experiment", "hydra")]
    # What is saved has the values that followed the given ones before.
    for dotted in [*followers(cfg, given), *given]:
        value = OmegaConf.select(cfg, dotted)
        plain = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
        OmegaConf.update(saved, dotted, plain, merge=False, force_add=True)
    check_targets(OmegaConf.to_container(saved, resolve=True), str(saved_path), skip=keys)
    saved.paths.output_dir = str(run_dir)
    saved.resume_from = str(run_dir)
    return saved


def followers(cfg: DictConfig, keys: Collection[str]) -> Iterator[str]:
    """Dotted names of the settings whose value is that of one of ``keys``, or of something below it."""
    todo: list[tuple[str, Any]] = [("", OmegaConf.to_container(cfg, resolve=False))]
    while todo:
        dotted, value = todo.pop()
        if isinstance(value, dict):
            todo += [(f"{dotted}.{name}".lstrip("."), inner) for name, inner in value.items()]
        elif isinstance(value, str) and any(f"${{{key}{end}" in value for key in keys for end in ("}", ".")):
            yield dotted


def last_checkpoint(run_dir: Path) -> Path:
    """The newest checkpoint of a run, known to hold tensors and plain values only.

    Raises
    ------
    ConfigError
        If it has none yet, or one that is not to be opened.
    """
    path = run_dir / "checkpoints" / "last.ckpt"
    if not path.is_file():
        raise ConfigError(f"resume_from={run_dir} has no checkpoints/last.ckpt yet; start the run anew")
    read_plain(path, "resume_from")
    return path


def check_same_dataset(run_dir: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """What the run recorded at its start.

    Raises
    ------
    SelectionError
        If it was trained on another dataset than the one with these facts.
    """
    record: dict[str, Any] = json.loads((run_dir / RUN_FILE).read_text())
    theirs, ours = record["facts"]["content_hash"], facts["content_hash"]
    if theirs != ours:
        check_not_grown(open_dataset(facts["data_path"]), theirs)
        raise SelectionError(
            f"resume_from={run_dir} was trained on the dataset {theirs[:12]}, but the dataset given is {ours[:12]}; "
            "point data.data_path to its dataset"
        )
    return record
