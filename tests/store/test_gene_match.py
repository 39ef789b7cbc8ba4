"""Genes of two directories: found by name, id or symbol, and put into one order that both keep."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from scvae_data.store import GeneList
from scvae_data.store.gene_match import find_names, join_genes


@pytest.mark.parametrize(
    ("names", "ids", "symbols", "columns"),
    [
        (["b", "a"], [None] * 2, [None] * 2, [1, 0]),
        (["x", "y"], ["b", "a"], [None] * 2, [1, 0]),
        (["x", "a"], [None] * 2, ["b", "c"], [1, 0]),
        (["x", "y", "b"], [None] * 3, ["a", "a", None], [-1, 2]),
        (["a", "y"], [None] * 2, ["b", None], [0, -1]),
    ],
    ids=["names", "ids", "symbols", "ambiguous", "taken"],
)
def test_genes_are_found_by_name_then_id_then_symbol(
    names: list[str], ids: list[Any], symbols: list[Any], columns: list[int]
) -> None:
    assert find_names(["a", "b"], GeneList.of(names, ids, symbols)).tolist() == columns


@pytest.mark.parametrize(
    ("first", "second", "joined"),
    [
        ("abc", "abc", "abc"),
        ("ac", "abcd", "abcd"),
        ("bd", "abcde", "abcde"),
        ("abcd", "bd", "abcd"),
        ("acb", "abx", "acbx"),
    ],
)
def test_one_order_of_all_genes(first: str, second: str, joined: str) -> None:
    genes, of_first, of_second = join_genes(GeneList.of(list(first)), GeneList.of(list(second)))
    assert "".join(genes.names) == joined
    for names, places in ((first, of_first), (second, of_second)):
        assert "".join(genes.names[places]) == names
    if [gene for gene in second if gene in first] == [gene for gene in first if gene in second]:
        assert (np.diff(of_first) > 0).all() and (np.diff(of_second) > 0).all()


def test_ids_that_differ_are_two_genes() -> None:
    by_symbol = GeneList.of(["A", "B", "C"], ["ENSG1", "ENSG2", None], ["A", "B", "C"])
    by_id = GeneList.of(["ENSG3", "ENSG1", "ENSG4"], ["ENSG3", "ENSG1", "ENSG4"], ["B", "A1", "C"])
    names, of_first, of_second = join_genes(by_symbol, by_id)
    assert names.names.tolist() == ["ENSG3", "A", "B", "C"]
    assert (of_first.tolist(), of_second.tolist()) == ([1, 2, 3], [0, 1, 3])


def test_a_gene_is_found_whichever_list_knows_its_symbol() -> None:
    known, plain = GeneList.of(["ENSG1", "ENSG2"], None, ["A", "B"]), GeneList.of(["B", "C"])
    assert join_genes(known, plain)[0].names.tolist() == ["ENSG1", "ENSG2", "C"]
    assert join_genes(plain, known)[0].names.tolist() == ["ENSG1", "B", "C"]
