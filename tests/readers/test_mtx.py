from __future__ import annotations

import itertools
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scanpy as sc
from numpy.typing import NDArray
from scipy import sparse
from scipy.io import mmread

from scvae_data.errors import InputError
from scvae_data.readers import mtx_text as text_module
from scvae_data.readers.recognise import open_reader


@pytest.mark.parametrize(
    ("cells", "order", "gz"),
    list(itertools.product(["columns", "rows"], ["cells", "genes", "shuffled"], [False, True])),
)
def test_every_orientation_and_order_gives_the_same_rows(
    write_mtx: Callable[..., Path],
    mtx_text: Callable[..., str],
    counts: NDArray[np.int64],
    read_dense: Any,
    cells: str,
    order: str,
    gz: bool,
) -> None:
    with open_reader(write_mtx(mtx_text(cells=cells, order=order), gz=gz)) as reader:
        assert (reader.format, reader.slots, reader.n_obs) == ("10x_mtx", ("matrix",), 7)
        assert reader.storage("matrix") == {"layout": "coo", "dtype": "int64", "nnz": np.count_nonzero(counts)}
        for max_elements in (1, 7, 1000):
            np.testing.assert_array_equal(read_dense(reader, "matrix", max_elements), counts)


@pytest.mark.parametrize("text_bytes", [16, 37, 64])
@pytest.mark.parametrize("order", ["cells", "genes"])
def test_entries_cut_by_the_text_block_are_whole(
    write_mtx: Callable[..., Path],
    mtx_text: Callable[..., str],
    counts: NDArray[np.int64],
    read_dense: Any,
    monkeypatch: pytest.MonkeyPatch,
    text_bytes: int,
    order: str,
) -> None:
    monkeypatch.setattr(text_module, "TEXT_BYTES", text_bytes)
    with open_reader(write_mtx(mtx_text(order=order))) as reader:
        np.testing.assert_array_equal(read_dense(reader, "matrix"), counts)


@pytest.mark.parametrize(
    "value",
    ["0.1", "3.25e2", "-4", "1e-7", "123456789.125", "+5", "7.", ".5", "NaN", "inf", "-Inf", "12345678901234567890"],
)
def test_numbers_are_read_as_python_reads_them(write_mtx: Callable[..., Path], value: str) -> None:
    text = f"%%MatrixMarket matrix coordinate real general\n1 2 1\n1 2 {value}\n"
    with open_reader(write_mtx(text, "a\nb\n", "g\n")) as reader:
        (block,) = reader.blocks("matrix")
    assert block.data.dtype == np.float64
    np.testing.assert_array_equal(block.data, [float(value)])


def test_a_fraction_in_an_integer_file_is_kept_for_the_check(write_mtx: Callable[..., Path]) -> None:
    text = "%%MatrixMarket matrix coordinate integer general\n2 1 2\n1 1 3\n2 1 0.5\n"
    with open_reader(write_mtx(text, "a\n", "g\nh\n")) as reader:
        (block,) = reader.blocks("matrix")
    assert block.data.tolist() == [3.0, 0.5]


def test_pattern_line_ends_and_a_missing_last_one(write_mtx: Callable[..., Path], read_dense: Any) -> None:
    text = "%%MatrixMarket matrix coordinate pattern general\r\n2 2 2\r\n1 1\r\n\r\n2\t2"
    with open_reader(write_mtx(text, "a\r\nb\r\n", "g\r\nh\r\n")) as reader:
        np.testing.assert_array_equal(read_dense(reader, "matrix"), [[1, 0], [0, 1]])
        assert reader.barcodes().tolist() == ["a", "b"]


@pytest.mark.parametrize(
    ("features", "ids", "symbols"),
    [
        pytest.param("ENSG00000000001\tA\tGene Expression\nENSG00000000002\tB\tGene Expression\n", 1, "AB", id="v3"),
        pytest.param("ENSG00000000001\tA\nENSG00000000002\tB\n", 1, "AB", id="v2"),
        pytest.param("ENSG00000000001\nENSG00000000002\n", 1, None, id="ids_only"),
        pytest.param("A\nB\n", None, "AB", id="symbols_only"),
        pytest.param("A\tA\nB\tB\n", None, "AB", id="symbols_twice"),
        pytest.param("1\tA\n2\tB\n", None, "AB", id="leading_index_from_1"),
        pytest.param("0\tENSG00000000001\tA\n1\tENSG00000000002\tB\n", 1, "AB", id="leading_index_from_0"),
        pytest.param("A\tENSG00000000001\nB\tENSG00000000002\n", 1, "AB", id="swapped"),
        pytest.param('"x"\n"A"\n"B"\n', None, "AB", id="quoted_with_header"),
    ],
)
def test_feature_tables_of_any_width(
    write_mtx: Callable[..., Path], features: str, ids: int | None, symbols: str | None
) -> None:
    text = "%%MatrixMarket matrix coordinate integer general\n2 3 1\n2 3 5\n"
    with open_reader(write_mtx(text, "a\nb\nc\n", features, features_name="genes.tsv")) as reader:
        genes = reader.genes("matrix")
    assert (genes.ids is None) == (ids is None)
    if genes.ids is not None:
        assert genes.ids.tolist() == ["ENSG00000000001", "ENSG00000000002"]
    assert (None if genes.symbols is None else genes.symbols.tolist()) == (symbols and list(symbols))


@pytest.mark.parametrize(
    ("barcodes", "features", "named"),
    [
        pytest.param("AAACCTGAGA-1\n\nAAACCTGAGC-1\n", "A\nB\n", "barcodes.tsv ('AAACCTGAGA-1')", id="an_empty_line"),
        pytest.param("cell_1\ncell_2\ncell_3\n", "A\nB\n", "barcodes.tsv ('cell_1')", id="a_cell_too_many"),
        pytest.param("0\n1\n2\n", "A\nB\n", "barcodes.tsv ('0')", id="numbers"),
        pytest.param("a\nb\n", "TP53\nA\nB\n", "features.tsv ('TP53')", id="a_gene_too_many"),
        pytest.param("a\nb\n", "ENSG00000000001\tA\n" * 3, "features.tsv ('ENSG00000000001\\tA')", id="an_id_too_many"),
    ],
)
def test_a_first_line_that_is_no_header_is_never_taken_for_one(
    write_mtx: Callable[..., Path], barcodes: str, features: str, named: str
) -> None:
    text = "%%MatrixMarket matrix coordinate integer general\n2 2 1\n2 1 5\n"
    with (
        pytest.raises(InputError, match=re.escape(f"and line 1 of {named} is no header; take the three")),
        open_reader(write_mtx(text, barcodes, features)),
    ):
        pass


@pytest.mark.parametrize(
    ("header", "line"),
    [("barcode", "{}"), ("bc_wells\tsample", "{}\ts"), ('"","x"', '"1","{}"'), ("V1", "{}"), ("0", "{}"),
     ("Cell_ID\tsample", "{}\ts"), ("index", "{}"), ("whatever", "ACGTACGT-{}")],
)  # fmt: skip
def test_headers_of_programs_are_no_cells(write_mtx: Callable[..., Path], header: str, line: str) -> None:
    text = "%%MatrixMarket matrix coordinate integer general\n3 2 1\n2 1 5\n"
    lines = [header, *map(line.format, ("AAAC-1", "AAAG-1")), ""]
    with open_reader(write_mtx(text, "\n".join(lines), "A\nB\nC\n")) as reader:
        assert reader.n_obs == 2


def test_numeric_ids_that_are_no_running_number_stay(write_mtx: Callable[..., Path]) -> None:
    text = "%%MatrixMarket matrix coordinate integer general\n2 1 1\n2 1 5\n"
    with open_reader(write_mtx(text, "a\n", "574405\tA\n574404\tB\n")) as reader:
        assert reader.genes("matrix").names.tolist() == ["574405", "574404"]


def test_other_modalities_are_dropped_and_counted(
    write_mtx: Callable[..., Path], mtx_text: Callable[..., str], counts: NDArray[np.int64], read_dense: Any
) -> None:
    types = ["Antibody Capture" if j in (0, 6) else "Gene Expression" for j in range(11)]
    features = "".join(f"ENSG{j:011d}\tS{j}\t{kind}\n" for j, kind in enumerate(types))
    for order in ("cells", "genes"):
        with open_reader(write_mtx(mtx_text(order=order), features=features)) as reader:
            assert reader.notes == ("dropped 2 features of type Antibody Capture",)
            expected = np.delete(counts, [0, 6], axis=1)
            np.testing.assert_array_equal(read_dense(reader, "matrix"), expected)


def test_a_prefix_is_fine_if_it_is_the_only_one(
    write_mtx: Callable[..., Path], mtx_text: Callable[..., str], counts: NDArray[np.int64], read_dense: Any
) -> None:
    folder = write_mtx(mtx_text(), prefix="GSM123_", gz=True)
    (folder / "._GSM123_matrix.mtx.gz").write_bytes(b"left by macOS")
    with open_reader(folder) as reader:
        np.testing.assert_array_equal(read_dense(reader, "matrix"), counts)
    write_mtx(mtx_text(), prefix="GSM124_", gz=True)
    with pytest.raises(InputError, match="holds 2 matrices") as caught:
        open_reader(folder)
    assert caught.value.reason == "ambiguous"
    with open_reader(folder / "GSM124_matrix.mtx.gz") as reader:
        np.testing.assert_array_equal(read_dense(reader, "matrix"), counts)


@pytest.mark.parametrize(
    ("change", "reason", "message"),
    [
        pytest.param({"barcodes": "a\nb\n"}, "size_mismatch", "11 features and 2 barcodes", id="barcodes"),
        pytest.param({"features": "g\n"}, "size_mismatch", "1 features and 7 barcodes", id="features"),
        pytest.param({"features": "g\th\tPeaks\n" * 11}, "no_counts", r"found Peaks \(11\)", id="no_genes"),
    ],
)
def test_tables_that_do_not_fit(
    write_mtx: Callable[..., Path], mtx_text: Callable[..., str], change: dict[str, str], reason: str, message: str
) -> None:
    path = write_mtx(mtx_text(), **change)
    with pytest.raises(InputError, match=message) as caught, open_reader(path):
        pass
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("body", "reason", "message"),
    [
        pytest.param("2 2 3\n1 1 1\n2 2 2\n", "truncated", "only 2 of 3 entries", id="entries_missing"),
        pytest.param("2 2 1\n1 1 1\n2 2 2\n", "unreadable", "more entries than the 1", id="too_many"),
        pytest.param("2 2 2\n1 1 1\n3 1 1\n", "unreadable", "entry 2 is '3 1 1'", id="row_outside"),
        pytest.param("2 2 1\n1 0 1\n", "unreadable", "entry 1 is '1 0 1'", id="column_zero"),
        pytest.param("2 2 1\n1 1 x\n", "unreadable", "entry 1 is '1 1 x'", id="no_number"),
        pytest.param("2 2 1\n1 1 2 3\n", "unreadable", "entry 1 is '1 1 2 3'", id="four_numbers"),
        pytest.param("2 2 1\n1 1\n", "unreadable", "entry 1 is '1 1'", id="no_value"),
    ],
)
def test_damaged_text_is_reported(write_mtx: Callable[..., Path], body: str, reason: str, message: str) -> None:
    text = "%%MatrixMarket matrix coordinate integer general\n" + body
    reader = open_reader(write_mtx(text, "a\nb\n", "g\nh\n"))
    with reader, pytest.raises(InputError, match=message) as caught:
        list(reader.blocks("matrix"))
    assert caught.value.reason == reason


@pytest.mark.parametrize("kind", ["matrix array real general", "matrix coordinate complex general"])
def test_other_matrix_market_kinds_are_refused(write_mtx: Callable[..., Path], kind: str) -> None:
    path = write_mtx(f"%%MatrixMarket {kind}\n1 1 1\n1 1 1\n", "a\n", "g\n")
    with pytest.raises(InputError, match="integer general") as caught, open_reader(path):
        pass
    assert caught.value.reason == "unreadable"


def test_a_truncated_gzip_is_reported(write_mtx: Callable[..., Path], mtx_text: Callable[..., str]) -> None:
    folder = write_mtx(mtx_text(), gz=True)
    matrix = folder / "matrix.mtx.gz"
    matrix.write_bytes(matrix.read_bytes()[:-20])
    with pytest.raises(InputError, match="cut short") as caught, open_reader(folder) as reader:
        list(reader.blocks("matrix"))
    assert caught.value.reason == "truncated"


@pytest.mark.parametrize(
    "name",
    [
        "mtx/1k_pbmc_v2_chemistry",
        "mtx/cellrangerRkit_test_pipestance_outs/filtered_gene_bc_matrices/hg19",
        "mtx/scanpy_10x_data/1.2.0/filtered_gene_bc_matrices/hg19_chr21",
        "mtx/scanpy_10x_data/3.0.0/filtered_feature_bc_matrix",
        "mtx/soupx_toyData/raw_gene_bc_matrices/GRCh38",
    ],
)
def test_real_folders_equal_what_scanpy_reads(shared_data: Path, name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = sc.read_10x_mtx(shared_data / name, make_unique=False)
    with open_reader(shared_data / name) as reader:
        blocks = list(reader.blocks("matrix", max_elements=50_000))
        read = sparse.vstack(
            [sparse.csr_matrix((b.data, b.indices, b.indptr), shape=(b.n_rows, b.n_vars)) for b in blocks]
        )
        assert (read != expected.X).nnz == 0
        assert reader.barcodes().tolist() == expected.obs_names.tolist()
        assert reader.genes("matrix").names.tolist() == expected.var["gene_ids"].tolist()


@pytest.mark.parametrize(
    ("name", "matrix", "gene", "barcode"),
    [
        pytest.param("yeast_844", "matrix.mtx.gz", "RDN5-1", "AAACAAAGAGGA", id="leading_index_column"),
        pytest.param("scanpy_10x_data/int-ids", "matrix.mtx", "574404", "AAACCCACACAATGAA-1", id="numeric_ids"),
    ],
)
def test_real_folders_equal_what_scipy_reads(
    shared_data: Path, name: str, matrix: str, gene: str, barcode: str
) -> None:
    folder = shared_data / "mtx" / name
    expected = sparse.csr_matrix(mmread(folder / matrix).T)
    with open_reader(folder) as reader:
        blocks = list(reader.blocks("matrix", max_elements=50_000))
        read = sparse.vstack(
            [sparse.csr_matrix((b.data, b.indices, b.indptr), shape=(b.n_rows, b.n_vars)) for b in blocks]
        )
        assert (read != expected).nnz == 0
        assert reader.genes("matrix").names[1] == gene
        assert reader.barcodes()[1] == barcode
