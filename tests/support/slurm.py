"""A real SLURM of one node on loopback, for tests that are given the scripts that start and stop it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

CLUSTER = Path(__file__).parents[3] / "shared" / "slurm"
NEEDED = [
    pytest.mark.services,
    pytest.mark.skipif(shutil.which("slurmctld") is None, reason="SLURM is not installed (slurmctld, slurmd, munge)"),
    pytest.mark.skipif(not CLUSTER.is_dir(), reason=f"no {CLUSTER}, which starts SLURM on loopback"),
]
Command = Callable[..., str]


def free_ports() -> int:
    """Return the first of two successive ports that nobody has, also not another cluster of these tests."""
    for port in range(17_817 + os.getpid() % 1000 * 2, 32_000, 2):
        with suppress(OSError), socket.create_server(("", port)), socket.create_server(("", port + 1)):
            return port
    raise OSError("no two successive ports are free")


@contextmanager
def running(folder: Path, variables: Mapping[str, str]) -> Iterator[Command]:
    """Start SLURM in a folder; what comes is a function that runs a program of SLURM's and returns what it prints."""
    environment = {**variables, "PORT": str(free_ports())}
    started = subprocess.run(
        [str(CLUSTER / "start"), str(folder / "cluster"), "4"], env=environment, capture_output=True, text=True
    )
    if started.returncode:
        pytest.skip(f"SLURM does not start here: {started.stderr.strip().splitlines()[-1:]}")
    environment["SLURM_CONF"] = str(folder / "cluster" / "slurm.conf")

    def run(*command: str, cwd: Path = folder) -> str:
        return subprocess.run(command, env=environment, cwd=cwd, check=True, capture_output=True, text=True).stdout

    try:
        yield run
    finally:
        stop = [str(CLUSTER / "stop"), str(folder / "cluster")]
        subprocess.run(stop, env=environment, check=False, capture_output=True)
