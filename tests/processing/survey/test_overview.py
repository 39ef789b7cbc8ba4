"""What users may not expect of their files is a line of the dry run and of the summary, where there is some."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from tests.support.pages import table_of
from tests.support.pipeline import position_counts, settings_for

from scvae_data.config import conf_dir, instantiate
from scvae_data.errors import ConfigError
from scvae_data.processing.engine.base import SerialEngine
from scvae_data.processing.evidence.flags import REMEDIES
from scvae_data.processing.facts import InputFacts
from scvae_data.processing.settings.dataset import DatasetInput
from scvae_data.processing.survey.dry_run import dry_run
from scvae_data.processing.survey.overview import columns_alike, sources_of_counts
from scvae_data.report.qc import qc_report
from scvae_data.report.qc_facts import qc_facts
from scvae_data.store import open_index, read_json

GENES = ["MT-ND1", "TP53", "ACTB"]
Write = Callable[..., Path]
Process = Callable[..., Any]


def told(paths: list[Path], process: Process, out: Path, **chosen: Any) -> list[str]:
    """The lines of the summary, after it was seen that the dry run has the same of them that headers tell."""
    foreseen = dry_run(settings_for(paths, **chosen), SerialEngine(), out.with_name("dry"))
    summary = process(paths, out, **chosen)
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


def test_two_files_whose_names_have_one_part_in_common_are_refused(write_raw: Write, process: Process) -> None:
    names = ["liver counts.h5ad", "liver_data.h5ad"]
    paths = [write_raw(name, position_counts(4, 3, offset=9 * n), GENES) for n, name in enumerate(names)]
    expected = r"accession liver belongs to 2 files: liver counts\.h5ad, liver_data\.h5ad, as a part of a name or a f"
    with pytest.raises(ConfigError, match=expected):
        process(paths)


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


def facts(*files: list[str]) -> list[InputFacts]:
    """Files with these obs columns, as the survey sees them."""
    return [
        InputFacts(f"/{n}", f"{n}", "h5ad", 1, 1, "", f"{n}", None, (f"{n}",), (), tuple(columns), ())
        for n, columns in enumerate(files)
    ]


@pytest.mark.parametrize(
    ("files", "groups"),
    [
        pytest.param([["cell_type"], ["celltype"], ["celltype"]], [{"celltype": 2, "cell_type": 1}], id="separator"),
        pytest.param([["donor"], ["donor_id"], ["Donor.ID"]], [{"Donor.ID": 1, "donor": 1, "donor_id": 1}], id="id"),
        pytest.param([["donor", "donor_id"], ["donor"], ["donor_id"]], [], id="side by side"),
        pytest.param([["age"], ["stage"], ["SRX_accession"], ["srx_accession"]], [], id="others"),
        pytest.param([["a b", "x"], ["a.b", "X"]], [{"X": 1, "x": 1}, {"a b": 1, "a.b": 1}], id="two"),
        pytest.param([["cell_type"], ["cel_type"]], [{"cel_type": 1, "cell_type": 1}], id="left out"),
        pytest.param([["tissue"], ["tisseu"], ["tissuee"]], [{"tisseu": 1, "tissue": 1, "tissuee": 1}], id="three"),
        pytest.param([["disease"], ["Disaese"], ["disease"]], [{"disease": 2, "Disaese": 1}], id="swapped"),
        pytest.param([["disease"], ["disesse"]], [{"disease": 1, "disesse": 1}], id="replaced"),
        pytest.param([["celltype", "cel_type"], ["celltype"], ["cel_type"]], [], id="typed side by side"),
        pytest.param([["sample_donor1"], ["sample_donor2"], ["umap_embed_1"], ["umap_embed_12"]], [], id="digits"),
        pytest.param([["batch"], ["batchh"], ["age"], ["page"]], [], id="short"),
        pytest.param([["tissue_type"], ["issue_types"]], [], id="two letters"),
        pytest.param([["left_out", "x"], ["leftout", "x"]], [], id="not kept"),
    ],
)
def test_columns_alike(files: list[list[str]], groups: list[dict[str, int]]) -> None:
    wanted = sorted({name for names in files for name in names} - {"left_out", "leftout"})
    assert columns_alike(facts(*files), {}, wanted) == groups
    renamed = {name: min(counts) for counts in groups for name in counts}
    assert columns_alike(facts(*files), renamed, None if renamed else wanted) == []


def test_the_setting_that_is_told_makes_one_column(write_raw: Write, process: Process, tmp_path: Path) -> None:
    columns = [{"cell_type": [*"TBTB"]}, {"celltype": [*"BTBB"]}]
    paths = [write_raw(f"SRX{n}.h5ad", position_counts(4, 3), GENES, obs) for n, obs in enumerate(columns)]
    remedy = "'input.join_columns={cell_type:[celltype]}'"
    line = f"columns   cell_type (1 file), celltype (1 file) may be one column; {remedy} makes it one"
    assert line in told(paths, process, tmp_path / "out")
    assert read_json(tmp_path / "out" / "chunk_summary.json")["columns_alike"] == [{"cell_type": 1, "celltype": 1}]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        given = instantiate(compose("process", ["input=files", "input.paths=x", *shlex.split(remedy)]).input)
    chosen = replace(given, paths=[str(path) for path in paths])
    lines = told(paths, process, tmp_path / "joined", input=chosen)
    assert not [one for one in lines if one.startswith("columns")]
    index = open_index(tmp_path / "joined")
    assert "celltype" not in index.obs_columns
    obs = index.obs(["source_file", "source_row", "cell_type"])
    joined = obs.sort_values(["source_file", "source_row"])["cell_type"].tolist()
    assert joined == [*"TBTBBTBB"]

    # A directory that has both is mended without its files.
    again = DatasetInput(paths=[str(tmp_path / "out")], join_columns=given.join_columns)
    process([], tmp_path / "again", input=again)
    obs = open_index(tmp_path / "again").obs(["source_file", "source_row", "cell_type"])
    assert obs.sort_values(["source_file", "source_row"])["cell_type"].tolist() == joined
