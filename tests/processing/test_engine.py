"""Every task has one outcome, whatever happens to the process that runs it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scvae_data.errors import ConfigError, InputError
from scvae_data.processing.engine import Failure, LocalEngine, SerialEngine, Task


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


@pytest.fixture(params=["serial", "local"])
def engine(request: pytest.FixtureRequest) -> Iterator[Any]:
    chosen = SerialEngine() if request.param == "serial" else LocalEngine(2)
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


def test_no_task_is_no_outcome(engine: Any) -> None:
    assert list(engine.run([])) == []


def test_a_killed_worker_costs_nothing_and_a_poison_task_only_itself(tmp_path: Path) -> None:
    tasks = [Task(square, (n,)) for n in range(6)]
    tasks[2:2] = [Task(crash_once, (tmp_path / "mark",)), Task(crash, ())]
    outcomes = dict(LocalEngine(2).run(tasks))
    assert outcomes[2] == "survived"
    assert isinstance(outcomes[3], Failure)
    assert outcomes[3].reason == "worker_killed"
    assert [outcomes[n] for n in (0, 1, 4, 5, 6, 7)] == [0, 1, 4, 9, 16, 25]


def test_worker_numbers() -> None:
    assert LocalEngine().n_workers == len(os.sched_getaffinity(0))
    with pytest.raises(ConfigError, match=r"engine.n_workers=0 must be 1 or more"):
        LocalEngine(0)
    with pytest.raises(ConfigError, match=r"engine=serial has one worker; use engine=local"):
        SerialEngine(n_workers=2)
