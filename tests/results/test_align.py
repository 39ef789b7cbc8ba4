"""Where the genes of a model are in a directory."""

from __future__ import annotations

from typing import Any

import pytest

from scvae_data.results.align import match_genes
from scvae_data.store import GeneList


@pytest.mark.parametrize(
    ("wanted", "names", "ids", "symbols", "columns", "missing"),
    [
        (["a", "b"], ["b", "a"], [None] * 2, [None] * 2, [1, 0], ()),
        (["a", "b"], ["x", "y"], ["b", "a"], [None] * 2, [1, 0], ()),
        (["a", "b"], ["x", "a"], [None] * 2, ["b", "c"], [1, 0], ()),
        (["a", "b"], ["x", "y", "b"], [None] * 3, ["a", "a", None], [-1, 2], ("a",)),
        (["a", "b"], ["a", "y"], [None] * 2, ["b", None], [0, -1], ("b",)),
    ],
    ids=["names", "ids", "symbols", "ambiguous", "taken"],
)
def test_genes_match_by_name_then_id_then_symbol(
    wanted: list[str],
    names: list[Any],
    ids: list[Any],
    symbols: list[Any],
    columns: list[int],
    missing: tuple[str, ...],
) -> None:
    match = match_genes(wanted, GeneList.of(names, ids, symbols))
    assert match.columns.tolist() == columns
    assert match.missing == missing
