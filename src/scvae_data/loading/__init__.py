"""From a dataset directory to batches: select → split → plan → cache → fetch → batch → loader.

Everything up to the assembled batch works without torch; the loader and the
data module, which need it, are imported when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from scvae_data.loading.dataset import ChunkedDataset
from scvae_data.loading.fetch.cache import BlockCache, CacheCounters
from scvae_data.loading.plan.epoch import Plan, ReuseModel
from scvae_data.loading.select.split import HashSplit

if TYPE_CHECKING:
    from scvae_data.loading.datamodule import ChunkedDataModule
    from scvae_data.loading.loader import BatchLoader

__all__ = [
    "BatchLoader",
    "BlockCache",
    "CacheCounters",
    "ChunkedDataModule",
    "ChunkedDataset",
    "HashSplit",
    "Plan",
    "ReuseModel",
]

_NEED_TORCH = {
    "BatchLoader": "scvae_data.loading.loader",
    "ChunkedDataModule": "scvae_data.loading.datamodule",
}


def __getattr__(name: str) -> Any:
    if name not in _NEED_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_NEED_TORCH[name]), name)
