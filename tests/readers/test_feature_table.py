"""Tables of features of any layout: ids, symbols and types by what the columns hold, or refused in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from scvae_data.errors import InputError
from scvae_data.readers.feature_table import make_features
from scvae_data.readers.recognise import open_reader
from scvae_data.readers.table_lines import first_column

IDS = [f"ENSG{number:011d}" for number in range(5)]
SYMBOLS = ["MT-ND1", "TP53", "HLA-A", "RP11-34P13.7", "Y_RNA"]
GENE, ANTIBODY = "Gene Expression", "Antibody Capture"
PLACES = ["chr1\t29553\t30267", "chr2\t1\t2", "", "GL000009.2\t5\t9", "chrX\t7\t8"]
PATH = Path("features.tsv")


def table(pattern: str, **more: list[str]) -> list[str]:
    columns = {"id": IDS, "symbol": SYMBOLS, "place": PLACES, **more}
    return [pattern.format(**{name: column[i] for name, column in columns.items()}) for i in range(5)]


LAYOUTS = {
    "id symbol type": ("{id}\t{symbol}\tGene Expression", True, True, True),
    "id symbol": ("{id}\t{symbol}", True, True, False),
    "id": ("{id}", True, False, False),
    "symbol": ("{symbol}", False, False, False),
    "symbol type": ("{symbol}\tGene Expression", False, False, True),
    "id type": ("{id}\tGene Expression", True, False, True),
    "type id symbol": ("Gene Expression\t{id}\t{symbol}", True, True, True),
    "symbol id": ("{symbol}\t{id}", True, True, False),
    "symbol id type": ("{symbol}\t{id}\tGene Expression", True, True, True),
    "arc": ("{id}\t{symbol}\tGene Expression\t{place}", True, True, True),
    "place first": ("chr1\t5\t9\t{id}\t{symbol}", True, True, False),
    "genome": ("{id}\t{symbol}\tGRCh38", True, True, False),
    "symbol genome": ("{symbol}\thg38", False, False, False),
    "biotype": ("{id}\t{symbol}\tprotein_coding", True, True, True),
    "biotype and type": ("{id}\t{symbol}\tlncRNA\tGene Expression", True, True, True),
    "blanks": ("{id} {symbol}", True, True, False),
    "many blanks": ("{id}   {symbol}  Gene Expression", True, True, True),
    "blanks around": (" {id} \t {symbol}\t Gene Expression ", True, True, True),
    "commas": ("{id},{symbol},Gene Expression", True, True, True),
    "quoted commas": ('"{id}","{symbol}","Gene Expression"', True, True, True),
    "semicolons": ("{id};{symbol}", True, True, False),
    "blank before a comma": ("{id}, {symbol}, Gene Expression", True, True, True),
    "empty columns": ("{id}\t{symbol}\tGene Expression\t\t", True, True, True),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_columns_are_told_by_what_they_hold(name: str) -> None:
    pattern, has_ids, has_symbols, has_types = LAYOUTS[name]
    found = make_features(PATH, table(pattern))
    assert found.ids.tolist() == (IDS if has_ids else SYMBOLS)
    assert (None if found.symbols is None else found.symbols.tolist()) == (SYMBOLS if has_symbols else None)
    assert (found.types is not None) == has_types


@pytest.mark.parametrize(
    ("header", "pattern", "ids", "symbols"),
    [
        ("gene_id,gene_name,genome", "{id},{symbol},my genome", IDS, SYMBOLS),
        ("symbol\tid", "{symbol}\t{n}", ["7157", "4609", "1", "22", "333"], SYMBOLS),
        ("gene", "{symbol}", SYMBOLS, None),
        ('"","gene_name","feature_types"', '"{n}","{symbol}","Gene Expression"', None, None),
    ],
)
def test_a_header_tells_what_values_leave_open(
    header: str, pattern: str, ids: list[str] | None, symbols: list[str] | None
) -> None:
    numbers = ["7157", "4609", "1", "22", "333"] if ids is not None else ["1", "2", "3", "4", "5"]
    found = make_features(PATH, [header, *table(pattern, n=numbers)], 1)
    assert found.ids.tolist() == (ids or SYMBOLS)
    assert (None if found.symbols is None else found.symbols.tolist()) == symbols


@pytest.mark.parametrize(
    ("short", "symbol", "type_"),
    [
        (IDS[1], "", ""),
        (f"{IDS[1]}\tTP53", "TP53", ""),
        (f"{IDS[1]}\t\tGene Expression", "", GENE),
        (f"{IDS[1]}\tGene Expression", "", GENE),
        (f"{IDS[1]}\tTP53\tGene Expression\tchr17", "TP53", GENE),
        ("CD3\tAntibody Capture", "", ANTIBODY),
    ],
)
def test_a_line_of_another_length_takes_nothing_from_the_others(short: str, symbol: str, type_: str) -> None:
    lines = table("{id}\t{symbol}\tGene Expression")
    found = make_features(PATH, [lines[0], short, *lines[2:]])
    assert found.ids.tolist() == [IDS[0], short.split("\t")[0], *IDS[2:]]
    assert found.symbols is not None and found.types is not None
    assert found.symbols.tolist() == [SYMBOLS[0], symbol, *SYMBOLS[2:]]
    assert found.types.tolist() == [GENE, type_, GENE, GENE, GENE]


def test_a_short_line_of_symbols_is_its_own_symbol() -> None:
    lines = [f"{name}\t{name}\tGene Expression" for name in SYMBOLS]
    found = make_features(PATH, [*lines[:4], SYMBOLS[4]])
    assert found.symbols is not None
    assert found.symbols.tolist() == SYMBOLS


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("TP53\tGene Expression", r"line 2 of features.tsv has 2 columns \('TP53', 'Gene Expression'\), the others 3"),
        ("TP53", r"line 2 of features.tsv has 1 column \('TP53'\)"),
        (f"{IDS[1]} TP53", f"line 2 of features.tsv has 1 column \\('{IDS[1]} TP53'\\)"),
        (f"{IDS[1]}\tTP53\tp53\tGene Expression", "line 2 of features.tsv has 4 columns"),
        ("\tTP53\tGene Expression", "line 2 of features.tsv names no feature"),
        ("", "line 2 of features.tsv has 1 column"),
    ],
)
def test_a_line_that_cannot_be_told_is_named(line: str, message: str) -> None:
    lines = table("{id}\t{symbol}\tGene Expression")
    with pytest.raises(InputError, match=message) as caught:
        make_features(PATH, [lines[0], line, *lines[2:]])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("{symbol}\tsample one", "column 2 of features.tsv is 'sample one' in every line"),
        ("Gene Expression\tGene Expression", "no column of names"),
    ],
)
def test_a_column_that_cannot_be_told_is_named(pattern: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_features(PATH, table(pattern))


def test_names_of_cells_keep_blanks_and_commas() -> None:
    assert first_column(Path("barcodes.tsv"), ["s 1,A", "s 1,B"]).tolist() == ["s 1,A", "s 1,B"]
    assert first_column(Path("cells.csv"), ['"A",s', "B,s"]).tolist() == ["A", "B"]
    assert first_column(Path("barcodes.tsv.gz"), ["1\tA", "2\tB"]).tolist() == ["A", "B"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_table_from_a_spreadsheet(
    write_mtx: Callable[..., Path], mtx_text: Callable[..., str], encoding: str, end: str
) -> None:
    lines = [f"ENSG{j:011d}\tSYM{j}\tGene Expression" for j in range(11)]
    folder = write_mtx(mtx_text())
    for name, part in {"features.tsv": lines, "barcodes.tsv": [f"AAAC{i}-1" for i in range(7)]}.items():
        (folder / name).write_bytes((end.join(part) + end).encode(encoding))
    with open_reader(folder) as reader:
        assert reader.genes("matrix").names.tolist() == [f"ENSG{j:011d}" for j in range(11)]
        assert reader.barcodes()[0] == "AAAC0-1"
