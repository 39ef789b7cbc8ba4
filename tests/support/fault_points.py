"""Run a function in a forked child that dies, or gets an error, at the n-th operation on files below a folder.

Operations are what Python's own file functions do: opening for writing,
every write, fsync, rename, link, mkdir and remove. A killed write has written
half of its bytes.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

AUDITED = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link")
CLEAN_ERROR, CRASH, KILLED, HUNG = 3, 4, 137, -1
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


@dataclass
class Points:
    """Counts operations; at number ``at`` it kills the process (``error`` 0) or raises OSError."""

    root: str
    at: int
    error: int = 0
    count: int = 0

    def reached(self) -> bool:
        self.count += 1
        return self.count == self.at

    def act(self, path: str = "") -> None:
        if not self.error:
            os._exit(KILLED)
        raise OSError(self.error, os.strerror(self.error), path)

    def meet(self, path: str = "") -> None:
        if self.reached():
            self.act(path)

    def is_inside(self, path: Any) -> bool:
        return isinstance(path, str | os.PathLike) and os.fspath(path).startswith(self.root)

    def install(self) -> None:
        """From now on, count; there is no way back but the end of the process."""

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            counts = event in AUDITED or (event == "open" and arguments[2] & WRITING)
            if counts and self.is_inside(arguments[0]):
                self.meet(str(arguments[0]))

        real_fsync, real_fdopen, real_open = os.fsync, os.fdopen, io.open

        def fsync(fd: int) -> None:
            self.meet()
            real_fsync(fd)

        def fdopen(fd: int, mode: str = "r", *rest: Any, **more: Any) -> Any:
            return self.buffered(fd, mode) if mode == "w+b" else real_fdopen(fd, mode, *rest, **more)

        def opened(file: Any, mode: str = "r", *rest: Any, **more: Any) -> Any:
            binary = mode.replace("b", "") in ("w", "x") and "b" in mode
            return (
                self.buffered(file, mode) if binary and self.is_inside(file) else real_open(file, mode, *rest, **more)
            )

        os.fsync, os.fdopen, io.open, builtins.open = fsync, fdopen, opened, opened  # type: ignore[assignment]
        sys.addaudithook(hook)

    def buffered(self, file: Any, mode: str) -> Any:
        """Open a file whose every write is a point."""
        points = self

        class Raw(io.FileIO):
            def write(self, content: Any) -> int:
                if points.reached():
                    if not points.error:
                        super().write(memoryview(content).cast("B")[: len(content) // 2])
                    points.act(str(self.name))
                return super().write(content) or 0

        raw = Raw(file, mode.replace("b", ""))
        return io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)


def in_child(
    function: Callable[[], Any],
    points: Points | None = None,
    report: Path | None = None,
    *,
    seconds: float = 300.0,
    memory: int | None = None,
) -> int:
    """Run a function in a forked child; return 0, or what became of it.

    Parameters
    ----------
    report
        Gets the number of points met, or the traceback of a crash.
    seconds, memory
        The child is killed after so long (`HUNG`), and may not take so many bytes more than this process.
    """
    from scvae_data.errors import ScvaeDataError

    pid = os.fork()
    if pid == 0:
        status = CRASH
        try:
            if memory is not None:
                taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
                resource.setrlimit(resource.RLIMIT_AS, (taken + memory, taken + memory))
            if points is not None:
                points.install()
            function()
            status = 0
        except ScvaeDataError:
            status = CLEAN_ERROR
        except BaseException:  # noqa: BLE001 - whatever it is, the parent is told
            if report is not None:
                fd = os.open(report, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
                os.write(fd, traceback.format_exc().encode())
        finally:
            if report is not None and points is not None and status == 0:
                fd = os.open(report, os.O_WRONLY | os.O_CREAT)
                os.write(fd, str(points.count).encode())
            os._exit(status)
    deadline = time.monotonic() + seconds
    while (done := os.waitpid(pid, os.WNOHANG)) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return HUNG
        time.sleep(0.002)
    status = os.waitstatus_to_exitcode(done[1])
    return status


ERRORS = (errno.ENOSPC, errno.EIO)
