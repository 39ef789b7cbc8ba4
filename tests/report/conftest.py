"""A small directory of two experiments, some of whose cells are dropped, and what its page holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from tests.support.pipeline import run_pipeline

from scvae_data.processing.settings.genes import GeneRules
from scvae_data.processing.settings.qc import QcRules

GENES = ["MT-ND1", *(f"g{n}" for n in range(59))]
RULES = QcRules(min_genes=2, min_counts=30, max_pct_counts_mt=20.0, percent_top=[])


def write(path: Path, totals: list[int]) -> Path:
    """A file whose cells have the given total counts, all in two genes; the last one all mitochondrial."""
    counts = np.zeros((len(totals) + 1, len(GENES)), np.float32)
    counts[:-1, 1] = np.array(totals) - 1
    counts[:-1, 2] = 1
    counts[-1, :2] = 50
    obs = pd.DataFrame(index=[f"{path.stem}-cell{row}" for row in range(len(counts))])
    ad.AnnData(sp.csr_matrix(counts), obs, pd.DataFrame(index=GENES)).write_h5ad(path)
    return path


@pytest.fixture(scope="session")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raw")
    write(folder / "SRX1.h5ad", [10, 40, 100, 400, 1000])
    write(folder / "SRX2.h5ad", [50, 60])
    write(folder / "SRX3.h5ad", [70, 5000])
    (folder / "<b>SRX9.h5ad").write_text("no counts & no cells")
    return folder


@pytest.fixture(scope="session")
def directory(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two experiments, and a third that was appended."""
    out = tmp_path_factory.mktemp("out") / "chunks"
    chosen: dict[str, Any] = {"qc": RULES, "genes": GeneRules(min_cells=1), "max_failed_fraction": 0.9}
    config = {"qc": {"min_counts": 30, "max_counts": None, "min_genes": 2, "max_pct_counts_mt": 20.0}}
    paths = [raw / name for name in ("SRX1.h5ad", "SRX2.h5ad", "<b>SRX9.h5ad")]
    run_pipeline(paths, out, config=config, overrides=["input=files"], **chosen)
    run_pipeline([raw / "SRX3.h5ad"], out, append=True, config=config, overrides=["append=true"], **chosen)
    return out
