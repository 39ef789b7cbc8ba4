"""Small directories that the loading tests share; nothing writes into them."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from tests.support.datasets import make_dataset

from scvae_data import ChunkedDataModule


class Directory(NamedTuple):
    path: Path
    counts: np.ndarray  # (n_obs, n_vars) in global row order
    obs: pd.DataFrame


def flat(lists: Iterable[Iterable[Any]]) -> list[Any]:
    """One list of all items."""
    return list(chain.from_iterable(lists))


def module_of(directory: Any, **settings: Any) -> ChunkedDataModule:
    """A data module of counts, set up, of a :class:`Directory` or of what else a data module takes."""
    path = directory.path if isinstance(directory, Directory) else directory
    module = ChunkedDataModule(path, **{"batch_size": 16, "normalized": False, **settings})
    module.setup()
    return module


def rows_of(loader: Iterable[dict[str, Any]]) -> list[list[int]]:
    """Global rows of each batch."""
    return [batch["index"].tolist() for batch in loader]


def make(path: Path, **settings: object) -> Directory:
    path, counts, obs = make_dataset(path, **settings)
    return Directory(path, counts.toarray(), obs)


@pytest.fixture(scope="session")
def hashed(tmp_path_factory: pytest.TempPathFactory) -> Directory:
    """300 cells × 20 genes in 10 chunks, in hash order."""
    return make(tmp_path_factory.mktemp("hashed"), n_obs=300)


@pytest.fixture(scope="session")
def by_source(tmp_path_factory: pytest.TempPathFactory) -> Directory:
    """The same cells experiment by experiment: a split is scattered over every chunk."""
    return make(tmp_path_factory.mktemp("by_source"), n_obs=300, order="source")
