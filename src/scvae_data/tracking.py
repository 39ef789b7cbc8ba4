"""W&B runs without Lightning: the mode they start in, what they read or made, how they end."""

from __future__ import annotations

import logging
import netrc
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from scvae_data.errors import ConfigError
from scvae_data.store import INDEX_FILE, DatasetIndex

__all__ = ["finish_wandb", "log_dataset", "run_settings", "wandb_mode"]

log = logging.getLogger(__name__)


def run_settings(save_dir: str) -> dict[str, Any]:
    """Arguments of ``wandb.init`` that every run has, whoever starts it: folder, mode, silence where it is offline.

    Parameters
    ----------
    save_dir
        Folder for ``wandb/``.
    """
    import wandb

    mode = wandb_mode(os.environ)
    if mode == "offline":
        log.info("W&B is offline; `wandb sync %s` uploads the run", Path(save_dir) / "wandb" / "offline-run-*")
    # Offline, W&B would explain itself at length; online, its links are wanted.
    return {"dir": save_dir, "mode": mode, "settings": wandb.Settings(silent=mode in ("offline", "disabled"))}


def wandb_mode(environment: Mapping[str, str]) -> str | None:
    """Mode to start W&B in: what ``WANDB_MODE`` says, else offline without a key, else W&B's own choice (None).

    Raises
    ------
    ConfigError
        If ``WANDB_MODE`` is not a mode.
    """
    named = environment.get("WANDB_MODE", "")
    if named:
        mode = {"dryrun": "offline", "run": "online"}.get(named, named)
        if mode not in ("online", "offline", "disabled", "shared"):
            raise ConfigError(f"WANDB_MODE={named} is not one of online, offline, disabled")
        return mode
    return None if _has_key(environment) else "offline"


def log_dataset(run: Any, index: DatasetIndex, role: Literal["input", "output"]) -> None:
    """Record that a run used or made a dataset directory, as an artifact that refers to its index.

    Nothing is uploaded. The reference carries the checksum of the index, and
    the index those of all other files, so equal directories are one version
    of the artifact wherever they lie.

    Parameters
    ----------
    run
        A W&B run; one that is disabled records nothing.
    index
        Of the directory.
    role
        Whether the run read the directory or wrote it.
    """
    import wandb

    if run.disabled:
        return
    path = Path(index.path).absolute()
    artifact = wandb.Artifact(
        re.sub(r"[^\w.-]", "_", path.name, flags=re.ASCII) or "dataset",
        type="dataset",
        metadata={
            "directory": str(path),
            "content_hash": index.content_hash,
            "n_obs": index.n_obs,
            "n_vars": index.n_vars,
            "n_chunks": len(index.chunks),
            "chunk_size": index.chunk_size,
            "simulated": index.simulated,
        },
    )
    artifact.add_reference((path / INDEX_FILE).as_uri())
    # Not `use_artifact`: it refuses to work offline, and online it waits for the server.
    run._log_artifact(artifact, is_user_created=True, use_after_commit=role == "input")


def finish_wandb(exit_code: int) -> None:
    """End this process's W&B run, if there is one, with its exit status; later jobs then start runs of their own."""
    wandb = sys.modules.get("wandb")
    if wandb is not None and wandb.run is not None:
        wandb.finish(exit_code=exit_code)


def _has_key(environment: Mapping[str, str]) -> bool:
    if environment.get("WANDB_API_KEY"):
        return True
    host = urlsplit(environment.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    path = Path(environment.get("NETRC", "~/.netrc")).expanduser()
    try:
        return host is not None and netrc.netrc(path).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
