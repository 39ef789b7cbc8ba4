"""Directories on S3 while processes are killed, the network fails, and two machines want the same place."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from tests.support.recordings import VERSION1
from tests.support.remote import content, put
from tests.support.s3 import Proxy, every, lead_to, s3_server

from scvae_data import open_index
from scvae_data.commands.compact import compact_directory
from scvae_data.commands.diff import diff
from scvae_data.commands.upgrade import upgrade_directory
from scvae_data.commands.verify import verify
from scvae_data.errors import ConfigError
from scvae_data.remote.location import RemotePath

from .conftest import make, many

pytestmark = pytest.mark.services
BUCKET = RemotePath("s3://data")
GROWN = BUCKET / "grown"


@pytest.fixture
def port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    with s3_server() as number:
        lead_to(number, monkeypatch)
        yield number


@pytest.fixture
def grown(raw: list[Path], tmp_path: Path) -> Path:
    for number, path in enumerate(raw):
        make([path], tmp_path / "grown", append=number > 0)
    return tmp_path / "grown"


def compact_here(grown: Path) -> dict[str, bytes]:
    compact_directory(grown, grown.parent / "here")
    return content(grown.parent / "here")


def test_compact_killed_at_any_moment_goes_on(grown: Path, port: int, record: list[str]) -> None:
    wanted, before = compact_here(grown), content(put(grown, GROWN))
    started = time.perf_counter()
    compact_directory(GROWN, BUCKET / "first")
    seconds, n_kills, moments = time.perf_counter() - started, many(50, 3), random.Random(1)
    for number in range(n_kills):
        target = BUCKET / f"compact{number}"
        killed = forked(compact_directory, GROWN, target)
        time.sleep(moments.uniform(0, seconds))
        os.kill(killed, signal.SIGKILL)
        os.waitpid(killed, 0)
        assert content(GROWN) == before
        if "chunk_index.json" not in content(target) or ".compacting" in content(target):
            compact_directory(GROWN, target)
        assert without_claim(target) == wanted
    record.append(
        f"SIGKILL at a random moment of `scvae-data compact` from S3 to S3 | {n_kills} | old objects as they were; all "
        "went on to the bytes of a local one"
    )


def forked(function: Callable[..., object], *arguments: object) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            function(*arguments)
        finally:
            os._exit(0)
    return pid


def without_claim(place: RemotePath) -> dict[str, bytes]:
    return {name: what for name, what in content(place).items() if name != ".writing"}


def test_of_two_machines_that_append_one_does(
    raw: list[Path], grown: Path, port: int, tmp_path: Path, record: list[str]
) -> None:
    make(raw[:1], tmp_path / "one")
    others = [raw[1], Path(shutil.copy(raw[1], tmp_path / "SRX3.h5ad"))]
    context, n_races = get_context("fork"), many(20, 2)
    for number in range(n_races):
        place = put(tmp_path / "one", BUCKET / f"set{number}")
        barrier, answers = context.Barrier(2), context.Queue()
        machines = [context.Process(target=append, args=(path, place, barrier, answers)) for path in others]
        for machine in machines:
            machine.start()
        told = sorted(answers.get() for _ in machines)
        for machine in machines:
            machine.join()
        assert told[0] == "" and f"{place} is being written by " in told[1]
        assert len(open_index(place).generations) == 2
        assert not any(verify(place, deep=True).values()) and ".writing" not in content(place)
    record.append(
        f"two machines that begin to append to one directory on S3 in the same moment | {n_races} | one of them did, "
        "the other was refused in one line; all directories sound"
    )


def append(path: Path, place: RemotePath, barrier: Any, answers: Any) -> None:
    """Add a file from a folder of its own, as another machine would."""
    Path(path.stem).mkdir(exist_ok=True)
    os.chdir(path.stem)
    barrier.wait()
    try:
        make([path], place, append=True)
        answers.put("")
    except ConfigError as error:
        answers.put(str(error))


def test_no_fault_of_the_network_changes_what_is_made_or_told(
    raw: list[Path], grown: Path, port: int, tmp_path: Path, record: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, upgraded = compact_here(grown), Path(shutil.copytree(VERSION1 / "gzip", tmp_path / "upgraded"))
    upgrade_directory(upgraded)
    put(grown, GROWN)
    inputs, same, injected = put(raw[0].parent, BUCKET / "raw"), diff(grown, tmp_path / "here"), Counter[str]()
    for number, method in enumerate((b"PUT ", b"GET ", b"HEAD ", b"DELETE ")[: many(4, 1)]):
        old = put(VERSION1 / "gzip", BUCKET / f"old{number}")
        proxy = Proxy(port, every(2, of=method))
        lead_to(proxy.port, monkeypatch)
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
        compact_directory(GROWN, BUCKET / f"compact{number}")
        upgrade_directory(old)
        assert diff(GROWN, tmp_path / "here") == same
        assert not any(verify(GROWN, deep=True, against=[inputs]).values())
        proxy.close()
        lead_to(port, monkeypatch)
        assert content(BUCKET / f"compact{number}") == wanted and content(old) == content(upgraded)
        injected += Counter(proxy.injected)
    record.append(
        "the same at every second request of `diff`, `verify --deep --against`, `upgrade` and `compact` of directories "
        f"on S3 | {injected.total()} | all asked for again; 0 silent: objects and answers are those without faults"
    )
