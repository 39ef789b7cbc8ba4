"""The page about embedded cells says what the model does not know of them, and what to do with them."""

from __future__ import annotations

import shlex
from dataclasses import replace

import pytest
from tests.support.datasets import make_dataset
from tests.support.pages import code_of, data_of, faults_of, rows_of

from scvae_data.store import open_index
from scvae_data.training.embed_report import Embedded, embed_report
from scvae_data.training.pages import Labels

FOUND = {
    "n_cells": 60, "n_genes_of_model": 40, "n_missing_genes": 2, "missing_genes_share": 0.05, "n_genes_not_used": 1,
    "missing_genes": ["<GENE38>", "GENE39"], "n_unseen_categories": 1, "unseen_categories": {"donor": ["d9"]},
    "absent_columns": "tech", "n_unknown_cells": 30, "elbo": -1234.56, "elbo_of_unseen": -1300.04,
    "elbo_expected": -1200.0, "elbo_of_training": -1199.0, "batch_mixing": 0.9,
    "not_scored": {"cell_type_separation": "no cell has a cell type"},
}  # fmt: skip
LABELS = Labels("cell_type", ["type1", "type0"])
FAMILIAR = {
    "n_missing_genes": 0, "missing_genes": [], "n_genes_not_used": 0, "unseen_categories": {}, "absent_columns": "",
    "n_unknown_cells": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Embedded:
    folder = tmp_path_factory.mktemp("embedded")
    make_dataset(folder / "it's new", 60, 39, 25, ("SRX2", "SRX9"))
    hparams = {"likelihood": "nb", "n_latent": 10, "batch_key": "donor"}
    trained_on = {"n_train": 1000, "data_path": "/data/old"}
    overrides = ["mode=embed", "data.filter=a < 'b'"]
    index, latents = open_index(folder / "it's new"), folder / "latents.h5ad"
    ckpt = folder / "best.ckpt"
    return Embedded(
        folder, {"seed": 3}, ckpt, hparams, trained_on, index, FOUND, {"latents": latents}, overrides, LABELS
    )


@pytest.mark.parametrize(
    "row",
    [
        ["ELBO of these cells", "-1,234.6 nats per cell", "higher"],
        ["ELBO of new experiments", "-1,300.0 nats per cell", "higher"],
        ["ELBO expected", "-1,200.0 nats per cell", ""],
        ["ELBO in training", "-1,199.0 nats per cell", ""],
        ["batch mixing", "0.900", "higher"],
        ["genes of the model", "38 of 40 are there"],
        ["missing genes", "5.0 %, which count as zero: <GENE38>, GENE39"],
        ["other genes", "1, which the model does not see"],
        ["unknown cells", "30 of 60, of batches that it was not trained on"],
        ["not trained on: donor", "d9"],
        ["absent columns", "tech, unknown in all cells"],
        ["model", "nb, 10 latent dimensions, batches by donor"],
        ["trained on", "1,000 cells × 40 genes of /data/old"],
        ["latents", "latents.h5ad"],
    ],
    ids=lambda row: str(row[0]),
)
def test_a_row_for_each_thing_worth_knowing(run: Embedded, row: list[str]) -> None:
    assert row in [found[: len(row)] for found in rows_of(embed_report(run))]


def test_only_what_is_strange_is_warned_of(run: Embedded) -> None:
    page, familiar = embed_report(run), embed_report(replace(run, found=FOUND | FAMILIAR))
    warning = "what it makes of them is worth less"
    assert warning in page
    assert warning not in familiar
    new = embed_report(replace(run, found=FOUND | FAMILIAR | {"n_unknown_cells": 30}))
    assert warning not in new
    usual = "taken as of an unknown batch"
    assert usual in new and usual in page and usual not in familiar
    assert ["unknown cells", "none: it was trained on the batches of all"] in rows_of(familiar)
    assert "Cell type separation was not computed: no cell has a cell type." in page
    assert "They were not scored" in page
    assert "No picture of them was asked for" in page
    assert data_of(page)["tables"] == {}
    assert faults_of(page) == []


def test_commands_are_of_this_model_and_these_cells(run: Embedded) -> None:
    *commands, made, _config = code_of(embed_report(run))
    assert shlex.split(made)[-2:] == run.overrides
    de = next(shlex.split(text) for text in commands if text.startswith("scvae-data de"))
    assert de[2:5] == [str(run.ckpt), "--data", str(run.index.where)]
    assert de[6:9:2] == ['cell_type == "type1"', 'cell_type == "type0"']
    both = next(shlex.split(text) for text in commands if "processed_dir=" in text)
    assert both[-1] == f'paths.processed_dir=[/data/old,"{run.index.where}"]'
    assert any('read_h5ad("' in text for text in commands)
