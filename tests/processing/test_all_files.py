"""Every real file is in with its account, or out with its reason; no share of mitochondrial counts is NaN unsaid."""

from __future__ import annotations

import json
import logging
import re
import warnings
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest
from tests.support.pipeline import run_pipeline

from scvae_data.processing.engine.local import LocalEngine
from scvae_data.processing.run.summary import Summary
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


class Heard(logging.Handler):
    """Keeps what is logged."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


class Everything(NamedTuple):
    """A run over all files."""

    paths: list[Path]
    out: Path
    summary: Summary
    said: list[str]
    """Warnings."""


@pytest.fixture(scope="module")
def everything(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Everything:
    paths, out = inputs_below(shared_data), tmp_path_factory.mktemp("everything") / "out"
    given = FileInput(paths=list(map(str, paths)), merge_same_accession=True, obs_columns=[])
    heard = Heard(logging.WARNING)
    logging.getLogger("scvae_data").addHandler(heard)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what libraries say of odd files
        summary = run_pipeline(
            [], out, input=given, max_failed_fraction=1.0, engine=LocalEngine(2),
            qc=QcRules(min_genes=1, min_counts=None, max_pct_counts_mt=100.0),
            genes=GeneRules(allow_mixed_species=True), chunking=Chunking(chunk_size=20_000),
        )  # fmt: skip
    logging.getLogger("scvae_data").removeHandler(heard)
    return Everything(paths, out, summary, heard.said)


def test_every_file_is_in_with_its_account_or_out_with_its_reason(everything: Everything) -> None:
    paths, out, summary, said = everything
    failed = {file.source_file: file.message for file in summary.failed}
    rows = pd.read_parquet(out / "experiments.parquet")
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

    cells = pd.read_parquet(out / "obs.parquet", columns=["source_file", "pct_counts_mt"])
    unmeasured = set(cells.loc[cells["pct_counts_mt"].isna(), "source_file"])
    assert unmeasured
    assert unmeasured <= set(
        json.loads((out / "chunk_summary.json").read_text())["unapplied_rules"].get("qc.max_pct_counts_mt", [])
    )
    assert "qc.max_pct_counts_mt could not be applied to" in "\n".join(said)
    flagged = rows.loc[rows["flags"].map(lambda flags: "no_mt_genes" in flags), "source_file"]
    assert unmeasured == set(flagged)


def test_the_report_of_failures_and_the_account_name_every_file(everything: Everything, shared_data: Path) -> None:
    record = json.loads((everything.out / "chunk_summary.json").read_text())
    inside, failed = record["attrition"]["source_file"], record["failed_files"]
    assert everything.summary.n_files == len(everything.paths) == len(inside) + len(failed)
    named = sorted([str(shared_data / name) for name in inside] + [file["path"] for file in failed])
    assert named == sorted(map(str, everything.paths))
    assert all(file["reason"] and file["message"] and not file["details"] for file in failed)
    assert (everything.out / "quarantine.txt").read_text().splitlines() == [file["path"] for file in failed]
    for name in ("h5ad/pbmc3k_2700.h5ad", "mtx/yeast_844", "h5ad_orig/zellkonverter_example_anndata.h5ad"):
        assert name in inside
