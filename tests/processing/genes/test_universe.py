from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from scvae_data.errors import ConfigError
from scvae_data.processing.genes.names import CleanTable, clean_table, cleaned, unversioned
from scvae_data.processing.genes.reference import Reference, load_reference
from scvae_data.processing.genes.species import told_species
from scvae_data.processing.genes.universe import align, forget_names
from scvae_data.processing.genes.wanted import read_mapping
from scvae_data.processing.settings.genes import GeneRules
from scvae_data.readers.base import GeneTable

TP53, ACTB, MTND1 = "ENSG00000141510", "ENSG00000075624", "ENSG00000198888"


def table(ids: Sequence[str] | None, symbols: Sequence[str] | None) -> CleanTable:
    columns = [None if column is None else np.array(column, object) for column in (ids, symbols)]
    names = next(column for column in columns if column is not None)
    return clean_table(GeneTable(names, *columns))


def test_symbols_get_the_id_of_files_that_have_both() -> None:
    tables = {"both": table([f"{TP53}.4", ACTB], ["TP53", "ACTB"]), "symbols": table(None, ["ACTB", "TP53", "NEW"])}
    universe = align({"both": 1, "symbols": 1}, tables.__getitem__, {})
    assert universe.keys.tolist() == [ACTB, TP53, "NEW"]
    assert universe.symbols.tolist() == ["ACTB", "TP53", "NEW"]
    assert universe.ids.tolist() == [ACTB, TP53, ""]
    assert universe.maps["both"].tolist() == [1, 0]
    assert universe.maps["symbols"].tolist() == [0, 1, 2]


def test_a_genome_before_symbols_goes_though_many_spike_ins_have_none() -> None:
    spikes = [f"ERCC-{n:05d}" for n in range(2, 12)]
    known = {TP53: "TP53", ACTB: "ACTB", MTND1: "MT-ND1"}
    tables = {
        "ids": table([*known], None),
        "genome": table(None, [*(f"GRCh38_{symbol}" for symbol in known.values()), *spikes]),
    }
    universe = align(dict.fromkeys(tables, 1), tables.__getitem__, {}, load_reference("builtin"))
    assert universe.keys[universe.maps["genome"]].tolist() == [*known, *spikes]


def test_ambiguous_symbols_stay_symbols_unless_the_mapping_decides() -> None:
    tables = {"a": table([TP53, ACTB], ["X", "X"]), "b": table(None, ["X"])}
    keys = align({"a": 1, "b": 1}, tables.__getitem__, {}).keys.tolist()
    assert keys == [ACTB, TP53, "X"]
    assert align({"a": 1, "b": 1}, tables.__getitem__, {"X": [TP53]}).maps["b"].tolist() == [1]


def test_a_table_means_something_else_once_one_of_its_columns_is_another_gene() -> None:
    tables = {"ids": table([TP53, ACTB], ["", ""]), "symbols": table(None, ["X"]), "other": table(None, ["X2"])}
    n_files = dict.fromkeys(tables, 1)
    one, again, two = (
        align(n_files, tables.__getitem__, {"X": [key], "X2": [other]})
        for key, other in ((TP53, ACTB), (TP53, ACTB), (ACTB, TP53))
    )
    assert one.keys.tolist() == two.keys.tolist() == [ACTB, TP53]
    assert one.meanings() == again.meanings()
    changed = {name for name in tables if one.meanings()[name] != two.meanings()[name]}
    assert changed >= {"symbols", "other"}


def test_the_symbol_most_files_use_wins_whatever_the_order() -> None:
    tables = {"a": table([TP53], ["old"]), "b": table([TP53], ["new"])}
    assert align({"a": 3, "b": 1}, tables.__getitem__, {}).symbols.tolist() == ["old"]
    assert align({"b": 1, "a": 3}, tables.__getitem__, {}).symbols.tolist() == ["old"]
    assert align({"a": 1, "b": 1}, tables.__getitem__, {}).symbols.tolist() == ["old"]


def test_symbols_that_are_not_the_one_of_their_gene_are_told() -> None:
    tables = {
        "a": table([TP53, ACTB], ["p53", "ACTB"]),
        "b": table([TP53], ["TRP53"]),
        "symbols": table(None, ["p53", "ACTB", "NEW"]),
    }
    universe = align({"a": 1, "b": 2, "symbols": 1}, tables.__getitem__, {"NEW": [MTND1], "ELSEWHERE": [MTND1]})
    assert universe.symbols.tolist() == ["ACTB", "p53", "NEW"]
    assert universe.synonyms == {"NEW": MTND1, "TRP53": TP53}


def test_the_y_copy_of_a_pseudo_autosomal_gene_is_a_gene_of_its_own() -> None:
    assert unversioned("ENSG00000182378.14_PAR_Y") != unversioned("ENSG00000182378.14")


@pytest.mark.parametrize(
    ("ids", "symbols", "species"),
    [
        ([TP53, ACTB], None, ["human"]),
        (["ENSMUSG00000059552"], None, ["mouse"]),
        ([TP53, "ENSMUSG00000059552"], None, ["human", "mouse"]),
        (None, ["MT-ND1", "TP53"], ["human"]),
        (None, ["mt-Nd1", "Trp53"], ["mouse"]),
        (None, ["hg19_TP53", "hg19_ACTB", "mm10_Trp53", "mm10_Actb"], ["human", "mouse"]),
        (None, ["g1", "g2"], []),
    ],
)
def test_species(ids: list[str] | None, symbols: list[str] | None, species: list[str]) -> None:
    assert list(told_species(table(ids, symbols), Reference())) == species


@pytest.mark.parametrize(
    ("rules", "kept"),
    [
        (GeneRules(min_cells=None), [True, True, False, True]),
        (GeneRules(min_cells=3), [True, False, False, True]),
        (GeneRules(min_cells=None, min_counts=50), [False, True, False, True]),
        (GeneRules(join="inner", min_cells=None), [True, False, False, True]),
    ],
)
def test_selection(rules: GeneRules, kept: list[bool]) -> None:
    n_files, n_cells, totals = np.array([2, 1, 0, 2]), np.array([5, 2, 0, 3]), np.array([10, 90, 0, 60])
    assert rules.select(n_files, 2, n_cells, totals).tolist() == kept


def test_mapping_file(tmp_path: Path) -> None:
    path = tmp_path / "map.csv"
    path.write_text(f"id,symbol\n{TP53}.9,TP53\n")
    assert read_mapping(str(path)) == {"TP53": (TP53,)}
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ConfigError, match=r"map\.csv: no column 'id' and 'symbol' among a, b"):
        read_mapping(str(path))


def test_names_that_were_forgotten_are_found_again() -> None:
    reference = load_reference("builtin")
    tables = {"a": table(["ENSG00000141510", "ENSG00000198888"], ["TP53", "MT-ND1"]), "b": table(None, ["ACTB", "P53"])}
    before = align(dict.fromkeys(tables, 1), tables.__getitem__, {}, reference)
    assert "table" in vars(reference)
    forget_names(reference)
    assert vars(reference).keys() == {"file", "digest"}
    assert cleaned.cache_info().currsize == 0
    again = align(dict.fromkeys(tables, 1), tables.__getitem__, {}, reference)
    assert again.keys.tolist() == before.keys.tolist()
    assert again.symbols.tolist() == before.symbols.tolist()
    assert {name: places.tolist() for name, places in again.maps.items()} == {
        name: places.tolist() for name, places in before.maps.items()
    }
