"""W&B runs without Lightning: the mode they start in, what they read or made, how they end."""

from __future__ import annotations

import http.client
import logging
import netrc
import os
import re
import signal
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
from scvae_data.system.stopping import exit_code_of, stoppable

__all__ = ["define_metrics", "finish_wandb", "log_dataset", "one_line_errors", "run_settings", "tracked", "wandb_mode"]

log = logging.getLogger(__name__)

JobType = Literal["process", "train", "embed", "sweep"]

STEP = "trainer/global_step"
OF_EPOCHS = ("val/*", "train/elbo_epoch", "train/recon_epoch", "train/kl_epoch")
SPEED = ("throughput/cells_per_s", "throughput/wait_share")
MEASURED_ONCE = ("best/*", "latents/*")
SHOWN_OF_CACHE = ("hit_rate", "predicted_hit_rate", "bytes_read")
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
def tracked(config: Mapping[str, Any], job_type: JobType) -> Iterator[Any]:
    """Record what happens inside as a W&B run, which ends with the exit status of what happens.

    Parameters
    ----------
    config
        Of a program, resolved.
    job_type
        What is done.

    Yields
    ------
    The run; None where ``logger.wandb`` is not in the config.
    """
    node = (config.get("logger") or {}).get("wandb")
    if node is None:
        yield None
        return
    import wandb

    run_dir = Path(config["paths"]["output_dir"])
    named = {key: node[key] for key in ("project", "group", "id")}
    with one_line_errors():
        run = wandb.init(
            name=node["name"] or run_dir.name, tags=node["tags"] or [], job_type=node.get("job_type") or job_type,
            config=dict(config), **named, **run_settings(node["save_dir"] or str(run_dir)),
        )  # fmt: skip
    failure: BaseException | None = None
    try:
        with stoppable(signal.SIGTERM):
            yield run
    except BaseException as error:
        failure = error
        raise
    finally:
        finish_wandb(exit_code_of(failure))


def define_metrics(run: Any) -> None:
    """Tell W&B how the metrics of training are drawn: those of epochs over epochs, and of the cache only what it found.

    What is measured once has no panel. The summary has that, the best
    ``val/elbo`` of all epochs beside the last, and the mean speed.
    """
    for name in OF_EPOCHS:
        run.define_metric(name, step_metric="epoch")
    run.define_metric("val/elbo", step_metric="epoch", summary="max,last")
    for name in SPEED:  # by name: W&B's summaries pass over patterns
        run.define_metric(name, step_metric=STEP, summary="mean")
    for name in (*MEASURED_ONCE, "cache/*"):
        run.define_metric(name, step_metric=STEP, hidden=True)
    for name in SHOWN_OF_CACHE:
        run.define_metric(f"cache/train/{name}", step_metric=STEP)


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
