"""W&B runs without Lightning: the mode they start in, what they read or made, how they end."""

from __future__ import annotations

import http.client
import logging
import netrc
import os
import re
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from scvae_data.errors import ConfigError
from scvae_data.remote.location import RemotePath, location
from scvae_data.store import INDEX_FILE, CellIndex

__all__ = ["finish_wandb", "log_dataset", "one_line_errors", "run_settings", "wandb_mode"]

log = logging.getLogger(__name__)

ANSWER_SECONDS = 10.0
FINISH_SECONDS = 600.0
"""How long the end of a run waits for uploads; ``WANDB_FINISH_TIMEOUT`` sets another time."""


def run_settings(save_dir: str) -> dict[str, Any]:
    """Arguments of ``wandb.init`` that every run has, whoever starts it: folder, mode, silence where it is offline.

    Parameters
    ----------
    save_dir
        Folder for ``wandb/``.
    """
    import wandb

    mode = wandb_mode(os.environ)
    server = os.environ.get("WANDB_BASE_URL") or wandb.setup().settings.base_url
    if mode not in ("offline", "disabled") and not answers(server):
        log.warning("W&B does not answer at %s: the run goes on offline", server)
        mode = "offline"
    if mode == "offline":
        log.info("W&B is offline; `wandb sync %s` uploads the run", Path(save_dir) / "wandb" / "offline-run-*")
    # Offline, W&B would explain itself at length; online, its links are wanted.
    settings = wandb.Settings(silent=mode in ("offline", "disabled"))
    if "WANDB_FINISH_TIMEOUT" not in os.environ:
        settings.finish_timeout = FINISH_SECONDS
    return {"dir": save_dir, "mode": mode, "settings": settings}


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn what W&B raises when a run starts into an error of one line.

    Raises
    ------
    ConfigError
        The server refuses the key, or does not answer as it should.
    """
    import wandb

    try:
        yield
    except wandb.errors.Error as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"W&B does not start a run: {text}; WANDB_MODE=offline does without its server") from error


def answers(url: str) -> bool:
    """Whether anything answers at an address, were it a refusal; proxies of the environment are used."""
    try:
        with urllib.request.urlopen(url, timeout=ANSWER_SECONDS):  # noqa: S310 - the user's own setting
            return True
    except urllib.error.HTTPError:
        return True
    except urllib.error.URLError as error:
        return isinstance(error.reason, ssl.SSLError)  # W&B has certificates of its own
    except (OSError, http.client.HTTPException, ValueError):
        return False


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


def log_dataset(run: Any, index: CellIndex, role: Literal["input", "output"]) -> None:
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
    path = location(index.where)
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
    if isinstance(path, RemotePath):  # of which a reference would ask the store, by packages that may not be there
        with artifact.new_file("address.txt") as file:
            file.write(f"{path}\n")
    else:
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
