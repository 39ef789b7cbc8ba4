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
