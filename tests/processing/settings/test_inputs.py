from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pandas as pd
import pytest
from tests.support.pipeline import position_counts

from scvae_data.errors import ConfigError
from scvae_data.processing.settings.inputs import (
    FileInput,
    InputFile,
    Inputs,
    ManifestInput,
    accession_from_path,
    source_names,
)


@pytest.mark.parametrize(
    ("path", "accession"),
    [
        ("/data/SRX9000001.h5ad", "SRX9000001"),
        ("/data/x_NRX12_y.h5ad.gz", "NRX12"),
        ("/data/ERX5/outs/filtered_feature_bc_matrix.h5", "ERX5"),
        ("/data/donor 1/outs/filtered_feature_bc_matrix.h5", "donor_1"),
        ("/data/1k_PBMCs_filtered_feature_bc_matrix.h5", "1k_PBMCs"),
        ("/data/a/filtered_gene_bc_matrices/hg19", "a"),
        ("/data/pbmc3k_2700.h5ad", "pbmc3k_2700"),
        ("/matrix.mtx", "unnamed"),
        # STARsolo
        ("/d/SRX1/Solo.out/Gene/filtered/matrix.mtx", "SRX1"),
        ("/d/donor_1/Solo.out/GeneFull/raw", "donor_1"),
        ("/d/donor_1/Solo.out/GeneFull_Ex50pAS/raw/UniqueAndMult-EM.mtx", "donor_1"),
        ("/d/STAR/S2_Solo.out/Gene/filtered/matrix.mtx.gz", "S2"),
        ("/d/donor_1/STARsolo/Solo.out/Velocyto/filtered/spliced.mtx", "donor_1"),
        # kallisto and bustools
        ("/d/donor_1/counts_unfiltered/cells_x_genes.mtx", "donor_1"),
        ("/d/donor_1/counts_unfiltered/adata.h5ad", "donor_1"),
        ("/d/donor_1/kb_out/counts_filtered/cells_x_genes.total.mtx", "donor_1"),
        ("/d/donor_1/genecount/genes.mtx", "donor_1"),
        # alevin and alevin-fry
        ("/d/donor_1/alevin/quants_mat.mtx.gz", "donor_1"),
        ("/d/donor_1/af_quant/alevin/quants_mat.mtx", "donor_1"),
        ("/d/donor_1/quant/alevin", "donor_1"),
        # Parse
        ("/d/donor_1/DGE_filtered/count_matrix.mtx", "donor_1"),
        ("/d/run_7/all-sample/DGE_unfiltered/DGE.mtx", "run_7"),
        ("/d/donor_1/DGE_filtered/anndata.h5ad", "donor_1"),
        # BD
        ("/d/donor_1_RSEC_MolsPerCell_MEX/matrix.mtx.gz", "donor_1"),
        ("/d/donor_1_DBEC_MolsPerCell_Unfiltered_MEX", "donor_1"),
        # other formats, and what people call tables of counts
        ("/d/donor_1.loom", "donor_1"),
        ("/d/donor_1.zarr", "donor_1"),
        ("/d/donor_1.zarr.zip", "donor_1"),
        ("/d/donor_1.h5mu", "donor_1"),
        ("/d/GSM1_donor.dge.txt.gz", "GSM1_donor"),
        ("/d/donor_1/raw_counts.csv.gz", "donor_1"),
        ("/d/donor_1_count_matrix.tsv", "donor_1"),
        ("/d/donor_1_cellbender_filtered.h5", "donor_1"),
        # Cell Ranger
        ("/d/donor_1/outs/per_sample_outs/S3/count/sample_filtered_feature_bc_matrix", "S3"),
        ("/d/outs/per_sample_outs/S3/count/sample_feature_bc_matrix.h5", "S3"),
        ("/d/donor_1/outs/multi/count/raw_feature_bc_matrix.h5", "donor_1"),
        ("/d/donor_1/outs/filtered_gene_bc_matrices/GRCh38-2020-A/matrix.mtx", "donor_1"),
        # further up only where nothing below tells
        ("/SRX1/x/donor_1/outs/filtered_feature_bc_matrix.h5", "donor_1"),
        ("/d/pbmc_raw.h5ad", "pbmc_raw"),
        # names of one's own: blanks are underscores, before anything is left out
        ("/d/Bob's liver data.h5ad", "Bob's_liver"),
        ("/d/Bob's_liver_data.h5ad", "Bob's_liver"),
        ("/d/Bob's-liver.data.h5ad", "Bob's-liver"),
        ("/d/liver - raw counts.csv", "liver"),
        ("/d/liver v1.2.h5ad", "liver_v1.2"),
        ("/d/Печень\u00a0 1.h5ad", "Печень__1"),
        ("/d/liver raw/raw data.h5ad", "liver_raw"),
        ("/d/GSM123_liver_counts.h5ad", "GSM123_liver"),
        ("/d/S1 filtered_feature_bc_matrix.h5", "S1"),
        ("/d/a:b#c.h5ad", "a_b_c"),
        ("/Solo.out/Gene/filtered/matrix.mtx", "unnamed"),
    ],
)
def test_accession_from_path(path: str, accession: str) -> None:
    assert accession_from_path(Path(path)) == accession


def test_globs_lists_and_literal_paths(tmp_path: Path) -> None:
    for name in ("b.h5ad", "a.h5ad", "odd[1].h5ad"):
        (tmp_path / name).touch()
    found = FileInput(paths=[f"{tmp_path}/*.h5ad", f"{tmp_path}/a.h5ad"]).files()
    assert [file.path.name for file in found] == ["a.h5ad", "b.h5ad", "odd[1].h5ad"]
    assert [file.path.name for file in FileInput(paths=f"{tmp_path}/odd[1].h5ad").files()] == ["odd[1].h5ad"]


def test_a_folder_stands_for_the_h5ad_files_below_it(tmp_path: Path) -> None:
    for name in ("SRX2.h5ad", "deep/SRX1.h5ad", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    found = FileInput(paths=str(tmp_path)).files()
    assert [file.path.relative_to(tmp_path).as_posix() for file in found] == ["SRX2.h5ad", "deep/SRX1.h5ad"]


def test_10x_files_that_a_folder_leaves_out_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a.h5ad", "s1/x.h5", "s2/y.h5", "m/matrix.mtx.gz", "chunks/chunk_0000.h5", "chunks/chunk_index.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    assert [file.path for file in FileInput(paths=str(tmp_path)).files()] == [tmp_path / "a.h5ad"]
    (line,) = caplog.messages
    assert "the 1 H5AD file below it; left out there: 2 .h5 files and 1 matrix.mtx file; to take" in line
    globs = [f"{tmp_path}", f"{tmp_path}/**/*.h5", f"{tmp_path}/m/*matrix.mtx*"]
    assert line.endswith("input.paths='[" + ",".join(f'"{pattern}"' for pattern in globs) + "]'")
    (tmp_path / "chunks" / "chunk_0000.h5").unlink()
    caplog.clear()
    assert [file.path.name for file in FileInput(paths=globs).files()] == ["a.h5ad", "x.h5", "y.h5", "matrix.mtx.gz"]
    assert not caplog.messages


def test_inputs_of_every_other_format_are_named_and_stores_are_not_walked_into(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    taken = ["a.h5ad"]
    others = [
        "s/b.loom", "s/c.h5mu", "s/d.zarr", "e.zarr.zip", "f_counts.csv.gz", "g.dge.txt.gz", "h.h5", "i.mtx",
    ]  # fmt: skip
    nothing = ["metadata_counts.csv", "barcodes.tsv.gz", "notes.txt", "count_summary.txt", "gene_expression_genes.tsv"]
    inside = ["s/d.zarr/.zgroup", "s/d.zarr/X/0.h5", "s/d.zarr/raw/counts.csv", "s/d.zarr/y.h5ad"]
    for name in (*taken, *others, *nothing, *inside):
        path = tmp_path / name
        if not name.endswith("zarr"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("x")
    assert [file.path.name for file in FileInput(paths=str(tmp_path)).files()] == taken
    (line,) = caplog.messages
    words = (
        "1 *counts*.csv.gz table and 1 *dge*.txt.gz table and 1 .h5 file and 1 .h5mu file and 1 .loom file and "
        "1 .mtx file and 1 .zarr file and 1 .zarr.zip file; to take"
    )
    assert words in line
    globs = eval(line.rpartition("input.paths=")[2].strip("'"))
    caplog.clear()
    found = FileInput(paths=globs).files()
    assert {file.path.relative_to(tmp_path).as_posix() for file in found} == {*taken, *others}
    assert not caplog.messages
    assert [file.path for file in FileInput(paths=str(tmp_path / "s/d.zarr")).files()] == [tmp_path / "s/d.zarr"]


def test_folders_of_one_name_are_told_apart_or_named(
    write_raw: Callable[..., Path], process: Callable[..., Any]
) -> None:
    names = [f"{sample}/counts_filtered/adata.h5ad" for sample in ("donor_1", "donor_2")]
    first, second = (write_raw(name, position_counts(3, 3, offset=9 * n), list("ABC")) for n, name in enumerate(names))
    process([first, second])
    third = write_raw("donor_1/counts_unfiltered/adata.h5ad", position_counts(3, 3, offset=50), list("ABC"))
    shared = r"donor_1 belongs to 2 files: donor_1/counts_filtered/adata\.h5ad, donor_1/counts_unfiltered/adata\.h5ad"
    with pytest.raises(ConfigError, match=shared):
        process([first, second, third], first.parents[3] / "other")


def test_linked_folders_are_followed_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("store/run1/SRX1.h5ad", "store/run9/SRX9.h5ad", "in/run2/SRX2.h5ad"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    folder = tmp_path / "in"
    (folder / "run1").symlink_to(tmp_path / "store" / "run1")
    (folder / "again").symlink_to(folder / "run2")  # read where it lies, not through the link
    (folder / "run2" / "up").symlink_to(folder)
    (folder / "run2" / "itself").symlink_to("itself")
    (folder / "SRX9.h5ad").symlink_to(tmp_path / "store" / "run9" / "SRX9.h5ad")
    found = FileInput(paths=str(folder)).files()
    assert [file.path.relative_to(folder).as_posix() for file in found] == [
        "SRX9.h5ad", "run1/SRX1.h5ad", "run2/SRX2.h5ad",
    ]  # fmt: skip
    assert caplog.messages == [f"input.paths={folder}: left out: 1 broken link (itself)"]


def test_tables_that_a_folder_leaves_out_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("SRX1.h5ad", "SRX2.csv", "s/SRX3.csv", "GSM4.txt.gz", "SRX2_meta.tsv", "e_umis.tsv", "samples.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    assert [file.path.name for file in FileInput(paths=str(tmp_path)).files()] == ["SRX1.h5ad"]
    (line,) = caplog.messages
    assert "1 *GSM*.txt.gz table and 2 *SRX*.csv tables and 1 *umis*.tsv table; to take them too" in line
    globs = eval(line.rpartition("input.paths=")[2].strip("'"))
    taken = [file.path.name for file in FileInput(paths=globs).files()]
    assert sorted(taken) == ["GSM4.txt.gz", "SRX1.h5ad", "SRX2.csv", "SRX3.csv", "e_umis.tsv"]


def test_hidden_files_are_left_out_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = ("a.h5ad", "._a.h5ad", "s/.b.h5ad", ".trash/c.h5ad", "__MACOSX/._d.h5ad", "._x", "e.txt")
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    assert [file.path.name for file in FileInput(paths=str(tmp_path)).files()] == ["a.h5ad"]
    (line,) = caplog.messages
    assert line == (f"input.paths={tmp_path}: left out: 4 hidden files (._a.h5ad, c.h5ad, ._d.h5ad, …)")


def test_packed_files_and_those_of_r_are_named_and_endings_are_read_in_any_case(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a.h5ad", "b.H5AD", "c.h5ad.gz", "d.Loom", "GSE1_RAW.tar", "e.RData", "f.rds", "g.tsv.gz", "._h.rds"):
        (tmp_path / name).write_text("x")
    (tmp_path / "run1").symlink_to("gone")
    assert [file.path.name for file in FileInput(paths=str(tmp_path)).files()] == ["a.h5ad", "b.H5AD"]
    packed, others = caplog.messages
    assert packed.endswith(
        "left out: 2 packed files (GSE1_RAW.tar, c.h5ad.gz) and 2 R files (e.RData, f.rds) and 1 broken link (run1)"
    )
    assert "left out there: 1 .Loom file; to take them too" in others
    assert f'"{tmp_path}/*.Loom"' in others


def test_a_file_of_two_names_is_taken_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.h5ad").write_text("x")
    (tmp_path / "b.h5ad").symlink_to("a.h5ad")
    (tmp_path / "c.h5ad").hardlink_to(tmp_path / "a.h5ad")
    (tmp_path / "d.h5ad").write_text("x")
    paths = [str(tmp_path), f"{tmp_path}/../{tmp_path.name}/d.h5ad"]
    assert [file.path.name for file in FileInput(paths=paths).files()] == ["a.h5ad", "d.h5ad"]
    assert [line.split(" is the same file")[0][-6:] for line in caplog.messages] == ["b.h5ad", "c.h5ad", "d.h5ad"]
    with pytest.raises(ConfigError, match=r"m.csv: .*/b.h5ad is the same file as .*/a.h5ad; remove one of the rows"):
        manifest(tmp_path / "x", "path,donor\n../a.h5ad,D1\n../b.h5ad,D2\n")


@pytest.mark.parametrize("given", ["{}", "{}/*.h5ad", "{}/a.h5ad"])
def test_an_empty_file_is_an_input_however_it_is_named(given: str, tmp_path: Path) -> None:
    (tmp_path / "a.h5ad").touch()
    assert [file.path.name for file in FileInput(paths=given.format(tmp_path)).files()] == ["a.h5ad"]


def test_what_macos_leaves_of_a_matrix_makes_no_matrix_folder(tmp_path: Path) -> None:
    for name in ("._matrix.mtx", "a.h5ad"):
        (tmp_path / name).write_text("x")
    assert [file.path.name for file in FileInput(paths=str(tmp_path)).files()] == ["a.h5ad"]


@pytest.mark.parametrize("name", ["matrix.mtx", "x_matrix.mtx.gz"])
def test_a_matrix_folder_is_one_input(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    for file in (name, "barcodes.tsv.gz", "features.tsv.gz", "genes.tsv"):
        (tmp_path / file).touch()
    assert [file.path for file in FileInput(paths=str(tmp_path)).files()] == [tmp_path]
    assert not caplog.messages


@pytest.mark.parametrize(
    ("matrix", "sides"),
    [
        ("GSM1_matrix.mtx.gz", ["GSM1_barcodes.tsv.gz", "GSM1_features.tsv.gz"]),
        ("matrix.mtx", ["barcodes.tsv", "genes.tsv"]),
        ("x.mtx", ["x.barcodes.txt", "x.genes.names.txt", "x.genes.txt"]),
        ("quants_mat.mtx", ["quants_mat_cols.txt", "quants_mat_rows.txt"]),
    ],
)  # fmt: skip
def test_what_goes_with_a_matrix_is_no_input_where_a_glob_matches_both(
    matrix: str, sides: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    others = ["GSM2_barcodes.tsv.gz", "a.h5ad"]
    for name in (matrix, *sides, *others):
        (tmp_path / name).touch()
    with caplog.at_level("INFO"):
        found = FileInput(paths=f"{tmp_path}/*").files()
    assert {file.path.name for file in found} == {matrix, *others}
    (line,) = caplog.messages
    assert f"{len(sides)} files belong to the matrices beside them and are read with those: {', '.join(sides)}" in line
    assert [file.path.name for file in FileInput(paths=str(tmp_path / sides[0])).files()] == sides[:1]


def test_a_glob_that_descends_names_each_input_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    inputs = ["a.h5ad", "SRX1/matrix.mtx", "deep/er/b.h5", "store.zarr"]
    for name in (*inputs[:3], "SRX1/genes.tsv", "SRX1/barcodes.tsv", "store.zarr/zarr.json", "store.zarr/X/zarr.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with caplog.at_level("INFO"):
        found = FileInput(paths=f"{tmp_path}/**").files()
    assert {file.path for file in found} == {tmp_path / name for name in inputs}
    folders = ", ".join(str(tmp_path / name) for name in ("", "SRX1", "deep", "deep/er"))
    assert f"what it matches in 4 folders is read, not the folders themselves: {folders}" in caplog.messages[0]


def test_a_glob_that_descends_in_a_store_names_each_input_once() -> None:
    memory = fsspec.filesystem("memory")
    inputs = ["SRX1/matrix.mtx", "a.h5ad", "deep/er/b.h5", "store.zarr"]
    for name in (*inputs[:3], "SRX1/genes.tsv", "SRX1/barcodes.tsv", "store.zarr/.zgroup", "store.zarr/X/.zarray"):
        memory.pipe_file(f"/descends/{name}", b"x")
    found = FileInput(paths="memory://descends/**").files()
    assert [str(file.path).removeprefix("memory://descends/") for file in found] == inputs
    memory.rm("/descends", recursive=True)


def test_what_lies_beside_the_matrix_of_a_folder_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    others = ["a.h5ad", "s/b.H5AD", "s/c.h5ad", "d.h5", "e_counts.csv", "s/matrix.mtx"]
    for name in ("matrix.mtx.gz", "barcodes.tsv.gz", "features.tsv.gz", "._x.h5ad", *others):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    assert [file.path for file in FileInput(paths=str(tmp_path)).files()] == [tmp_path]
    hidden, line = caplog.messages
    assert hidden.endswith("left out: 1 hidden file (._x.h5ad)")
    assert "stands for the matrix in it; left out there: 1 *counts*.csv table and 1 .H5AD file and 1 .h5 file" in line
    assert "2 .h5ad files and 1 matrix.mtx file; to take them too" in line
    globs = eval(line.rpartition("input.paths=")[2].strip("'"))
    caplog.clear()
    found = FileInput(paths=globs).files()
    assert {file.path for file in found} == {tmp_path, *(tmp_path / name for name in others)}
    assert caplog.messages == [hidden]


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ([], "input.paths is empty"),
        ("nowhere.h5ad", r"input\.paths: /.*/nowhere\.h5ad does not exist; give a file, a folder or a glob"),
        ("no*.h5ad", r"no\*.h5ad matches no file"),
    ],
)
def test_nothing_found(paths: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FileInput(paths=paths).files()


def test_manifest(tmp_path: Path) -> None:
    (tmp_path / "a.h5ad").touch()
    manifest = tmp_path / "m.csv"
    manifest.write_text("path,srx_accession,tissue,age\na.h5ad,SRX1,lung,3\n")
    (file,) = ManifestInput(manifest=str(manifest)).files()
    assert (file.path, file.accession, file.obs_values) == (tmp_path / "a.h5ad", "SRX1", {"tissue": "lung", "age": "3"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file\na.h5ad\n", "no column 'path' among file"),
        ("path\nb.h5ad\n", r"row 1 names .*b\.h5ad, which does not exist; correct it .* or remove the row"),
        ("path\na.h5ad\na.h5ad\n", r"lists .*a\.h5ad more than once"),
        ("path,srx_accession\na.h5ad,a:b\n", "accession 'a:b' must not"),
        ("path\n", "lists no file"),
    ],
)
def test_bad_manifest(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.h5ad").touch()
    manifest = tmp_path / "m.csv"
    manifest.write_text(text)
    with pytest.raises(ConfigError, match=message):
        ManifestInput(manifest=str(manifest)).files()


@pytest.mark.parametrize(
    ("columns", "meant"),
    [
        ("path,accession", "accession"),
        ("path,donor,sample_id", "sample_id"),
        ("path,donor", ""),
        ("path,srx_accession,sample", ""),
    ],
)
def test_a_column_that_may_name_the_experiments_is_told(
    columns: str, meant: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.h5ad").touch()
    (tmp_path / "m.csv").write_text(f"{columns}\na.h5ad{',x' * columns.count(',')}\n")
    ManifestInput(manifest=str(tmp_path / "m.csv")).files()
    told = [f"{meant} is an obs column; if it names the experiments, call it srx_accession"] if meant else []
    assert [text.partition("say, and ")[2] for text in caplog.messages] == told


def test_source_names_do_not_depend_on_where_the_inputs_lie() -> None:
    for root in ("/x", "/y/z"):
        assert source_names([Path(root, "a/1.h5"), Path(root, "b/1.h5")]) == ["a/1.h5", "b/1.h5"]


# --- what a manifest says -------------------------------------------------------------------------------------------


def manifest(folder: Path, text: str, name: str = "m.csv", **settings: Any) -> list[InputFile]:
    folder.mkdir(exist_ok=True)
    for file in ("a.h5ad", "b.h5ad"):
        (folder / file).touch()
    (folder / name).write_text(text)
    return ManifestInput(manifest=str(folder / name), **settings).files()


def test_manifest_text_is_text(tmp_path: Path) -> None:
    text = "path, srx_accession, donor, group, day\na.h5ad, SRX1, 1.10, None, 2024-01-02\nb.h5ad, SRX2, 007, NA,\n"
    first, second = manifest(tmp_path, text)
    assert (first.accession, second.accession) == ("SRX1", "SRX2")
    assert first.obs_values == {"donor": "1.10", "group": "None", "day": "2024-01-02"}
    assert second.obs_values == {"donor": "007", "group": "NA", "day": None}


@pytest.mark.parametrize(
    ("text", "value"),
    [("7", 7), ("007", 7), ("1.50", 1.5), ("-1e3", -1000.0), ("9007199254740993", 2**53 + 1), ("", None)],
)
def test_numbers_are_parsed_where_they_are_wanted(tmp_path: Path, text: str, value: float | None) -> None:
    first, _ = manifest(tmp_path, f"path,age,sex\na.h5ad,{text},1\nb.h5ad,3,2\n", numeric_columns=["age"])
    assert first.obs_values == {"age": value, "sex": "1"}
    assert type(first.obs_values["age"]) is type(value)


@pytest.mark.parametrize("text", ["abc", "1 000", "NA", "0x1f", "TRUE", "1_000", "nan", "inf", "1e999", "9" * 20])
def test_what_is_no_number_is_refused_with_its_cell(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=rf"m\.csv: row 2, column age: '{text}' is .*; correct it, or leave age out"):
        manifest(tmp_path, f"path,age\na.h5ad,1\nb.h5ad,{text}\n", numeric_columns=["age"])


def test_numeric_columns_is_a_list() -> None:
    with pytest.raises(ConfigError, match=r"input\.numeric_columns=age must be a list, \[age\]"):
        ManifestInput(numeric_columns="age")


def test_parquet_keeps_its_types(tmp_path: Path) -> None:
    for name in ("a.h5ad", "b.h5ad"):
        (tmp_path / name).touch()
    table = pd.DataFrame(
        {
            "path": ["a.h5ad", "b.h5ad"],
            "srx_accession": [1, 2],
            "cell_id": pd.array([2**60 + 1, None], dtype="Int64"),
            "age": [1.5, np.nan],
            "smoker": [True, False],
            "donor": ["None", None],
            "day": pd.to_datetime(["2024-01-02", None]),
            "stage": pd.Categorical(["I", "II"]),
        },
        index=[5, 7],
    )
    table.to_parquet(tmp_path / "m.parquet")
    first, second = ManifestInput(manifest=str(tmp_path / "m.parquet")).files()
    assert (first.accession, second.accession) == ("1", "2")
    assert first.obs_values == {
        "cell_id": 2**60 + 1, "age": 1.5, "smoker": True, "donor": "None", "day": "2024-01-02 00:00:00", "stage": "I",
    }  # fmt: skip
    assert second.obs_values == {
        "cell_id": None, "age": None, "smoker": False, "donor": None, "day": None, "stage": "II",
    }  # fmt: skip
    table.set_index("path").to_parquet(tmp_path / "m.parquet")
    assert ManifestInput(manifest=str(tmp_path / "m.parquet")).files() == [first, second]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        pytest.param(pd.DataFrame({"file": ["a.h5ad"]}), "no column 'path' among file", id="no path"),
        pytest.param(
            pd.DataFrame({"path": ["a.h5ad"], "x": [[1, 2]]}), "column x holds lists or structures", id="nested"
        ),
        pytest.param(None, "cannot be read as Parquet", id="damaged"),
    ],
)
def test_bad_parquet(tmp_path: Path, table: pd.DataFrame | None, message: str) -> None:
    path = tmp_path / "m.parquet"
    path.write_bytes(b"PAR1") if table is None else table.to_parquet(path)
    with pytest.raises(ConfigError, match=message) as caught:
        ManifestInput(manifest=str(path)).files()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["SRX_accession", "SRX_ACCESSION", "SRX Accession", "srx-accession", "SrxAccession"])
def test_the_column_of_accessions_in_any_spelling(tmp_path: Path, name: str) -> None:
    (file,) = manifest(tmp_path, f"path,{name},donor\na.h5ad,SRX1,D1\n")
    assert (file.accession, file.obs_values) == ("SRX1", {"donor": "D1"})


def test_accessions_in_a_column_of_another_name_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (file,) = manifest(tmp_path, "path,accession,donor\na.h5ad,SRX1,D1\n")
    assert (file.accession, file.obs_values) == (None, {"accession": "SRX1", "donor": "D1"})
    assert "experiments are called as their files say, and accession is an obs column; if it names the" in caplog.text
    caplog.clear()
    manifest(tmp_path, "path,srx_accession,other\na.h5ad,S1,SRX1\n")
    assert caplog.text == ""


def test_two_accession_columns(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has both srx_accession and SRX_accession; leave one out"):
        manifest(tmp_path, "path,srx_accession,SRX_accession\na.h5ad,SRX1,SRX2\n")


@pytest.mark.parametrize("given", [FileInput(), ManifestInput()], ids=lambda given: type(given).__name__)
def test_an_input_that_is_not_named_is_refused_before_anything_is_looked_at(given: Inputs) -> None:
    with pytest.raises(ConfigError, match=r"input\.(paths is empty|manifest is not set); give a"):
        given.check_named()
