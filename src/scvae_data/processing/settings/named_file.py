"""A setting that names a file in, the file, or why there is none, out."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from scvae_data.errors import ConfigError

__all__ = ["named_file", "why_absent"]


EFFECTIVE = os.access in os.supports_effective_ids


def named_file(setting: str, path: Path, remedy: str) -> Path:
    """Return the file that a setting names.

    Parameters
    ----------
    setting
        Its dotted name.
    path
        Its value.
    remedy
        What to give instead.

    Raises
    ------
    ConfigError
        There is no file at the path.
    """
    if why := why_absent(path):
        raise ConfigError(f"{setting}: {path} {why}; {remedy}")
    if not path.is_file():
        raise ConfigError(f"{setting}: {path} is not a file; {remedy}")
    return path


def why_absent(path: Path) -> str:
    """Say why there is nothing at a path, or nothing that can be reached; empty if there is something."""
    try:
        status = path.stat()
    except OSError as error:
        if error.errno == errno.ELOOP:
            return "is a link that leads back to itself"
        if isinstance(error, PermissionError):
            return "cannot be reached: a folder above it may not be entered"
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            return f"cannot be reached: {error.strerror}"
        return f"is a link to {path.readlink()}, which does not exist" if path.is_symlink() else "does not exist"
    if stat.S_ISDIR(status.st_mode) and not os.access(path, os.R_OK | os.X_OK, effective_ids=EFFECTIVE):
        return "is a folder that may not be opened"
    return ""
