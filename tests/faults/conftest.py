"""A small directory that the fault tests damage, and how many faults they make.

``make faults`` sets ``SCVAE_DATA_FAULTS`` and so makes every fault at every
point; without it a sample of them is made.
"""

from __future__ import annotations

import os
from collections.abc import Sequence, Sized
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from tests.support.pipeline import run_pipeline

from scvae_data.processing.engine import task
from scvae_data.processing.settings.qc import QcRules
from scvae_data.processing.survey import kept

T = TypeVar("T")

PAGE = Path(__file__).parents[2] / "docs/reliability.md"
TABLES = ("obs.parquet", "rows.bin", "gene_sets.bin")
LONG = bool(os.environ.get("SCVAE_DATA_FAULTS"))
SETTINGS: dict[str, Any] = {
    "qc": QcRules(min_genes=2, min_counts=None, max_pct_counts_mt=None, percent_top=[2]),
}


def many(long: int, short: int) -> int:
    """How many faults to make."""
    return long if LONG else short


def sample(items: Sequence[T], n: int) -> list[T]:
    """``n`` of the items, evenly spread; all in a long run."""
    return list(items) if LONG else [items[place] for place in np.linspace(0, len(items) - 1, n).astype(int)]


def share(places: Sized, n: int) -> str:
    """Say how many of ``n`` were tried."""
    return f"all {n}" if len(places) == n else f"{len(places)} of {n}"


def content(directory: Path) -> dict[str, bytes]:
    """What two runs must have in common."""
    names = [path.name for path in directory.glob("chunk_0*.h5")]
    return {name: (directory / name).read_bytes() for name in [*names, *TABLES, "gene_list.json", "chunk_index.json"]}


@pytest.fixture(scope="session")
def raw(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two input files of 12 cells and 30 genes; one cell of each has a single gene."""
    folder = tmp_path_factory.mktemp("raw")
    paths = []
    for number in (1, 2):
        counts = np.random.default_rng(number).poisson(1.5, (12, 30))
        counts[7] = np.arange(30) == 3
        adata = ad.AnnData(
            sp.csr_matrix(counts.astype(np.float32)), obs=pd.DataFrame(index=[f"c{n}" for n in range(12)])
        )
        adata.var_names = [f"g{n}" for n in range(30)]
        paths.append(folder / f"SRX{number}.h5ad")
        adata.write_h5ad(paths[-1])
    return paths


@pytest.fixture(scope="session")
def clean(raw: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of an undisturbed run: three chunks."""
    directory = tmp_path_factory.mktemp("clean") / "out"
    make(raw, directory)
    return directory


def make(raw: list[Path], directory: Path, **settings: Any) -> None:
    """Process the files; that they are new makes no difference, so that every run does the same operations."""
    from scvae_data.store import Chunking

    with patch.object(task, "BACK_OFF_SECONDS", 0.0), patch.object(kept, "SETTLED_SECONDS", 0.0):
        run_pipeline(raw, directory, **(SETTINGS | {"chunking": Chunking(chunk_size=8)} | settings))


_RECORD: list[str] = []


@pytest.fixture(scope="session")
def record() -> list[str]:
    """Rows of the table of docs/reliability.md: what was tried, how often, and what came of it."""
    return _RECORD


def missing() -> list[str]:
    """Rows of a long run that the page does not have."""
    page = PAGE.read_text()
    return [row for row in _RECORD if LONG and f"| {row} | `make faults` |" not in page]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Show the counts."""
    if _RECORD:
        terminalreporter.section("faults")
        for row in _RECORD:
            terminalreporter.line(row)
    for row in missing():
        terminalreporter.line(f"{PAGE.name} says otherwise: {row}", red=True)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail where the page does not say what came out."""
    if missing() and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
