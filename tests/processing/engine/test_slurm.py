"""On a real SLURM of one node: jobs of workers and job arrays of shards make the bytes of one process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.slurm import NEEDED, Command, running

from scvae_data.errors import ConfigError
from scvae_data.processing.engine.slurm import SlurmEngine, try_job
from scvae_data.processing.engine.task import Task
from scvae_data.simulate import simulate_files

ROOT = Path(__file__).parents[3]
pytestmark = NEEDED
PAGE = (ROOT / "docs" / "cluster.md").read_text()
INPUT = ("input=files", "input.paths=raw/*.h5ad", "chunk_size=100")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Raw files, and what one process makes of them."""
    folder = tmp_path_factory.mktemp("slurm")
    simulate_files(folder / "raw", n_files=24, cells_per_file=60, n_genes=400, seed=3)
    subprocess.run(command("paths.processed_dir=serial"), cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def slurm(folder: Path) -> Iterator[Command]:
    variables = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    with running(folder, variables) as run:
        os.environ["SLURM_CONF"] = run("printenv", "SLURM_CONF").strip()
        yield run
        del os.environ["SLURM_CONF"]


def command(*more: str) -> list[str]:
    return [sys.executable, str(ROOT / "process.py"), *INPUT, *more]


def dataset(directory: Path) -> dict[str, bytes]:
    names = [
        "chunk_index.json",
        "obs.parquet",
        "gene_list.json",
        *(path.name for path in directory.glob("chunk_0*.h5")),
    ]
    return {name: (directory / name).read_bytes() for name in names}


def until(happens: Callable[[], Any], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.05)


def test_jobs_of_workers_of_which_one_is_cancelled(slurm: Command, folder: Path) -> None:
    out = folder / "jobs"
    jobs = [
        "engine=slurm", "engine.n_workers=2", "engine.workers_per_job=1", "engine.interface=lo",
        "engine.directives_skip=[--mem]", f"paths.processed_dir={out}", "hydra.run.dir=jobs-log",
    ]  # fmt: skip
    with subprocess.Popen(command(*jobs), cwd=folder, stderr=subprocess.PIPE, text=True) as run:
        until(lambda: [*out.glob(".work/scan/*/done.json")])
        cancelled = slurm("squeue", "-h", "-o", "%i", "-t", "RUNNING").split()[0]
        slurm("scancel", "--signal=KILL", "--full", cancelled)
        assert run.stderr is not None
        said = run.stderr.read()
    assert run.returncode == 0, said
    assert dataset(out) == dataset(folder / "serial")
    assert "distributed" not in said.lower()
    assert len(said.splitlines()) < 15, said
    assert [*(folder / "jobs-log" / "slurm").glob("scvae-data-*.err")]


def test_what_slurm_would_not_take_is_told_before(slurm: Command) -> None:
    engine = SlurmEngine(1, 1, queue="nowhere", interface="lo")
    with pytest.raises(ConfigError, match=r"sbatch refuses a job: .*invalid partition.*correct engine\.queue"):
        list(engine.run([Task(os.getpid, ())]))


def test_without_slurm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="engine=slurm needs sbatch"):
        try_job("#!/bin/sh\n")


def scripts(folder: Path) -> None:
    """Write the two scripts of the page, of three shards and one core, with the input of these tests."""
    for script in re.findall(r"```bash\n(#!/bin/bash\n.*?)```", PAGE, re.DOTALL):
        if name := re.search(r"^# (\w+\.sh)", script, re.MULTILINE):
            script = (
                script.replace("1-40", "1-3").replace("/40", "/3").replace("--cpus-per-task=8", "--cpus-per-task=1")
            )
            script = script.replace("python process.py", f"{sys.executable} {ROOT / 'process.py'}")
            script = script.replace("input=manifest input.manifest=samples.csv", " ".join(INPUT))
            (folder / name[1]).write_text(script.replace("/scratch/corpus", "array").replace("=local", "=serial"))


def test_the_job_array_of_the_page_of_which_one_task_is_killed(slurm: Command, folder: Path) -> None:
    scripts(folder)

    def submit(*arguments: str) -> str:
        return slurm("sbatch", "--parsable", "--output=array-%j.log", *arguments).strip()

    def ended(job: str) -> str:
        until(lambda: not slurm("squeue", "-h", "-j", job), 300)
        return "".join(path.read_text() for path in folder.glob(f"array-{job}.log"))

    scan = submit("process.sh")
    until(lambda: (folder / "array/.work/shards/0002.lock").exists())
    slurm("scancel", "--signal=KILL", "--full", f"{scan}_2")
    ended(scan)
    assert "1 of 3 shards have not scanned their files: 2/3; run shard=2/3" in ended(submit("merge.sh", "decide"))
    again = submit("--array=2", "process.sh")
    decide = submit(f"--dependency=afterok:{again}", "merge.sh", "decide")
    write = submit(f"--dependency=afterok:{decide}", "process.sh")
    last = submit(f"--dependency=afterok:{write}", "merge.sh", "true")
    said = ended(last)
    assert "index     " in said
    assert dataset(folder / "array") == dataset(folder / "serial")
