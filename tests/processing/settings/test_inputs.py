from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.pipeline import position_counts

from scvae_data.errors import ConfigError
from scvae_data.processing.settings.inputs import FileInput, ManifestInput, accession_from_path, source_names


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
        # Cell Ranger
        ("/d/donor_1/outs/per_sample_outs/S3/count/sample_filtered_feature_bc_matrix", "S3"),
        ("/d/outs/per_sample_outs/S3/count/sample_feature_bc_matrix.h5", "S3"),
        ("/d/donor_1/outs/multi/count/raw_feature_bc_matrix.h5", "donor_1"),
        ("/d/donor_1/outs/filtered_gene_bc_matrices/GRCh38-2020-A/matrix.mtx", "donor_1"),
        # further up only where nothing below tells
        ("/SRX1/x/donor_1/outs/filtered_feature_bc_matrix.h5", "donor_1"),
        ("/d/pbmc_raw.h5ad", "pbmc_raw"),
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
        (tmp_path / name).touch()
    found = FileInput(paths=str(tmp_path)).files()
    assert [file.path.relative_to(tmp_path).as_posix() for file in found] == ["SRX2.h5ad", "deep/SRX1.h5ad"]


def test_10x_files_that_a_folder_leaves_out_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a.h5ad", "s1/x.h5", "s2/y.h5", "m/matrix.mtx.gz", "chunks/chunk_0000.h5", "chunks/chunk_index.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [file.path for file in FileInput(paths=str(tmp_path)).files()] == [tmp_path / "a.h5ad"]
    (line,) = caplog.messages
    assert "the 1 H5AD file below it; 2 .h5 files and 1 matrix.mtx file there are left out" in line
    globs = [f"{tmp_path}", f"{tmp_path}/**/*.h5", f"{tmp_path}/m/*matrix.mtx*"]
    assert line.endswith("input.paths='[" + ",".join(f'"{pattern}"' for pattern in globs) + "]'")
    (tmp_path / "chunks" / "chunk_0000.h5").unlink()
    caplog.clear()
    assert [file.path.name for file in FileInput(paths=globs).files()] == ["a.h5ad", "x.h5", "y.h5", "matrix.mtx.gz"]
    assert not caplog.messages


def test_folders_of_one_name_are_told_apart_or_named(
    write_raw: Callable[..., Path], process: Callable[..., Any]
) -> None:
    names = [f"{sample}/counts_{kind}/adata.h5ad" for sample in ("donor_1", "donor_2") for kind in ("filtered",)]
    first, second = (write_raw(name, position_counts(3, 3, offset=9 * n), list("ABC")) for n, name in enumerate(names))
    process([first, second])
    third = write_raw("donor_1/counts_unfiltered/adata.h5ad", position_counts(3, 3, offset=50), list("ABC"))
    shared = r"donor_1 belongs to 2 files: donor_1/counts_filtered/adata\.h5ad, donor_1/counts_unfiltered/adata\.h5ad"
    with pytest.raises(ConfigError, match=shared):
        process([first, second, third], first.parents[3] / "other")


@pytest.mark.parametrize("name", ["matrix.mtx", "x_matrix.mtx.gz"])
def test_a_matrix_folder_is_one_input(tmp_path: Path, name: str) -> None:
    for file in (name, "beside.h5ad"):
        (tmp_path / file).touch()
    assert [file.path for file in FileInput(paths=str(tmp_path)).files()] == [tmp_path]


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ([], "input.paths is empty"),
        ("nowhere.h5ad", "nowhere.h5ad does not exist"),
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
    assert (file.path, file.accession, file.obs_values) == (tmp_path / "a.h5ad", "SRX1", {"tissue": "lung", "age": 3})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file\na.h5ad\n", "no column 'path' among file"),
        ("path\nb.h5ad\n", r"row 1 names .*b\.h5ad, which does not exist"),
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


def test_source_names_do_not_depend_on_where_the_inputs_lie() -> None:
    for root in ("/x", "/y/z"):
        assert source_names([Path(root, "a/1.h5"), Path(root, "b/1.h5")]) == ["a/1.h5", "b/1.h5"]
