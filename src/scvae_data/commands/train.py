"""``train.py``: a config in, a run directory with model, latents and log out."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig

from scvae_data.commands.app import run_app, task_overrides
from scvae_data.errors import ConfigError

__all__ = ["main", "train"]


def train(cfg: DictConfig) -> Any:
    """Train what ``cfg`` describes; returns what a sweeper minimises."""
    if {"chunk_size", "chunking"} & task_overrides().keys():
        check_against_index(cfg.chunk_size, cfg.data.data_path)

    from scvae_data.training import run

    return run.train(cfg)


def check_against_index(chunk_size: int, data_path: str) -> None:
    """Refuse a chunk size that is not the dataset's: training cannot change it.

    Raises
    ------
    ConfigError
        With both numbers.
    """
    from scvae_data.store import open_index

    stored = open_index(data_path).chunk_size
    if stored != chunk_size:
        raise ConfigError(
            f"chunk_size={chunk_size} disagrees with {data_path}, processed with chunk_size={stored}; leave it out, "
            f"or run python process.py chunk_size={chunk_size} paths.processed_dir=… first"
        )


def main() -> None:
    """Entry point."""
    run_app(train, "train")
