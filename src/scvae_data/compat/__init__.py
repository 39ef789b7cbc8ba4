"""The older system's names over the present ones; ``docs/migration.md`` says what each is now.

Names are imported when they are first used: the older configuration file is
read without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from scvae_data.system.quick_import import collector_paused

if TYPE_CHECKING:
    from scvae_data.compat.vae_loader import (
        ChunkedDataLoader,
        DatasetConfig,
        VAEDataModule,
        create_vae_dataloaders,
        load_and_preprocess_data,
    )

__all__ = ["ChunkedDataLoader", "DatasetConfig", "VAEDataModule", "create_vae_dataloaders", "load_and_preprocess_data"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with collector_paused():
        return getattr(importlib.import_module("scvae_data.compat.vae_loader"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
