from __future__ import annotations

import json
from pathlib import Path

import pytest
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from scvae_data.errors import SelectionError
from scvae_data.training.sweep import SweepTable, read_table

RESULT = {
    "val/loss": 812.5, "cells_per_s": 12345.678, "wait_share": 0.031, "hit_rate": 0.2083333,
    "predicted_hit_rate": 0.2083333, "bytes_read": 5_000_000, "holds_all_chunks": False,
}  # fmt: skip


def job(sweep_dir: Path, number: int, override: str, mode: RunMode = RunMode.MULTIRUN) -> DictConfig:
    run_dir = sweep_dir / str(number)
    run_dir.mkdir(parents=True)
    hydra = {
        "mode": mode,
        "runtime": {"output_dir": str(run_dir)},
        "sweep": {"dir": str(sweep_dir)},
        "job": {"num": number},
        "overrides": {"task": [override]},
    }
    return OmegaConf.create({"hydra": hydra})


def completed() -> JobReturn:
    return JobReturn(_return_value=RESULT, status=JobStatus.COMPLETED)


def test_a_row_per_job_as_it_ends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = SweepTable()
    first = job(tmp_path, 0, "data.chunk_cache_size=1")
    (tmp_path / "0" / "result.json").write_text(json.dumps(RESULT))
    table.on_job_end(first, completed())
    second = job(tmp_path, 1, "data.chunk_cache_size=16")
    (tmp_path / "1" / "result.json").write_text(json.dumps(RESULT | {"holds_all_chunks": True}))
    table.on_job_end(second, completed())
    rows = read_table(tmp_path / "sweep_table.csv")
    assert [row["overrides"] for row in rows] == ["data.chunk_cache_size=1", "data.chunk_cache_size=16"]
    assert [row["holds_all_chunks"] for row in rows] == ["False", "True"]
    assert rows[0]["hit_rate"] == rows[0]["predicted_hit_rate"] == "0.208333"
    assert rows[0]["val_loss"] == "812.5"
    shown = "".join(capsys.readouterr().out.split())
    assert "20.8%" in shown


def test_failed_job_has_a_row_with_its_error(tmp_path: Path) -> None:
    error = SelectionError("batch_size=4096 exceeds the 1,200 cells selected;\nlower batch_size")
    SweepTable().on_job_end(
        job(tmp_path, 0, "data.batch_size=4096"), JobReturn(_return_value=error, status=JobStatus.FAILED)
    )
    (row,) = read_table(tmp_path / "sweep_table.csv")
    assert row["status"] == "failed"
    assert row["error"] == "batch_size=4096 exceeds the 1,200 cells selected;"
    assert row["cells_per_s"] == ""


def test_single_run_has_no_table(tmp_path: Path) -> None:
    SweepTable().on_job_end(job(tmp_path, 0, "seed=1", RunMode.RUN), completed())
    assert not (tmp_path / "sweep_table.csv").exists()
