"""Every task has one outcome, whatever happens to the process that runs it."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scvae_data.errors import ConfigError, InputError
from scvae_data.processing.engine.base import SerialEngine
from scvae_data.processing.engine.dask import DaskEngine
from scvae_data.processing.engine.local import LocalEngine
from scvae_data.processing.engine.task import Failure, Task


def square(number: int) -> int:
    return number * number


def refuse(name: str) -> None:
    raise InputError(name, "truncated", "ends early")


def crash_once(mark: Path) -> str:
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "survived"


def crash() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def read_beyond_the_end(path: Path) -> int:
    """Look at a file that is mapped, and was cut off."""
    path.write_bytes(b"rows" * 1024)
    content = np.memmap(path, np.uint8, "r")
    os.truncate(path, 0)
    return int(content[0])


def fail_at_first(mark: Path, error: OSError, wrapped: bool) -> str:
    """Raise until there is a mark, once as it is or as a reader would."""
    if mark.exists():
        return "came back"
    mark.touch()
    if wrapped:
        raise InputError(mark, "unreadable", "cannot be read") from error
    raise error


@pytest.fixture(scope="module", params=["serial", "local", pytest.param("dask", marks=pytest.mark.services)])
def engine(request: pytest.FixtureRequest) -> Iterator[Any]:
    chosen = {"serial": SerialEngine, "local": lambda: LocalEngine(2), "dask": lambda: DaskEngine(2)}[request.param]()
    yield chosen
    chosen.close()


def test_results_and_failures(engine: Any) -> None:
    tasks = [Task(square, (n,)) for n in range(5)] + [Task(refuse, ("a.h5ad",)), Task(square, ("x",))]
    outcomes = dict(engine.run(tasks))
    assert [outcomes[n] for n in range(5)] == [0, 1, 4, 9, 16]
    assert (outcomes[5].reason, outcomes[5].message) == ("truncated", "a.h5ad: ends early")
    assert isinstance(outcomes[5].error, InputError)
    assert outcomes[6].reason == "unexpected"
    assert "TypeError" in outcomes[6].details
    assert (engine.peak_rss > 10_000_000) is not isinstance(engine, SerialEngine)


def test_no_task_is_no_outcome(engine: Any) -> None:
    assert list(engine.run([])) == []


def test_a_killed_worker_costs_nothing_and_a_poison_task_only_itself(engine: Any, tmp_path: Path) -> None:
    if isinstance(engine, SerialEngine):
        pytest.skip("its worker is this process")
    tasks = [Task(square, (n,)) for n in range(6)]
    tasks[2:2] = [Task(crash_once, (tmp_path / "mark",)), Task(crash, ())]
    outcomes = dict(engine.run(tasks))
    assert outcomes[2] == "survived"
    assert isinstance(outcomes[3], Failure)
    assert outcomes[3].reason == "worker_killed"
    assert [outcomes[n] for n in (0, 1, 4, 5, 6, 7)] == [0, 1, 4, 9, 16, 25]


def test_a_mapped_file_that_ends_early_is_not_taken_for_a_lack_of_memory(tmp_path: Path) -> None:
    engine = LocalEngine(2)
    [(_, outcome)] = engine.run([Task(read_beyond_the_end, (tmp_path / "run",))])
    engine.close()
    assert isinstance(outcome, Failure)
    assert re.search(r"2 times \(SIGBUS: a file that it read was cut off .*\); look at the disk$", outcome.message)


def test_workers_end_with_the_process_that_uses_them(tmp_path: Path) -> None:
    program = """
import multiprocessing, os, sys, time
from scvae_data.processing.engine.local import LocalEngine
from scvae_data.processing.engine.task import Task

if __name__ == "__main__":
    engine = LocalEngine(2)
    for _, outcome in engine.run([Task(os.getpid, ()) for _ in range(8)]):
        print(outcome, flush=True)
    print("ready", flush=True)
    time.sleep(600)
"""
    (tmp_path / "program.py").write_text(program)
    with subprocess.Popen([sys.executable, tmp_path / "program.py"], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        workers = {int(line) for line in iter(run.stdout.readline, "ready\n")}
        run.kill()
    waited = 0.0
    while alive := {worker for worker in workers if Path(f"/proc/{worker}/cmdline").exists()}:
        assert waited < 30, f"processes {alive} outlive the one that started them"
        time.sleep(0.1)
        waited += 0.1


def test_faults_that_may_pass_are_tried_again(engine: Any, tmp_path: Path) -> None:
    stale, full = OSError(errno.ESTALE, "Stale file handle"), OSError("no number")
    cases = [(stale, False), (full, False), (stale, True), (full, True)]
    tasks = [Task(fail_at_first, (tmp_path / str(n), error, wrapped)) for n, (error, wrapped) in enumerate(cases)]
    outcomes = dict(engine.run(tasks))
    assert [outcomes[n] for n in range(3)] == ["came back"] * 3
    assert outcomes[3].reason == "unreadable"


@pytest.mark.services
def test_a_scheduler_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scvae_data.processing.engine.dask.CONNECT_SECONDS", 0.5)
    with pytest.raises(ConfigError, match=r"engine.scheduler=tcp://127.0.0.1:9 does not answer; start `dask sched"):
        list(DaskEngine(1, scheduler="tcp://127.0.0.1:9").run([Task(square, (1,))]))


@pytest.mark.services
def test_a_scheduler_by_its_address() -> None:
    from distributed import LocalCluster

    with LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address="127.0.0.1:0") as cluster:
        engine = DaskEngine(1, scheduler=cluster.scheduler_address)
        assert sorted(engine.run([Task(square, (n,)) for n in range(9)])) == [(n, n * n) for n in range(9)]
        engine.close()


@pytest.mark.services
def test_a_worker_that_does_not_see_the_folder(tmp_path: Path) -> None:
    from distributed import LocalCluster

    shared, own = tmp_path / "shared", tmp_path / "own"
    shared.mkdir()
    own.mkdir()
    program = f"""
import sys
from pathlib import Path
from tests.support.mounts import mount_memory, own_mounts
own_mounts()
mount_memory(Path({str(own)!r}), 1 << 20)
from distributed.cli.dask_worker import main
main(sys.argv[1:])
"""
    with LocalCluster(n_workers=0, processes=True, dashboard_address="127.0.0.1:0") as cluster:
        worker = [sys.executable, "-c", program, cluster.scheduler_address, "--no-dashboard", "--nthreads", "1"]
        with subprocess.Popen([*worker, "--no-nanny"], cwd=Path(__file__).parents[3], stderr=subprocess.PIPE) as run:
            engine = DaskEngine(1, scheduler=cluster.scheduler_address)
            engine.must_see(shared)
            assert list(engine.run([Task(square, (3,))])) == [(0, 9)]
            engine.must_see(own)
            with pytest.raises(
                ConfigError, match=rf"the dask worker on .* does not see {own}, where all workers leave"
            ):
                list(engine.run([Task(square, (3,))]))
            engine.close()
            run.kill()


@pytest.mark.services
def test_dask_is_quiet(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    caplog.set_level("INFO")
    engine = DaskEngine(1)
    assert list(engine.run([Task(square, (3,))])) == [(0, 9)]
    engine.close()
    assert [*caplog.records] == []
    assert capfd.readouterr() == ("", "")


def test_worker_numbers() -> None:
    assert LocalEngine().n_workers == len(os.sched_getaffinity(0))
    with pytest.raises(ConfigError, match=r"engine.n_workers=0 must be 1 or more"):
        LocalEngine(0)
    with pytest.raises(ConfigError, match=r"engine.retries=-1 must be 0 or more"):
        DaskEngine(retries=-1)
    with pytest.raises(ConfigError, match=r"engine=serial has one worker; use engine=local"):
        SerialEngine(n_workers=2)
