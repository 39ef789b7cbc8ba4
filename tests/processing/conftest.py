"""Small raw files, and the pipeline on them in a directory of the test's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from tests.support.pipeline import run_pipeline

from scvae_data.processing.run.summary import Summary


@pytest.fixture
def write_raw(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes an H5AD under ``raw/``."""

    def write(name: str, counts: np.ndarray, genes: list[str], obs: dict[str, Any] | None = None) -> Path:
        path = tmp_path / "raw" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        index = pd.Index([f"cell{number}" for number in range(len(counts))])
        adata = ad.AnnData(
            sp.csr_matrix(counts.astype(np.float32)),
            obs=pd.DataFrame(obs or {}, index=index),
            var=pd.DataFrame(index=pd.Index(genes)),
        )
        adata.write_h5ad(path)
        return path

    return write


@pytest.fixture
def process(tmp_path: Path) -> Callable[..., Summary]:
    """Return `run_pipeline` with a directory of the test's own."""

    def run(paths: Any, target: Path | None = None, **chosen: Any) -> Summary:
        return run_pipeline(paths, target or tmp_path / "out", **chosen)

    return run
