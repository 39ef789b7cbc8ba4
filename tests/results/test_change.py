"""Differential expression between groups of cells: the test, its numbers, its mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.results.conftest import KEY, untrained

from scvae_data import VAE, ChangeTest, ChunkedDataset, ConfigError, SelectionError
from scvae_data.results import change

QUICK = ChangeTest(n_samples=300)
FIRST = "cell_type == 'type0'"


def test_a_gene_that_the_decoder_gives_one_group_alone_comes_first(directory: Path) -> None:
    """Cells of SRX1 are decoded with 16 times as much of the third gene."""
    model = untrained(directory, n_hidden=1, norm="none")
    assert model.decoder is not None
    layer, head = model.decoder.mlp.layers[0], model.decoder.heads["scale"]
    with torch.no_grad():
        layer.linear.weight.zero_()
        layer.linear.bias.zero_()
        layer.covariate.table.weight.zero_()
        layer.covariate.table.weight[0] = 1.0
        head.bias.zero_()
        head.weight.zero_()
        head.weight[2] = np.log(16)
    found = model.differential_expression(directory, f"{KEY} == 'SRX1'", test=QUICK)
    top = found.iloc[0]
    assert top.name == "ENSG00000000002"
    assert (top["gene_symbol"], top["proba_de"]) == ("GENE2", 1.0)
    expected = np.log2(16 / 35) - np.log2(1 / 20)
    assert top["lfc_median"] == pytest.approx(expected, abs=1e-3)
    assert (top["scale1"], top["scale2"]) == (pytest.approx(16 / 35, rel=1e-4), pytest.approx(1 / 20, rel=1e-4))
    corrected = ChangeTest(n_samples=300, batch_correction=True)
    found = model.differential_expression(directory, f"{KEY} == 'SRX1'", test=corrected)
    assert found["proba_de"].max() == 0
    assert not found["is_de_fdr_0.05"].any()


def test_groups_are_filters_and_the_second_is_the_rest_that_has_a_label(model: VAE, directory: Path) -> None:
    found = model.differential_expression(directory, FIRST, test=QUICK)
    adata = ChunkedDataset(directory).to_anndata()
    x, first = adata.X.toarray(), (adata.obs["cell_type"] == "type0").to_numpy()
    other = adata.obs["cell_type"].isin(["type1", "type2"]).to_numpy()
    found = found.loc[adata.var_names]
    np.testing.assert_allclose(found["raw_mean1"], x[first].mean(0), rtol=1e-6)
    np.testing.assert_allclose(found["raw_mean2"], x[other].mean(0), rtol=1e-6)
    np.testing.assert_allclose(found["non_zeros_proportion1"], (x[first] > 0).mean(0), rtol=1e-6)
    inside = model.differential_expression(directory, FIRST, "cell_type == 'type1'", where="donor_age > 10", test=QUICK)
    aged = (adata.obs["donor_age"] > 10).to_numpy()
    second = (adata.obs["cell_type"] == "type1").to_numpy() & aged
    inside = inside.loc[adata.var_names]
    np.testing.assert_allclose(inside["raw_mean1"], x[first & aged].mean(0), rtol=1e-6)
    np.testing.assert_allclose(inside["raw_mean2"], x[second].mean(0), rtol=1e-6)


def test_sizes_of_groups_tell_which_cells_are_of_neither(model: VAE, directory: Path) -> None:
    obs = ChunkedDataset(directory).to_anndata().obs
    first, unknown = (obs["cell_type"] == "type0").to_numpy(), obs["cell_type"].isna().to_numpy()
    inside = (obs["donor_age"] > 40).to_numpy()

    def sizes(group2: str | None = None, where: str | None = None) -> list[int]:
        table = model.differential_expression(directory, FIRST, group2, where=where, test=ChangeTest(n_samples=5))
        return [table[name].unique().item() for name in ("n_cells1", "n_cells2", "n_cells_left_out")]

    assert unknown.sum() == 6
    assert sizes() == [first.sum(), len(obs) - first.sum() - 6, 6]
    assert sizes(where="donor_age > 40") == [
        (first & inside).sum(), (~first & ~unknown & inside).sum(), (unknown & inside).sum()
    ]  # fmt: skip
    assert sizes(f"not ({FIRST})") == [first.sum(), len(obs) - first.sum(), 0]
    with pytest.raises(
        SelectionError, match=r"^group2: no cell beside those of group1=.* has a value of cell_type; name"
    ):
        model.differential_expression(directory, "cell_type in ['type0', 'type1', 'type2']", test=QUICK)


def test_blocks_of_genes_change_nothing(model: VAE, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = model.differential_expression(directory, FIRST, test=QUICK)
    monkeypatch.setattr(change, "BLOCK_BYTES", 3 * 4 * QUICK.n_samples)
    monkeypatch.setattr(change, "PAIRS", 64)
    found = model.differential_expression(directory, FIRST, test=QUICK)
    np.testing.assert_allclose(
        found.loc[expected.index].select_dtypes("number"), expected.select_dtypes("number"), rtol=1e-4, atol=1e-5
    )


def test_the_seed_chooses_cells_and_draws(model: VAE, directory: Path) -> None:
    def tested(seed: int) -> Any:
        test = ChangeTest(n_samples=8, seed=seed)
        return model.differential_expression(directory, f"{KEY} == 'SRX1'", test=test).sort_index()

    assert tested(0).equals(tested(0))
    assert not np.array_equal(tested(0)["raw_mean1"], tested(1)["raw_mean1"])


def test_calls_keep_the_expected_share_of_false_ones() -> None:
    proba = np.array([1.0, 0.96, 0.94, 0.91, 0.2])
    assert change.called(proba, 0.05).tolist() == [True, True, True, True, False]
    assert change.called(proba, 0.04).tolist() == [True, True, True, False, False]
    assert not change.called(proba * 0.5, 0.05).any()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"delta": -1}, "delta=-1 must be a number from 0"),
        ({"fdr": 2}, "fdr=2 must be a number from 0 to 1"),
        ({"pseudocounts": "x"}, "pseudocounts=x must be a number from 0 to 1"),
        ({"n_samples": 0}, "n_samples=0 must be a whole number of draws"),
        ({"batches": ["SRX1"]}, "are for batch_correction=True"),
    ],
)
def test_bad_settings_are_named(options: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        ChangeTest(**options)


def test_groups_without_cells_are_refused(model: VAE, directory: Path) -> None:
    with pytest.raises(SelectionError, match="cell_type has no value 'type9'; did you mean type"):
        model.differential_expression(directory, "cell_type == 'type9'")
    with pytest.raises(SelectionError, match=r"^group1: no cell is left of 60: filter=donor_age > 1000; relax it$"):
        model.differential_expression(directory, "donor_age > 1000")
    with pytest.raises(SelectionError, match=r"^group2: no cell is left of 60: "):
        model.differential_expression(directory, FIRST, "donor_age > 1000")
    with pytest.raises(SelectionError, match=r"^group1 and group2 are the same [0-9]+ cells, between which nothing"):
        model.differential_expression(directory, FIRST, f"({FIRST}) and total_counts >= 0")
    test = ChangeTest(batch_correction=True, batches=["WRONG"])
    with pytest.raises(SelectionError, match=r"^batches=WRONG: SRX_accession of the model has no such value; it has"):
        model.differential_expression(directory, FIRST, test=test)
    with pytest.raises(ConfigError, match="group2='donor_age >' cannot be read"):
        model.differential_expression(directory, FIRST, "donor_age >")
