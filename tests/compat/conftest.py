"""Raw files, small enough to process in a moment."""

from __future__ import annotations

from pathlib import Path

import pytest

from scvae_data.simulate import simulate_files

ROOT = Path(__file__).resolve().parents[2]
KEEP_ALL = ("qc=none", "genes.min_cells=1", "engine=serial", "chunk_size=100")


@pytest.fixture(scope="session")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with SRX9000001.h5ad and SRX9000002.h5ad, 120 cells each; nothing writes into it."""
    folder = tmp_path_factory.mktemp("raw")
    simulate_files(folder, n_files=2, cells_per_file=120, n_genes=600, seed=3)
    return folder


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that tests share: the files of `raw` are processed once, with the settings `KEEP_ALL`."""
    return tmp_path_factory.mktemp("cache")
