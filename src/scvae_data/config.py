"""Configuration: where ``conf/`` is, the types of its root keys, and config nodes turned into objects.

The YAML files describe objects by ``_target_`` and the keys equal the
parameters of its constructor, so a config is the Python call written down.
Only the root keys are typed here: they have no constructor to check them.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import hydra.utils
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from omegaconf import MISSING, DictConfig, OmegaConf

from scvae_data.errors import ConfigError, ScvaeDataError
from scvae_data.remote.location import local_path, location
from scvae_data.wording import did_you_mean

__all__ = [
    "ProcessConfig",
    "TrainConfig",
    "absolute_paths",
    "check_chunk_size",
    "conf_dir",
    "given_settings",
    "instantiate",
    "register_schemas",
    "resolved",
]

CALLED = re.compile(r"target '([^']+)'")
UNEXPECTED = re.compile(r"got an unexpected keyword argument '(\w+)'")
DATASET_PATHS = frozenset({"processed_dir"})
"""Entries of ``paths`` that may be in a remote store, and several, where train.py reads them as one."""


@dataclass
class ProcessConfig:
    """Root keys of ``process.py``; the nodes are checked by what they instantiate."""

    seed: int = MISSING
    chunk_size: int = MISSING
    overwrite: bool = MISSING
    resume: bool = MISSING
    max_failed_fraction: float = MISSING
    subset_to_control_cells: bool = MISSING
    keep_duplicates: str = MISSING
    append: bool = MISSING
    check_disk: bool = MISSING
    report: bool = MISSING
    dry_run: bool = MISSING
    shard: str | None = None
    merge: Any = MISSING
    paths: dict[str, Any] = field(default_factory=dict)
    input: dict[str, Any] = field(default_factory=dict)
    qc: dict[str, Any] = field(default_factory=dict)
    genes: dict[str, Any] = field(default_factory=dict)
    normalization: dict[str, Any] = field(default_factory=dict)
    chunking: dict[str, Any] = field(default_factory=dict)
    control: dict[str, Any] = field(default_factory=dict)
    engine: dict[str, Any] = field(default_factory=dict)
    logger: dict[str, Any] = field(default_factory=dict)


@dataclass
class TrainConfig:
    """Root keys of ``train.py``; the nodes are checked by what they instantiate."""

    seed: int = MISSING
    chunk_size: int = MISSING
    mode: str = MISSING
    ckpt: str | None = None
    resume_from: str | None = None
    resume_sweep: str | None = None
    paths: dict[str, Any] = field(default_factory=dict)
    chunking: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    trainer: dict[str, Any] = field(default_factory=dict)
    callbacks: dict[str, Any] = field(default_factory=dict)
    logger: dict[str, Any] = field(default_factory=dict)
    outputs: dict[str, Any] = field(default_factory=dict)


def register_schemas() -> None:
    """Make the root types known to Hydra as ``process_schema`` and ``train_schema``."""
    store = ConfigStore.instance()
    store.store(name="process_schema", node=ProcessConfig)
    store.store(name="train_schema", node=TrainConfig)


def given_settings() -> list[str]:
    """Return what the command line of this run set, with the folder of options of one's own that it named."""
    given = HydraConfig.get()
    folders = [source.path for source in given.runtime.config_sources if source.provider == "command-line"]
    return [*(f"--config-dir={folder}" for folder in folders), *given.overrides.task]


def conf_dir() -> Path:
    """Directory of the YAML files: inside an installed package, or at the top of a checkout."""
    package = Path(__file__).resolve().parent
    for candidate in (package / "conf", package.parents[1] / "conf"):
        if (candidate / "base.yaml").is_file():
            return candidate
    raise ConfigError(f"no conf/ in {package} or {package.parents[1]}; reinstall scvae-data")


def check_chunk_size(cfg: DictConfig) -> None:
    """Refuse a chunk size that is not positive, or that was set where only its alias is.

    Raises
    ------
    ConfigError
        With the value and the key to set instead.
    """
    if cfg.chunk_size <= 0:
        raise ConfigError(f"chunk_size={cfg.chunk_size} must be a positive number of cells")
    if cfg.chunking.chunk_size != cfg.chunk_size:
        raise ConfigError(
            f"chunking.chunk_size={cfg.chunking.chunk_size} disagrees with chunk_size={cfg.chunk_size}; "
            f"set chunk_size={cfg.chunking.chunk_size} at the top level"
        )


def absolute_paths(cfg: DictConfig) -> None:
    """Make every entry of ``paths`` absolute, counted from the current directory, in place.

    Raises
    ------
    ConfigError
        One of them is no path, or is in a remote store that cannot be.
    """
    for key, value in cfg.paths.items():
        of_dataset = key in DATASET_PATHS
        if of_dataset and OmegaConf.is_list(value) and all(isinstance(path, str) for path in value):
            cfg.paths[key] = [str(location(path)) for path in value]
        elif isinstance(value, str):
            cfg.paths[key] = str(location(value) if of_dataset else local_path(f"paths.{key}", location(value)))
        else:
            raise ConfigError(f"paths.{key}={value} must be one path")


def resolved(cfg: DictConfig) -> dict[str, Any]:
    """The whole config as plain Python values with every interpolation filled in.

    Raises
    ------
    ConfigError
        If a key that must be given (``???``) is not.
    """
    missing = sorted(OmegaConf.missing_keys(cfg))
    if missing:
        raise ConfigError(f"{', '.join(missing)} must be given; e.g. {missing[0]}=…")
    plain = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def instantiate(node: DictConfig | Mapping[str, Any]) -> Any:
    """Build what ``node`` describes, with plain lists and dicts as arguments.

    Raises
    ------
    ScvaeDataError
        What the constructor raised, without Hydra's wrapping.
    ConfigError
        For a target that does not exist or a key its constructor does not have.
    """
    try:
        return hydra.utils.instantiate(node, _convert_="all")
    except InstantiationException as error:
        raise _unwrapped(error) from error


def _unwrapped(error: InstantiationException) -> Exception:
    """The innermost error of this package behind ``error``, else a :class:`ConfigError` for what a config can cause."""
    causes: list[BaseException] = [error]  # outermost first
    while (cause := causes[-1].__cause__) is not None:
        causes.append(cause)
    for cause in reversed(causes):
        if isinstance(cause, ScvaeDataError):
            return cause
    if len(causes) > 1 and not isinstance(causes[-1], TypeError | ValueError | ImportError):
        return error  # a bug in the constructor, not in the config
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    where = next((line.removeprefix("full_key: ") for line in lines if line.startswith("full_key: ")), "")
    what = str(causes[-1]) if len(causes) > 1 else lines[0]
    if said := _unknown_key(lines[0], what, where):
        return ConfigError(said)
    return ConfigError(f"{where}: {what}" if where else what)


def _unknown_key(call: str, what: str, where: str) -> str:
    """Say which key a target does not have, and which is like it; empty where the error is of another kind.

    Parameters
    ----------
    call, what
        What Hydra says of the target, and Python of the call.
    where
        The node, if it is known.
    """
    target, key = CALLED.search(call), UNEXPECTED.search(what)
    if target is None or key is None:
        return ""
    names = list(inspect.signature(hydra.utils.get_object(target[1])).parameters)
    if key[1] in names:
        return ""  # something within the target is called wrongly
    prefix = f"{where}." if where else ""
    close = [f"{prefix}{name}" for name in get_close_matches(key[1], names, n=1)]
    hint = did_you_mean(close, f"{target[1]} has {', '.join(names) or 'none'}")
    return f"{prefix}{key[1]} is not a setting; {hint}"


register_schemas()
