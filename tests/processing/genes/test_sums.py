"""The account of each file's genes, and the warning for a file whose genes the others do not have."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scvae_data.processing.genes.names import clean_table
from scvae_data.processing.genes.sums import tell_unmatched, warn_of_foreign_genes
from scvae_data.processing.genes.universe import align
from scvae_data.processing.settings.genes import AnyGeneRules, GeneRules, HvgRules, ListRules
from scvae_data.readers.base import GeneTable

TP53, ACTB, GAPDH = "ENSG00000141510", "ENSG00000075624", "ENSG00000111640"


def test_columns_are_counted_by_how_they_found_their_gene() -> None:
    columns = (["n1", "n2", "n3", "n4"], [f"{TP53}.1", f"{TP53}.2", ACTB, ""], ["TP53", "TP53", "ACTB", "OTHER"])
    both = clean_table(GeneTable(*(np.array(column, object) for column in columns)))
    symbols = np.array(["ACTB", "NEW", "TP53", "NEW"], object)
    tables = {"both": both, "symbols": clean_table(GeneTable(symbols, None, symbols))}
    matches = align({"both": 1, "symbols": 1}, tables.__getitem__, {}).matches
    assert vars(matches["both"]) == {
        "n_features": 4,
        "by_id": 3,
        "by_symbol": 0,
        "unmatched": 1,
        "summed": 1,
        "left_out": 0,
    }
    assert vars(matches["symbols"]) == {
        "n_features": 4,
        "by_id": 0,
        "by_symbol": 2,
        "unmatched": 2,
        "summed": 0,
        "left_out": 0,
    }


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        (GeneRules(min_cells=None), "4 in, 4 kept"),
        (GeneRules(min_cells=2, min_counts=5), "4 in, 2 kept; not kept 1 min_cells, 1 min_counts"),
        (GeneRules(min_cells=2, join="inner"), "4 in, 1 kept; not kept 1 min_cells, 2 not_in_every_file"),
        (HvgRules(min_cells=2, n_top_genes=1, n_bins=1), "4 in, 1 kept; not kept 1 min_cells, 2 not_highly_variable"),
        (ListRules("wanted.txt"), "4 in, 2 kept, 1 of them in no file; not kept 3 not_listed"),
    ],
)
def test_the_summary_says_which_rules_took_genes(
    rules: AnyGeneRules, told: str, write_raw: Callable[..., Path], process: Callable[..., Any],
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("wanted.txt").write_text("a\nz\n")
    files = [
        write_raw("SRX1.h5ad", np.array([[9, 9, 1], [8, 0, 1]]), ["a", "b", "c"]),
        write_raw("SRX2.h5ad", np.array([[7, 0, 20], [7, 0, 10]]), ["a", "b", "d"]),
    ]
    summary = process(files, genes=rules)
    assert f"genes     {told}\n" in str(summary)
    assert json.loads((tmp_path / "out" / "chunk_summary.json").read_text())["genes_lost"] == summary.genes_lost


def test_shares_of_umis_per_file(
    write_raw: Callable[..., Path],
    process: Callable[..., Any],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        process(
            [
                write_raw("SRX1.h5ad", np.array([[6, 1, 2, 1]] * 2), [TP53, ACTB, f"{GAPDH}.3", "y"]),
                write_raw("SRX2.h5ad", np.array([[2, 6, 2]]), [TP53, ACTB, GAPDH]),
                write_raw("SRX3.h5ad", np.array([[1, 9]]), [f"{TP53}.2", "z"]),
            ],
            genes=GeneRules(min_cells=2),
        )
    report = json.loads((tmp_path / "out" / "chunk_summary.json").read_text())["gene_mapping"]
    assert report == {
        "source_file": ["SRX1.h5ad", "SRX2.h5ad", "SRX3.h5ad"],
        "n_features": [4, 3, 2],
        "by_id": [3, 3, 1],
        "by_symbol": [0, 0, 0],
        "unmatched": [1, 0, 1],  # y and z among ids are no ids
        "summed": [0, 0, 0],
        "umi_unmatched": [0.1, 0.0, 0.9],
        "umi_dropped": [0.0, 0.0, 0.9],
        "umi_shared": [0.9, 1.0, 0.1],
    }
    assert (
        "1 of 3 files have less than 80 % of their UMIs in genes that half of the other files measure: "
        "SRX3.h5ad (10.0 %); they may be of another species, or their genes may be named differently: " in caplog.text
    )


def test_an_empty_file_and_files_that_agree_are_no_reason_to_warn(caplog: pytest.LogCaptureFixture) -> None:
    warn_of_foreign_genes({"umi_shared": [None, 0.99], "source_file": ["a", "b"]})
    assert not caplog.records


def test_symbols_without_an_id_are_told(caplog: pytest.LogCaptureFixture) -> None:
    report = {
        "source_file": ["ids.h5ad", "symbols.h5ad"],
        "n_features": [3, 4],
        "by_id": [3, 0],
        "unmatched": [0, 1],
        "umi_unmatched": [0.0, 0.031],
    }
    with caplog.at_level("INFO"):
        tell_unmatched(report)
    (line,) = caplog.messages
    assert line.startswith("symbols.h5ad: 1 of 4 genes have no id, or several, and keep their symbol (3.1 % of UMIs)")
    caplog.clear()
    tell_unmatched(report | {"by_id": [0, 0]})
    assert not caplog.messages
