"""On a real SLURM of one node: ranks that srun starts, and a job that is requeued and ends as if nobody had cut it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import anndata as ad
import pytest
import torch
from tests.support.slurm import NEEDED, Command, running
from tests.training.conftest import bare_environment

from scvae_data.training.metrics import read_rows
from scvae_data.training.sweep_jobs import jobs_of

ROOT = Path(__file__).parents[2]
pytestmark = NEEDED

JOB = """#!/bin/bash
#SBATCH --ntasks=2 --open-mode=append --requeue
srun {python} {train} trainer=ddp trainer.devices=2 trainer.accelerator=cpu paths.processed_dir={dataset} \\
  data.batch_size=16 model.n_latent=3 model.n_hidden=16 model.dropout=0.3 model.unknown_dropout=0.3 logger=csv \\
  trainer.max_epochs=40 outputs.picture=none callbacks.early_stopping=null callbacks.progress_bar=null
"""

SWEEP = (
    "-m", "hydra/launcher=submitit_slurm", "model.n_latent=2,3,4,5", "trainer.accelerator=cpu", "trainer.max_epochs=40",
    "outputs=none", "logger=csv", "data.batch_size=16", "model.n_hidden=16", "callbacks.early_stopping=null",
    "callbacks.progress_bar=null", "hydra.sweep.dir=sweep",
)  # fmt: skip


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    """Run a program of SLURM's on the cluster; returns what it prints."""
    folder = tmp_path_factory.mktemp("slurm")
    with running(folder, bare_environment(folder)) as run:
        yield run


def submit(slurm: Command, folder: Path, dataset: Path) -> str:
    folder.mkdir()
    (folder / "job.sh").write_text(JOB.format(python=sys.executable, train=ROOT / "train.py", dataset=dataset))
    return slurm("sbatch", "--parsable", "--output=log", "job.sh", cwd=folder).strip()


def begins(slurm: Command, job: str) -> bool:
    # Refused while what is left of the job is being cleared away, and where it runs already.
    with suppress(subprocess.CalledProcessError):
        slurm("scontrol", "update", f"JobId={job}", "StartTime=now")
    time.sleep(2)
    return "RUNNING" in slurm("squeue", "-h", "-o", "%T", "-j", job)


def until(happens: Callable[[], Any], seconds: float, log: Path) -> None:
    end = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < end, log.read_text() if log.exists() else "the job has not begun"
        time.sleep(0.2)


def test_a_requeued_job_of_two_tasks_ends_with_the_weights_of_one_that_nobody_cut(
    slurm: Command, tmp_path: Path, dataset: Path
) -> None:
    folders = [tmp_path / "whole", tmp_path / "cut"]
    logs = [folder / "log" for folder in folders]
    runs: list[Path] = []
    for folder, log in zip(folders, logs, strict=True):
        job = submit(slurm, folder, dataset)
        if folder.name == "cut":
            until(lambda: list(folder.glob("outputs/train/*/checkpoints/last.ckpt")), 120, log)  # noqa: B023
            slurm("scancel", "--signal=USR1", job)
            until(lambda: "PENDING" in slurm("squeue", "-h", "-o", "%T", "-j", job), 60, log)  # noqa: B023
            # SLURM waits two minutes before it starts a job again.
            until(lambda: begins(slurm, job), 60, log)  # noqa: B023
        until(lambda: list(folder.glob("outputs/train/*/latents.h5ad")), 240, log)  # noqa: B023
        runs += folder.glob("outputs/train/*")
    assert len(runs) == 2
    assert "the job was started again: the run continues from" in logs[1].read_text()
    assert "WARNING" not in logs[0].read_text()
    whole, cut = (torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in runs)
    assert cut["global_step"] == whole["global_step"]
    for name, weights in whole["state_dict"].items():
        assert torch.equal(cut["state_dict"][name], weights), name
    for run in runs:
        assert ad.read_h5ad(run / "latents.h5ad").n_obs == 600
    assert {path.name for path in runs[1].parent.iterdir()} == {runs[1].name}


def test_a_sweep_as_an_array_goes_on_where_a_job_was_cancelled(slurm: Command, tmp_path: Path, dataset: Path) -> None:
    sweep, log = tmp_path / "sweep", tmp_path / "log"
    environment = bare_environment(tmp_path) | {"SLURM_CONF": slurm("printenv", "SLURM_CONF").strip()}

    def states() -> list[str]:
        return [str(job["status"]) for job in jobs_of(sweep)] if (sweep / "sweep.json").exists() else []

    command = [sys.executable, str(ROOT / "train.py"), *SWEEP, f"paths.processed_dir={dataset}"]
    with log.open("wb") as out:
        waiting = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=out, stderr=out)
        until((sweep / "2" / "checkpoints" / "last.ckpt").exists, 180, log)
        (array,) = {text.partition("_")[0] for text in slurm("squeue", "-h", "-r", "-o", "%i").split()}
        slurm("scancel", f"{array}_2")
        until(lambda: sorted(states()) == [*3 * ["completed"], "interrupted"], 240, log)
        waiting.terminate()  # without accounting it does not hear of the cancelled job for long
        assert waiting.wait(60) == 143
    assert "1 of 4 jobs are not completed; to go on with them: " in log.read_text()
    assert f"train.py resume_sweep={sweep}\n" in log.read_text()
    done = subprocess.run(
        [*command[:2], "resume_sweep=sweep"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stderr
    assert "1 of 4 jobs are to be done" in done.stderr
    rows = read_rows(sweep / "sweep_table.csv")
    assert [(row["job"], row["status"]) for row in rows] == [(str(number), "completed") for number in range(4)]
    assert sum(bool(row["best"]) for row in rows) == 1
