"""What users may not expect of their files is a line of the dry run and of the summary, where there is some."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
from tests.support.pages import table_of
from tests.support.pipeline import position_counts, settings_for

from scvae_data.processing.engine.base import SerialEngine
from scvae_data.processing.evidence.flags import REMEDIES
from scvae_data.processing.survey.dry_run import dry_run
from scvae_data.processing.survey.overview import sources_of_counts
from scvae_data.report.qc import qc_report
from scvae_data.report.qc_facts import qc_facts
from scvae_data.store import open_index

GENES = ["MT-ND1", "TP53", "ACTB"]
Write = Callable[..., Path]
Process = Callable[..., Any]


def told(paths: list[Path], process: Process, out: Path, **chosen: Any) -> list[str]:
    """The lines of the summary, after it was seen that the dry run has the same of them that headers tell."""
    foreseen = dry_run(settings_for(paths, **chosen), SerialEngine(), out.with_name("dry"))
    summary = process(paths, **chosen)
    assert [row for row in foreseen.overview if row not in summary.overview] == []
    assert all(f"  {name:<8} {text}" in str(foreseen).splitlines() for name, text in foreseen.overview)
    return str(summary).splitlines()


def test_a_name_that_the_file_does_not_have_is_told(write_raw: Write, process: Process, tmp_path: Path) -> None:
    names = ["Bob's liver data.h5ad", "SRX1.h5ad", "liver.h5ad"]
    lines = told([write_raw(name, position_counts(4, 3), GENES) for name in names], process, tmp_path / "out")
    assert (
        "named     1 of 3 files by a part of the name or by the folder, e.g. Bob's liver data.h5ad is Bob's_liver; "
        "input=manifest names them otherwise"
    ) in lines
    assert open_index(tmp_path / "out").obs_columns["SRX_accession"].categories == ("Bob's_liver", "SRX1", "liver")


def test_nothing_is_told_of_plain_files(write_raw: Write, process: Process, tmp_path: Path) -> None:
    lines = told([write_raw("SRX1.h5ad", position_counts(4, 3), GENES)], process, tmp_path / "out")
    assert not [line for line in lines if line.startswith(("named", "matrix"))]


def test_matrices_that_counts_come_from_are_told(write_raw: Write, process: Process, tmp_path: Path) -> None:
    paths = [write_raw(f"SRX{number}.h5ad", position_counts(4, 3), GENES) for number in range(4)]
    for path in paths[1:]:
        adata = ad.read_h5ad(path)
        adata.layers["counts"] = adata.X.copy()
        adata.X = np.log1p(adata.X.toarray())
        if path == paths[3]:
            adata.raw = ad.AnnData(adata.layers.pop("counts"), obs=adata.obs, var=adata.var)
        adata.write_h5ad(path)
    lines = told(paths, process, tmp_path / "out")
    text = "layers/counts of 2 files, X of 1 file, raw/X of 1 file; input.counts chooses another"
    assert f"matrix    {text}" in lines
    index = open_index(tmp_path / "out")
    table = table_of(qc_report(index, qc_facts(index), REMEDIES), "experiments")
    assert dict(zip(table["experiment"], table["matrix"], strict=True)) == {
        "SRX0": "X", "SRX1": "layers/counts", "SRX2": "layers/counts", "SRX3": "raw/X",
    }  # fmt: skip


@pytest.mark.parametrize("slots", [[], ["X", "X"], ["matrix", "X"]])
def test_the_only_matrix_of_a_file_is_not_told(slots: list[str]) -> None:
    assert sources_of_counts(slots) == []
