"""An import path that the user gave in, what it names out."""

from __future__ import annotations

import importlib
from typing import Any

from scvae_data.errors import ConfigError

__all__ = ["imported"]


def imported(path: str, setting: str) -> Any:
    """Import ``package.module`` and take ``Name`` of it, for ``path`` ``"package.module.Name"``.

    This runs code: ``path`` must come from the user, never from a file that is opened.

    Raises
    ------
    ConfigError
        If there is no such module or name; the message begins with ``setting``.
    """
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (AttributeError, ImportError, ValueError) as error:
        raise ConfigError(
            f"{setting}={path!r} cannot be imported ({error}); give a path such as my_module.Name, with the folder of "
            "my_module.py on PYTHONPATH"
        ) from error
