"""Processing as a W&B run, read back from the offline record."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.pipeline import NO_QC, position_counts
from tests.support.wandb_records import read_run

from scvae_data.errors import ScvaeDataError
from scvae_data.processing.run.wandb_run import attrition_by_file, wandb_run
from scvae_data.store import open_index

NODE = {
    "project": "scvae-data",
    "save_dir": None,
    "name": None,
    "group": None,
    "tags": None,
    "id": None,
    "job_type": None,
}


def config(run_dir: Path, **logger: Any) -> dict[str, Any]:
    return {"seed": 3, "paths": {"output_dir": str(run_dir)}, "logger": logger}


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")


@pytest.mark.usefixtures("offline")
def test_a_finished_run_shows_progress_attrition_timings_and_the_directory(
    tmp_path: Path, write_raw: Callable[..., Path], process: Callable[..., Any]
) -> None:
    counts = position_counts(6, 3)
    counts[4:] = 0
    paths = [write_raw("SRX1.h5ad", counts, list("ABC")), write_raw("SRX2.h5ad", position_counts(5, 3), list("ABC"))]
    with wandb_run(config(tmp_path / "run", wandb=NODE)) as record:
        record(process(paths, qc=NO_QC))
    run = read_run(tmp_path / "run" / "wandb")
    assert (run.exit_code, run.name, run.job_type, run.config["seed"]) == (0, "run", "process", 3)
    for stage in ("survey", "scan", "write"):
        assert run.series(f"progress/{stage}")[-1] == 1
    assert [run.summary[name] for name in ("files", "cells_in", "cells", "lost/zero_counts")] == [2, 11, 9, 2]
    assert run.summary["seconds/scan"] >= 0
    rows = {name: table(tmp_path / "run", name) for name in ("attrition", "files")}
    assert rows["attrition"][0] == ["in", 11, 1]
    assert rows["attrition"][-1] == ["kept", 9, pytest.approx(9 / 11)]
    assert [row[:3] for row in rows["files"]] == [["SRX1.h5ad", 6, 4], ["SRX2.h5ad", 5, 5]]
    (made,) = run.datasets()
    index = tmp_path / "out" / "chunk_index.json"
    assert (made.name, made.is_input) == ("out", False)
    assert made.metadata["content_hash"] == open_index(tmp_path / "out").content_hash
    assert made.digests == {"chunk_index.json": hashlib.md5(index.read_bytes()).digest()}
    assert made.references == {"chunk_index.json": index.as_uri()}  # nothing of it is uploaded


def table(run_dir: Path, name: str) -> list[list[Any]]:
    (path,) = run_dir.glob(f"wandb/**/media/table/{name}_*.table.json")
    rows: list[list[Any]] = json.loads(path.read_text())["data"]
    return rows


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(("end", "exit_code"), [(ScvaeDataError("all files failed"), 1), (SystemExit(143), 143)])
def test_a_run_ends_as_the_processing_does(tmp_path: Path, end: BaseException, exit_code: int) -> None:
    with pytest.raises(type(end)), wandb_run(config(tmp_path / "run", wandb=NODE)):
        raise end
    run = read_run(tmp_path / "run" / "wandb")
    assert run.exit_code == exit_code
    assert not run.datasets()


@pytest.mark.parametrize("logger", [{}, {"csv": {"flush_rows": 1}}], ids=["none", "csv"])
def test_without_wandb_nothing_is_logged(tmp_path: Path, logger: dict[str, Any]) -> None:
    with wandb_run(config(tmp_path / "run", **logger)) as record:
        record(None)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_the_table_of_files_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scvae_data.processing.run.wandb_run.MAX_FILES", 2)
    columns = {"source_file": list("abc"), "n_obs_in": [9, 8, 7], "n_obs_kept": [9, 7, 5], "seconds": [0.1, 0.2, 0.3]}
    names, rows = attrition_by_file({**columns, "lost": {"min_genes": [0, 1, 2]}})
    assert names == ["source_file", "n_obs_in", "n_obs_kept", "min_genes", "seconds"]
    assert rows == [["a", 9, 9, 0, 0.1], ["b", 8, 7, 1, 0.2]]
