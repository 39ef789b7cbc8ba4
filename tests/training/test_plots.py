from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from scvae_data.training.plots import curves_figure, training_curves


@pytest.mark.parametrize("steps", [[0], [4], [3, 4, 5], list(range(0, 1000, 50))], ids=str)
def test_steps_are_whole_numbers_on_the_axis(steps: list[int]) -> None:
    figure = curves_figure(pd.DataFrame({"step": steps, "train/elbo": [-float(step) for step in steps]}))
    assert figure is not None
    (axis,) = figure.axes
    low, high = axis.get_xlim()
    ticks = [tick for tick in axis.get_xticks() if low <= tick <= high]
    assert ticks
    assert all(float(tick).is_integer() for tick in ticks)
    assert low <= min(steps) <= max(steps) <= high
    assert axis.lines[0].get_xydata().tolist() == [[step, -step] for step in steps]


def test_no_curves_without_their_columns(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,other\n1,2\n")
    assert not training_curves(tmp_path / "metrics.csv", tmp_path / "curves.png")
    assert not (tmp_path / "curves.png").exists()


def test_epoch_means_stand_out_from_single_batches() -> None:
    table = pd.DataFrame({"step": range(40), "train/elbo": -1.0, "train/elbo_epoch": -2.0, "val/elbo": -3.0})
    figure = curves_figure(table)
    assert figure is not None
    batches, epochs, validation = figure.axes[0].lines
    assert [line.get_label() for line in (batches, epochs, validation)] == ["single batches", "training", "validation"]
    assert epochs.get_xdata()[:3].tolist() == [-0.5, 0.5, 1.5]  # in the middle of the epochs that end there
    assert batches.get_linewidth() < epochs.get_linewidth() == validation.get_linewidth()
