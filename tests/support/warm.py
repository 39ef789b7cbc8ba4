"""Python programs in processes of their own that need not import what most time goes into.

``run_python("train.py", "seed=1", cwd=folder)`` is ``python train.py seed=1``, but forked from a process that has
imported the package with all that it stands on. Tests of what is imported, of hash seeds and of settings that
libraries read when they are imported start an interpreter instead.
"""

from __future__ import annotations

import atexit
import functools
import gc
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

from scvae_data.system.stopping import exit_code_of

IMPORTED = ("scvae_data.commands.process", "scvae_data.processing.pipeline", "scvae_data.training.run")
SECONDS = 240  # until a program that does not end is stopped by SIGALRM


def run_python(
    *arguments: str | Path, cwd: Path, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run what ``python`` would with these arguments: a file, ``-c`` with code, or ``-m`` with a module."""
    given = [str(argument) for argument in arguments]
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder) / name for name in ("stdout", "stderr")]
        asked = {
            "arguments": given, "cwd": str(cwd), "env": dict(os.environ if env is None else env),
            "outputs": [str(path) for path in outputs],
        }  # fmt: skip
        server = warm_process()
        assert server.stdin is not None and server.stdout is not None
        server.stdin.write(json.dumps(asked) + "\n")
        server.stdin.flush()
        status = int(server.stdout.readline())
        return subprocess.CompletedProcess(given, status, *(path.read_text() for path in outputs))


@functools.cache
def warm_process() -> subprocess.Popen[str]:
    """Start the process that is forked; it ends with this one."""
    # Forked processes have the threads of libraries only where these were not started: they are none.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    server = subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )

    def end() -> None:
        assert server.stdin is not None and server.stdout is not None
        server.stdin.close()
        server.stdout.close()
        server.wait()

    atexit.register(end)
    return server


def serve() -> None:
    """Fork a process for each line of standard input and write the exit status of each."""
    del sys.path[0]  # the folder of this file
    for name in IMPORTED:
        importlib.import_module(name)
    assert threading.active_count() == 1
    gc.freeze()
    while line := sys.stdin.readline():
        pid = os.fork()
        if not pid:
            end_after(functools.partial(become, **json.loads(line)))
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def end_after(program: Callable[[], None]) -> NoReturn:
    """Run a program and end as an interpreter does, but for freeing all that was imported, which takes long."""
    status = 0
    try:
        program()
    except BaseException as error:  # noqa: BLE001 - whatever it is, it ends the program
        status = exit_code_of(error)
        if not isinstance(error, SystemExit):
            traceback.print_exc()
        elif isinstance(error.code, str):
            print(error.code, file=sys.stderr)
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def become(arguments: list[str], cwd: str, env: dict[str, str], outputs: list[str]) -> None:
    """Be the program that was asked for."""
    signal.alarm(SECONDS)
    for number, path in enumerate((os.devnull, *outputs)):
        fd = os.open(path, os.O_RDWR | os.O_CREAT)
        os.dup2(fd, number)
        os.close(fd)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    kind, *rest = arguments
    if kind == "-m":
        sys.path.insert(0, cwd)
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        sys.path.insert(0, "")
        sys.argv = ["-c", *rest[1:]]
        sys.modules["__main__"] = program = types.ModuleType("__main__")
        exec(rest[0], vars(program))
    else:
        sys.path.insert(0, str(Path(kind).resolve().parent))
        sys.argv = arguments
        runpy.run_path(kind, run_name="__main__")


if __name__ == "__main__":
    serve()
