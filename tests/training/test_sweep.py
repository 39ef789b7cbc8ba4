from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from tests.support.wandb_records import read_runs
from tests.training.conftest import bare_environment

from scvae_data.errors import SelectionError
from scvae_data.training.sweep import SweepTable, read_table, table_text
from scvae_data.training.sweep_plot import sweep_plot, swept_values

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


def test_a_row_per_job_as_it_ends(tmp_path: Path) -> None:
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
    shown = table_text(rows)
    assert "12,346" in shown
    assert "20.8 %" in shown
    assert shown.count("all in cache") == 1
    assert "error" not in shown  # no job has one


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


def test_the_picture_is_drawn_anew_with_every_job(tmp_path: Path) -> None:
    table, pictures = SweepTable(), []
    for number, size in enumerate((1, 2)):
        cfg = job(tmp_path, number, f"data.chunk_cache_size={size}")
        (tmp_path / str(number) / "result.json").write_text(json.dumps(RESULT | {"cells_per_s": 1000 * size}))
        table.on_job_end(cfg, completed())
        pictures.append((tmp_path / "sweep_plot.png").read_bytes())
    failed = JobReturn(_return_value=SelectionError("no such thing"), status=JobStatus.FAILED)
    table.on_job_end(job(tmp_path, 2, "data.chunk_cache_size=0"), failed)
    pictures.append((tmp_path / "sweep_plot.png").read_bytes())
    assert all(picture.startswith(b"\x89PNG") for picture in pictures)
    assert len(set(pictures)) == 3
    assert not list(tmp_path.glob("*.tmp"))


def rows(*overrides: str) -> list[dict[str, str]]:
    return [{"job": str(number), "overrides": text} for number, text in enumerate(overrides)]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (("a=1 b=2", "a=3 b=2"), ("a", ["1", "3"])),
        (("a=1", "b=2"), ("settings", ["a=1", "b=2"])),
        (("a=1", "a=1 b=2"), ("b", ["default", "2"])),
        (("a=1 b=x", "a=2 b=y"), ("settings", ["a=1, b=x", "a=2, b=y"])),
        (("a=1",), ("job", ["0"])),
    ],
)
def test_the_axis_is_what_differs(overrides: tuple[str, ...], expected: tuple[str, list[str]]) -> None:
    assert swept_values(rows(*overrides)) == expected


@pytest.mark.parametrize("values", [("a", "b"), ("1", "16"), ("1e-3", "1"), ("2", "2"), ("-1", "0")])
def test_any_values_can_be_drawn(tmp_path: Path, values: tuple[str, ...]) -> None:
    measured = dict.fromkeys(("cells_per_s", "wait_share", "hit_rate", "predicted_hit_rate"), "0.5")
    status = {"status": "completed"}
    sweep_plot([row | measured | status for row in rows(*(f"x={value}" for value in values))], tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 1000


def test_jobs_that_all_failed_are_drawn(tmp_path: Path) -> None:
    empty = dict.fromkeys(("cells_per_s", "wait_share", "hit_rate", "predicted_hit_rate"), "")
    sweep_plot([row | empty | {"status": "failed"} for row in rows("x=1", "x=2")], tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 1000


class Swept(NamedTuple):
    """A sweep that has ended: its directory, and what the program printed."""

    path: Path
    done: subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def swept(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Swept:
    """Three jobs, of which the second fails."""
    folder = tmp_path_factory.mktemp("sweep")
    settings = [
        "-m", "data.chunk_cache_size=1,0,4", "trainer=quick", "trainer.max_epochs=1", "outputs=none",
        "data.batch_size=64", "model.n_hidden=16", f"paths.processed_dir={dataset}", f"hydra.sweep.dir={folder}/sweep",
    ]  # fmt: skip
    command = [sys.executable, "-c", "from scvae_data.commands.train import main; main()", *settings]
    done = subprocess.run(command, env=bare_environment(folder), cwd=folder, capture_output=True, text=True)
    return Swept(folder / "sweep", done)


def test_a_sweep_goes_on_after_a_failing_job_and_fails(swept: Swept) -> None:
    assert swept.done.returncode == 1
    table = read_table(swept.path / "sweep_table.csv")
    assert [row["status"] for row in table] == ["completed", "failed", "completed"]
    assert table[1]["error"] == "chunk_cache_size=0 must be a whole number of at least 1"
    assert all(float(row["cells_per_s"]) > 0 for row in (table[0], table[2]))


def test_a_sweep_prints_its_table_once_and_draws_it(swept: Swept) -> None:
    assert swept.done.stdout.count("data.chunk_cache_size=0") == 2  # Hydra's line about the job, and the table
    assert "must be a whole number of at least 1" in swept.done.stdout
    assert (swept.path / "sweep_plot.png").is_file()


def test_the_runs_of_a_sweep_share_a_group_with_its_summary(swept: Swept) -> None:
    runs = {run.name: run for run in read_runs(swept.path)}
    assert set(runs) == {"sweep_0", "sweep_2", "sweep_summary"}
    assert {run.group for run in runs.values()} == {"sweep"}
    summary = runs["sweep_summary"]
    assert summary.exit_code == 1
    assert any(name.startswith("media/images/sweep_plot") for name in summary.files), summary.files
    assert any(name.startswith("media/table/sweep_table") for name in summary.files), summary.files
