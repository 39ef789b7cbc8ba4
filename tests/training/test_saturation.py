"""What more cells bring: nested shares, the same steps, an interval and a sentence."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tests.training.conftest import Compose

from scvae_data.store.files import read_json
from scvae_data.training.run import train
from scvae_data.training.saturation import Share, compared, sentence_of, told_of, write_saturation


def share(cells: int, gap: float, n_units: int = 200, noise: float = 0.1, runs: int = 1) -> Share:
    """A share whose models lack ``gap`` nats on each of ten cells of each unit, more or less."""
    rng = np.random.default_rng(cells)
    easy = np.random.default_rng(0).normal(-500, 50, n_units)  # the same held-out cells for all shares
    differs = rng.normal(0, noise, n_units)
    sums = [10 * (easy - gap + differs - differs.mean() + 0.3 * run) for run in range(runs)]
    return Share(cells / 10_000, cells, sums)


def said(*shares: Share) -> str:
    facts = compared(shares, np.full(200, 10.0)) | {"units": "blocks of held-out cells of 4 experiments"}
    return sentence_of(facts)


def test_the_interval_is_of_the_difference_and_holds_the_truth() -> None:
    """Cells differ by 50 nats, the difference of two models on them by a tenth."""
    facts = compared([share(100, 20.0), share(2_500, 0.5), share(10_000, 0.0)], np.full(200, 10.0))
    for found, gap in zip(facts["shares"], (20.0, 0.5, 0.0), strict=True):
        assert found["gap_low"] <= found["gap"] <= found["gap_high"]
        assert found["gap"] == pytest.approx(gap, abs=0.05)
        assert found["gap_high"] - found["gap_low"] < 0.1
    assert facts["shares"][0]["gap_low"] < 20.0 < facts["shares"][0]["gap_high"]


def test_runs_of_several_seeds_widen_the_interval() -> None:
    widths = []
    for runs in (1, 3):
        facts = compared([share(100, 20.0, runs=runs), share(10_000, 0.0, runs=runs)], np.full(200, 10.0))
        widths.append(facts["shares"][0]["gap_high"] - facts["shares"][0]["gap_low"])
    assert widths[1] > 3 * widths[0]


def test_the_smallest_share_that_loses_little_suffices() -> None:
    text = said(share(100, 20.0), share(500, 5.0), share(2_500, 0.5), share(10_000, 0.0))
    assert text.startswith("2,500 cells suffice to within 0.5")
    assert "of all 10,000; from 100 cells to all the held-out ELBO gains 20.0" in text
    assert (
        "95 % interval 0." in text and "bootstrap over 200 blocks of held-out cells of 4 experiments; one seed" in text
    )


def test_where_the_curve_still_rises_no_share_suffices() -> None:
    text = said(share(100, 20.0), share(2_500, 6.0), share(10_000, 0.0))
    assert text.startswith("No smaller share suffices: from 2,500 to 10,000 cells the held-out ELBO rises by 6.0")


def test_where_more_cells_bring_nothing_the_smallest_suffices() -> None:
    assert said(share(100, -1.0), share(10_000, 0.0)).startswith("100 cells suffice to within -1.0")


def test_jobs_of_nested_shares_are_drawn_and_told(tmp_path: Path, train_config: Compose) -> None:
    rows = []
    for number, fraction in enumerate(("0.1", "1.0")):
        options = (
            "logger=none",
            "outputs.picture=none",
            "data.matched_epochs=true",
            "data.split={val: 0.1, test: 0.2}",
        )
        cfg = train_config(tmp_path / str(number), *options, f"data.train_fraction={fraction}")
        train(cfg)
        overrides = f"data.train_fraction={fraction}"
        rows.append({"status": "completed", "run_dir": str(number), "overrides": overrides})
    write_saturation(tmp_path, rows)
    facts = read_json(tmp_path / "saturation.json")
    small, whole = facts["shares"]
    assert facts["part"] == "test" and facts["n_held_out"] == pytest.approx(120, abs=25)
    assert small["n_cells"] == pytest.approx(0.1 * whole["n_cells"], rel=0.3)
    results = [json.loads((tmp_path / str(number) / "result.json").read_text()) for number in (0, 1)]
    assert [one["elbo"] for one in facts["shares"]] == pytest.approx([one["test/elbo"] for one in results], rel=1e-5)
    assert [one["cell_type_separation"] for one in facts["shares"]] == [one["cell_type_separation"] for one in results]
    assert (tmp_path / "saturation.png").read_bytes().startswith(b"\x89PNG")
    assert told_of(tmp_path) == [facts["sentence"], str(tmp_path / "saturation.json"), str(tmp_path / "saturation.png")]


def test_other_sweeps_have_none(tmp_path: Path) -> None:
    rows = [{"status": "completed", "run_dir": str(n), "overrides": f"seed={n}"} for n in (0, 1)]
    write_saturation(tmp_path, rows)
    assert told_of(tmp_path) == []
