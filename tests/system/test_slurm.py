from __future__ import annotations

from pathlib import Path

import pytest

from scvae_data.system.slurm import job_name, requeue, was_requeued

NAMES = (
    "SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_RESTART_COUNT", "SLURM_PROCID",
)  # fmt: skip


@pytest.fixture(autouse=True)
def no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def test_no_job_has_no_name() -> None:
    assert job_name(["a=1"]) == ""
    assert not was_requeued()


def test_a_name_is_that_of_job_step_and_command_and_the_same_for_all_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "41")
    alone = job_name(["a=1"])
    assert alone.startswith("slurm-41-")
    assert alone != job_name(["a=2"])
    monkeypatch.setenv("SLURM_STEP_ID", "3")
    names = set()
    for task in ("0", "1"):
        monkeypatch.setenv("SLURM_PROCID", task)
        names.add(job_name(["a=1"]))
    assert names == {alone.replace("slurm-41-", "slurm-41.3-")}
    monkeypatch.setenv("SLURM_STEP_ID", "4294967290")  # salloc's own step
    assert job_name(["a=1"]) == alone
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "40")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "7")
    assert job_name(["a=1"]).startswith("slurm-40_7-")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert was_requeued()


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("exit 0", "job 41 is back in the queue, and continues when it starts again"),
        ("echo Requested operation is presently disabled >&2; exit 1",
         "job 41 cannot be put back into the queue: Requested operation is presently disabled; submit it again"),
    ],
)  # fmt: skip
def test_requeueing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, words: str) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "41")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert requeue() == "job 41 cannot be put back into the queue: there is no scontrol here"
    program = tmp_path / "scontrol"
    program.write_text(f'#!/bin/sh\n[ "$*" = "requeue 41" ] || exit 7\n{script}\n')
    program.chmod(0o755)
    assert requeue() == words
