"""Every real file is in with its account, or out with its reason; no share of mitochondrial counts is NaN unsaid."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import pandas as pd
import pytest
from tests.support.pipeline import run_pipeline

from scvae_data.processing.settings.genes import GeneRules
from scvae_data.processing.settings.inputs import FileInput, source_names
from scvae_data.processing.settings.qc import QcRules
from scvae_data.store import Chunking

# What is known of genes, and inputs made up of odd traits, whose outcomes other tests state.
ELSEWHERE = ("cases", "genes", "stats", "MANIFEST.tsv", "README.md")
MATRIX = re.compile(r".*\.mtx(\.gz)?")


def inputs_below(folder: Path) -> list[Path]:
    """Inputs as a user would name them: a folder with a matrix, or any other file."""
    parts = sorted(path for path in folder.iterdir() if path.name not in ELSEWHERE)
    if folder.suffix == ".zarr" or any(MATRIX.fullmatch(path.name) for path in parts):
        return [folder]
    below = [found for path in parts if path.is_dir() for found in inputs_below(path)]
    return [path for path in parts if path.is_file()] + below


@pytest.mark.filterwarnings("ignore")  # what libraries say of odd files
def test_every_file_is_in_with_its_account_or_out_with_its_reason(
    shared_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paths = inputs_below(shared_data)
    given = FileInput(paths=list(map(str, paths)), merge_same_accession=True, obs_columns=[])
    with caplog.at_level(logging.WARNING):
        summary = run_pipeline(
            [], tmp_path / "out", input=given, max_failed_fraction=1.0,
            qc=QcRules(min_genes=1, min_counts=None, max_pct_counts_mt=100.0),
            genes=GeneRules(allow_mixed_species=True), chunking=Chunking(chunk_size=20_000),
        )  # fmt: skip
    failed = {file.source_file: file.message for file in summary.failed}
    rows = pd.read_parquet(tmp_path / "out" / "experiments.parquet")
    inside = set(rows["source_file"])
    assert set(source_names(paths)) == inside | failed.keys()
    assert not inside & failed.keys()
    assert len(inside) > 30

    lost = rows.filter(like="lost_").sum(axis=1)
    assert (rows["n_obs"] == rows["n_kept"] + lost).all()
    assert (rows["n_obs"].sum(), rows["n_kept"].sum()) == (summary.n_obs_in, summary.n_obs)
    assert rows[["gene_table", "format", "slot", "n_features", "flags"]].notna().all(axis=None)

    for name, message in failed.items():
        assert name in message, message  # the file
        assert "\n" not in message
        assert re.search(r"[;,.] (give|leave|put|convert|write|unpack|name|say|choose|set|raise)\b", message, re.I), (
            message
        )

    cells = pd.read_parquet(tmp_path / "out" / "obs.parquet", columns=["source_file", "pct_counts_mt"])
    unmeasured = set(cells.loc[cells["pct_counts_mt"].isna(), "source_file"])
    assert unmeasured
    assert unmeasured <= set(
        json.loads((tmp_path / "out" / "chunk_summary.json").read_text())["unapplied_rules"].get(
            "qc.max_pct_counts_mt", []
        )
    )
    assert "qc.max_pct_counts_mt could not be applied to" in caplog.text
    flagged = rows.loc[rows["flags"].map(lambda flags: "no_mt_genes" in flags), "source_file"]
    assert unmeasured == set(flagged)
