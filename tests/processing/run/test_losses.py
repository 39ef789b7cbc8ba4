"""What is said where hardly a cell is kept, and of limits that are hardly percentages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scvae_data.errors import ConfigError
from scvae_data.processing.engine.task import Failure
from scvae_data.processing.facts import FailedFile, FileScan
from scvae_data.processing.run.losses import failure_table, few_cells, warn_of_fractions, worst_files
from scvae_data.processing.run.summary import Summary
from scvae_data.processing.settings.genes import GeneRules
from scvae_data.processing.settings.qc import QcRules

Process = Callable[..., Any]
Write = Callable[..., Path]


def scan_of(lost: dict[str, int]) -> FileScan:
    """A file of 1,000 cells that lost some."""
    return FileScan(0, "SRX1.h5ad", "X", "table", 1000, 1000 - sum(lost.values()), lost, {})


def test_few_cells_are_told_with_the_rule_that_lost_most() -> None:
    lost = {"min_genes": 10, "max_pct_counts_mt": 985}
    assert few_cells([scan_of(lost)], QcRules()) == (
        "only 5 of 1,000 cells are kept, 985 are lost by qc.max_pct_counts_mt=20"
    )
    assert "(0.05 per cent of the counts; a share of 0.05 is written 5)" in few_cells(
        [scan_of(lost)], QcRules(max_pct_counts_mt=0.05)
    )
    assert few_cells([scan_of({"min_genes": 900})], QcRules()) == ""
    assert few_cells([scan_of({"min_genes": 901})], QcRules()).startswith("only 99 of 1,000 cells")
    assert few_cells([scan_of({"mad_pct_counts_mt": 901})], QcRules()).endswith("lost by mad_pct_counts_mt")


def test_empty_droplets_and_cells_that_are_no_controls_are_lost_as_they_should() -> None:
    assert few_cells([scan_of({"zero_counts": 600, "not_control": 390})], QcRules()) == ""
    assert few_cells([scan_of({"not_control": 1000})], QcRules()) == ""


@pytest.mark.parametrize(("limit", "n_warnings"), [(0.05, 1), (1.0, 1), (0.0, 0), (1.1, 0), (None, 0)])
def test_a_limit_that_looks_like_a_share(limit: float | None, n_warnings: int, caplog: Any) -> None:
    warn_of_fractions(QcRules(max_pct_counts_mt=limit))
    assert len(caplog.messages) == n_warnings


def test_the_cause_comes_first_where_no_gene_is_left(write_raw: Write, process: Process, caplog: Any) -> None:
    counts = np.full((20, 3), 10)
    counts[0, 0] = 0  # the one cell without a mitochondrial count
    path = write_raw("SRX1.h5ad", counts, ["MT-ND1", "A", "B"])
    qc = QcRules(min_genes=None, min_counts=None, max_pct_counts_mt=0.2, percent_top=[2])
    with pytest.raises(ConfigError, match=r"^only 1 of 20 cells are kept, 19 are lost by qc.max_pct_counts_mt=0.2 "):
        process([path], qc=qc, genes=GeneRules(min_cells=2))
    assert caplog.messages[0] == (
        "qc.max_pct_counts_mt=0.2 is 0.2 per cent of the counts; a share of 0.2 is written 20"
    )
    assert any(message.startswith("only 1 of 20 cells are kept") for message in caplog.messages)


def test_the_files_that_lost_most_are_told_with_where_the_others_are() -> None:
    lost = [{"min_genes": 10 * number, "zero_counts": 500} for number in range(7)]
    worst = worst_files([replace(scan_of(one), source_file=f"{n}.h5ad") for n, one in enumerate(lost)])
    assert [name for name, _, _ in worst] == ["6.h5ad", "5.h5ad", "4.h5ad", "3.h5ad", "2.h5ad"]
    assert worst_files([scan_of({"zero_counts": 900})]) == []
    rows = str(Summary(Path("/out"), n_files=7, worst=worst, experiments={"file": "experiments.parquet"})).splitlines()
    at = rows.index("lost most 6.h5ad: 56.0 % of 1,000 cells (60 min_genes, 500 zero_counts)")
    assert rows[at + 5] == "          all files in /out/experiments.parquet"


def test_a_file_that_failed_is_named_once_whatever_it_failed_on() -> None:
    messages = ["/d/a.h5ad: is empty (0 bytes)", "IndexError: list index out of range"]
    failed = [FailedFile.of("a.h5ad", "survey", Failure("r", text), "/d/a.h5ad") for text in messages]
    assert [one.message for one in failed] == [messages[0], f"/d/a.h5ad: {messages[1]}"]
    assert failure_table(failed).splitlines() == ["  a.h5ad: r: is empty (0 bytes)", f"  a.h5ad: r: {messages[1]}"]
