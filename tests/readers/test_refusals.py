"""What is not read is named, with the line that makes it readable."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from scvae_data.errors import InputError
from scvae_data.readers.recognise import open_reader

RDS = b"X\n\0\0\0\x03\0\x04\x01\0\0\x03\x05\0"
FASTQ = b"@SRR1.1 length=8\nACGTNACG\n+\nFFFFFFFF\n"


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(RDS, r"an RDS file of R; write it in R as H5AD: zellkonverter::writeH5AD", id="rds"),
        pytest.param(b"A\n3\n262144\n", "an RDS file of R", id="rds_text"),
        pytest.param(b"RDX3\n" + RDS, "an RData file of R; .*load", id="rdata"),
        pytest.param(b"PAR1\x15\x04", r"a Parquet file; write it as CSV: pandas.read_parquet\(FILE\)", id="parquet"),
        pytest.param(b"ARROW1\0\0", r"a Feather file; write it as CSV: pandas.read_feather\(FILE\)", id="feather"),
        pytest.param(b"BAM\1\0\0\0\0", "aligned reads .*; count its reads first", id="bam"),
        pytest.param(b"@HD\tVN:1.6\n@SQ\tSN:1\n", "aligned reads", id="sam"),
        pytest.param(FASTQ, r"reads \(FASTQ\); count its reads first", id="fastq"),
        pytest.param(b">chr1 x\nACGTNNNACGT\n", r"sequences \(FASTA\)", id="fasta"),
        pytest.param(b"BUS\0\1\0\0\0", "a BUS file of kallisto; count it first with bustools", id="bus"),
        pytest.param(b"<!DOCTYPE html><html>404</html>", "a page of the web, .*; download the file again", id="html"),
        pytest.param(b'<?xml version="1.0"?><Error>', "a page of the web", id="xml"),
        pytest.param(
            b"version https://git-lfs.github.com/spec/v1\noid 1\n", "a pointer of Git LFS .*git lfs pull", id="lfs"
        ),
        pytest.param(b"../.git/annex/objects/a/b\n", "a pointer of Git LFS or git-annex", id="annex"),
        pytest.param(bytes(range(256)), "neither HDF5 nor Matrix Market nor text; give H5AD", id="binary"),
    ],
)
def test_files_are_named_by_their_first_bytes(tmp_path: Path, content: bytes, message: str, packed: bool) -> None:
    path = tmp_path / "counts.csv"
    path.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(InputError, match=message) as caught:
        open_reader(path)
    assert caught.value.reason == "not_single_cell"
    assert "\n" not in str(caught.value)


def test_packing_that_is_not_read_is_named(tmp_path: Path) -> None:
    for data, message in ((bz2.compress(b"a,b\n"), "bunzip2"), (lzma.compress(b"a,b\n"), "unxz")):
        (tmp_path / "counts.csv").write_bytes(data)
        with pytest.raises(InputError, match=f"packed by .*; unpack it with {message}, or pack it with gzip"):
            open_reader(tmp_path / "counts.csv")


@pytest.mark.parametrize(
    ("member", "message"),
    [("[Content_Types].xml", "a workbook of Excel; save the sheet as CSV"), ("data.npy", "arrays of numpy"),
     ("counts.csv", "a zip archive; unpack it")],
)  # fmt: skip
def test_archives_are_named_by_what_they_hold(tmp_path: Path, member: str, message: str) -> None:
    with zipfile.ZipFile(tmp_path / "counts.zip", "w") as archive:
        archive.writestr(member, "x")
    with pytest.raises(InputError, match=message):
        open_reader(tmp_path / "counts.zip")


def test_real_writers_of_tables_and_arrays(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": [1, 2]})
    frame.to_parquet(tmp_path / "a.parquet")
    frame.to_feather(tmp_path / "a.feather")
    np.savez(tmp_path / "a.npz", x=[1, 2])
    np.save(tmp_path / "a.npy", [1, 2])
    named = {"a.parquet": "a Parquet file", "a.feather": "a Feather file", "a.npz": "arrays of numpy"}
    named["a.npy"] = named["a.npz"]
    for name, message in named.items():
        with pytest.raises(InputError, match=message):
            open_reader(tmp_path / name)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (["assays/RNA", "cell.names", "meta.data", "reductions"], "an h5Seurat file; .*SeuratDisk::Convert"),
        (["assay001"], "the assays of a SingleCellExperiment of R; .*loadHDF5SummarizedExperiment"),
        (["barcode_idx", "count", "umi", "feature_idx"], "a molecule_info.h5 of Cell Ranger; give filtered_feature"),
        (["X", "Y", "ADT_X"], r"HDF5 without cells, genes and a matrix \(holds ADT_X, X, Y\)"),
    ],
)
def test_hdf5_files_are_named_by_their_members(tmp_path: Path, members: list[str], message: str) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name in members:
            file[name] = np.ones((2, 2))
    with pytest.raises(InputError, match=message) as caught:
        open_reader(tmp_path / "a.h5")
    assert caught.value.reason == "not_single_cell"


def test_a_folder_of_r_is_named(tmp_path: Path) -> None:
    (tmp_path / "se.rds").write_bytes(gzip.compress(RDS))
    with pytest.raises(InputError, match=r"a SingleCellExperiment of R; .*loadHDF5SummarizedExperiment"):
        open_reader(tmp_path)
