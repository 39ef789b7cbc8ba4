"""A chunk size given to training must be the dataset's; a run ends with where its files are."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.datasets import make_dataset

from scvae_data.commands.train import check_against_index, summary
from scvae_data.errors import ConfigError


def test_chunk_size_is_compared_with_the_index(tmp_path: Path) -> None:
    path = str(make_dataset(tmp_path / "chunks", chunk_size=40)[0])
    check_against_index(40, path)
    with pytest.raises(ConfigError, match=r"chunk_size=25000 disagrees with .*/chunks, processed with chunk_size=40;"):
        check_against_index(25_000, path)


def test_summary_names_the_files_that_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    for name in ("latents.h5ad", "b.png", "a.png"):
        (run_dir / name).touch()
    metrics = {
        "val/elbo": -1234.56,
        "cells_per_s": 1500.4,
        "wait_share": 0.021,
        "hit_rate": 0.2,
        "predicted_hit_rate": 0.25,
        "bytes_read": 3_000_000,
    }
    assert summary(run_dir, metrics).splitlines() == [
        "run        run",
        "best model val/elbo -1,234.6 nats per cell",
        "speed      1,500 cells/s, 2.1 % waiting on data",
        "cache      20.0 % of chunks found in memory (predicted 25.0 %), 3.0 MB read",
        "latents    run/latents.h5ad",
        "pictures   run/a.png, run/b.png",
    ]


def test_summary_of_a_run_without_validation(tmp_path: Path) -> None:
    assert summary(tmp_path, {}) == f"run        {tmp_path}"
