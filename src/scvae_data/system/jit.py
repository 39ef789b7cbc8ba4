"""Loops in Python in, machine code out that releases the interpreter lock.

The code is kept on disk. A program that does not find it there makes it and
says so; ``scvae-data compile`` makes it ahead of them.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, cast

import llvmlite.binding
import numba
from numba.core import event, registry
from numba.core.sigutils import normalize_signature

from scvae_data.progress import progress

__all__ = ["Run", "ahead_of", "compile_ahead", "compiled", "make_ready"]

log = logging.getLogger(__name__)

Function = TypeVar("Function", bound=Callable[..., Any])
Run = Literal["process", "train"]


def compiled(function: Function) -> Function:
    """Compile at the first call, for the types of its arguments; the next process finds the code on disk.

    Where neither the package's folder nor the user's cache can be written,
    every process compiles anew; ``NUMBA_CACHE_DIR`` names another place.
    """
    try:
        return cast(Function, numba.njit(nogil=True, cache=True)(function))
    except RuntimeError:  # numba found no place for a cache
        return cast(Function, numba.njit(nogil=True)(function))


class _Wanted(NamedTuple):
    """A function, and types of arguments that a run calls it with."""

    run: Run
    function: Any
    types: str
    given: Callable[[], object]


_wanted: list[_Wanted] = []


def ahead_of(run: Run, *types: str, given: Callable[[], object] = lambda: True) -> Callable[[Function], Function]:
    """Have a compiled function compiled ahead of a run.

    Parameters
    ----------
    run
        Program that calls the function in its default configuration.
    types
        Types of the arguments, in numba's words, one text for each combination that is called.
    given
        Makes ready what the function calls; where it returns None the function is left out.
    """

    def register(function: Function) -> Function:
        _wanted.extend(_Wanted(run, function, each, given) for each in types)
        return function

    return register


class _Teller(event.Listener):  # type: ignore[misc]
    """Says once in a process that functions of this package are being compiled."""

    def __init__(self) -> None:
        self.n_compiled = 0

    def on_start(self, event: Any) -> None:
        if not event.data["dispatcher"].py_func.__module__.startswith("scvae_data."):
            return
        if not self.n_compiled:
            log.info("compiling kernels, once")
        self.n_compiled += 1

    def on_end(self, event: Any) -> None:
        """Nothing is left to say."""


_teller = _Teller()
event.register("numba:compile", _teller)


def compile_ahead(*runs: Run) -> None:
    """Find or make the code that default runs of these programs call, as far as its modules are imported.

    What is made here is not made by several worker processes at once, each of
    them without a word. Does nothing where code cannot be kept for them. Where
    all was found before, and nothing has changed since, nothing is loaded:
    numba takes a quarter of a second before the first function.
    """
    wanted = [each for each in _wanted if each.run in runs and each.function.stats.cache_path and each.given()]
    if not wanted:
        return
    mark = Path(wanted[0].function.stats.cache_path, f"{'-'.join(['ahead', *runs])}.{sys.implementation.cache_tag}")
    with contextlib.suppress(OSError):
        if mark.read_text() == _state(wanted):
            return
    before = _teller.n_compiled
    for number, each in enumerate(wanted):
        _load(each)
        if _teller.n_compiled > before:
            for missing in progress(wanted[number:], total=len(wanted) - number, desc="compile", unit="kernel"):
                _load(missing)
            break
    with contextlib.suppress(OSError):
        mark.write_text(_state(wanted))


def _state(wanted: Sequence[_Wanted]) -> str:
    """Hash what decides whether code is found: the processor, the sources, and the files that numba keeps."""
    sources = {Path(each.function.py_func.__code__.co_filename) for each in wanted}
    folders = {Path(each.function.stats.cache_path) for each in wanted}
    parts = [
        numba.__version__,
        llvmlite.binding.get_host_cpu_name(),
        llvmlite.binding.get_host_cpu_features().flatten(),
        *(each.types for each in wanted),
        *(f"{path} {path.stat().st_mtime_ns} {path.stat().st_size}" for path in sorted(sources)),
        *(str(path) for folder in sorted(folders) for path in sorted(folder.glob("*.nb[ic]"))),
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def make_ready() -> None:
    """Do what numba does before it loads or compiles a first function, so that forks of this process need not."""
    registry.cpu_target.typing_context.refresh()
    registry.cpu_target.target_context.refresh()


def _load(wanted: _Wanted) -> None:
    types, _ = normalize_signature(f"({wanted.types},)")  # a text would be looked up, and kept, as a text
    wanted.function.compile(types)
