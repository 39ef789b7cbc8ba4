"""The page about a run says what is worth knowing of it, in words, and what was not measured is left out."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tests.support.browser import needs_browser, opened
from tests.support.pages import code_of, faults_of, rows_of, table_of

from scvae_data.filter import check_filter
from scvae_data.training.leakage import HeldOut, Shared
from scvae_data.training.pages import Labels, _columns
from scvae_data.training.report import Finished, in_words, report

FACTS: dict[str, Any] = {
    "data_path": "/data/<chunks>", "content_hash": "c" * 64, "gene_list_hash": "g" * 64, "simulated": False,
    "n_obs_directory": 1200, "n_obs": 1100, "n_train": 1000, "n_val": 100, "n_test": 0, "n_vars": 2000,
    "n_chunks": 3, "chunk_size": 400, "cells_per_epoch": 1000, "batches_per_epoch": 4,
    "predicted_hit_rate_per_epoch": 1.0, "holds_everything": True,
}  # fmt: skip
METRICS: dict[str, Any] = {
    "val/elbo": -1234.56, "val/recon": -1230.0, "val/kl": 4.56, "val/loss": 1234.56, "val/active_units": 7.0,
    "cells_per_s": 5000.4, "wait_share": 0.0213, "hit_rate": 0.0, "predicted_hit_rate": 0.0, "bytes_read": 2_500_000,
    "cell_type_separation": 0.71,
}  # fmt: skip
CONFIG: Mapping[str, Any] = {
    "model": {"likelihood": "nb", "n_latent": 10}, "trainer": {"max_epochs": 20}, "data": {"filter": "a < 'b' & c"},
}  # fmt: skip


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    run_dir = tmp_path_factory.mktemp("run")
    (run_dir / "checkpoints").mkdir()
    (run_dir / "checkpoints" / "best.ckpt").touch()
    (run_dir / "curves.png").write_bytes(b"\x89PNG\r\n\x1a\n" + 8 * b"\0" + (640).to_bytes(4) + (480).to_bytes(4))
    made = {"training curves": run_dir / "curves.png", "latents": run_dir / "latents.h5ad"}
    held_out = HeldOut(
        [Shared("donor", "validation", 3, 1, 0.25)], "Copies: none.", "28 of 300 cells have no value of donor."
    )
    not_scored = {"batch_mixing": "all cells are of one batch, SRX1"}
    overrides = ["data.filter=a < 'b' & c", "seed=3"]
    labels = Labels("cell_type", ["B's cell", "T cell"])
    return report(Finished(run_dir, CONFIG, FACTS, METRICS, made, held_out, not_scored, overrides, labels))


@pytest.mark.parametrize(
    "row",
    [
        ["ELBO (validation)", "-1,234.6 nats per cell", "higher"],
        ["reconstruction (validation)", "-1,230.0 nats per cell", "higher"],
        ["KL divergence (validation)", "4.6 nats per cell", "neither"],
        ["active latent dimensions", "7 of 10", "neither"],
        ["cell type separation", "0.710", "higher"],
        ["donor", "validation", "3", "1", "25.0 %"],
        ["directory", "/data/<chunks>"],
        ["cells", "1,000 training, 100 validation; 1,200 in the directory"],
        ["chunks", "3 of up to 400 cells"],
        ["epoch", "1,000 cells in 4 batches"],
        ["content hash", "cccccccccccc"],
        ["speed", "5,000 cells/s, 2.1 % waiting on data"],
        ["cache", "0.0 % of chunks found in memory (predicted 0.0 %), 2.5 MB read"],
        ["latents", "latents.h5ad"],
    ],
    ids=lambda row: str(row[0]),
)
def test_a_row_for_each_thing_worth_knowing(page: str, row: list[str]) -> None:
    assert row in [found[: len(row)] for found in rows_of(page)]


def test_every_score_says_what_it_means(page: str) -> None:
    scores = [row for row in rows_of(page) if len(row) == 4 and row[2] in ("higher", "lower", "neither")]
    assert len(scores) == 5
    assert all(len(row[3]) > 20 for row in scores)
    assert "Batch mixing was not computed: all cells are of one batch, SRX1." in page


def test_cells_without_a_side_of_their_own_are_told(page: str) -> None:
    assert '<p class="note">28 of 300 cells have no value of donor.</p>' in page


def test_settings_and_commands_are_as_they_were_given(page: str) -> None:
    *_, made, config = code_of(page)
    assert shlex.split(made)[-2:] == ["data.filter=a < 'b' & c", "seed=3"]
    assert "filter: a < 'b' & c" in config
    sweep = next(block for block in code_of(page) if " -m " in block)
    assert shlex.split(sweep)[-3:] == ["data.filter=a < 'b' & c", "seed=3", "model.n_latent=5,20"]
    de = next(shlex.split(block) for block in code_of(page) if block.startswith("scvae-data de"))
    assert de[3:7] == ["--group1", 'cell_type == "B\'s cell"', "--group2", 'cell_type == "T cell"']
    assert [check_filter(text) for text in de[4:7:2]] == de[4:7:2]
    assert any(block.endswith("trainer.max_epochs=40") and "resume_from=" in block for block in code_of(page))


def test_pictures_are_inside_with_a_text_for_those_who_do_not_see_them(page: str) -> None:
    (picture,) = re.findall(r"<img [^>]*>", page)
    assert 'src="data:image/png;base64,iVBORw0KGgo' in picture
    assert 'width="640" height="480"' in picture
    assert re.search(r'alt="Curves over epochs', picture)
    assert "No picture of them was asked for" in page


def test_readers_who_do_not_see_it_find_their_way(page: str) -> None:
    assert faults_of(page) == []


def test_experiments_are_a_table(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {
            "srx_accession": ["SRX2", "SRX1"], "n_cells": [10, 3000], "elbo": [-9.26, -7.0],
            "expected": [-7.0, float("nan")],
            "z": [-4.26, float("nan")], "mean_log10_counts": [3.0, 4.0], "mean_genes": [100.4, 2000.0],
            "pct_counts_mt": [float("nan"), 3.21], "reasons": [["low_elbo", "few_cells"], []],
            "qc_flags": [["few_cells", "outlier"], None], "flagged": [True, False],
        }
    )  # fmt: skip
    columns = {column.title: list(column.values) for column in _columns(table)}
    assert columns == {
        "experiment": ["SRX2", "SRX1"], "cells": [10, 3000], "ELBO": [-9.3, -7.0], "expected": [-7.0, None],
        "z": [-4.3, None], "counts": [1000, 10000], "genes": [100, 2000], "% mt": [None, 3.2],
        "what is odd": [["low_elbo", "few_cells", "outlier"], []],
    }  # fmt: skip


def test_a_run_that_measured_nothing_has_a_page(tmp_path: Path) -> None:
    page = report(Finished(tmp_path, CONFIG, FACTS | {"n_val": 0}, {}))
    assert "No cells: training saw all that are selected." in page
    assert "They were not scored" in page
    assert not any("scvae-data de" in block for block in code_of(page))
    with pytest.raises(KeyError):
        table_of(page, "experiments")


def test_what_was_not_measured_is_left_out() -> None:
    assert in_words({"val/elbo": -1.0}) == {}
    assert list(in_words({"cells_per_s": 1.0, "wait_share": 0.0})) == ["speed"]
    assert "skipped" not in in_words({"skipped_cells": 0, "bad_chunks": 0})


def test_cells_that_are_left_out_have_a_line() -> None:
    words = in_words({"skipped_cells": 1234, "bad_chunks": 2})
    assert words == {"skipped": "1,234 cells of 2 damaged chunks, in all epochs together"}
    assert in_words({"skipped_cells": 1})["skipped"] == "1 cell of damaged chunks, in all epochs together"


@pytest.mark.services
@needs_browser
def test_a_browser_shows_it_without_a_complaint(page: str, tmp_path: Path) -> None:
    pixel = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII="
    (tmp_path / "page.html").write_text(re.sub(r"base64,[A-Za-z0-9+/=]+", f"base64,{pixel}", page))
    complaints, document = opened(tmp_path / "page.html", tmp_path / "browser")
    assert complaints == []
    assert 'data-ready="true"' in document
