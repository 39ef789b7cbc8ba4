"""Names of genes as people's files have them in, ids and symbols out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pytest

from scvae_data.processing.genes.identity import NameReader, row_numbers
from scvae_data.processing.genes.names import CleanTable, clean_column, clean_table
from scvae_data.processing.genes.reference import Reference, SymbolBook, load_reference
from scvae_data.processing.genes.species import told_species
from scvae_data.readers.base import GeneTable

MTND1, TP53 = "ENSG00000198888", "ENSG00000141510"
OTHERS = ["ACTB", "GAPDH", "CD3D", "LYZ", "NKG7"]


def table(symbols: Sequence[str], ids: Sequence[str] | None = None) -> CleanTable:
    names = np.array(symbols, object)
    return clean_table(GeneTable(names, None if ids is None else np.array(ids, object), names))


class Read(NamedTuple):
    ids: list[str]
    symbols: list[str]
    no_gene: dict[int, str]


def identify(genes: CleanTable, reference: Reference, book: SymbolBook | None = None) -> Read:
    found = (reader := NameReader(reference)).identify(genes, book)
    return Read(reader.texts.named(found.ids), reader.texts.named(found.symbols), found.no_gene)


@pytest.mark.parametrize(
    ("names", "first"),
    [
        ([" MT-ND1", " ACTB", " TP53"], ("", "MT-ND1")),
        (["MT-ND1 ", "\u00a0ACTB"], ("", "MT-ND1")),
        (["\ufeffMT-ND1", "ACTB"], ("", "MT-ND1")),
        (["b'MT-ND1'", "b'ACTB'"], ("", "MT-ND1")),
        (['b"MT-ND1"', "ACTB"], ("", "MT-ND1")),
        (['"MT-ND1"', '"ACTB"'], ("", "MT-ND1")),
        (["'MT-ND1'", "ACTB"], ("", "MT-ND1")),
        ([MTND1.lower(), "ensg00000075624.1"], (MTND1, "")),
        ([f"{MTND1};{TP53}", "ACTB"], ("", f"{MTND1};{TP53}")),
        (["GRCh38_premrna_MT-ND1", "GRCh38_premrna_ACTB"], ("", "MT-ND1")),
        (["hg19.MT-ND1", "hg19.ACTB", "hg19.HLA-A"], ("", "MT-ND1")),
        (["GRCh38-MT-ND1", "GRCh38-ACTB", "GRCh38-HLA-A"], ("", "MT-ND1")),
        (["hg38_MT-ND1", "hg38_ACTB"], ("", "MT-ND1")),
        (["GRCh38___MT-ND1", "GRCh38___ACTB"], ("", "MT-ND1")),
        (["mRatBN7.2_Mt-nd1", "mRatBN7.2_Actb"], ("", "Mt-nd1")),
        (["human_MT-ND1", "human_ACTB"], ("", "MT-ND1")),
        ([f"{MTND1}_MT-ND1", "ENSG00000075624_ACTB"], (MTND1, "MT-ND1")),
        ([f"{MTND1}.2|MT-ND1", "ENSG00000075624.1|ACTB"], (MTND1, "MT-ND1")),
        ([f"MT-ND1 ({MTND1})", "ACTB (ENSG00000075624)"], (MTND1, "MT-ND1")),
        ([f"MT-ND1_{MTND1}", "ACTB_ENSG00000075624"], (MTND1, "MT-ND1")),
        ([f"GRCh38_{MTND1}", "GRCh38_ENSG00000075624"], (MTND1, "")),
        (["ENSG00000182378.14_PAR_Y", "ACTB"], ("ENSG00000182378_PAR_Y", "")),
        (["HLA-A", "HLA-B", "HLA-C", "HLA-DRA"], ("", "HLA-A")),
        (["RP11-34P13.7", "ACTB", "TP53"], ("", "RP11-34P13.7")),
        (["gene_1", "gene_2", "gene_3"], ("", "gene_1")),
        (["gene-1", "gene-2", "gene-3"], ("", "gene-1")),
        (["gene-MT-ND1", "gene-ACTB"], ("", "MT-ND1")),
        (["gene:MT-ND1", "symbol:ACTB"], ("", "MT-ND1")),
        ([f"gene:{MTND1}.2", "ACTB"], (MTND1, "")),
        (["chrM:MT-ND1", "chr7:ACTB", "chr17:TP53"], ("", "MT-ND1")),
        (["chrM_MT-ND1", "chr7_ACTB", "chr17_TP53"], ("", "MT-ND1")),
        (["chrM:3307-4262:MT-ND1", "chr7:5526409-5563902:ACTB"], ("", "MT-ND1")),
        (["MT-ND1__chrM", "ACTB__chr7", "TP53__chr17"], ("", "MT-ND1")),
        (["MT-ND1 (chrM)", "ACTB (chr7)"], ("", "MT-ND1")),
        (["CHRM3-AS1", "CHRNA1", "CHRD"], ("", "CHRM3-AS1")),
        (["chr1:9772-10660", "ACTB"], ("", "chr1:9772-10660")),
        (["si:dkey-199m13.10", "snRNA:U1:21D"], ("", "si:dkey-199m13.10")),
        ([f"{MTND1}|MT-ND1|protein_coding", "ACTB"], (MTND1, "MT-ND1")),
        ([f"MT-ND1|{MTND1}|Mt_rRNA", "ACTB"], (MTND1, "MT-ND1")),
        ([f"{MTND1.lower()}_MT-ND1", "ACTB"], (MTND1, "MT-ND1")),
        ([f"{MTND1}_2", f"{TP53}_18"], (MTND1, "")),
        ([f"{MTND1}-2", f"{TP53}-18"], (MTND1, "")),
        (["FBgn0000042_Act5C", "FBgn0000043_Act42A"], ("FBgn0000042", "Act5C")),
        (["act-1|WBGene00000063", "act-2|WBGene00000064"], ("WBGene00000063", "act-1")),
        (["YBR089C-A", "YAL001C"], ("YBR089C-A", "")),
        (["YBR089C.A", "YAL001C"], ("YBR089C-A", "")),
        (["MT-ND1|17716", "ACTB|11461"], ("", "MT-ND1")),
        (["NKX2-1", "ACTB"], ("", "NKX2-1")),
        (["MT\u2013ND1", "HLA\u2010A"], ("", "MT-ND1")),
        (["MT-ND1\u200b", "`ACTB`"], ("", "MT-ND1")),
        (["`MT-ND1`", "ACTB"], ("", "MT-ND1")),
        ([f"ENST00000361390.2|{MTND1}.2|-|-|MT-ND1-201|MT-ND1|956|protein_coding|", "ACTB"], (MTND1, "MT-ND1")),
    ],
)
def test_a_name_is_read_as_what_it_was(names: list[str], first: tuple[str, str]) -> None:
    found = identify(table(names), Reference())
    assert (found.ids[0], found.symbols[0]) == first
    assert not found.no_gene


@pytest.mark.parametrize(
    "name",
    [
        "1-Mar", "01-Mar", "Mar-01", "2-Sep", "Sept-02", "1-Mar-21", "X1.Mar", "1.Mar", "2021-03-01", "01/03/2021",
        "2021-03-01 00:00:00", "1-Dec", "1-DEC", "1-Mrz", "44256", "2.31E+13", "", " ", "nan", "NaN", "NA", "None",
        "<NA>", "#REF!", "#NAME?", "#DIV/0!", "9/1", "1-mars", "1-déc",
    ],
)  # fmt: skip
def test_what_names_no_gene_is_left_out(name: str) -> None:
    assert list(identify(table([*OTHERS, name]), Reference()).no_gene) == [5]
    # An id says what the row is, whatever became of the symbol.
    assert not identify(table([*OTHERS, name], [f"ENSG{n:011d}" for n in range(6)]), Reference()).no_gene


@pytest.mark.parametrize("name", ["MARCH1", "SEPT2", "DEC1", "MAR1", "NAT1", "NANOG", "JUN", "1-8D", "MAY-AB", "7SK"])
def test_genes_that_look_like_dates_are_genes(name: str) -> None:
    assert not identify(table([*OTHERS, name]), Reference()).no_gene


def test_a_symbol_that_the_species_has_is_one() -> None:
    fly = SymbolBook("fly", pa.table({"id": ["FBgn0002938"], "symbol": ["nan"]}))
    assert not identify(table(["nan", "Act5C"]), Reference(), fly).no_gene


def test_dates_made_unique_are_dates() -> None:
    assert list(identify(table(["ACTB", "1-Mar", "1-Mar-1", "NA.1", "NA"]), Reference()).no_gene) == [1, 2, 3, 4]


def test_a_name_among_ids_is_a_symbol() -> None:
    ids = np.array([TP53, MTND1, "ENSG00000075624", "GFP", "ERCC-00002"], object)
    found = identify(clean_table(GeneTable(ids, ids, None)), load_reference("builtin"))
    assert found.ids == [TP53, MTND1, "ENSG00000075624", "", "ERCC-00002"]
    assert found.symbols == ["", "", "", "GFP", ""]


def test_targets_of_bd_rhapsody_are_their_genes() -> None:
    found = identify(table([f"TP53|{TP53}|Reference_end", "MT-ND1|NM_1.2|PolyA_1", "A|B|C"]), load_reference("builtin"))
    assert (found.ids, found.symbols) == ([TP53, "", ""], ["TP53", "MT-ND1", "A|B|C"])


@pytest.mark.parametrize("number", ["FBgn{:07d}", "WBGene{:08d}", "AT2G{:05d}", "YBR{:03d}C"])
def test_ids_of_other_databases_are_ids_whether_the_reference_has_them_or_not(number: str) -> None:
    ids = np.array([number.format(n) for n in range(3)], object)
    symbols = np.array(["one", "two", ids[2]], object)
    found = identify(clean_table(GeneTable(symbols, ids, symbols)), load_reference("builtin"))
    assert (found.ids, found.symbols) == (ids.tolist(), ["one", "two", ""])
    assert identify(clean_table(GeneTable(ids, ids, None)), load_reference("builtin")).symbols == ["", "", ""]


@pytest.mark.parametrize(
    ("name", "gene_id", "symbol"),
    [
        *[(text, TP53, "") for text in ("GeneID:7157", "gene_id_7157", "entrez:7157", "ENTREZ_7157", "NCBIGene:7157")],
        *[(text, TP53, "") for text in ("ncbi_gene-7157", "LOC7157", "hgnc:11998", "HGNC:HGNC:11998")],
        *[(text, TP53, "TP53") for text in ("TP53|7157", "TP53_7157", "TP53-7157", "TP53 (7157)", "TP53|GeneID:7157")],
        ("LFS1|7157", TP53, "LFS1"),  # an alias
        ("?|7157", TP53, ""),
        ("ACTB|7157", "", "ACTB"),  # the two do not agree
        ("ACTB_7157", "", "ACTB_7157"),
        ("GeneID:22059", "", "GeneID:22059"),  # of the mouse, which the reference has no numbers of
        ("HGNC:TP53", "", "TP53"),
    ],
)
def test_numbers_of_databases_are_the_genes_they_stand_for(name: str, gene_id: str, symbol: str) -> None:
    found = identify(table([*OTHERS, name]), load_reference("builtin"))
    assert (found.ids[-1], found.symbols[-1]) == (gene_id, symbol)
    assert not found.no_gene


@pytest.mark.parametrize("form", ["{n}", "GeneID:{n}", "HGNC:{h}", "{s}|{n}"])
def test_numbers_of_databases_tell_the_species(form: str) -> None:
    genes = (("TP53", 7157, 11998), ("ACTB", 60, 132), ("GAPDH", 2597, 4141), ("CD3D", 915, 1673))
    names = [form.format(s=symbol, n=number, h=hgnc) for symbol, number, hgnc in genes]
    assert told_species(table(names), load_reference("builtin")) == ("human",)


def test_entrez_ids_are_ids() -> None:
    found = identify(table(["7157", "60", "4535", "TP53"]), load_reference("builtin"))
    assert found.ids == [TP53, "ENSG00000075624", MTND1, ""]


@pytest.mark.parametrize(
    ("names", "numbered"),
    [
        ([str(n) for n in range(20)], True),
        ([str(n) for n in range(1, 21)], True),
        ([f"{n}.0" for n in range(20)], True),
        ([str(n) for n in np.random.default_rng(0).permutation(20)], True),
        ([str(n) for n in range(40_000, 60_000, 7)], True),  # what a choice of genes leaves of row numbers
        (["7157", "60", "4535", "3105"], False),
        (["7157", "100507436", "100287102"], False),
        ([*OTHERS, "7157"], False),
        (OTHERS, False),
    ],
)
def test_row_numbers_are_no_names(names: list[str], numbered: bool) -> None:
    assert bool(row_numbers(table(names), load_reference("builtin"))) is numbered


@pytest.mark.parametrize(
    ("symbols", "own", "found"),
    [
        (["TBCE", "TBCE-1"], (), ["TBCE", "TBCE"]),
        (["TBCE", "TBCE.1", "TBCE.2"], (), ["TBCE"] * 3),
        (["TBCE", "TBCE-2"], (), ["TBCE", "TBCE-2"]),
        (["NKX2-1", "ACTB"], (), ["NKX2-1", "ACTB"]),
        (["A", "A-1"], {"A-1"}, ["A", "A-1"]),
    ],
)
def test_symbols_before_they_were_made_unique(symbols: list[str], own: Sequence[str], found: list[str]) -> None:
    reader = NameReader(Reference())
    assert reader.texts.named(reader.originals(reader.texts.numbers(symbols), own)) == found


@pytest.mark.parametrize(
    ("names", "species"),
    [
        (["GRCm39_Actb", "GRCm39_Xist", "GRCh38_ACTB", "GRCh38_TP53"], ["human", "mouse"]),
        (["GRCm39_ENSMUSG00000059552", "GRCh38_ENSG00000141510"] * 2, ["human", "mouse"]),
        (["mm10___Actb", "mm10___Xist", "hg19___ACTB", "hg19___TP53"], ["human", "mouse"]),
        (["GRCz11-actb1", "GRCz11-tp53"], ["zebrafish"]),
        (["Fancy1_a", "Fancy1_b", "Other2_a", "Other2_b"], ["Fancy1", "Other2"]),
        (["Fancy1_a", "Fancy1_b"], []),
        (["MT.ND1", "ACTB"], ["human"]),
    ],
)
def test_genomes_tell_species(names: list[str], species: list[str]) -> None:
    assert list(told_species(table(names), Reference())) == species


@pytest.mark.parametrize("odd", ["", "TP53", "ENSG00000000003\nENSG00000000004", "ENSG000000000031"])
def test_the_letters_of_ids_are_told_of_columns_of_ids_alone(odd: str) -> None:
    ids = ["ENSG00000000001.12", "ENSMUSG00000000002", "ensg00000000005_PAR_Y"]
    column = clean_column(ids)
    assert column.names == ["ENSG00000000001", "ENSMUSG00000000002", "ENSG00000000005_PAR_Y"]
    assert column.letters == {"ENSG": 2, "ENSMUSG": 1}
    assert not clean_column([*ids, odd]).letters
    assert not clean_column([odd, *ids[:2], "TP53"]).letters
    assert not clean_column([]).letters


def test_tables_of_ids_alone_are_read_as_others_are() -> None:
    reference = load_reference("builtin")
    other_id = "FBgn0000042"
    symbols = ["ENSA", TP53, f"{TP53}_TP53", other_id, "", " MT-ND1", "MT-ND1", "7SK", "1-Mar", "nan"]
    ids = [f"ENSG{number:011d}.3" for number in range(len(symbols))]
    at_once = identify(table(symbols, ids), reference)
    one_by_one = identify(table([*symbols, "TP53"], [*ids, "TP53"]), reference)
    assert one_by_one.ids[-1] == ""
    assert (at_once.ids, at_once.symbols) == (one_by_one.ids[:-1], one_by_one.symbols[:-1])
    assert other_id in reference.places
    assert not at_once.no_gene
    assert not one_by_one.no_gene
