"""A model in a folder: all of it comes back, anything else is refused in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.results.conftest import KEY, N_VARS, untrained, whole

from scvae_data import VAE, ConfigError
from scvae_data.results.card import card
from scvae_data.store import write_json

RECORD = {
    "facts": {"n_train": 1234, "n_val": 56, "n_experiments": 3, "simulated": True, "content_hash": "c1",
              "gene_list_hash": "g1", "normalization": {"target_sum": 1e4}, "n_vars": 20},
    "config": {"seed": 3},
    "metrics": {"val/elbo": -1234.5678, "val/kl": float("nan")},
}  # fmt: skip


@pytest.fixture
def saved(directory: Path, tmp_path: Path) -> Path:
    model = untrained(directory)
    masks = torch.ones(2, N_VARS, dtype=torch.bool)
    masks[1, 5:] = False
    model.measured, model.record = masks, RECORD
    model.save(tmp_path / "model", license="cc-by-4.0")
    return tmp_path / "model"


def test_everything_comes_back(saved: Path, model: VAE, directory: Path) -> None:
    found = VAE.load(saved)
    assert not found.training
    assert {path.name for path in saved.iterdir()} == {
        "README.md", "model.json", "weights.pt", "gene_list.json", "gene_sets.bin",
    }  # fmt: skip
    assert dict(found.hparams) == dict(model.hparams)
    assert found.facts == model.facts
    assert found.facts["gene_symbols"][:2] == ["GENE0", "GENE1"]
    assert found.measured.sum(dim=1).tolist() == [N_VARS, 5]
    assert found.record["config"] == {"seed": 3}
    assert found.record["metrics"]["val/kl"] is None
    np.testing.assert_array_equal(whole(found.expression(directory))[1], whole(model.expression(directory))[1])


def test_a_saved_model_is_replaced_and_nothing_else(saved: Path, model: VAE, tmp_path: Path) -> None:
    model.save(saved)
    assert VAE.load(saved).measured is None
    assert not (saved / "gene_sets.bin").exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    with pytest.raises(ConfigError, match=r"holds thesis\.tex, which is of no saved model; name another folder"):
        model.save(tmp_path / "other")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "README.md").write_text("my own")
    with pytest.raises(ConfigError, match=r"holds README\.md, which is of no saved model"):
        model.save(tmp_path / "mine")
    with pytest.raises(ConfigError, match="is a file; name a folder"):
        model.save(tmp_path / "mine" / "README.md")
    assert (tmp_path / "mine" / "README.md").read_text() == "my own"
    with pytest.raises(ConfigError, match="the model was not built yet"):
        VAE().save(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def changed(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads((folder / "model.json").read_text())
    del content["checksum"]
    change(content)
    write_json(folder / "model.json", content)


def flip(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / name).write_bytes(content)

    return change


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: (folder / "model.json").unlink(), "holds no model.json; give a folder that VAE.save"),
        (lambda folder: (folder / "weights.pt").unlink(), "is no whole model"),
        *((flip(name), "is no whole model") for name in (
            "model.json", "weights.pt", "gene_list.json", "gene_sets.bin"
        )),
        (lambda folder: changed(folder, lambda c: c.update(format_version=2)), "is a model of format 2, this version"),
        (lambda folder: changed(folder, lambda c: c.update(format="x")), "its format is x"),
        (lambda folder: changed(folder, lambda c: c["settings"].update(n_hidden=2**40)), "do not fit .*has shape"),
        (lambda folder: changed(folder, lambda c: c["settings"].update(n_lattent=3)), "do not fit .*n_lattent"),
        (lambda folder: changed(folder, lambda c: c["settings"].update(likelihood="os.abort")), "os.abort is not one"),
        (lambda folder: changed(folder, lambda c: c["facts"].update(categories=[[]])), "are no list of names"),
    ],
)  # fmt: skip
def test_what_is_not_whole_is_refused_in_one_line(saved: Path, damage: Callable[[Path], None], words: str) -> None:
    damage(saved)
    with pytest.raises(ConfigError, match=words) as caught:
        VAE.load(saved)
    assert "\n" not in str(caught.value)


def test_the_card_says_what_it_is_of_and_how_to_load_it(saved: Path) -> None:
    text = (saved / "README.md").read_text()
    assert text.startswith('---\nlicense: "cc-by-4.0"\nlibrary_name: scvae-data\n')
    for words in (
        "# VAE (nb) of 20 genes", "simulated demo data", "| cells | 1,234 training, 56 validation |",
        "| experiments | 3 |", f"| batches | 3 of `{KEY}` |", "| content hash | `c1` |",
        "| ELBO, validation (nats per cell) | -1,234.6 |", "| n_latent | `3` |", 'VAE.load("model")', "| torch | ",
        "License: cc-by-4.0",
    ):  # fmt: skip
        assert words in text, words
    assert "KL divergence" not in text


def test_a_card_of_a_model_without_a_run(model: VAE) -> None:
    text = card(model)
    assert 'license: "unknown"' in text
    assert "| cells | not stated |" in text
    assert "| not stated | |" in text
