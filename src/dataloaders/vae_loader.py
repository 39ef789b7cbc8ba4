"""The older loader's names; what each is now says ``docs/migration.md``."""

from scvae_data.compat import (
    ChunkedDataLoader,
    DatasetConfig,
    VAEDataModule,
    create_vae_dataloaders,
    load_and_preprocess_data,
)

__all__ = ["ChunkedDataLoader", "DatasetConfig", "VAEDataModule", "create_vae_dataloaders", "load_and_preprocess_data"]
