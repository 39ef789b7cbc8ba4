"""What a command calls RUN in, the trained model that it stands for out."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from scvae_data.errors import ConfigError
from scvae_data.models.vae import VAE
from scvae_data.results.saved import MODEL_FILE
from scvae_data.training.trusted import load_vae

__all__ = ["checkpoint_of", "load_run"]

log = logging.getLogger(__name__)

BEST, RESULT = Path("checkpoints") / "best.ckpt", "result.json"


def checkpoint_of(path: Path, what: str) -> Path:
    """The best checkpoint of a run directory, which the log says; a file as it is.

    Parameters
    ----------
    path
        Of either.
    what
        The setting that names it, for messages.

    Raises
    ------
    ConfigError
        If it is a folder without one.
    """
    if not path.is_dir():
        return path
    best = path / BEST
    if not best.is_file():
        raise ConfigError(f"{what}={path} is a folder without {BEST}; give the directory of a run, or a checkpoint")
    log.info("%s=%s is a folder: its %s is taken", what, path, BEST)
    return best


def load_run(path: Path) -> VAE:
    """Load the best checkpoint of a run directory, a checkpoint, or a folder that ``VAE.save`` has written.

    Raises
    ------
    ConfigError
        If it is none of them, or is not whole.
    """
    if (path / MODEL_FILE).is_file():
        return VAE.load(path)
    if path.is_dir() and not (path / BEST).is_file():
        raise ConfigError(f"{path} has neither {BEST} nor {MODEL_FILE}; give the directory of a run, or a checkpoint")
    model = load_vae(path / BEST if path.is_dir() else path, "RUN")[0]
    if (path / RESULT).is_file():
        try:
            model.record["metrics"] = dict(json.loads((path / RESULT).read_text()))
        except (TypeError, ValueError):
            raise ConfigError(f"{path / RESULT} is not what the run wrote; remove it to go on without") from None
    return model
