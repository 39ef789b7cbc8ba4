from __future__ import annotations

import numpy as np
import pytest

from scvae_data.errors import DamagedFileError, StoreError
from scvae_data.store import GeneList, read_gene_list, read_json, write_gene_list, write_json


def genes(n_vars: int = 11) -> GeneList:
    masks = [np.arange(n_vars) % 2 == 0, np.ones(n_vars, bool), np.zeros(n_vars, bool)]
    ids = [None if j % 3 == 0 else f"ENSG{j}" for j in range(n_vars)]
    return GeneList.of([f"g{j}" for j in range(n_vars)], ids, [f"Ü{j}" for j in range(n_vars)], masks)


@pytest.mark.parametrize("n_vars", [0, 1, 8, 11])
def test_round_trip(tmp_path, n_vars):
    written = genes(n_vars)
    write_gene_list(tmp_path, written)
    read = read_gene_list(tmp_path, n_vars=n_vars)
    assert read.names.tolist() == written.names.tolist()
    assert read.ids.tolist() == written.ids.tolist()
    assert read.symbols.tolist() == written.symbols.tolist()
    assert np.array_equal(read.gene_sets, written.gene_sets)
    assert read.hash == written.hash


def test_the_hash_is_of_genes_and_their_order_only():
    hashes = {
        GeneList.of(["a", "b"]).hash,
        GeneList.of(["a", "b"], gene_sets=[np.array([True, False])]).hash,
    }
    assert len(hashes) == 1
    assert GeneList.of(["b", "a"]).hash not in hashes
    assert GeneList.of(["a", "b"], ["x", None]).hash not in hashes


def test_unequal_lengths_and_repeated_names():
    for arguments in ((["a", "a"],), (["a"], ["x", "y"]), (["a"], None, None, [np.ones(2, bool)])):
        with pytest.raises(StoreError, match="unique names and columns of one length"):
            GeneList.of(*arguments)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"genes": {"name": ["g"]}}, id="columns"),
        pytest.param({"gene_sets": ["AA=="]}, id="short mask"),
        pytest.param({"gene_sets": ["?"]}, id="no base64"),
        pytest.param({"gene_sets": 3}, id="no list"),
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
