"""A release of scBaseCount's layout: chosen by its sample table, joined with its tables, trained on."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd
import pytest
from tests.support.pipeline import NO_QC, run_pipeline
from tests.support.release import make_release
from tests.support.s3 import lead_to, s3_server

from scvae_data import ChunkedDataModule, open_index
from scvae_data.errors import ConfigError, ScvaeDataError
from scvae_data.processing.settings.scbasecount import ScBaseCountInput
from scvae_data.remote import objects
from scvae_data.remote.location import RemotePath

HUMAN = "GeneFull_Ex50pAS/Homo_sapiens"


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two releases: of 200 files, and of 3."""
    root = tmp_path_factory.mktemp("scbasecount")
    make_release(root / "2026-01-12", 200)
    make_release(root / "2025-02-25", 3)
    return root


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """A release of eight files that a test may change."""
    return make_release(tmp_path / "2026-01-12", 8)


def chosen(path: Path, tmp_path: Path, **keys: Any) -> ScBaseCountInput:
    return ScBaseCountInput(path=str(path), missing_list=str(tmp_path / "missing_files.txt"), **keys)


def names(given: ScBaseCountInput) -> list[str]:
    return [file.path.stem for file in given.files()]


def test_two_hundred_files_filtered_joined_and_trained_on(releases: Path, tmp_path: Path) -> None:
    where = "tech_10x == '3_prime_gex' and obs_count > 12000"
    given = chosen(releases, tmp_path, release="2026-01-12", where=where)
    out = tmp_path / "out"
    summary = run_pipeline([], out, input=given, qc=NO_QC)
    expected = [f"SRX{10_000 + number}" for number in range(124, 200, 4)]
    index = open_index(out)
    obs = index.obs()
    assert (summary.n_files, sorted(set(obs["SRX_accession"]))) == (19, expected)
    assert set(obs["tech_10x"]) == {"3_prime_gex"}
    for name, row in obs.iterrows():
        accession, cell = str(name).split(":AA")
        number = int(accession[-5:]) - 10_000
        assert (row["obs_count"], row["entrez_id"], row["tissue"]) == (100 * number, 7 * number, f"tissue {number % 3}")
        assert row["cell_type"] == f"type {int(cell) % 2}"
        assert row["cell_ontology_term_id"] == f"CL:{int(cell) % 2}"
        assert row["umi_count_Unique"] == row["total_counts"]
    assert not {"file_path", "cell_type_ontology_term_id", "orig_umi_count_Unique"} & set(obs.columns)
    module = ChunkedDataModule(out, batch_size=16)
    module.setup("fit")
    assert sum(len(batch["x"]) for batch in module.train_dataloader()) > 80


def test_what_is_missing_is_listed(release: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (release / "h5ad" / HUMAN / "SRX10003.h5ad").unlink()
    (release / "h5ad" / HUMAN / "SRX10006.h5ad").unlink()
    listed = tmp_path / "missing_files.txt"
    with pytest.raises(ConfigError, match=r"2 of 8 wanted files are missing, e\.g\. .*SRX10003\.h5ad; all in .*skip"):
        names(chosen(release, tmp_path))
    assert [Path(line).name for line in listed.read_text().splitlines()] == ["SRX10003.h5ad", "SRX10006.h5ad"]
    assert len(names(chosen(release, tmp_path, missing="skip"))) == 6
    assert "2 of 8 wanted files are missing" in caplog.text
    assert names(chosen(release, tmp_path, where="obs_count in [100, 200]")) == ["SRX10001", "SRX10002"]
    assert not listed.exists()


def test_experiments_are_chosen_over_all_organisms(release: Path, tmp_path: Path) -> None:
    make_release(release, 1, organism="Mus_musculus")
    both = {"organism": ["Homo_sapiens", "Mus_musculus"]}
    assert names(chosen(release, tmp_path, where="tissue == 'tissue 2'", **both)) == ["SRX10002", "SRX10005"]
    assert names(chosen(release, tmp_path, where="obs_count < 200", **both)) == ["SRX10000", "SRX10001", "SRX10000"]
    with pytest.raises(ConfigError, match=r"input.where: tissue has no value 'blood'; it has"):
        names(chosen(release, tmp_path, where="tissue == 'blood'", **both))


def test_every_way_to_name_a_release(releases: Path, tmp_path: Path) -> None:
    base = releases / "2025-02-25"
    for path in (base, base / "metadata", base / "metadata" / "GeneFull_Ex50pAS", base / "metadata" / HUMAN):
        assert names(chosen(path, tmp_path)) == ["SRX10000", "SRX10001", "SRX10002"]
    assert len(names(chosen(base, tmp_path, feature="GeneFull_Ex50pAS", organism="Homo sapiens"))) == 3


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, r"input.release is not set and input.path=.* is no release; there are 2025-02-25, 2026-01-12"),
        ({"release": "2020"}, r"input.release=2020 is not in .*; there are 2025-02-25, 2026-01-12"),
        ({"release": "2025-02-25", "feature": "Gene"}, r"input.feature=Gene is not in .* has GeneFull_Ex50pAS"),
        (
            {"release": "2025-02-25", "organism": "Mus_musculus"},
            r"input.organism=Mus_musculus is not in .*Homo_",
        ),
        (
            {"release": "2025-02-25", "where": "tech == 'x'"},
            r"input.where: no column 'tech' in .*sample_meta",
        ),
        (
            {"release": "2025-02-25", "where": "tech_10x == '3_prime'"},
            "tech_10x has no value '3_prime'; did you mean 3",
        ),
        ({"release": "2025-02-25", "where": "obs_count > 'x'"}, "obs_count holds numbers and is compared with 'x'"),
        ({"release": "2025-02-25", "where": "obs_count > 9e9"}, "input.where=obs_count > 9e9: no row of .* is kept"),
        ({"release": "2025-02-25", "where": "obs_count >"}, r"input.where='obs_count >' cannot be read"),
        ({"missing": "keep"}, "input.missing=keep must be error or skip"),
        ({"obs_table": "cells.csv"}, "give input.obs_metadata=false too"),
    ],
)
def test_what_names_nothing(releases: Path, tmp_path: Path, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        chosen(releases, tmp_path, **keys).files()


def test_several_organisms(tmp_path: Path) -> None:
    make_release(tmp_path / "r", 2)
    make_release(tmp_path / "r", 1, organism="Mus_musculus")
    with pytest.raises(ConfigError, match=r"input.organism is not set; .* has Homo_sapiens, Mus_musculus"):
        chosen(tmp_path / "r", tmp_path).files()
    both = chosen(tmp_path / "r", tmp_path, organism=["Mus_musculus", "Homo_sapiens"])
    assert [file.path.parent.name for file in both.files()] == ["Mus_musculus", "Homo_sapiens", "Homo_sapiens"]


def test_studies_join_by_accession(release: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    table = tmp_path / "studies.csv"
    rows = {"srx_accession": [f"SRX{10_000 + n}" for n in range(7)], "study": [f"SRP{n // 2}" for n in range(7)]}
    pd.DataFrame(rows).to_csv(table, index=False)
    files = chosen(release, tmp_path, studies=str(table)).files()
    assert [file.obs_values.get("study") for file in files] == [
        "SRP0",
        "SRP0",
        "SRP1",
        "SRP1",
        "SRP2",
        "SRP2",
        "SRP3",
        None,
    ]
    assert "input.studies: no row for 1 of 8 experiments, e.g. SRX10007" in caplog.text
    pd.DataFrame(rows | {"tissue": "liver"}).to_csv(table, index=False)
    with pytest.raises(ConfigError, match=r"input.studies: column tissue is in sample_metadata.parquet too; rename it"):
        chosen(release, tmp_path, studies=str(table)).files()
    pd.DataFrame(rows).iloc[[0, 0]].to_csv(table, index=False)
    with pytest.raises(ConfigError, match=r"1 accessions more than once, e.g. SRX10000"):
        chosen(release, tmp_path, studies=str(table)).files()


def test_files_without_a_row_are_told(release: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = release / "h5ad" / HUMAN
    (folder / "SRX1.h5ad").write_bytes(b"")
    caplog.set_level(logging.INFO)
    assert len(names(chosen(release, tmp_path))) == 8
    assert "1 file that sample_metadata.parquet has no row for, e.g. SRX1.h5ad" in caplog.text


def test_cells_that_the_table_of_cells_does_not_have(
    release: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = release / "metadata" / HUMAN / "obs_metadata.parquet"
    frame = pd.read_parquet(table)
    frame[(frame["SRX_accession"] != "SRX10001") | (frame["cell_barcode"] != "AA2")].to_parquet(table)
    given = chosen(release, tmp_path, where="obs_count < 200")
    run_pipeline([], tmp_path / "out", input=given)
    assert "obs_metadata: SRX10001.h5ad: 1 of 6 cells without a row" in caplog.text
    obs = open_index(tmp_path / "out").obs()
    assert obs.loc[obs["cell_type"].isna()].index.tolist() == ["SRX10001:AA2"]
    before = open_index(tmp_path / "out").processing_id
    without = chosen(release, tmp_path, where="obs_count < 200", obs_metadata=False)
    run_pipeline([], tmp_path / "without", input=without)
    assert "cell_type" not in open_index(tmp_path / "without").obs_columns
    assert open_index(tmp_path / "without").processing_id != before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda frame: frame.rename(columns={"cell_barcode": "bc"}), "barcode or cell_barcode or barcodes are"),
        (lambda frame: pd.concat([frame, frame.iloc[:1]]), "has two rows for barcode AA5 of SRX10000; remove one"),
    ],
)
def test_tables_of_cells_that_cannot_be_joined(change: Any, message: str, release: Path, tmp_path: Path) -> None:
    table = release / "metadata" / HUMAN / "obs_metadata.parquet"
    change(pd.read_parquet(table)).to_parquet(table)
    with pytest.raises(ScvaeDataError, match=message):
        run_pipeline([], tmp_path / "out", input=chosen(release, tmp_path, where="obs_count == 0"))


def test_without_metadata(release: Path, tmp_path: Path) -> None:
    folder = release / "metadata" / HUMAN
    (folder / "obs_metadata.parquet").unlink()
    with pytest.raises(ConfigError, match=r"obs_metadata.parquet cannot be read as Parquet; fetch it, or leave its"):
        run_pipeline([], tmp_path / "out", input=chosen(release, tmp_path))
    (folder / "sample_metadata.parquet").unlink()
    with pytest.raises(ConfigError, match=r"sample_metadata.parquet does not exist; fetch the metadata"):
        chosen(release, tmp_path).files()


def test_columns_may_be_chosen_among_those_of_all_tables(release: Path, tmp_path: Path) -> None:
    wanted = ["cell_type", "cell_ontology_term_id", "tissue"]
    given = chosen(release, tmp_path, where="obs_count < 300", obs_columns=wanted)
    run_pipeline([], tmp_path / "out", input=given)
    columns = list(open_index(tmp_path / "out").obs_columns)
    assert set(wanted) < set(columns)
    assert not {"tech_10x", "umi_count_Unique", "entrez_id"} & set(columns)


def upload(folder: Path, address: RemotePath) -> None:
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        objects.upload(path, RemotePath(f"{address}/{path.relative_to(folder).as_posix()}"))


def test_a_release_in_a_store(release: Path, tmp_path: Path) -> None:
    address = RemotePath(f"memory://{tmp_path.name}/2026-01-12")
    upload(release, address)
    keys: dict[str, Any] = {"where": "obs_count < 300", "missing": "skip"}
    run_pipeline([], tmp_path / "local", input=chosen(release, tmp_path, **keys))
    listed = str(tmp_path / "missing_files.txt")
    for place in ({"release": str(address)}, {"path": str(address.parent)}, {"path": f"{address}/metadata"}):
        given = ScBaseCountInput(**place, **keys, missing_list=listed)
        assert [str(file.path) for file in given.files()] == [
            f"{address}/h5ad/{HUMAN}/SRX1000{number}.h5ad" for number in range(3)
        ]
    run_pipeline([], tmp_path / "remote", input=ScBaseCountInput(release=str(address), **keys, missing_list=listed))
    assert open_index(tmp_path / "remote").content_hash == open_index(tmp_path / "local").content_hash
    objects.delete(address / "h5ad" / HUMAN / "SRX10001.h5ad")
    assert len(ScBaseCountInput(release=str(address), **keys, missing_list=listed).files()) == 2
    assert Path(listed).read_text() == f"{address}/h5ad/{HUMAN}/SRX10001.h5ad\n"
    for wrong, message in (
        (
            {"release": f"{address}-gone"},
            r"there is no folder memory://.*-gone; memory://.* has 2026-01-12; correct input\.path or input\.release",
        ),
        (
            {"release": str(address), "path": "x"},
            r"input\.release=memory://.* is an address by itself; leave out",
        ),
    ):
        with pytest.raises(ConfigError, match=message):
            ScBaseCountInput(**wrong).files()
    fsspec.filesystem("memory").rm(f"/{tmp_path.name}", recursive=True)


@pytest.mark.services
def test_two_hundred_files_in_s3_are_trained_on(
    releases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    out, runs = tmp_path / "out", tmp_path / "run"
    with s3_server() as port:
        lead_to(port, monkeypatch)
        address = RemotePath("s3://data/scbasecount/2026-01-12")
        upload(releases / "2026-01-12", address)
        objects.delete(address / "h5ad" / HUMAN / "SRX10008.h5ad")
        where = "tech_10x == '3_prime_gex' and obs_count > 500"
        given = ScBaseCountInput(release=str(address), where=where, missing="skip", missing_list="missing_files.txt")
        summary = run_pipeline([], out, input=given, qc=NO_QC)
    assert summary.n_files == 47  # of numbers 8, 12, …, 196, without the one that is missing
    assert Path("missing_files.txt").read_text() == f"{address}/h5ad/{HUMAN}/SRX10008.h5ad\n"
    train = Path(__file__).parents[2] / "train.py"
    options = ["trainer.max_epochs=1", "data.batch_size=32", "model.n_hidden=8", "logger=none", "outputs.picture=none"]
    subprocess.run(
        [sys.executable, train, f"paths.processed_dir={out}", f"hydra.run.dir={runs}", *options],
        check=True, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    facts = json.loads((runs / "run.json").read_text())["facts"]
    assert facts["n_obs"] == summary.n_obs == 47 * 6
