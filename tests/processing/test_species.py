"""Files of several species: one is kept, cells of others and doublets of species are dropped and counted."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from tests.support.pipeline import NO_QC

from scvae_data.commands.why import why
from scvae_data.errors import ConfigError, SelectionError
from scvae_data.processing.settings.genes import GeneRules, ListRules
from scvae_data.processing.settings.inputs import ManifestInput
from scvae_data.processing.settings.qc import QcRules
from scvae_data.report.qc import qc_report
from scvae_data.report.qc_facts import qc_facts
from scvae_data.store import open_index

Write = Callable[..., Path]
Process = Callable[..., Any]

HUMAN, MOUSE = ["TP53", "ACTB", "CD3D", "MT-ND1"], ["Trp53", "Actb", "Cd3d", "mt-Nd1"]
HUMAN_IDS = [f"ENSG00000{n}" for n in (141510, 111640, 167286, 198888)]
MOUSE_IDS = [f"ENSMUSG000000{n}" for n in (59552, 29580, 32094, 64341)]
# Rows: a human cell, one with a tenth of mouse, a doublet, one with a tenth of human, a mouse cell, an empty droplet.
COUNTS = np.array([[25] * 4 + [0] * 4, [45] * 4 + [5] * 4, [10] * 8, [5] * 4 + [45] * 4, [0] * 4 + [25] * 4, [0] * 8])
COUNTS[:2, 0] += [4, 0]
COUNTS[:2, 1] -= [4, 0]
FORMS = {
    "prefixes": [*(f"GRCh38_{name}" for name in HUMAN), *(f"mm10___{name}" for name in MOUSE)],
    "ids": [*HUMAN_IDS, *MOUSE_IDS],
    "prefixed ids": [*(f"hg19_{name}" for name in HUMAN_IDS), *(f"mm10_{name}" for name in MOUSE_IDS)],
    "symbols": [*HUMAN, *MOUSE],
}


def one(species: str, qc: QcRules = NO_QC, **rules: Any) -> dict[str, Any]:
    """Settings that keep one species."""
    return {"genes": GeneRules(min_cells=None, species=species, **rules), "qc": replace(qc, species=species)}


def stored(directory: Path) -> pd.DataFrame:
    adata = ad.concat([ad.read_h5ad(path) for path in sorted(directory.glob("chunk_*.h5"))])
    return pd.DataFrame(adata.X.toarray(), adata.obs["source_row"], adata.var_names).sort_index()


@pytest.mark.parametrize("form", list(FORMS))
@pytest.mark.parametrize("species", ["human", "mouse"])
def test_cells_and_genes_of_one_species(
    form: str, species: str, write_raw: Write, process: Process, tmp_path: Path
) -> None:
    summary = process([write_raw("SRX1.h5ad", COUNTS, FORMS[form])], **one(species))
    assert summary.lost == {"other_species": 1, "species_doublet": 2, "zero_counts": 1, "zero_counts_in_kept_genes": 0}
    cells, genes = ([0, 1], slice(0, 4)) if species == "human" else ([3, 4], slice(4, 8))
    kept = stored(tmp_path / "out")
    assert kept.index.tolist() == cells
    assert sorted(kept.columns) == sorted(np.array(names_of(form))[genes])
    assert kept[np.array(names_of(form))[genes]].to_numpy().tolist() == COUNTS[cells, genes].tolist()
    obs = pd.read_parquet(tmp_path / "out" / "obs.parquet").sort_values("source_row")
    assert obs["pct_counts_species"].tolist() == ([100.0, 90.0] if species == "human" else [90.0, 100.0])
    assert obs["total_counts"].tolist() == COUNTS[cells, genes].sum(axis=1).tolist()
    dropped = pd.read_parquet(tmp_path / "out" / "dropped_cells.parquet").set_index("source_row")
    assert dropped["rule"][2] == "species_doublet"
    assert (dropped["value"][2], dropped["threshold"][2]) == (50.0, 90.0)
    assert dropped["rule"][5] == "zero_counts"
    assert dropped["rule"][4 if species == "human" else 0] == "other_species"
    assert f"species   {species} alone" in str(summary)


def names_of(form: str) -> list[str]:
    """What the genes of a form are called in a directory."""
    return [*HUMAN_IDS, *MOUSE_IDS] if form.endswith("ids") else [*HUMAN, *MOUSE]


def test_without_a_least_share_the_species_with_more_counts_decides(
    write_raw: Write, process: Process, tmp_path: Path
) -> None:
    qc = replace(NO_QC, min_pct_counts_species=None)
    summary = process([write_raw("SRX1.h5ad", COUNTS, FORMS["ids"])], **one("human", qc))
    assert stored(tmp_path / "out").index.tolist() == [0, 1, 2]
    assert summary.lost["other_species"] == 2


def test_outliers_are_those_of_the_cells_of_the_species(write_raw: Write, process: Process, tmp_path: Path) -> None:
    qc = replace(NO_QC, nmads={"log1p_total_counts": 5.0})
    process([write_raw("SRX1.h5ad", np.repeat(COUNTS, 3, axis=0), FORMS["ids"])], **one("human", qc))
    bounds = json.loads((tmp_path / "out" / "chunk_summary.json").read_text())["outlier_bounds"]
    assert bounds["n_obs"] == [6]


def test_groups_of_genomes_in_an_older_10x_file(process: Process, tmp_path: Path) -> None:
    path = tmp_path / "SRX1.h5"
    with h5py.File(path, "w") as file:
        for genome, ids, part in (("GRCh38", HUMAN_IDS, COUNTS[:5, :4]), ("mm10", MOUSE_IDS, COUNTS[:5, 4:])):
            group, (rows, columns) = file.create_group(genome), np.nonzero(part)
            group["genes"], group["gene_names"] = (
                np.array(ids, "S"),
                np.array([f"{genome}_{name}" for name in ids], "S"),
            )
            group["barcodes"] = np.array([f"C{n}" for n in range(5)], "S")
            group["data"], group["indices"] = part[rows, columns].astype(np.int32), columns
            group["indptr"], group["shape"] = np.searchsorted(rows, range(6)), np.array([4, 5])
    process([path], **one("human"))
    assert stored(tmp_path / "out")[HUMAN_IDS].to_numpy().tolist() == COUNTS[:2, :4].tolist()


def test_a_file_of_several_species_is_refused_with_shares_and_remedy(
    write_raw: Write, process: Process, tmp_path: Path
) -> None:
    path = write_raw("SRX1.h5ad", COUNTS, FORMS["symbols"])
    with pytest.raises(ConfigError) as refused:
        process([path])
    text = str(refused.value)
    assert "SRX1.h5ad 50.0 % human, 50.0 % mouse" in text
    assert "genes.species=human" in text
    assert "\n" not in text
    process([path], genes=GeneRules(min_cells=None, allow_mixed_species=True))
    assert stored(tmp_path / "out").shape == (5, 8)


def test_files_of_other_species_are_left_out(
    write_raw: Write, process: Process, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paths = [
        write_raw("SRX1.h5ad", COUNTS[:2, :4], HUMAN_IDS), write_raw("SRX2.h5ad", COUNTS[3:5, 4:], MOUSE_IDS),
        write_raw("SRX3.h5ad", COUNTS[3:5], FORMS["ids"]), write_raw("SRX4.h5ad", COUNTS[3:5, 4:], MOUSE),
    ]  # fmt: skip
    settings = one("human")
    summary = process(paths, **settings)
    assert "genes.species=human: 2 files of mouse left out, e.g. SRX2.h5ad" in caplog.text
    assert summary.n_files == 2
    assert "human alone (genes.species); 2 files and up to 4 genes of a file of other species left out" in str(summary)
    account = json.loads((tmp_path / "out" / "chunk_summary.json").read_text())
    assert account["species"] == {"kept": "human", "files_left_out": ["SRX2.h5ad", "SRX4.h5ad"]}
    index = open_index(tmp_path / "out")
    page = qc_report(index, qc_facts(index), {})
    assert "genes.species=human left out what is of another species: SRX2.h5ad, SRX4.h5ad." in page
    with pytest.raises(SelectionError, match=r"no cell of SRX2 was read: genes\.species=human leaves SRX2\.h5ad out"):
        why(tmp_path / "out", "SRX2", "AAAC")
    assert account["attrition"]["lost"]["other_species"] == [0, 1]
    assert stored(tmp_path / "out").shape == (2, 4)
    assert "nothing to do" in str(process(paths, resume=True, **settings))
    with pytest.raises(ConfigError, match=r"genes\.species=pig: no input is of it; there are human \(2 files\), mouse"):
        process(paths, tmp_path / "pig", **one("pig"))


def test_a_list_of_genes_and_one_species(write_raw: Write, process: Process, tmp_path: Path) -> None:
    (tmp_path / "genes.txt").write_text("\n".join(HUMAN_IDS[:2]))
    rules = ListRules(path=str(tmp_path / "genes.txt"), species="human")
    process([write_raw("SRX1.h5ad", COUNTS, FORMS["ids"])], genes=rules, qc=replace(NO_QC, species="human"))
    assert stored(tmp_path / "out").columns.tolist() == HUMAN_IDS[:2]


def test_files_of_one_species_have_no_share_and_the_same_rows(
    write_raw: Write, process: Process, tmp_path: Path
) -> None:
    path = write_raw("SRX1.h5ad", COUNTS[:2, :4], HUMAN_IDS)
    process([path], tmp_path / "all", genes=GeneRules(min_cells=None))
    process([path], tmp_path / "one", **one("human"))
    assert stored(tmp_path / "one").equals(stored(tmp_path / "all"))
    assert open_index(tmp_path / "one").obs(["pct_counts_species"])["pct_counts_species"].isna().all()
    assert "pct_counts_species" not in open_index(tmp_path / "all").obs_columns


@pytest.mark.parametrize("share", [49, 100, "much"])
def test_a_share_that_means_nothing_is_refused(share: Any) -> None:
    with pytest.raises(ConfigError, match=r"qc\.min_pct_counts_species=.* from 50 to below 100"):
        QcRules(min_pct_counts_species=share)


def test_one_species_beside_leave_to_mix_them_is_refused(write_raw: Write, process: Process) -> None:
    with pytest.raises(ConfigError, match=r"genes\.species=human keeps one species, .* set one of them"):
        GeneRules(species="human", allow_mixed_species=True)
    path = write_raw("SRX1.h5ad", COUNTS, FORMS["ids"])
    with pytest.raises(ConfigError, match=r"qc\.species=None follows genes\.species=human"):
        process([path], genes=GeneRules(species="human"))


PRIMATE = ["TP53", "ACTB", "CD3D", "MT-ND1"]


@pytest.mark.parametrize("column", ["species", "Organism"])
def test_a_manifest_that_says_another_species_than_the_genes_is_refused(
    column: str, write_raw: Write, process: Process, tmp_path: Path
) -> None:
    for number in range(3):
        write_raw(f"SRX{number}.h5ad", 1 + np.arange(8).reshape(2, 4) + number, PRIMATE)
    manifest = tmp_path / "raw" / "m.csv"
    lines = ["SRX0.h5ad,Homo sapiens", "SRX1.h5ad,macaca mulatta", "SRX2.h5ad,Macaca_mulatta"]
    manifest.write_text("\n".join([f"path,{column}", *lines]) + "\n")
    inputs = ManifestInput(manifest=str(manifest))
    told = rf"SRX1\.h5ad \(and 1 more file\): {column} says macaque, its genes are called as those of human; correct"
    with pytest.raises(ConfigError, match=told):
        process([], input=inputs)
    summary = process([], input=inputs, genes=GeneRules(min_cells=None, allow_mixed_species=True))
    assert summary.n_obs == 6
    manifest.write_text("\n".join([f"path,{column}", "SRX0.h5ad,human", "SRX1.h5ad,patient", "SRX2.h5ad,"]) + "\n")
    assert process([], tmp_path / "agreed", input=inputs).n_obs == 6


@pytest.mark.parametrize(
    ("column", "labels", "told"),
    [
        ("organism", ["Mus musculus"] * 2, "mouse"),
        ("Species", ["mouse", "rat"], "mouse and rat"),
        ("organism", ["Homo sapiens", "Mus musculus"], ""),
        ("organism", ["unknown", "Mus musculus"], ""),
        ("donor", ["mouse"] * 2, ""),
    ],
)
def test_a_file_that_calls_its_cells_another_species_is_told(
    column: str, labels: list[str], told: str, write_raw: Write, process: Process, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_raw("SRX1.h5ad", COUNTS[:2, :4], HUMAN_IDS, {column: labels})
    summary = process([path], genes=GeneRules(min_cells=None))
    assert summary.n_obs == 2
    found = [text for text in caplog.messages if "obs column" in text and "says" in text]
    wanted = f"SRX1.h5ad: obs column {column} says {told}, its genes are called as those of human"
    assert found == ([wanted] if told else [])
