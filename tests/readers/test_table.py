"""Tables of counts as text: whatever writes them, the same counts come out, or a line that says why."""

from __future__ import annotations

import codecs
import gzip
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from scvae_data.errors import InputError
from scvae_data.readers.opening import Opening
from scvae_data.readers.recognise import open_reader
from scvae_data.readers.table_sides import rows_of
from scvae_data.system.hdf5_guard import Limits

N_OBS, N_VARS = 7, 11
IDS = [f"ENSG{j:011d}" for j in range(N_VARS)]
SYMBOLS = [f"SYM{j}" for j in range(N_VARS)]
CELLS = [f"AAACCTGAGAAACC{'ACGT'[i // 4]}{'ACGT'[i % 4]}-1" for i in range(N_OBS)]
Counts = NDArray[np.int64]


def frame(counts: Counts) -> pd.DataFrame:
    return pd.DataFrame(counts, index=CELLS, columns=IDS)


def lines_of_r(table: pd.DataFrame, mark: str) -> str:
    """What write.table of R writes: names in quotes, and none above those of the rows."""
    return table.rename(columns='"{}"'.format, index='"{}"'.format).to_csv(sep=mark, quoting=3).removeprefix(mark)


def beside(counts: Counts, columns: dict[str, Sequence[Any]], **how: Any) -> str:
    """A table of genes with further columns between their names and the counts."""
    table = frame(counts).T.reset_index(names=next(iter(columns)))
    for place, (name, values) in enumerate(list(columns.items())[1:], start=1):
        table.insert(place, name, values)
    return table.to_csv(**({"index": False} | how))


PLACES = {
    "Geneid": IDS, "Chr": ["chr1;chr1"] * N_VARS, "Start": ["1;5"] * N_VARS, "End": ["3;9"] * N_VARS,
    "Strand": ["+;+"] * N_VARS, "Length": range(N_VARS),
}  # fmt: skip

WRITERS: dict[str, Callable[[Counts], str]] = {
    "scanpy, cells": lambda x: frame(x).to_csv(),
    "scanpy, genes": lambda x: frame(x).T.to_csv(),
    "floats": lambda x: frame(x).astype(float).to_csv(),
    "powers": lambda x: frame(x).to_csv().replace(",11,", ",1.1e+01,"),
    "semicolons": lambda x: frame(x).T.to_csv(sep=";"),
    "separator told to Excel": lambda x: "sep=;\n" + frame(x).T.to_csv(sep=";"),
    "write.table, tabs": lambda x: lines_of_r(frame(x).T, "\t"),
    "write.table, blanks": lambda x: lines_of_r(frame(x).T, " "),
    "write.table, cells": lambda x: lines_of_r(frame(x), " "),
    "write.csv": lambda x: frame(x).T.to_csv(quoting=2),
    "all quoted": lambda x: frame(x).to_csv(quoting=1),
    "Drop-seq's DGE": lambda x: frame(x).T.to_csv(sep="\t", index_label="GENE"),
    "DGE with its header": lambda x: "#DGE VERSION:1.1\tNUM:3\n#INPUT x\n" + WRITERS["Drop-seq's DGE"](x),
    "header with #": lambda x: "#" + frame(x).T.to_csv(sep="\t", index_label="gene_id"),
    "column of names": lambda x: frame(x).T.reset_index(names="gene").to_csv(index=False),
    "numbers before names": lambda x: frame(x).T.reset_index(names="gene").to_csv(),
    "lines of Windows": lambda x: frame(x).T.to_csv(lineterminator="\r\n"),
    "no last line end": lambda x: frame(x).T.to_csv().rstrip("\n"),
    "empty lines": lambda x: "\n" + frame(x).T.to_csv() + "\n\n",
    "a mark of byte order": lambda x: codecs.BOM_UTF8.decode() + frame(x).T.to_csv(),
    "cells of numbers": lambda x: frame(x).set_axis(range(1, N_OBS + 1)).T.to_csv(),
    "featureCounts": lambda x: "# Program:featureCounts v2.0.3\n" + beside(x, PLACES, sep="\t"),
}


def read(path: Path, read_dense: Any, **how: Any) -> tuple[NDArray[Any], Any]:
    with open_reader(path, Opening(**how)) as reader:
        assert (reader.format, reader.slots) == ("table", ("matrix",))
        assert reader.storage("matrix") == {"layout": "dense", "dtype": "float64", "nnz": None}
        found = [read_dense(reader, "matrix", size) for size in (1, 10, 10**6)]
        for dense in found:
            np.testing.assert_array_equal(dense, found[0])
        return found[0], reader


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("writer", WRITERS)
def test_the_same_counts_whatever_wrote_them(
    tmp_path: Path, counts: Counts, read_dense: Any, writer: str, packed: bool
) -> None:
    data = WRITERS[writer](counts).encode()
    path = tmp_path / "counts.txt"
    path.write_bytes(gzip.compress(data) if packed else data)
    dense, reader = read(path, read_dense)
    np.testing.assert_array_equal(dense, counts)
    assert reader.genes("matrix").ids.tolist() == IDS
    cells = [str(i + 1) for i in range(N_OBS)] if writer == "cells of numbers" else CELLS
    assert reader.barcodes().tolist() == cells
    assert reader.obs().shape == (N_OBS, 0)
    left = ("no counts, left out: Chr, Start, End, Strand, Length",) if writer == "featureCounts" else ()
    assert reader.notes == left


@pytest.mark.parametrize("mark", ["\t", ","])
def test_ids_and_symbols_beside_the_counts(tmp_path: Path, counts: Counts, read_dense: Any, mark: str) -> None:
    columns = {
        "gene_id": IDS, "gene_name": SYMBOLS, "gene_biotype": ["protein_coding", *["lncRNA"] * 10],
        "description": ["kinase, alpha"] * N_VARS, "Length": range(N_VARS),
    }  # fmt: skip
    (tmp_path / "counts.tsv").write_text(beside(counts, columns, sep=mark))
    dense, reader = read(tmp_path / "counts.tsv", read_dense)
    np.testing.assert_array_equal(dense, counts)
    assert (reader.genes("matrix").ids.tolist(), reader.genes("matrix").symbols.tolist()) == (IDS, SYMBOLS)
    assert reader.notes == ("no counts, left out: gene_biotype, description, Length",)


def test_antibodies_and_what_counters_write_below_the_genes_are_dropped(
    tmp_path: Path, counts: Counts, read_dense: Any
) -> None:
    names = [*IDS[:8], "__no_feature", "__alignment_not_unique", "CD3_TotalSeqB"]
    (tmp_path / "counts.csv").write_text(frame(counts).set_axis(names, axis=1).T.to_csv())
    dense, reader = read(tmp_path / "counts.csv", read_dense)
    np.testing.assert_array_equal(dense, counts[:, :8])
    assert reader.notes == (
        "dropped 1 feature of type Antibody Capture, by name (CD3_TotalSeqB)",
        "dropped 2 features of type reads of no gene, by name (__no_feature, __alignment_not_unique)",
    )  # fmt: skip


def test_what_stands_beside_the_counts_of_cells_is_obs(tmp_path: Path, counts: Counts, read_dense: Any) -> None:
    table = frame(counts)
    table.insert(0, "cell_type", ["T", "", "T", "B", "007", "1.10", "NA"])
    table["n_counts"] = counts.sum(axis=1)
    table.to_csv(tmp_path / "counts.csv")
    dense, reader = read(tmp_path / "counts.csv", read_dense)
    np.testing.assert_array_equal(dense, counts)
    assert reader.obs_columns == ("cell_type", "n_counts")
    assert reader.obs()["cell_type"].tolist() == ["T", "", "T", "B", "007", "1.10", "NA"]
    assert reader.obs(["n_counts"])["n_counts"].tolist() == [str(n) for n in counts.sum(axis=1)]
    with pytest.raises(InputError, match="no column 'age'"):
        reader.obs(["age"])


# --- which side is which ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "columns", "texts", "told"),
    [
        (["ENSG00000000001", "x"], ["A1", "A2"], [""], "genes"),
        (["A1", "A2"], ["Xkr4", "mt-Nd1"], [""], "cells"),
        (["Xkr4", "Rps27l"], ["A1", "A2"], [""], "genes"),
        (["A1", "A2"], ["FBgn0000001", "FBgn0000002"], [""], "cells"),
        (["x", "y"], ["c", "d"], ["gene_id"], None),
        ([*map(str, range(50))], ["c", "d"], ["gene_id"], "genes"),
        (["c", "d"], [*map(str, range(50))], ["CellID"], "cells"),
        (["AAACCTGAGAAACCAT-1"], ["nReads"], [""], None),
        (["AAACCTGAGAAACCAT-1"], [*map(str, range(50))], [""], "cells"),
        (["x", "y"], ["c", "d"], ["", "Chr", "Strand"], "genes"),
        (["RPL13", "x"], ["RPL14", "y"], [""], None),
        (["ENSG00000000001"], ["y"], ["cell"], None),
        (["x"], ["y"], [], None),
    ],
)
def test_names_tell_what_the_rows_are(names: list[str], columns: list[str], texts: list[str], told: str | None) -> None:
    assert rows_of(names, columns, texts) == told


@pytest.mark.parametrize("rows", ["genes", "cells"])
def test_a_table_that_tells_nothing_is_refused_until_it_is_said(
    tmp_path: Path, counts: Counts, read_dense: Any, rows: Any
) -> None:
    table = frame(counts).set_axis([f"well{i}" for i in range(N_OBS)]).set_axis(SYMBOLS, axis=1)
    (table.T if rows == "genes" else table).to_csv(tmp_path / "counts.csv")
    with pytest.raises(InputError, match=r"are genes cannot be told; say with input.table_rows=genes") as caught:
        open_reader(tmp_path / "counts.csv").__enter__()
    assert caught.value.reason == "ambiguous"
    dense, reader = read(tmp_path / "counts.csv", read_dense, table_rows=rows)
    np.testing.assert_array_equal(dense, counts)
    assert reader.genes("matrix").symbols.tolist() == SYMBOLS


# --- what is refused --------------------------------------------------------------------------------------------------

TEXT = "gene,c1,c2\nENSG00000000001,1,2\nENSG00000000002,3,4\n"


@pytest.mark.parametrize(
    ("text", "reason", "message"),
    [
        (TEXT.replace("4", "NA"), "not_counts", r"line 3, column 3 \(c2\) holds 'NA', which is no count; write 0"),
        (TEXT.replace("3", ""), "not_counts", r"line 3, column 2 \(c1\) is empty, which is no count"),
        ("# counts\n" + TEXT.replace("3", "3;"), "not_counts", r"line 4, column 2 \(c1\) holds '3;'"),
        (TEXT + "ENSG00000000003,1,2,3\n", "not_single_cell", "lines have not the same number of columns"),
        (TEXT + "ENSG00000000003,1,2\n" * 60 + "x,1\n", "unreadable", "line 64 has 2 columns, the others 3"),
        (TEXT.replace("c1,c2", "c1"), "unreadable", "a name less than there are columns, and 'gene' stands"),
        ("1,0,0\nENSG00000000001,1,2\n", "not_single_cell", "without a header: its first line has 1 number twice"),
        ("RPL3\t1\nRPL4\t2\nRPL5\t0\n", "not_single_cell", "without a header: its first line is RPL3, 1; write"),
        ("N_unmapped,1,2\nRPL4,2,3\n", "not_single_cell", "without a header: its first line is N_unmapped, 1, 2;"),
        ("RPL3,RPL4,RPL5\n1,2,3\n1,0,0\n", "not_single_cell", "first column .'RPL3': 1, 1 …. holds counts, not names"),
        ("gene,kind\nA,b\nC,d\n", "not_single_cell", "a table without a column of counts"),
        ("one line, and\n", "not_single_cell", "no table: lines have not the same number of columns"),
        ("AAAC-1\nAAAG-1\n", "not_single_cell", "a text file that is no table"),
        ("cell,a,a,RPL3\nx,p,q,1\n", "unreadable", "two columns are called 'a'; rename one of them"),
        ("gene;c1;c2\nA;1,5;2,0\nB;3,0;4,0\n", "not_single_cell", "c1 holds '1,5'; write numbers without commas"),
        ("gene\tcell\tcount\nA\tc1\t1\nA\tc2\t2\n", "not_single_cell", r"in long form, .*columns gene, cell, count"),
        ("barcode,gene_id,n\nc1,A,1\nc1,B,2\n", "not_single_cell", r"in long form, .*columns barcode, gene_id, n"),
        ("who,what,n\n" + "A,c1,1\nA,c2,1\nA,c3,2\n", "not_single_cell", r"in long form, .*columns who, what, n"),
    ],
)  # fmt: skip
def test_what_is_no_table_of_counts_is_named(tmp_path: Path, text: str, reason: str, message: str) -> None:
    path = tmp_path / "counts.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught, open_reader(path) as reader:
        list(reader.blocks("matrix"))
    assert caught.value.reason == reason
    assert "\n" not in str(caught.value)


def test_a_small_table_is_not_of_long_form(tmp_path: Path, read_dense: Any) -> None:
    (tmp_path / "cells.csv").write_text("cell,gene1,gene2\nc1,1,2\nc2,3,4\n")
    dense, _ = read(tmp_path / "cells.csv", read_dense, table_rows="cells")
    assert dense.tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize("head", [TEXT.split("\n")[0], TEXT.split("\n")[0] + ","])
def test_a_separator_at_the_end_of_lines_is_no_column(tmp_path: Path, read_dense: Any, head: str) -> None:
    lines = [head, *(f"{line}," for line in TEXT.split("\n")[1:3])]
    (tmp_path / "counts.csv").write_text("\n".join(lines) + "\n")
    dense, reader = read(tmp_path / "counts.csv", read_dense)
    assert dense.tolist() == [[1, 3], [2, 4]]
    assert (reader.barcodes().tolist(), reader.notes) == (["c1", "c2"], ())


def test_sums_and_descriptions_are_no_genes(tmp_path: Path, read_dense: Any) -> None:
    (tmp_path / "genes.csv").write_text(",c1,c2\nRPL3,1,2\ncluster,7,8\nRPL4,3,4\nTotal,4,6\n")
    (tmp_path / "cells.csv").write_text("cell,RPL3,cell_type_id,RPL4,Total\nc1,1,7,3,4\nc2,2,8,4,6\n")
    for name in ("genes", "cells"):
        dense, reader = read(tmp_path / f"{name}.csv", read_dense)
        assert dense.tolist() == [[1, 3], [2, 4]]
    assert reader.obs_columns == ("cell_type_id", "Total")


@pytest.mark.parametrize(
    "name",
    ["EntrezGeneID", "entrez_gene_id", "NCBI Gene ID", "txLen", "gene.length", "mean_expr", "Average counts", "CHR"],
)
def test_numbers_that_describe_genes_are_no_cell(tmp_path: Path, read_dense: Any, name: str) -> None:
    (tmp_path / "genes.csv").write_text(f",{name},c1,c2\nRPL3,6122,1,2\nRPL4,6124,3,4\n")
    dense, reader = read(tmp_path / "genes.csv", read_dense)
    assert dense.tolist() == [[1, 3], [2, 4]]
    assert (reader.barcodes().tolist(), reader.notes) == (["c1", "c2"], (f"no counts, left out: {name}",))


def test_a_column_beside_those_of_barcodes_is_no_cell(tmp_path: Path, read_dense: Any) -> None:
    cells = [f"AAACCTGAGA{base * 4}-1" for base in "ACGTN"]
    lines = [f"{gene},{at},1,2,3,4,5" for at, gene in enumerate(("RPL3", "RPL4"))]
    (tmp_path / "genes.csv").write_text("\n".join([f"gene,rank,{','.join(cells)}", *lines]) + "\n")
    dense, reader = read(tmp_path / "genes.csv", read_dense)
    assert dense.tolist() == [[count, count] for count in range(1, 6)]
    assert (reader.barcodes().tolist(), reader.notes) == (cells, ("no counts, left out: rank",))
    # Of samples with names none is told to be something else.
    (tmp_path / "genes.csv").write_text("gene,rank,s1,s2\nRPL3,1,2,3\nRPL4,4,5,6\n")
    assert read(tmp_path / "genes.csv", read_dense)[1].barcodes().tolist() == ["rank", "s1", "s2"]


def test_negative_and_fractional_values_are_left_to_the_check_of_counts(tmp_path: Path, read_dense: Any) -> None:
    (tmp_path / "counts.csv").write_text(TEXT.replace("1,2", "-1,0.5"))
    dense, _ = read(tmp_path / "counts.csv", read_dense)
    assert dense.tolist() == [[-1, 3], [0.5, 4]]


def test_utf16_and_lines_without_end_are_refused(tmp_path: Path) -> None:
    (tmp_path / "counts.csv").write_text(TEXT, encoding="utf-16")
    with pytest.raises(InputError, match="a table in UTF-16; save it as UTF-8"):
        open_reader(tmp_path / "counts.csv")
    (tmp_path / "counts.csv").write_text("a," * 1000)
    with pytest.raises(InputError, match=r"a line is longer than input.max_table_bytes=100") as caught:
        open_reader(tmp_path / "counts.csv", Opening(Limits(max_table_bytes=100)))
    assert caught.value.reason == "unsafe"


# --- real files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dropseq", "celseq2", "celseq2_5cl_p1", "celseq2_5cl_p2", "celseq2_5cl_p3"])
def test_real_tables_of_genes_equal_what_pandas_reads(shared_data: Path, read_dense: Any, name: str) -> None:
    path = shared_data / "csv" / "sc_mixology" / f"sc_{name}.count.csv.gz"
    expected = pd.read_csv(path, index_col=0)
    with open_reader(path) as reader:
        np.testing.assert_array_equal(read_dense(reader, "matrix", 10**6), expected.to_numpy().T)
        assert reader.barcodes().tolist() == expected.columns.tolist()
        assert reader.genes("matrix").ids.tolist() == expected.index.tolist()


@pytest.mark.parametrize("name", ["test_small.csv", "test_small.tsv", "test_small_duplicate_gene_names.csv"])
def test_real_tables_of_cells_equal_what_pandas_reads(shared_data: Path, read_dense: Any, name: str) -> None:
    path = shared_data / "odd" / "scprep_test_data" / name
    expected = pd.read_csv(path, index_col=0, sep=None, engine="python")
    with open_reader(path) as reader:
        np.testing.assert_array_equal(read_dense(reader, "matrix", 10**6), expected.to_numpy())
        assert reader.barcodes().tolist() == expected.index.tolist()


def test_a_real_table_of_metadata_is_no_table_of_counts(shared_data: Path) -> None:
    path = shared_data / "csv" / "sc_mixology" / "sc_dropseq.metadata.csv.gz"
    with pytest.raises(InputError, match="leave it out if it holds no counts"):
        open_reader(path).__enter__()
