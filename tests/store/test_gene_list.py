from __future__ import annotations

import numpy as np
import pytest

from scvae_data.errors import DamagedFileError, StoreError
from scvae_data.store import GeneList, GeneSets, read_gene_list, read_json, write_gene_list, write_json
from scvae_data.store.gene_list import read_listed_sets


def genes(n_vars: int = 11) -> GeneList:
    ids = [None if j % 3 == 0 else f"ENSG{j}" for j in range(n_vars)]
    return GeneList.of([f"g{j}" for j in range(n_vars)], ids, [f"Ü{j}" for j in range(n_vars)])


def masks(n_vars: int = 11) -> list[np.ndarray]:
    return [np.arange(n_vars) % 2 == 0, np.ones(n_vars, bool), np.zeros(n_vars, bool)]


@pytest.mark.parametrize("n_vars", [0, 1, 8, 11])
def test_round_trip(tmp_path, n_vars):
    written = genes(n_vars)
    write_gene_list(tmp_path, written)
    read = read_gene_list(tmp_path, n_vars=n_vars)
    assert read.names.tolist() == written.names.tolist()
    assert read.ids.tolist() == written.ids.tolist()
    assert read.symbols.tolist() == written.symbols.tolist()
    assert read.hash == written.hash


def test_the_hash_is_of_genes_and_their_order():
    hashes = {GeneList.of(["a", "b"]).hash}
    assert GeneList.of(["b", "a"]).hash not in hashes
    assert GeneList.of(["a", "b"], ["x", None]).hash not in hashes


@pytest.mark.parametrize("n_vars", [0, 1, 8, 11])
def test_gene_sets_are_a_bit_for_each_gene(n_vars):
    sets = GeneSets.of(masks(n_vars), n_vars)
    assert len(sets) == 3 and sets.packed.shape == (3, (n_vars + 7) // 8)
    assert np.array_equal(sets.masks([2, 0, 0]), np.array(masks(n_vars))[[2, 0, 0]])


@pytest.mark.parametrize("wrong", [[], [np.ones(3, bool)]])
def test_gene_sets_that_are_none_or_of_another_length(wrong):
    with pytest.raises(StoreError, match="masks of 2 genes"):
        GeneSets.of(wrong, 2)


def test_the_first_version_lists_gene_sets_with_the_genes(tmp_path):
    sets = GeneSets.of(masks(), 11)
    facts = write_gene_list(tmp_path, genes(), sets)
    assert read_gene_list(tmp_path).hash == genes().hash
    assert np.array_equal(read_listed_sets(tmp_path, n_vars=11, sha256=facts.sha256).packed, sets.packed)


@pytest.mark.parametrize("wrong", [["AA=="], ["?"], 3, []])
def test_listed_gene_sets_that_are_malformed(tmp_path, wrong):
    write_gene_list(tmp_path, genes(), GeneSets.of(masks(), 11))
    content = read_json(tmp_path / "gene_list.json") | {"gene_sets": wrong}
    facts = write_json(tmp_path / "gene_list.json", content)
    with pytest.raises(DamagedFileError, match=r"gene_list\.json: not a gene list"):
        read_listed_sets(tmp_path, n_vars=11, sha256=facts.sha256)


def test_unequal_lengths_and_repeated_names():
    for arguments in ((["a", "a"],), (["a"], ["x", "y"])):
        with pytest.raises(StoreError, match="unique names and columns of one length"):
            GeneList.of(*arguments)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"genes": {"name": ["g"]}}, id="columns"),
        pytest.param({"n_vars": 3}, id="number"),
        pytest.param({"hash": "0"}, id="hash"),
    ],
)
def test_malformed(tmp_path, change):
    write_gene_list(tmp_path, genes())
    write_json(tmp_path / "gene_list.json", read_json(tmp_path / "gene_list.json") | change)
    with pytest.raises(DamagedFileError, match=r"gene_list\.json") as caught:
        read_gene_list(tmp_path)
    assert "\n" not in str(caught.value)


def test_another_number_of_genes_than_the_index_says(tmp_path):
    write_gene_list(tmp_path, genes())
    with pytest.raises(DamagedFileError, match="not those of this directory"):
        read_gene_list(tmp_path, n_vars=12)
