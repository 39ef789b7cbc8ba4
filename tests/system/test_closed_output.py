"""A program whose output nobody reads any more ends without a traceback."""

from __future__ import annotations

import subprocess
import sys

import pytest

PRINT = "print('x' * 100_000)"
OTHER = "import os; read, write = os.pipe(); os.close(read); os.write(write, b'x')"
USE = "from scvae_data.system.closed_output import until_closed\nwith until_closed():\n    {}"


def ended(*command: str) -> tuple[int, str]:
    """Run a program whose reader is gone from the beginning."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None and program.stderr is not None
        program.stdout.close()
        return program.wait(), program.stderr.read()


@pytest.mark.parametrize(
    "command",
    [
        ("-c", USE.format(PRINT)),
        ("-c", USE.format("print('x')")),
        ("-m", "scvae_data", "--help"),
        ("-m", "scvae_data", "process", "--cfg", "job"),
    ],
)
def test_nobody_reads(command: tuple[str, ...]) -> None:
    status, told = ended(sys.executable, *command)
    assert (status, told) == (141, "")


def test_a_pipe_that_breaks_elsewhere_is_an_error() -> None:
    done = subprocess.run([sys.executable, "-c", USE.format(OTHER)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "BrokenPipeError" in done.stderr


def test_an_error_keeps_its_line_and_status() -> None:
    status, told = ended(sys.executable, "-m", "scvae_data", "info", "/nowhere")
    assert status == 1
    assert told.startswith("error: no dataset at /nowhere")
