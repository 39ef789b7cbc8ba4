"""The first bytes, or the members, of a file that is not read in; what it is, and how to make it one that is, out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from scvae_data.errors import InputError

__all__ = ["folder_refusal", "hdf5_refusal", "refusal"]

ACCEPTED = "give H5AD, 10x H5, loom, Zarr, a table of counts or a folder with matrix.mtx"
FROM_R = (
    "write it in R as H5AD: zellkonverter::writeH5AD(Seurat::as.SingleCellExperiment(readRDS(FILE)), 'cells.h5ad'), "
    "without as.SingleCellExperiment if it is one"
)
FROM_RDATA = (
    "write what it holds in R as H5AD: name <- load(FILE); "
    "zellkonverter::writeH5AD(Seurat::as.SingleCellExperiment(get(name)), 'cells.h5ad')"
)
FROM_FOLDER_OF_R = (
    "write it in R as H5AD: zellkonverter::writeH5AD(HDF5Array::loadHDF5SummarizedExperiment(FOLDER), 'cells.h5ad')"
)
FROM_SEURAT = "write it in R as H5AD: SeuratDisk::Convert(FILE, dest = 'h5ad')"
FROM_ARROW = "write it as CSV: pandas.read_{}(FILE).to_csv('counts.csv.gz'), names of rows being its index"
COUNTED = "count its reads first (Cell Ranger, STARsolo, kallisto, alevin-fry), and give the matrix"

# What the first bytes are, unpacked where they were packed by gzip, and what to do.
KINDS: Sequence[tuple[re.Pattern[bytes], str, str]] = [
    (re.compile(rb"RD[AX][23]\n"), "an RData file of R", FROM_RDATA),
    (re.compile(rb"([XB]\n\x00\x00\x00[\x02\x03]|A\n[23]\n)"), "an RDS file of R", FROM_R),
    (re.compile(rb"PAR1"), "a Parquet file", FROM_ARROW.format("parquet")),
    (re.compile(rb"ARROW1|FEA1"), "a Feather file", FROM_ARROW.format("feather")),
    (re.compile(rb"BAM\x01|CRAM|@(HD|SQ)\t"), "aligned reads (BAM, CRAM or SAM)", COUNTED),
    (re.compile(rb"@[^\n]+\n[ACGTN]+\r?\n\+"), "reads (FASTQ)", COUNTED),
    (re.compile(rb">[^\n]+\n[ACGTN]+\r?\n", re.IGNORECASE), "sequences (FASTA)", COUNTED),
    (
        re.compile(rb"version https://git-lfs|\S*/annex/objects/"),
        "a pointer of Git LFS or git-annex, not the file",
        "fetch the file: git lfs pull, git annex get",
    ),
    (
        re.compile(rb"(\xef\xbb\xbf)?\s*<(!doctype|html|\?xml)", re.IGNORECASE),
        "a page of the web, as servers send instead of a file",
        "download the file again",
    ),
    (re.compile(rb"BUS\x00"), "a BUS file of kallisto", "count it first with bustools count, and give the folder"),
    (re.compile(rb"BZh"), "packed by bzip2", "unpack it with bunzip2, or pack it with gzip"),
    (re.compile(rb"\xfd7zXZ"), "packed by xz", "unpack it with unxz, or pack it with gzip"),
    (re.compile(rb"\x28\xb5\x2f\xfd"), "packed by zstd", "unpack it with unzstd, or pack it with gzip"),
    (re.compile(rb"PK.*\[Content_Types\]\.xml", re.DOTALL), "a workbook of Excel", "save the sheet as CSV UTF-8"),
    (
        re.compile(rb"PK.*\.npy|\x93NUMPY", re.DOTALL),
        "arrays of numpy",
        "write them as H5AD with their names of cells and genes",
    ),
    (re.compile(rb"PK"), "a zip archive", f"unpack it and {ACCEPTED}"),
    (re.compile(rb".{257}ustar", re.DOTALL), "a tar archive", f"unpack it and {ACCEPTED}"),
]
UTF16 = re.compile(rb"\xff\xfe|\xfe\xff")

# Members of HDF5 files.
MEMBERS: Sequence[tuple[set[str], str, str]] = [
    ({"assays", "cell.names"}, "an h5Seurat file", FROM_SEURAT),
    ({"assay001"}, "the assays of a SingleCellExperiment of R", FROM_FOLDER_OF_R),
    (
        {"barcode_idx", "count", "umi"},
        "a molecule_info.h5 of Cell Ranger",
        "give filtered_feature_bc_matrix.h5 of the same run",
    ),
]


def refusal(path: Path, head: bytes) -> InputError | None:
    """Say what a file is by its first bytes; None for text that may be a table."""
    for pattern, kind, remedy in KINDS:
        if pattern.match(head):
            return InputError(path, "not_single_cell", f"{kind}; {remedy}")
    if b"\0" in head and not UTF16.match(head):
        return InputError(path, "not_single_cell", f"neither HDF5 nor Matrix Market nor text; {ACCEPTED}")
    return None


def hdf5_refusal(path: Path, names: Sequence[str]) -> InputError:
    """Say what an HDF5 file is by the names of its members."""
    for members, kind, remedy in MEMBERS:
        if members <= set(names):
            return InputError(path, "not_single_cell", f"{kind}; {remedy}")
    held = ", ".join(names[:8]) or "nothing"
    return InputError(path, "not_single_cell", f"HDF5 without cells, genes and a matrix (holds {held}); {ACCEPTED}")


def folder_refusal(folder: Path) -> InputError | None:
    """Say what a folder is that is one object of R; None for others."""
    if (folder / "se.rds").is_file():
        return InputError(folder, "not_single_cell", f"a SingleCellExperiment of R; {FROM_FOLDER_OF_R}")
    return None
