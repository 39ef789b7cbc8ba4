"""What a directory holds, in lines: names are the first few, however many there are."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.support.datasets import make_dataset

from scvae_data.commands.info import describe, info
from scvae_data.store import open_index


def index(**changes: Any) -> Any:
    facts = {
        "path": Path("chunks"),
        "simulated": True,
        "n_obs": 7,
        "n_vars": 5,
        "nnz": 21,
        "chunk_size": 4,
        "chunks": [SimpleNamespace(bytes=60_000), SimpleNamespace(bytes=24_000)],
        "files": {"obs.parquet": SimpleNamespace(bytes=16_000)},
        "generations": [SimpleNamespace()],
        "normalization": {"method": "log1p", "target_sum": 10_000.0},
        "obs_columns": {
            "SRX_accession": SimpleNamespace(categories=[f"SRX{number}" for number in range(1000)]),
            "total_counts": SimpleNamespace(categories=None),
            "cell_type": SimpleNamespace(categories=["", "B cell", "T cell"]),
        },
        "format_version": 1,
        "content_hash": "abc",
    }
    return SimpleNamespace(**facts | changes)


def test_describe() -> None:
    assert describe(index(), {"species": {"human": 998, "mouse": 2}}).splitlines() == [
        "directory    chunks (simulated)",
        "cells        7",
        "experiments  1,000: SRX0, SRX1, SRX2, SRX3, SRX4, SRX5, SRX6, SRX7 and 992 more",
        "species      human (998), mouse (2)",
        "genes        5",
        "non-zeros    21 (3 a cell)",
        "chunks       2 of up to 4 cells",
        "size         0.1 MB, 4000.00 bytes a non-zero",
        "normalised   log1p to 10,000 counts",
        "labels       1 obs column of categories",
        '  cell_type  3: "", B cell, T cell',
        "other obs    total_counts",
        "format       version 1, content abc",
    ]


def test_describe_without_normalisation() -> None:
    assert "normalised   none" in describe(index(normalization={"method": "none"}, simulated=False), {})


def test_a_directory_without_a_table_of_experiments_is_told_by_its_index(tmp_path: Path) -> None:
    directory = make_dataset(tmp_path / "data", n_obs=20)[0]
    assert info(directory) == describe(open_index(directory), {})
