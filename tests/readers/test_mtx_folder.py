"""Which files make a matrix, by whatever names labs and tools give them."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scvae_data.errors import InputError
from scvae_data.readers.mtx_folder import find_triple
from scvae_data.readers.recognise import open_reader

COUNTS = np.arange(1, 13).reshape(3, 4)
GENES, CELLS = ["MT-ND1", "TP53", "LYZ", "CD4"], ["c0", "c1", "c2"]


def write(folder: Path, matrix: str, barcodes: str, features: str, counts: Any = COUNTS, *, cells_first: bool) -> Path:
    stored = counts if cells_first else counts.T
    entries = [f"{i + 1} {j + 1} {stored[i, j]}" for i, j in zip(*np.nonzero(stored), strict=True)]
    shape = f"{stored.shape[0]} {stored.shape[1]} {len(entries)}"
    text = "\n".join(["%%MatrixMarket matrix coordinate integer general", shape, *entries])
    put(folder, matrix, text)
    put(folder, barcodes, table(barcodes, CELLS[: len(counts)], "bc_wells,sample", "{},s1"))
    put(folder, features, table(features, GENES[: counts.shape[1]], "gene_id,gene_name,genome", "{0},{0},hg38"))
    return folder


def put(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())


def table(name: str, values: Sequence[str], header: str, line: str) -> str:
    lines = [header, *(line.format(value) for value in values)] if ".csv" in name else values
    return "\n".join(lines) + "\n"


SETS = {
    "geo": ("GSM1_matrix_s1.mtx.gz", "GSM1_barcodes_s1.tsv.gz", "GSM1_features_s1.tsv.gz"),
    "geo, the sample before": ("GSM1_s1.matrix.mtx.gz", "GSM1_s1.barcodes.tsv.gz", "GSM1_s1.genes.tsv.gz"),
    "sample after": ("matrix_s1.mtx", "barcodes_s1.tsv", "features_s1.tsv"),
    "kallisto": ("cells_x_genes.mtx", "cells_x_genes.barcodes.txt", "cells_x_genes.genes.txt"),
    "parse": ("DGE.mtx", "cell_metadata.csv", "all_genes.csv"),
    "parse, newer": ("count_matrix.mtx", "cell_metadata.csv", "all_genes.csv"),
    "capitals": ("Matrix.mtx", "Barcodes.tsv", "Genes.tsv"),
    "sample alone": ("s1.mtx", "s1_barcodes.txt", "s1_genes.txt"),
    "counts": ("GSM1_counts.mtx.gz", "GSM1_cells.csv.gz", "GSM1_genes.csv.gz"),
    "shared features": ("s1_matrix.mtx", "s1_barcodes.tsv", "features.tsv"),
    "plain matrix": ("matrix.mtx", "s1_barcodes.tsv", "s1_features.tsv"),
    "alevin": ("quants_mat.mtx", "quants_mat_barcodes.txt", "quants_mat_genes.txt"),
}


@pytest.mark.parametrize("cells_first", [False, True])
@pytest.mark.parametrize("names", SETS.values(), ids=SETS)
def test_files_of_any_name_are_read_as_one_matrix(
    tmp_path: Path, read_dense: Any, names: tuple[str, str, str], cells_first: bool
) -> None:
    folder = write(tmp_path / "in", *names, cells_first=cells_first)
    for path in (folder, folder / names[0]):
        with open_reader(path) as reader:
            np.testing.assert_array_equal(read_dense(reader, "matrix"), COUNTS)
            assert reader.barcodes().tolist() == CELLS
            assert reader.genes("matrix").names.tolist() == GENES


def test_each_matrix_of_a_folder_finds_its_own_tables(tmp_path: Path, read_dense: Any) -> None:
    for number in (1, 2):
        names = (f"matrix_s{number}.mtx", f"barcodes_s{number}.tsv", f"features_s{number}.tsv")
        write(tmp_path, *names, counts=number * COUNTS, cells_first=False)
    write(
        tmp_path, "cells_x_genes.mature.mtx", "cells_x_genes.barcodes.txt", "cells_x_genes.genes.txt", cells_first=True
    )
    put(tmp_path, "cells_x_genes.genes.names.txt", "A\nB\nC\nD\n")
    for number in (1, 2):
        with open_reader(tmp_path / f"matrix_s{number}.mtx") as reader:
            np.testing.assert_array_equal(read_dense(reader, "matrix"), number * COUNTS)
        assert find_triple(tmp_path / f"matrix_s{number}.mtx").barcodes.name == f"barcodes_s{number}.tsv"
    assert find_triple(tmp_path / "cells_x_genes.mature.mtx").features.name == "cells_x_genes.genes.txt"
    message = r"holds 3 matrices \(cells_x_genes.mature.mtx, matrix_s1.mtx, matrix_s2.mtx\); give one of the files"
    with pytest.raises(InputError, match=message):
        open_reader(tmp_path)


def test_as_many_cells_as_genes_are_told_by_the_name(tmp_path: Path, read_dense: Any) -> None:
    square = COUNTS[:, :3]
    kallisto = write(tmp_path / "k", *SETS["kallisto"], counts=square, cells_first=True)
    tenx = write(tmp_path / "t", "matrix.mtx", "barcodes.tsv", "features.tsv", counts=square, cells_first=False)
    for folder in (kallisto, tenx):
        with open_reader(folder) as reader:
            np.testing.assert_array_equal(read_dense(reader, "matrix"), square)


def test_numbers_of_lines_choose_between_tables_of_like_names(tmp_path: Path) -> None:
    write(tmp_path, *SETS["geo"], cells_first=False)
    put(tmp_path, "GSM1_s1_barcodes_raw.tsv", "a\nb\nc\n")  # says more than the matrix, which is alone
    put(tmp_path, "GSM1_s1_genes.tsv", "A\n")
    triple = find_triple(tmp_path)
    assert (triple.barcodes.name, triple.features.name) == SETS["geo"][1:]


@pytest.mark.parametrize(
    ("names", "reason", "message"),
    [
        (("s1.mtx", "s2_barcodes.tsv", "s1_genes.tsv"), "missing",
         r"s1.mtx has no barcodes.tsv of its own beside it \(there are 's2_barcodes.tsv'\); add it"),
        (("s1.mtx", "s1_barcodes.tsv", "notes.txt"), "missing", "s1.mtx has no features.tsv or genes.tsv of its own"),
    ],
)  # fmt: skip
def test_what_is_missing_is_named(tmp_path: Path, names: tuple[str, str, str], reason: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        open_reader(write(tmp_path, *names, cells_first=False))
    assert caught.value.reason == reason


def test_tables_that_fit_equally_are_named(tmp_path: Path) -> None:
    write(tmp_path, "s1.mtx", "s1_barcodes.tsv", "s1_features.tsv", cells_first=False)
    put(tmp_path, "s1_genes.txt", "A\nB\nC\nD\n")
    with pytest.raises(InputError, match=r"s1.mtx goes with each of s1_features.tsv, s1_genes.txt; leave the one"):
        open_reader(tmp_path)


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        (
            "bc_wells,sample,species\nc0,s1,hg38\nc1,s2,hg38\nc2,s1,\n",
            {"sample": ["s1", "s2", "s1"], "species": ["hg38", "hg38", ""]},
        ),
        (",bc_wells,sample\n0,c0,s1\n1,c1,s2\n2,c2,s1\n", {"sample": ["s1", "s2", "s1"]}),
        ('bc_wells,sample\nc0,"s, 1"\nc1,007\nc2,1.10\n', {"sample": ["s, 1", "007", "1.10"]}),
        ("bc_wells\nc0\nc1\nc2\n", {}),
        ("bc_wells,a,a\nc0,1,2\nc1,1,2\nc2,1,2\n", {}),
    ],
)
def test_what_a_table_says_of_its_cells_is_read(tmp_path: Path, text: str, columns: dict[str, list[str]]) -> None:
    folder = write(tmp_path / "in", "DGE.mtx", "cell_metadata.csv", "all_genes.csv", cells_first=True)
    (folder / "cell_metadata.csv").write_text(text)
    with open_reader(folder) as reader:
        assert reader.barcodes().tolist() == CELLS
        assert reader.obs_columns == tuple(columns)
        assert reader.obs().to_dict("list") == columns
        for name, values in columns.items():
            assert reader.obs([name])[name].tolist() == values
        with pytest.raises(InputError, match="no column 'age'"):
            reader.obs(["age"])


TRIPLE = ("matrix.mtx", "barcodes.tsv", "features.tsv")


@pytest.mark.parametrize(
    ("other", "text"),
    [
        ("genes.tsv", table("genes.tsv", GENES[::-1], "", "{}")),
        ("features.tsv.gz", table("features.tsv", ["TP63", *GENES[1:]], "", "{}")),
        ("barcodes.tsv.gz", table("barcodes.tsv", CELLS[::-1], "", "{}")),
        ("matrix.mtx.gz", "%%MatrixMarket matrix coordinate integer general\n4 3 1\n1 1 1\n"),
    ],
)
def test_two_files_of_one_name_that_differ_are_refused(tmp_path: Path, other: str, text: str) -> None:
    folder = write(tmp_path / "in", *TRIPLE, cells_first=False)
    put(folder, other, text)
    with pytest.raises(InputError, match=f"{other.split('.')[0]}.* differ, and which of them is meant"):
        find_triple(folder)


def test_of_two_files_of_one_name_the_one_that_fits_or_says_the_same_is_read(tmp_path: Path, read_dense: Any) -> None:
    folder = write(tmp_path / "in", *TRIPLE, cells_first=False)
    put(folder, "genes.tsv", table("genes.tsv", [f"{gene}\tsymbol of {gene}" for gene in GENES], "", "{}"))
    assert find_triple(folder).features.name == "features.tsv"
    put(folder, "features.tsv", table("features.tsv", GENES[:2], "", "{}"))
    assert find_triple(folder).features.name == "genes.tsv"
    with open_reader(folder) as reader:
        np.testing.assert_array_equal(read_dense(reader, "matrix"), COUNTS)


def test_lines_that_end_in_carriage_returns_alone_are_read_in_tables_and_refused_in_a_matrix(
    tmp_path: Path, read_dense: Any
) -> None:
    folder = write(tmp_path / "in", *TRIPLE, cells_first=False)
    for name in TRIPLE[1:]:
        (folder / name).write_bytes((folder / name).read_bytes().replace(b"\n", b"\r"))
    with open_reader(folder) as reader:
        np.testing.assert_array_equal(read_dense(reader, "matrix"), COUNTS)
    (folder / "matrix.mtx").write_bytes((folder / "matrix.mtx").read_bytes().replace(b"\n", b"\r"))
    with pytest.raises(InputError, match="its lines end in carriage returns alone; write it with ends of today's"):
        open_reader(folder).__enter__()


def test_of_a_plain_and_a_gzip_copy_the_plain_one_is_read(tmp_path: Path) -> None:
    for end in ("", ".gz"):
        write(tmp_path, *(f"{name}{end}" for name in SETS["sample after"]), cells_first=False)
    assert find_triple(tmp_path).matrix.name == "matrix_s1.mtx"
    assert find_triple(tmp_path).barcodes.name == "barcodes_s1.tsv"
