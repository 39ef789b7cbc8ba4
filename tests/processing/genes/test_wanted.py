"""Exactly the genes of a list: found by id or symbol, in the list's order, zeros where no file has them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tests.support.pipeline import position_counts

from scvae_data.errors import ConfigError
from scvae_data.processing.genes.universe import Universe
from scvae_data.processing.genes.wanted import read_mapping, read_wanted, resolve
from scvae_data.processing.settings.genes import ListRules
from scvae_data.processing.sort.kernels import sort_rows
from scvae_data.store import Chunking, GeneList, open_index, read_gene_list, write_gene_list

TP53, ACTB, GAPDH = "ENSG00000141510", "ENSG00000075624", "ENSG00000111640"
Process = Callable[..., Any]


def universe(keys: list[str], symbols: list[str] | None = None) -> Universe:
    ids = [key if key.startswith("ENSG") else "" for key in keys]
    return Universe(*(np.array(column, object) for column in (keys, symbols or keys, ids)), maps={})


def listed(path: Path, text: str) -> ListRules:
    path.write_text(text)
    return ListRules(path=str(path))


# --- reading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "names"),
    [
        ("a.txt", f"# a comment\n{TP53}\n\n ACTB \n", [TP53, "ACTB"]),
        ("a.txt", f"\ufeff{TP53}\r\nACTB\r\n", [TP53, "ACTB"]),
        ("a.csv", f"id,symbol\n{TP53},TP53\n,ACTB\n", [TP53, "ACTB"]),
        ("a.tsv", f"gene_name\tscore\tgene_id\nTP53\t1\t{TP53}\n", [TP53]),
        ("a.csv", "symbol\nNA\nACTB\n", ["NA", "ACTB"]),
        ("a.json", f'["{TP53}", "ACTB"]', [TP53, "ACTB"]),
    ],
)
def test_lists_in_many_forms(name: str, text: str, names: list[str], tmp_path: Path) -> None:
    wanted = read_wanted(listed(tmp_path / name, text))
    assert wanted.names == names
    assert not wanted.verbatim


def test_a_table_with_both_is_a_mapping_too(tmp_path: Path) -> None:
    wanted = read_wanted(listed(tmp_path / "a.csv", f"id,symbol\n{TP53}.4,TP53\n{ACTB},X\n{GAPDH},X\n"))
    assert wanted.pairs == {"TP53": TP53}


def test_a_name_that_comes_again_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert read_wanted(listed(tmp_path / "a.txt", "b\na\nb\n")).names == ["b", "a"]
    assert "names 1 gene more than once" in caplog.text


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "# nothing\n", "names no gene"),
        ("a.csv", "gene,weight\n", "names no gene"),
        ("a.csv", "a,b\n1,2\n", "needs a column 'id' or 'symbol', has a, b"),
        ("a.json", "{", "is not valid JSON"),
        ("a.json", "[1]", "neither a JSON list of names nor a gene_list.json"),
        ("a.json", '{"format": "scvae-data gene list"}', "is not a whole gene_list.json"),
    ],
)
def test_what_is_no_list(name: str, text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        read_wanted(listed(tmp_path / name, text))


def test_the_path_must_be_given_and_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"genes=list needs genes\.path"):
        read_wanted(ListRules())
    with pytest.raises(ConfigError, match=r"gene_list\.json does not exist"):
        read_wanted(ListRules(path=str(tmp_path)))


# --- finding ----------------------------------------------------------------------------------------------------------


def test_genes_are_found_by_id_without_version_or_by_symbol(tmp_path: Path) -> None:
    wanted = read_wanted(listed(tmp_path / "a.txt", f"GAPDH\nABSENT\n{TP53}.12\nOTHER\nENSG00000000001.3\n"))
    columns = resolve(wanted, universe([ACTB, GAPDH, TP53, "OTHER"], ["ACTB", "GAPDH", "TP53", "OTHER"]))
    assert columns.positions.tolist() == [1, -1, 2, 3, -1]
    assert columns.names.tolist() == [GAPDH, "ABSENT", TP53, "OTHER", "ENSG00000000001"]
    assert columns.symbols.tolist() == ["GAPDH", "ABSENT", "TP53", "OTHER", "ENSG00000000001.3"]
    assert columns.ids.tolist() == [GAPDH, "", TP53, "", "ENSG00000000001"]
    assert columns.missing.tolist() == ["ABSENT", "ENSG00000000001"]
    assert columns.gene_map(4).tolist() == [-1, 0, 2, 3]
    assert columns.measured(np.array([1, 3], np.int32)).tolist() == [True, False, False, True, False]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("X\n", f"X stands for several genes \\({ACTB}, {TP53}\\); give the id"),
        (f"GAPDH\n{GAPDH}\n", f"GAPDH and {GAPDH} are the same gene {GAPDH}"),
        ("ENSG00000000001.1\nENSG00000000001.2\n", "are the same gene ENSG00000000001"),
        ("nothing\n", "none of the 1 genes .* is in the inputs, e.g. nothing against"),
    ],
)
def test_lists_that_cannot_be_resolved(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve(read_wanted(listed(tmp_path / "a.txt", text)), universe([ACTB, TP53, GAPDH], ["X", "X", "GAPDH"]))


def test_of_a_directory_the_column_that_is_called_so_has_the_gene(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A list of symbols that later inputs tell more of: it cannot be changed any more."""
    write_gene_list(tmp_path, GeneList.of(["OLD", "GAPDH", "X", "ACTB"]))
    genes = replace(universe([ACTB, TP53, GAPDH], ["X", "X", "GAPDH"]), retired={"OLD": GAPDH})
    columns = resolve(read_wanted(ListRules(path=str(tmp_path))), genes)
    assert columns.names.tolist() == ["OLD", "GAPDH", "X", "ACTB"]
    assert columns.positions.tolist() == [-1, 2, -1, -1]
    assert "what 2 columns are called stands for several genes" in caplog.text
    assert "not measured in them: OLD, X" in caplog.text


def test_of_a_directory_a_symbol_does_not_take_a_gene_from_its_id_nor_from_its_like(tmp_path: Path) -> None:
    """Two rows of one symbol are columns of their own: which of them a gene with an id is, nobody knows."""
    write_gene_list(tmp_path, GeneList.of(["TP53", "TP53-1", TP53], [None, None, TP53], ["TP53"] * 3))
    assert resolve(read_wanted(ListRules(path=str(tmp_path))), universe([TP53], ["TP53"])).positions.tolist() == [
        -1, -1, 0,
    ]  # fmt: skip
    write_gene_list(tmp_path, GeneList.of(["TP53", "TP53-1", "ACTB"], None, ["TP53", "TP53", "ACTB"]))
    columns = resolve(read_wanted(ListRules(path=str(tmp_path))), universe([TP53, ACTB], ["TP53", "ACTB"]))
    assert columns.positions.tolist() == [-1, -1, 1]
    columns = resolve(read_wanted(ListRules(path=str(tmp_path))), universe(["TP53"]))
    assert columns.positions.tolist() == [0, -1, -1]


# --- whole runs -------------------------------------------------------------------------------------------------------


def test_columns_follow_the_list(
    write_raw: Callable[..., Path], process: Process, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    genes = ["a", "b", "c", "d", "e"]
    paths = [
        write_raw("SRX1.h5ad", position_counts(5, 5), genes),
        write_raw("SRX2.h5ad", position_counts(5, 4, 5), genes[1:]),
    ]
    process(paths, genes=listed(tmp_path / "a.txt", "e\nnone\na\nc\n"), target=tmp_path / "out")
    assert "1 of the 4 genes of" in caplog.text
    index = open_index(tmp_path / "out")
    assert index.genes.names.tolist() == ["e", "none", "a", "c"]
    assert index.gene_sets.masks([0, 1]).tolist() == [[True, False, False, True], [True, False, True, True]]
    for path in sorted((tmp_path / "out").glob("chunk_*.h5")):
        chunk = ad.read_h5ad(path)
        assert chunk.X.has_canonical_format
        for position, cell in enumerate(chunk.obs.itertuples()):
            first = cell.source_file == "SRX1.h5ad"
            source = position_counts(5, 5) if first else np.hstack([np.zeros((5, 1), int), position_counts(5, 4, 5)])
            row = source[cell.source_row]
            assert chunk.X[position].toarray()[0].tolist() == [row[4], 0, row[0], row[2]]
            assert cell.size_factor == row[[4, 0, 2]].sum() / 1e4
    account = json.loads((tmp_path / "out" / "chunk_summary.json").read_text())["gene_choice"]
    assert account == {"listed": 4, "missing": ["none"]}


def test_another_directory_gives_its_genes_unchanged(
    write_raw: Callable[..., Path], process: Process, tmp_path: Path
) -> None:
    first = write_raw("SRX1.h5ad", position_counts(4, 3), [f"{TP53}.1", ACTB, "NEW"])
    process([first], target=tmp_path / "first")
    other = write_raw("SRX2.h5ad", position_counts(4, 2), ["NEW", f"{TP53}.7"])
    process([other], genes=ListRules(path=str(tmp_path / "first")), target=tmp_path / "second")
    copied = tmp_path / "genes of my model.json"
    copied.write_bytes((tmp_path / "first" / "gene_list.json").read_bytes())
    process([other], genes=ListRules(path=str(copied)), target=tmp_path / "third")
    lists = [read_gene_list(tmp_path / name) for name in ("first", "second", "third")]
    assert len({genes.hash for genes in lists}) == 1
    assert lists[0].names.tolist() == [ACTB, TP53, "NEW"]
    assert open_index(tmp_path / "second").gene_sets.masks([0]).tolist() == [[False, True, True]]
    for name in ("chunk_0000.h5", "gene_list.json", "chunk_index.json"):
        assert (tmp_path / "second" / name).read_bytes() == (tmp_path / "third" / name).read_bytes(), name


def test_a_list_of_ids_and_symbols_maps_files_of_symbols(
    write_raw: Callable[..., Path], process: Process, tmp_path: Path
) -> None:
    path = write_raw("SRX1.h5ad", position_counts(4, 2), ["TP53", "ACTB"])
    process([path], genes=listed(tmp_path / "a.csv", f"id,symbol\n{ACTB},ACTB\n{TP53},TP53\n"), chunking=Chunking())
    chunk = ad.read_h5ad(tmp_path / "out" / "chunk_0000.h5")
    assert chunk.var_names.tolist() == [ACTB, TP53]
    rows = position_counts(4, 2)[chunk.obs["source_row"].to_numpy()]
    assert chunk.X.toarray().tolist() == rows[:, ::-1].tolist()


def test_a_directory_can_be_overwritten_with_its_own_genes(
    write_raw: Callable[..., Path], process: Process, tmp_path: Path
) -> None:
    paths = [write_raw(f"SRX{n}.h5ad", position_counts(4, 2), ["a", "bc"[n - 1]]) for n in (1, 2)]
    process(paths[:1])
    before = read_gene_list(tmp_path / "out").hash
    with pytest.raises(ConfigError, match=r"absent\.txt does not exist"):
        process(paths[1:], genes=ListRules(path=str(tmp_path / "absent.txt")), overwrite=True)
    assert open_index(tmp_path / "out").genes.hash == before  # a mistake costs no data
    process(paths[1:], genes=ListRules(path=str(tmp_path / "out")), overwrite=True)
    assert read_gene_list(tmp_path / "out").hash == before
    assert open_index(tmp_path / "out").gene_sets.masks([0]).tolist() == [[True, False]]


def test_of_a_directory_a_gene_that_nothing_knows_may_be_spelled_otherwise(tmp_path: Path) -> None:
    names = ["my_gene", "tdTomato", "abc"]
    write_gene_list(tmp_path, GeneList.of(names))
    wanted = read_wanted(ListRules(path=str(tmp_path)))
    found = resolve(wanted, universe([TP53, "ABC", "Abc", "MY.GENE", "TdTomato"]))
    # Two genes of the inputs are spelled as the third may be: it is none of them for certain.
    assert found.positions.tolist() == [3, 4, -1]
    assert found.names.tolist() == names


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("mark", [",", ";", "\t"], ids=["comma", "semicolon", "tab"])
def test_a_mapping_that_a_spreadsheet_wrote(tmp_path: Path, encoding: str, mark: str) -> None:
    rows = [["id", "symbol"], ["ENSG00000141510.16", "TP53"], ["ENSG00000075624", " ACTB "], ["", "NA"], ["g1", "NA"],
            ["ENSG00000284770", "TBCE"], ["ENSG00000285053.1", "TBCE"], ["ENSG00000284770", "TBCE"]]  # fmt: skip
    path = tmp_path / "map.csv"
    path.write_bytes("\r\n".join(mark.join(row) for row in rows).encode(encoding))
    assert read_mapping(str(path)) == {
        "TP53": ("ENSG00000141510",),
        "ACTB": ("ENSG00000075624",),
        "NA": ("g1",),
        "TBCE": ("ENSG00000284770", "ENSG00000285053"),
    }


# --- kernel -----------------------------------------------------------------------------------------------------------


@given(st.data())
@settings(max_examples=30, deadline=None)
def test_sort_rows_equals_numpy(data: st.DataObject) -> None:
    n_columns = data.draw(st.integers(1, 150))
    lengths = data.draw(st.lists(st.integers(0, n_columns), max_size=5))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    columns = [rng.permutation(n_columns)[:length] for length in lengths]
    indices = np.concatenate([*columns, []]).astype(np.uint16)
    counts = data.draw(hnp.arrays(np.uint32, indices.size, elements=st.integers(1, 2**32 - 1)))
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    expected = [
        dict(sorted(zip(indices[a:b].tolist(), counts[a:b].tolist(), strict=True)))
        for a, b in itertools.pairwise(starts)
    ]
    bits = np.zeros(-(-n_columns // 64), np.uint64)
    sort_rows(starts, indices, counts, np.zeros(n_columns, np.uint32), bits)
    assert indices.tolist() == [column for row in expected for column in row]
    assert counts.tolist() == [count for row in expected for count in row.values()]
    assert not bits.any()
