"""An import path that the user's configuration names in; what it stands for out."""

from __future__ import annotations

import importlib
from typing import Any

from scvae_data.errors import ConfigError

__all__ = ["import_named"]


def import_named(path: str, key: str) -> Any:
    """Import the module of ``package.module.Name`` and return the name.

    Only for paths of the configuration: what a file says must not choose
    what code is run.

    Parameters
    ----------
    key
        The setting that names it, for errors.

    Raises
    ------
    ConfigError
        If there is none.
    """
    module, _, name = str(path).rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"{key}={path} cannot be imported: {error}; give package.module.Name of a module that Python finds, "
            "e.g. with PYTHONPATH"
        ) from error
