"""How this program was called in; commands that can be pasted into the shell it was called from out."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Literal

__all__ = ["Program", "again", "command", "mend", "override", "own_options", "program"]

Program = Literal["process", "train"]

PLAIN = re.compile(r"(?!(?:true|false|null|nan|inf)$)[A-Za-z_./][\w./*?+:-]*", re.ASCII | re.IGNORECASE)
"""Text that Hydra reads as it stands."""


def program(name: Program) -> str:
    """Return the words that call a program, as this process was called.

    Beside a ``process.py`` that was called lies a ``train.py``; whatever else runs, a notebook or a program of one's
    own, the package is installed and has the command ``scvae-data``.
    """
    called = Path(sys.argv[0])
    through_uv = "UV_RUN_RECURSION_DEPTH" in os.environ
    if called.name in ("process.py", "train.py"):
        python = "uv run" if through_uv else shlex.quote(sys.orig_argv[0])
        return f"{python} {shlex.quote(str(called.with_name(f'{name}.py')))}"
    return f"{'uv run ' if through_uv else ''}scvae-data {name}"


def command(name: Program, *settings: str) -> str:
    """Return a command with these settings, each of the form that Hydra reads, quoted for a shell."""
    return " ".join([program(name), *map(shlex.quote, settings)])


def again(*settings: str, without: Collection[str] = ()) -> str:
    """Return the command that runs now, with settings added or in place of those it has, and ``without`` some keys.

    Where there is no telling what runs, or with which settings, it is spoken of as "the same command".
    """
    name = called_program()
    if name is None:
        return " ".join(["the same command", *(["with"] if settings else []), *map(shlex.quote, settings)])
    changed = {*without, *(text.partition("=")[0] for text in settings)}
    return command(name, *(text for text in sys.argv[1:] if text.partition("=")[0] not in changed), *settings)


def mend() -> str:
    """Return what to do about a damaged file of a directory."""
    return f"run {program('process')} again with resume=true"


def own_options() -> Path | None:
    """Return the folder of options of the caller's own, as ``--config-dir`` names it; None without one."""
    for word, after in pairwise([*sys.argv[1:], ""]):
        flag, given, folder = word.partition("=")
        if flag in ("--config-dir", "-cd"):
            return Path(folder if given else after)
    return None


def called_program() -> Program | None:
    """Return which program runs; None if it is none of this package."""
    called = Path(sys.argv[0]).name
    programs: tuple[Program, ...] = ("process", "train")
    return next((name for name in programs if called in (f"{name}.py", f"scvae-data {name}")), None)


def override(key: str, value: object) -> str:
    """Return ``key=value`` as Hydra's grammar wants it, so that any text means itself.

    Examples
    --------
    >>> print(override("paths.processed_dir", "outputs/mine"))
    paths.processed_dir=outputs/mine
    >>> print(override("paths.processed_dir", "it's #1, [new]"))
    paths.processed_dir="it's #1, [new]"
    >>> print(override("control.values", ["ctrl", 1, None]))
    control.values=[ctrl,1,null]
    """
    return f"{key}={_value(value)}"


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ",".join(map(_value, value)) + "]"
    if value is None or isinstance(value, bool | int | float):
        return json.dumps(value)
    text = str(value)
    if PLAIN.fullmatch(text):
        return text
    # Backslashes mean themselves, but for those before a quote or an interpolation.
    doubled = re.sub(r'(\\*)("|\$\{|\Z)', lambda found: 2 * found[1] + (f"\\{found[2]}" if found[2] else ""), text)
    return f'"{doubled}"'
