"""What symbols stand for: by a mapping, by the files of the run, by the reference, by order; never by guess."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from scvae_data.processing.genes.names import CleanTable, clean_table
from scvae_data.processing.genes.reference import Reference, load_reference, loose
from scvae_data.processing.genes.universe import WAYS, Universe, align
from scvae_data.readers.base import GeneTable
from scvae_data.readers.gene_names import genes_from_var

A, B, C = (f"ENSG9000000000{n}" for n in range(3))
PAR = "ENSG00000182378"
HUMAN = ["TP53", "ACTB", "CD3D", "MT-ND1"]
HUMAN_IDS = ["ENSG00000141510", "ENSG00000075624", "ENSG00000167286", "ENSG00000198888"]


def table(symbols: Sequence[str], ids: Sequence[str] | None = None) -> CleanTable:
    names = np.array(symbols, object)
    return clean_table(GeneTable(names, None if ids is None else np.array(ids, object), names))


def aligned(
    tables: Mapping[str, CleanTable], mapping: Mapping[str, Sequence[str]] | None = None, reference: str | None = None
) -> Universe:
    return align(dict.fromkeys(tables, 1), tables.__getitem__, mapping or {}, load_reference(reference))


def found(universe: Universe, name: str) -> list[tuple[str, str]]:
    """Gene and how it was found, of each row of a table."""
    genes = [universe.keys[at] if at >= 0 else "" for at in universe.maps[name]]
    return list(zip(genes, [WAYS[way] for way in universe.how[name]], strict=True))


@pytest.mark.parametrize("names", [["TBCE", "TBCE"], ["TBCE", "TBCE-1"], ["TBCE", "TBCE.1"]])
@pytest.mark.parametrize("with_ids", [["TBCE", "TBCE"], ["TBCE", "TBCE-1"], ["TBCE", "TBCE.1"]])
def test_two_genes_of_one_symbol_are_told_by_their_order(names: list[str], with_ids: list[str]) -> None:
    universe = aligned({"both": table(["X", *with_ids], [A, C, B]), "symbols": table([*names, "X"])})
    assert found(universe, "symbols") == [(C, "order"), (B, "order"), (A, "files")]
    assert universe.symbols.tolist() == ["X", "TBCE", "TBCE"]


def test_without_one_order_each_row_is_a_gene_of_its_own() -> None:
    tables = {
        "one": table(["TBCE", "TBCE"], [C, B]),
        "other": table(["TBCE", "TBCE-1"], [B, C]),
        "symbols": table(["TBCE", "TBCE"]),
    }
    assert found(aligned(tables), "symbols") == [("TBCE", "apart"), ("TBCE-1", "apart")]
    tables = {"both": table(["TBCE", "TBCE"], [C, B]), "symbols": table(["TBCE", "TBCE-1", "TBCE-2"])}
    assert found(aligned(tables), "symbols") == [(name, "apart") for name in ("TBCE", "TBCE-1", "TBCE-2")]
    alone = aligned({"symbols": table(["X", "TBCE-1", "TBCE", "TBCE"])})
    assert len(set(alone.maps["symbols"].tolist())) == 4


@pytest.mark.parametrize("moved", [0, 4, 5, 10])
def test_symbols_of_other_genes_than_those_of_the_ids_are_no_evidence(moved: int) -> None:
    book = load_reference("builtin").book("human")
    symbols = [symbol for symbol, ids in book.current.items() if len(ids) == 1][::1000][:40]
    ids = [book.current[symbol][0] for symbol in symbols]
    beside = [*np.roll(ids[:moved], 1).tolist(), *ids[moved:]]
    universe = aligned({"both": table(symbols, beside), "symbols": table(symbols)}, reference="builtin")
    told = moved >= 5
    assert [way for _, way in found(universe, "both")] == ["crossed"] * moved * told + ["id"] * (40 - moved * told)
    meant = ids if told else beside
    assert found(universe, "symbols")[moved:] == [(gene_id, "files") for gene_id in ids[moved:]]
    assert [gene for gene, _ in found(universe, "symbols")] == meant
    assert dict(zip(universe.keys, universe.symbols, strict=True)) == dict(zip(meant, symbols, strict=True))


CLONES = [f"AC{n:06d}.1" for n in range(60)]
CLONE_IDS = [f"ENSG8000000{n:04d}" for n in range(60)]


def test_an_ambiguous_symbol_is_told_by_a_table_of_the_same_annotation() -> None:
    """Of two releases that call a clone's genes otherwise, the one is meant that has all symbols of a table."""
    old = table([*CLONES, "X.1", "X.2"], [*CLONE_IDS, A, B])
    new = table([*CLONES[:50], "X.1", "X.3"], [*CLONE_IDS[:50], B, A])
    tables = {"old": old, "new": new, "symbols": table([*(name.lower() for name in CLONES), "X.1"])}
    assert found(aligned(tables), "symbols")[-1] == (A, "files")
    assert found(aligned(tables | {"symbols": table([*CLONES[:40], "X.1", "X.3"])}), "symbols")[-2:] == [
        (B, "files"), (A, "files"),
    ]  # fmt: skip
    for unsaid in (["X.1", "OTHER"], [*CLONES[:9], "X.1"]):
        again = found(aligned(tables | {"symbols": table(unsaid)}), "symbols")
        assert ("X.1", "ambiguous") in again


def test_rows_of_one_symbol_are_told_by_a_table_of_the_same_annotation() -> None:
    one = table([*CLONES, "TBCE", "TBCE"], [*CLONE_IDS, A, B])
    other = table([*CLONES[:50], "TBCE", "TBCE-1"], [*CLONE_IDS[:50], B, A])
    universe = aligned({"one": one, "other": other, "symbols": table([*CLONES, "TBCE", "TBCE-1"])})
    assert found(universe, "symbols")[-2:] == [(A, "order"), (B, "order")]


def test_an_ambiguous_symbol_is_what_most_tables_call_so() -> None:
    tables = {
        "a": table(["X", "Y"], [A, C]),
        "b": table(["X", "X", "Z"], [A, B, C]),
        "symbols": table(["X", "OTHER"]),
    }
    assert found(aligned(tables), "symbols")[0] == (A, "primary")


def test_rows_of_one_id_are_one_gene() -> None:
    universe = aligned({"ids": table(["X", "Y", "Z"], [f"{A}.1", f"{A}.2", B])})
    assert universe.maps["ids"].tolist() == [0, 0, 1]
    assert universe.matches["ids"].summed == 1


def test_two_names_of_one_gene_in_one_file_are_not_added_up() -> None:
    universe = aligned({"symbols": table([*HUMAN, "MARCH1", "MARCHF1"])}, reference="builtin")
    assert found(universe, "symbols")[4:] == [("MARCH1", "apart"), ("MARCHF1", "reference")]
    beside_its_id = aligned({"both": table([*HUMAN, "TP53"], [*HUMAN_IDS, ""])}, reference="builtin")
    assert found(beside_its_id, "both")[4] == ("TP53", "apart")


@pytest.mark.parametrize(
    ("symbol", "gene", "how"),
    [
        ("MARCH1", "ENSG00000145416", "previous"),
        ("SEPT1", "ENSG00000180096", "previous"),
        ("p53", "ENSG00000141510", "alias"),
        ("RPL10", "ENSG00000147403", "reference"),
        ("HLA.A", "ENSG00000206503", "spelling"),
        ("hla-a", "ENSG00000206503", "spelling"),
        ("NOBODYKNOWS1", "NOBODYKNOWS1", "symbol"),
    ],
)
def test_the_reference_knows_symbols_of_all_times(symbol: str, gene: str, how: str) -> None:
    ids = table(["CD4", "LYZ"], ["ENSG00000010610", "ENSG00000090382"])
    universe = aligned({"ids": ids, "symbols": table([*HUMAN[1:], symbol])}, reference="builtin")
    assert found(universe, "symbols")[-1] == (gene, how)


def test_files_of_symbols_alone_meet_and_keep_their_names() -> None:
    universe = aligned({"a": table([*HUMAN, "MARCH1"]), "b": table([*HUMAN, "MARCHF1"])}, reference="builtin")
    assert universe.keys.tolist() == ["ACTB", "CD3D", "MARCHF1", "MT-ND1", "TP53"]
    assert universe.ids.tolist() == [
        "ENSG00000075624", "ENSG00000167286", "ENSG00000145416", "ENSG00000198888", "ENSG00000141510",
    ]  # fmt: skip
    assert universe.maps["a"].tolist() == universe.maps["b"].tolist()


def test_an_ambiguous_symbol_goes_to_the_gene_that_files_measure_or_that_is_meant_first() -> None:
    both, one = ["ENSG00000002586", "ENSG00000292348"], "ENSG00000292348"  # CD99; HGNC means the first
    symbols = table([*HUMAN, "CD99"])
    with_ids = {"ids": table(["", ""], [one, HUMAN_IDS[0]]), "symbols": symbols}
    assert found(aligned(with_ids, reference="builtin"), "symbols")[-1] == (one, "files")
    assert found(aligned({"symbols": symbols}, reference="builtin"), "symbols")[-1] == ("CD99", "primary")
    with_both = {"ids": table(["CD99", "CD99"], both), "symbols": symbols}
    assert found(aligned(with_both, reference="builtin"), "symbols")[-1] == (both[0], "primary")
    nothing_says = {"ids": table(["X", "X"], [A, B]), "symbols": table(["X"])}
    assert found(aligned(nothing_says), "symbols") == [("X", "ambiguous")]
    y_copy = {"ids": table(["X", "X"], [PAR, f"{PAR}_PAR_Y"]), "symbols": table(["X"])}
    assert found(aligned(y_copy), "symbols") == [(PAR, "primary")]


def test_a_mapping_with_several_ids_is_an_ambiguous_symbol() -> None:
    tables = {"symbols": table(["X"]), "two": table(["X", "X"]), "ids": table([""], [B])}
    universe = aligned(tables, {"X": [A, B]})
    assert found(universe, "symbols") == [(B, "files")]
    assert found(universe, "two") == [(A, "order"), (B, "order")]
    assert found(aligned({"symbols": table(["X"])}, {"X": [A, B]}), "symbols") == [("X", "ambiguous")]


def test_retired_ids_are_those_of_today_where_that_is_no_guess() -> None:
    retired, today = "ENSG00000116957", "ENSG00000284770"
    alone = aligned({"old": table([*HUMAN, "TBCE"], [*HUMAN_IDS, retired])}, reference="builtin")
    assert found(alone, "old")[-1] == (today, "retired id")
    assert alone.retired == {retired: today}
    tables = {"old": table([*HUMAN, "TBCE"], [*HUMAN_IDS, retired]),
              "both": table([*HUMAN, "TBCE", "TBCE"], [*HUMAN_IDS, retired, today])}  # fmt: skip
    assert found(aligned(tables, reference="builtin"), "old")[-1] == (retired, "id")
    invented = aligned({"invented": table(["TBCE", "TP53"], [A, B])}, reference="builtin")
    assert invented.keys.tolist() == [A, B]


@pytest.mark.parametrize(("n_old", "way"), [(6, "retired id"), (36, "id")])
def test_ids_that_the_reference_does_not_have_are_not_those_of_other_genes(n_old: int, way: str) -> None:
    book = load_reference("builtin").book("human")
    symbols = [symbol for symbol, ids in book.current.items() if len(ids) == 1][::1000][:40]
    ids = [f"ENSG0900000{n:04d}" if n < n_old else book.current[symbol][0] for n, symbol in enumerate(symbols)]
    universe = aligned({"old": table(symbols, ids)}, reference="builtin")
    assert not universe.unlike
    assert [how for _, how in found(universe, "old")] == [way] * n_old + ["id"] * (40 - n_old)


def test_classes_are_told_by_the_gene() -> None:
    macaque = ["ENSMMUG00000028699", "ENSMMUG00000028701"]
    symbols = load_reference("builtin").symbols(HUMAN_IDS)
    assert symbols == HUMAN
    ids = [HUMAN_IDS[3], "ENSG00000244734", "ENSG00000142541", *macaque]
    universe = aligned({"ids": table(["wrong", "TP53", "MT-CO1", "x", "y"], ids)}, reference="builtin")
    flags = dict(zip(universe.keys, universe.flags, strict=True))
    assert [flags[gene_id] for gene_id in ids[:3]] == [1, 4, 2]
    unknown = aligned({"ids": table(["MT-ND1", "RPL3", "x"], [A, B, C])}, reference="builtin")
    assert unknown.flags.tolist() == [1, 2, 0]
    assert unknown.classed == {"by_reference": 0, "by_symbol": 3}


def test_mitochondrial_genes_without_the_prefix_have_it() -> None:
    reference = load_reference("builtin")
    names = {symbol: ids[0] for symbol, ids in reference.book("macaque").current.items()}
    assert reference.symbols([names["ND1"], names["CYTB"]]) == ["MT-ND1", "MT-CYTB"]


def test_the_order_of_files_does_not_matter() -> None:
    tables = {"b": table(["TBCE", "TBCE-1", "X"]), "a": table(["TBCE", "TBCE"], [C, B]), "c": table(["X", "tbce"])}
    one, other = (aligned(dict(items)) for items in (tables.items(), reversed(tables.items())))
    assert one.keys.tolist() == other.keys.tolist()
    assert {name: genes.tolist() for name, genes in one.maps.items()} == {
        name: genes.tolist() for name, genes in other.maps.items()
    }


@pytest.mark.parametrize("n_ids", [1, 2, 3])
def test_ids_and_symbols_in_one_index(n_ids: int) -> None:
    names = np.array([*HUMAN_IDS[:n_ids], *HUMAN[n_ids:]], object)
    genes = clean_table(genes_from_var(names, {}))
    universe = aligned({"mixed": genes, "ids": table(HUMAN, HUMAN_IDS)}, reference="builtin")
    assert found(universe, "mixed") == [
        *((gene_id, "id") for gene_id in HUMAN_IDS[:n_ids]), *((gene_id, "files") for gene_id in HUMAN_IDS[n_ids:]),
    ]  # fmt: skip


def test_no_reference_knows_nothing() -> None:
    empty = Reference()
    assert empty.symbols([A]) == [""]
    assert not empty.places
    assert not empty.book("human").current
    assert loose("HLA.A") == loose("hla-a")


MARKERS = ["CD56", "CD3", "CD45RA", "CD8a_RPA-T8", "HLA-DR", "IgD"]


def test_rows_that_are_called_as_antibodies_are_genes_of_their_own() -> None:
    genes = [*HUMAN, "CD19", "CD20", "CD1C"]  # CD20 is an earlier symbol of MS4A1
    universe = aligned({"a": table([*genes, *MARKERS])}, reference="builtin")
    assert found(universe, "a")[len(genes) :] == [(name, "marker") for name in MARKERS]
    assert "marker" not in {way for _, way in found(universe, "a")[: len(genes)]}


def test_a_few_such_names_are_read_as_symbols_are() -> None:
    universe = aligned({"a": table([*HUMAN, "CD56", "CD45RA"])}, reference="builtin")
    assert [how for _, how in found(universe, "a")[-2:]] == ["alias", "symbol"]
    mapped = aligned({"a": table([*HUMAN, *MARKERS])}, {name: ["ENSG00000149294"] for name in MARKERS[:1]}, "builtin")
    assert found(mapped, "a")[len(HUMAN)] == ("ENSG00000149294", "mapping")
