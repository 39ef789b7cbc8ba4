"""Train variational autoencoders on more single-cell data than fits in memory.

Names are imported when they are first used: worker processes import this
package too, and torch, lightning and scanpy cost seconds and hundreds of MB.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from scvae_data.errors import (
    ConfigError,
    DamagedFileError,
    FormatVersionError,
    InputError,
    MissingIndexError,
    RemoteError,
    ScvaeDataError,
    SelectionError,
    StoreError,
)
from scvae_data.system.quick_import import collector_paused

if TYPE_CHECKING:
    from scvae_data.loading.datamodule import ChunkedDataModule
    from scvae_data.loading.dataset import ChunkedDataset
    from scvae_data.models.vae import VAE
    from scvae_data.results.change import ChangeTest
    from scvae_data.store import open_index

    __version__: str

__all__ = [
    "VAE",
    "ChangeTest",
    "ChunkedDataModule",
    "ChunkedDataset",
    "ConfigError",
    "DamagedFileError",
    "FormatVersionError",
    "InputError",
    "MissingIndexError",
    "RemoteError",
    "ScvaeDataError",
    "SelectionError",
    "StoreError",
    "__version__",
    "open_index",
]

_HOMES = {
    "VAE": "scvae_data.models.vae",
    "ChangeTest": "scvae_data.results.change",
    "ChunkedDataModule": "scvae_data.loading.datamodule",
    "ChunkedDataset": "scvae_data.loading.dataset",
    "open_index": "scvae_data.store",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("scvae-data")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with collector_paused():
        return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
