"""The pipeline on small files with everything on default, and counts that tell where they came from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from scvae_data.processing import pipeline
from scvae_data.processing.engine.base import SerialEngine
from scvae_data.processing.run.context import Record
from scvae_data.processing.run.summary import Summary
from scvae_data.processing.settings.genes import GeneRules
from scvae_data.processing.settings.inputs import FileInput
from scvae_data.processing.settings.normalization import Normalization
from scvae_data.processing.settings.qc import QcRules
from scvae_data.processing.settings.run import Settings
from scvae_data.store import Chunking

NO_QC = QcRules(min_genes=None, min_counts=None, max_pct_counts_mt=None, percent_top=[2])


def position_counts(n_obs: int, n_vars: int, offset: int = 0) -> np.ndarray:
    """Counts that encode row and column: 100 * (row + 1) + column, every third entry zero."""
    rows, columns = np.ogrid[:n_obs, :n_vars]
    counts = 100 * (rows + 1 + offset) + columns
    counts[(rows + columns) % 3 == 0] = 0
    return counts


def run_pipeline(paths: Any, target: Path, **chosen: Any) -> Summary:
    """Run the pipeline on files; keywords replace single settings, the engine, or how it is run."""
    how = {name: chosen.pop(name) for name in ("overwrite", "resume", "check_disk") if name in chosen}
    engine = chosen.pop("engine", None) or SerialEngine()
    record = Record(chosen.pop("config", {}), chosen.pop("overrides", None))
    if chosen.pop("append", False):
        return pipeline.append(settings_for(paths, **chosen), engine, target, record=record, **how)
    return pipeline.run(settings_for(paths, **chosen), engine, target, record=record, **how)


def settings_for(paths: Any, **chosen: Any) -> Settings:
    """Settings for files, with everything on default that is not chosen."""
    stages: dict[str, Any] = {
        "input": FileInput(paths=[str(path) for path in paths]),
        "qc": NO_QC,
        "genes": GeneRules(min_cells=1),
        "normalization": Normalization(),
        "chunking": Chunking(chunk_size=4),
    }
    return Settings(**(stages | chosen))
