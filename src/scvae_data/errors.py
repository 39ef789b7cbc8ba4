"""Every error this package raises on purpose.

::

    ScvaeDataError
    ├── ConfigError            a setting is wrong
    ├── InputError             an input file cannot be used
    ├── StoreError             a dataset directory cannot be used
    │   ├── MissingIndexError      it is absent or unfinished
    │   ├── FormatVersionError     it was written by a newer version
    │   └── DamagedFileError       a file in it is not what the index says
    ├── RemoteError            a remote store does not serve
    ├── SelectionError         what was asked of a dataset cannot be served
    └── JobFailed              a job of a sweep ended with an error, which has been told

``str(error)`` is one line: the rule, the offending value, the remedy.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

__all__ = [
    "ConfigError",
    "DamagedFileError",
    "FormatVersionError",
    "InputError",
    "JobFailed",
    "MissingIndexError",
    "RemoteError",
    "ScvaeDataError",
    "SelectionError",
    "StoreError",
]


class ScvaeDataError(Exception):
    """Base of every error raised on purpose."""


class ConfigError(ScvaeDataError, ValueError):
    """A setting is wrong; the message names the setting, its value and what is allowed."""


class InputError(ScvaeDataError):
    """An input file cannot be used.

    Parameters
    ----------
    path
        The file or folder, or its address in a store.
    reason
        A short code for reports, e.g. ``"truncated"`` or ``"fractional"``.
    message
        What is wrong and what to do, without the path.
    """

    def __init__(self, path: Any, reason: str, message: str) -> None:
        super().__init__(f"{path}: {message}")
        self.path = Path(path) if isinstance(path, str | PathLike) else path
        self.reason = reason
        self.message = message

    def __reduce__(self) -> tuple[type[InputError], tuple[Any, str, str]]:
        """Rebuild from the three parts, so that the error crosses process borders."""
        return type(self), (self.path, self.reason, self.message)


class StoreError(ScvaeDataError):
    """A dataset directory cannot be used; the message names the file."""


class MissingIndexError(StoreError):
    """There is no finished dataset; the message names the command that makes one."""


class FormatVersionError(StoreError):
    """The dataset was written by a newer version; the message names both versions."""


class DamagedFileError(StoreError):
    """A file is not what the index says; the message names file, fault and remedy."""


class RemoteError(ScvaeDataError):
    """A remote store does not serve: the network, credentials, or an object that changes; the message names it."""

    reason = "unreachable"


class SelectionError(ScvaeDataError, ValueError):
    """The dataset cannot serve what was asked; the message names the values."""


class JobFailed(ScvaeDataError):
    """A job of a sweep ended with an error, which was logged when it happened."""
