"""Genes that no reference knows, in the spellings that programs leave: one gene, one column, where that is certain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from scvae_data.processing.genes.names import CleanTable, clean_table
from scvae_data.processing.genes.reference import load_reference
from scvae_data.processing.genes.universe import WAYS, align
from scvae_data.readers.base import GeneTable

KNOWN = ["ACTB", "GAPDH", "TP53", "CD3D"]


def table(symbols: Sequence[str], ids: Sequence[str] | None = None) -> CleanTable:
    names = np.array(symbols, object)
    return clean_table(GeneTable(names, None if ids is None else np.array(ids, object), names))


def columns(
    tables: Mapping[str, CleanTable], n_files: Mapping[str, int] | None = None
) -> dict[str, list[tuple[str, str]]]:
    """Which column each row is, and how that was found."""
    universe = align(n_files or dict.fromkeys(tables, 1), tables.__getitem__, {}, load_reference("builtin"))
    keys = universe.keys
    assert len(set(keys)) == len(keys)
    return {
        name: [(keys[at], WAYS[way]) for at, way in zip(places, universe.how[name], strict=True)]
        for name, places in universe.maps.items()
    }


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("GFP", "gfp"), ("tdTomato", "TdTomato"), ("MY_GENE", "MY-GENE"), ("MY.GENE.1", "MY-GENE-1"),
        ("3xFLAG-Cas9", "X3xFLAG.Cas9"), ("AC999999.1", "AC999999-1"), ("7SK", "X7SK"),
    ],
)  # fmt: skip
def test_a_name_that_nothing_knows_is_one_in_all_its_spellings(one: str, other: str) -> None:
    found = columns({"a": table([*KNOWN, one]), "b": table([*KNOWN[::-1], other])}, {"a": 2, "b": 1})
    assert found["a"][-1][0] == found["b"][-1][0] == one
    assert found["b"][-1][1] == "spelling"
    assert {gene for gene, _ in found["a"]} == {gene for gene, _ in found["b"]}


def test_the_spelling_that_is_an_id_is_the_gene() -> None:
    ids, names = ["Zm00001d027230", "LOC_Os01g01010"], ["zmA", "osA"]
    tables = {"ids": table(names, ids), "mangled": table(["Zm00001d027230", "LOC-Os01g01010"])}
    found = columns(tables, {"ids": 1, "mangled": 9})
    assert found["mangled"] == [(ids[0], "symbol"), (ids[1], "spelling")]


def test_two_genes_of_one_table_stay_two() -> None:
    found = columns({"a": table([*KNOWN, "abc-1", "ABC.1"]), "b": table([*KNOWN, "ABC.1"])})
    assert [gene for gene, _ in found["a"][-2:]] == ["abc-1", "ABC.1"]
    assert found["b"][-1] == ("ABC.1", "symbol")


def test_genes_of_two_species_stay_two() -> None:
    human, mouse = [*KNOWN, "HLA-A", "MT-ND1"], ["Actb", "Gapdh", "Trp53", "Cd3d", "H2-K1", "mt-Nd1"]
    found = columns({"a": table([*human, "Xyz-1"]), "b": table([*mouse, "xyz.1"])})
    assert (found["a"][-1][0], found["b"][-1][0]) == ("Xyz-1", "xyz.1")


def test_rows_that_may_be_another_gene_are_respelled_into_none() -> None:
    found = columns({"a": table([*KNOWN, "abc", "abc"]), "b": table([*KNOWN, "ABC-1"])})
    assert [gene for gene, _ in found["a"][-2:]] == ["abc", "abc-1"]
    assert found["b"][-1] == ("ABC-1", "symbol")


@pytest.mark.parametrize(
    "name",
    [
        "ERCC-00002", "ERCC_00002", "ERCC.00002", "ercc-00002", "ERCC00002", "gSpikein_ERCC-00002",
        "ERCC-00002 (spike-in control)",
    ],
)  # fmt: skip
def test_a_spike_in_is_the_one_of_the_reference(name: str) -> None:
    assert columns({"a": table([*KNOWN, name])})["a"][-1] == ("ERCC-00002", "id")
