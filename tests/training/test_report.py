from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scvae_data.training.report import in_words, report

FACTS: dict[str, Any] = {
    "data_path": "/data/chunks", "content_hash": "c" * 64, "gene_list_hash": "g" * 64, "simulated": False,
    "n_obs_directory": 1200, "n_obs": 1100, "n_train": 1000, "n_val": 100, "n_test": 0, "n_vars": 2000,
    "n_chunks": 3, "chunk_size": 400, "cells_per_epoch": 1000, "batches_per_epoch": 4,
    "predicted_hit_rate_per_epoch": 1.0, "holds_everything": True,
}  # fmt: skip
METRICS: dict[str, Any] = {
    "val/elbo": -1234.56, "val/recon": -1230.0, "val/kl": 4.56, "val/loss": 1234.56, "val/active_units": 7.0,
    "cells_per_s": 5000.4, "wait_share": 0.0213, "hit_rate": 0.0, "predicted_hit_rate": 0.0, "bytes_read": 2_500_000,
}  # fmt: skip


@pytest.fixture
def page() -> str:
    made = {"training curves": Path("run/training_curves.png"), "latents": Path("run/latents.h5ad")}
    not_scored = {"batch_mixing": "all cells are of one batch, SRX1"}
    return report({"model": {"likelihood": "nb"}}, FACTS, METRICS, made, not_scored=not_scored)


@pytest.mark.parametrize(
    "line",
    [
        "# nb, 1,100 cells × 2,000 genes",
        "| cells | 1,000 training, 100 validation; 1,200 in the directory |",
        "| epoch | 1,000 cells in 4 batches |",
        "| content hash | `cccccccccccc` |",
        "| ELBO (validation) | -1,234.6 nats per cell |",
        "| active latent dimensions | 7 |",
        "| speed | 5,000 cells/s, 2.1 % waiting on data |",
        "| cache | 0.0 % of chunks found in memory (predicted 0.0 %), 2.5 MB read |",
        "| batch mixing | not computed: all cells are of one batch, SRX1 |",
        "- latents: `latents.h5ad`",
        "![training curves](training_curves.png)",
    ],
)
def test_a_line_for_each_thing_worth_knowing(page: str, line: str) -> None:
    assert line in page.splitlines()


def test_what_an_epoch_is_predicted_to_find_is_not_beside_what_the_run_found(page: str) -> None:
    assert page.count("predicted") == 1


def test_what_was_not_measured_is_left_out() -> None:
    assert in_words({"val/elbo": -1.0}) == {}
    assert list(in_words({"cells_per_s": 1.0, "wait_share": 0.0})) == ["speed"]
    assert "skipped" not in in_words({"skipped_cells": 0, "bad_chunks": 0})


def test_cells_that_are_left_out_have_a_line() -> None:
    words = in_words({"skipped_cells": 1234, "bad_chunks": 2})
    assert words == {"skipped": "1,234 cells of 2 damaged chunks, in all epochs together"}
    assert in_words({"skipped_cells": 1})["skipped"] == "1 cell of damaged chunks, in all epochs together"
