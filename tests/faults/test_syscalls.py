"""The same as test_points, where the kernel does it: strace kills, or fails, the n-th call of each kind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from tests.support.fault_points import CLEAN_ERROR

from scvae_data.errors import ScvaeDataError

from .conftest import make, sample, share
from .test_points import check_what_is_there, resume

STRACE = shutil.which("strace")
CALLS = ("write", "pwrite64", "fsync", "rename", "unlink", "mkdir", "ftruncate")
FAULTS = {"signal=KILL": -signal.SIGKILL, "error=ENOSPC": CLEAN_ERROR, "error=EIO": CLEAN_ERROR}

pytestmark = pytest.mark.skipif(STRACE is None, reason="there is no strace")


def traced(function: Callable[[], None], folder: Path, *options: str) -> int:
    """Run a function in a child under strace; return its exit status, or minus the signal that ended it."""
    pid = os.fork()
    if pid == 0:
        os.kill(os.getpid(), signal.SIGSTOP)
        status = 4
        try:
            function()
            status = 0
        except ScvaeDataError:
            status = CLEAN_ERROR
        finally:
            os._exit(status)
    os.waitpid(pid, os.WUNTRACED)
    with subprocess.Popen(
        [str(STRACE), "-f", "-qq", "-o", folder / "trace", "-p", str(pid), *options], stderr=subprocess.PIPE, text=True
    ) as tracer:
        while (tracer_of := line_of(pid, "TracerPid")) == "0" and tracer.poll() is None:
            pass
        if tracer_of == "0":
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            pytest.skip(f"strace may not trace: {tracer.communicate()[1].strip()}")
        os.kill(pid, signal.SIGCONT)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return status


def line_of(pid: int, name: str) -> str:
    """A value of a process's status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith(f"{name}:"))


@pytest.fixture(scope="module")
def n_calls(raw: list[Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """Calls of each kind that an undisturbed run makes, in the thread that makes most of them."""
    folder = tmp_path_factory.mktemp("calls")
    assert traced(partial(make, raw, folder / "out"), folder, "-e", f"trace={','.join(CALLS)}") == 0
    counts: dict[tuple[str, str], int] = {}
    for line in (folder / "trace").read_text().splitlines():
        thread, call = line.split("(")[0].split()[:2]
        if call in CALLS:
            counts[call, thread] = counts.get((call, thread), 0) + 1
    most = {name: max((n for (call, _), n in counts.items() if call == name), default=0) for name in CALLS}
    return {name: n for name, n in most.items() if n}


@pytest.mark.parametrize(("fault", "wanted"), FAULTS.items(), ids=["KILL", "ENOSPC", "EIO"])
def test_every_call(
    fault: str, wanted: int, n_calls: dict[str, int], raw: list[Path], clean: Path, tmp_path: Path, record: list[str]
) -> None:
    assert {"write", "fsync", "rename"} <= set(n_calls)
    calls = [(call, at) for call, n in n_calls.items() for at in range(1, n + 1)]
    points = sample(calls, 4)
    for call, at in points:
        out = tmp_path / "out"
        status = traced(
            partial(make, raw, out), tmp_path, "-e", f"trace={call}", "-e", f"inject={call}:{fault}:when={at}"
        )
        assert status in ((wanted,) if "KILL" in fault else (0, wanted)), f"{call} {at}: {status}"
        check_what_is_there(out, clean)
        resume(out, raw, clean, tmp_path)
        shutil.rmtree(out)
    what = fault.partition("=")[2].replace("KILL", "SIGKILL")
    ended = "" if "KILL" in fault else "ended with one error, or went on; "
    record.append(
        f"{what} at a system call (strace: {', '.join(n_calls)}) | {share(points, len(calls))} of a run | {ended}all "
        "resumed to identical bytes"
    )
