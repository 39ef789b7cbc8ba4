from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scvae_data.training.scores import absent_scores, latent_scores

# Two cell types far apart, two batches that alternate within each.
LATENTS = np.array([[0, 0], [0, 1], [0, 0], [0, 1], [50, 0], [50, 1], [50, 0], [50, 1]], np.float32)
TYPES = pd.Series(list("aaaabbbb"), dtype="category")
BATCHES = pd.Series(list("xxyyxxyy"), dtype="category")


def test_types_apart_and_batches_together_score_high() -> None:
    scores = latent_scores(LATENTS, TYPES, BATCHES)
    assert scores["cell_type_separation"] == pytest.approx(1, abs=0.01)
    # Each cell lies on one of the other batch, at 1 from the other of its own: (1/2 - 1) / 1.
    assert scores["batch_mixing"] == pytest.approx(1 - 0.5)


def test_batches_apart_score_low() -> None:
    assert latent_scores(LATENTS, None, TYPES) == {"batch_mixing": pytest.approx(0, abs=0.02)}


def test_random_types_score_a_half() -> None:
    z = np.random.default_rng(0).normal(size=(400, 5)).astype(np.float32)
    assert latent_scores(z, pd.Series(np.arange(400) % 4), None) == {
        "cell_type_separation": pytest.approx(0.5, abs=0.02)
    }


def test_cells_without_a_label_do_not_count() -> None:
    missing = TYPES.where(np.arange(8) % 4 < 3)
    kept = np.arange(8) % 4 < 3
    expected = latent_scores(LATENTS[kept], TYPES[kept].reset_index(drop=True), BATCHES[kept].reset_index(drop=True))
    assert latent_scores(LATENTS, missing, BATCHES) == expected


@pytest.mark.parametrize(
    "labels", [pd.Series(["a"] * 8), pd.Series(list("abcdefgh")), pd.Series([None] * 8, dtype=object)]
)
def test_nothing_to_tell_apart_is_no_score(labels: pd.Series) -> None:
    assert latent_scores(LATENTS, labels, None) == {}


def test_a_type_of_one_batch_says_nothing_about_mixing() -> None:
    batches = pd.Series(list("xxyyzzzz"))
    assert latent_scores(LATENTS, TYPES, batches)["batch_mixing"] == pytest.approx(0.5)
    assert "batch_mixing" not in latent_scores(LATENTS, TYPES, pd.Series(list("xxxxzzzz")))


@pytest.mark.parametrize(
    ("types", "batches", "words"),
    [
        pytest.param(TYPES, BATCHES, {}, id="both"),
        pytest.param(
            None, None,
            {
                "cell_type_separation": "no obs column of a cell type is known; set outputs.cell_type_key",
                "batch_mixing": "no obs column of a batch is known; set model.batch_key",
            },
            id="none",
        ),
        pytest.param(
            pd.Series([None] * 8, dtype=object), pd.Series(["x"] * 8),
            {"cell_type_separation": "no cell has a cell type", "batch_mixing": "all cells are of one batch, x"},
            id="nothing to tell apart",
        ),
        pytest.param(
            pd.Series(list("abcdefgh")), BATCHES,
            {
                "cell_type_separation": "each cell is of a cell type of its own",
                "batch_mixing": "no cell type is in several batches, with more than one cell in some",
            },
            id="each its own",
        ),
    ],
)  # fmt: skip
def test_scores_that_cannot_be_are_said(
    types: pd.Series | None, batches: pd.Series | None, words: dict[str, str]
) -> None:
    assert absent_scores(types, batches, latent_scores(LATENTS, types, batches)) == words
