"""Loops in Python in, machine code out that releases the interpreter lock.

The code is kept on disk. A program that does not find it there makes it and
says so; ``scvae-data compile`` makes it ahead of them.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import logging
import os
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, cast

from scvae_data.progress import progress
from scvae_data.system.quick_import import absent

__all__ = ["Kernel", "Run", "ahead_of", "compile_ahead", "compiled", "external", "instruction", "make_ready"]

log = logging.getLogger(__name__)

Function = TypeVar("Function", bound=Callable[..., Any])
Run = Literal["process", "train"]


class Kernel:
    """A function that is compiled when it is first called, or called by another one that is.

    numba is loaded then and not before: it takes as long as all else that a
    program which compiles nothing needs.

    Parameters
    ----------
    function
        The function in Python.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function)
        self.py_func = function

    def __call__(self, *arguments: Any) -> Any:
        """Call the compiled function."""
        return self.dispatcher(*arguments)

    @functools.cached_property
    def dispatcher(self) -> Any:
        """What numba makes of the function."""
        import numba

        teller()
        try:
            return numba.njit(nogil=True, cache=True)(self.py_func)
        except RuntimeError:  # numba found no place for a cache
            return numba.njit(nogil=True)(self.py_func)

    @property
    def _numba_type_(self) -> Any:
        """What numba takes it for in the functions that call it."""
        return self.dispatcher._numba_type_


class _Callee:
    """What compiled functions call and Python does not; ``make`` returns its type in numba's terms."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make

    @functools.cached_property
    def _numba_type_(self) -> Any:
        return self._make()


def compiled(function: Function) -> Function:
    """Compile at the first call, for the types of its arguments; the next process finds the code on disk.

    Where neither the package's folder nor the user's cache can be written,
    every process compiles anew; ``NUMBA_CACHE_DIR`` names another place.
    """
    return cast(Function, Kernel(function))


def external(name: str, types: str) -> Any:
    """Return a function of a loaded library for compiled ones to call.

    Parameters
    ----------
    name
        Its name, under which code that comes from the disk finds it too.
    types
        Of its result and arguments, e.g. ``"intp(intc, uintp)"``.
    """

    def make() -> Any:
        from numba.core.sigutils import normalize_signature
        from numba.core.types import ExternalFunction
        from numba.core.typing import signature

        arguments, result = normalize_signature(types)
        return ExternalFunction(name, signature(result, *arguments))

    return _Callee(make)


def instruction(name: str) -> Any:
    """Return numba's function of a machine instruction, e.g. ``"trailing_zeros"``, for compiled ones to call."""

    def make() -> Any:
        from numba.core import registry
        from numba.cpython.unsafe import numbers

        return registry.cpu_target.typing_context.resolve_value_type(getattr(numbers, name))

    return _Callee(make)


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


@functools.cache
def teller() -> Any:
    """Return what says once in a process that functions of this package are being compiled, and counts them."""
    from numba.core import event

    class Teller(event.Listener):  # type: ignore[misc]
        n_compiled = 0

        def on_start(self, event: Any) -> None:
            if not event.data["dispatcher"].py_func.__module__.startswith("scvae_data."):
                return
            if not self.n_compiled:
                log.info("compiling kernels, once")
            self.n_compiled += 1

        def on_end(self, event: Any) -> None:
            """Nothing is left to say."""

    told = Teller()
    event.register("numba:compile", told)
    return told


def compile_ahead(*runs: Run) -> None:
    """Find or make the code that default runs of these programs call, as far as its modules are imported.

    What is made here is not made by several worker processes at once, each of
    them without a word. Does nothing where code cannot be kept for them. Where
    all was found before, and nothing has changed since, nothing is loaded:
    numba takes a quarter of a second before the first function.
    """
    wanted = [each for each in _wanted if each.run in runs and folder_of(each) and each.given()]
    if not wanted:
        return
    mark = Path(str(folder_of(wanted[0])), f"{'-'.join(['ahead', *runs])}.{sys.implementation.cache_tag}")
    with contextlib.suppress(OSError):
        if mark.read_text() == _state(wanted):
            return
    before = teller().n_compiled
    for number, each in enumerate(wanted):
        _load(each)
        if teller().n_compiled > before:
            for missing in progress(wanted[number:], total=len(wanted) - number, desc="compile", unit="kernel"):
                _load(missing)
            break
    with contextlib.suppress(OSError):
        mark.write_text(_state(wanted))


def folder_of(wanted: _Wanted) -> str | None:
    """Return where numba keeps the code of a function, without loading it where that is plain; None for nowhere."""
    beside = source_of(wanted).parent / "__pycache__"
    if "NUMBA_CACHE_DIR" not in os.environ and os.access(beside, os.W_OK):
        return str(beside)
    path: str | None = dispatcher_of(wanted.function).stats.cache_path
    return path


def source_of(wanted: _Wanted) -> Path:
    """Return the file that a function is written in."""
    return Path(wanted.function.py_func.__code__.co_filename)


def dispatcher_of(function: Any) -> Any:
    """Return what numba makes of a function, ours or its own."""
    return function.dispatcher if isinstance(function, Kernel) else function


def _state(wanted: Sequence[_Wanted]) -> str:
    """Hash what decides whether code is found: numba, the processor, the sources, and the files that numba keeps."""
    from llvmlite import binding

    numba = find_spec("numba")
    assert numba is not None and numba.origin is not None
    sources = {Path(numba.origin).with_name("_version.py"), *map(source_of, wanted)}
    folders = {Path(str(folder_of(each))) for each in wanted}
    parts = [
        binding.get_host_cpu_name(),
        binding.get_host_cpu_features().flatten(),
        *(each.types for each in wanted),
        *(f"{path} {path.stat().st_mtime_ns} {path.stat().st_size}" for path in sorted(sources)),
        *(str(path) for folder in sorted(folders) for path in sorted(folder.glob("*.nb[ic]"))),
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def make_ready() -> None:
    """Do what numba does before it loads or compiles a first function, so that forks of this process need not."""
    from numba.core import registry

    with absent("scipy.linalg"):  # it would look for BLAS there, which no function of ours calls: a tenth of a second
        importlib.import_module("numba.np.arraymath")
    registry.cpu_target.typing_context.refresh()
    registry.cpu_target.target_context.refresh()
    for each in _wanted:
        dispatcher_of(each.function)


def _load(wanted: _Wanted) -> None:
    from numba.core.sigutils import normalize_signature

    types, _ = normalize_signature(f"({wanted.types},)")  # a text would be looked up, and kept, as a text
    dispatcher_of(wanted.function).compile(types)
