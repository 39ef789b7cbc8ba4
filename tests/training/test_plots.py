from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scvae_data.report.colours import CATEGORIES, MISSING, OTHER
from scvae_data.training.plots import _embed, _groups, _is_measured, curves_figure, new_figure, training_curves


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


def test_curves_are_over_epochs_with_steps_above() -> None:
    rows = [
        {"step": 4, "epoch": 0, "train/elbo": -9.0},
        {"step": 9, "epoch": 0, "val/elbo": -8.0},
        {"step": 9, "epoch": 0, "train/elbo_epoch": -8.5},
        {"step": 14, "epoch": 1, "train/elbo": -7.0},
        {"step": 19, "epoch": 1, "val/elbo": -6.0},
        {"step": 19, "epoch": 1, "train/elbo_epoch": -6.5},
    ]
    figure = curves_figure(pd.DataFrame(rows))
    assert figure is not None
    (axis,) = figure.axes
    batches, epochs, validation = (line.get_xdata().tolist() for line in axis.lines)
    assert (batches, epochs, validation) == ([0.5, 1.5], [0.5, 1.5], [1.0, 2.0])
    assert axis.get_xlabel() == "epoch"
    (steps,) = axis.child_axes
    assert steps.get_xlabel() == "step"
    figure.canvas.draw()
    assert [10 * end for end in axis.get_xlim()] == pytest.approx(steps.get_xlim())


@pytest.mark.parametrize("n_epochs", [1, 2])
def test_all_panels_have_the_scale_of_the_whole_run(n_epochs: int) -> None:
    rows = [
        {"step": step, "epoch": step // 3, "throughput/cells_per_s": 9.0}
        | ({"val/elbo": -1.0, "val/active_units": 2.0} if step % 3 == 2 else {})
        for step in range(3 * n_epochs)
    ]
    rows[-1].pop("throughput/cells_per_s")
    figure = curves_figure(pd.DataFrame(rows))
    assert figure is not None
    assert [axis.get_xlim() for axis in figure.axes] == 3 * [pytest.approx((0, 1.04 * n_epochs))]
    for axis in figure.axes:  # no point lies on the frame
        ys = axis.lines[0].get_ydata()
        low, high = axis.get_ylim()
        assert (low < ys).all() and (ys < high).all()
    dimensions = figure.axes[1]
    assert all(float(tick).is_integer() for tick in dimensions.get_yticks())


def test_no_two_panels_show_the_same() -> None:
    names = ("elbo", "recon", "kl", "active_units")
    figure = curves_figure(pd.DataFrame({"step": [0, 1]} | {f"val/{name}": [1.0, 2.0] for name in names}))
    assert figure is not None
    assert [axis.get_title() for axis in figure.axes] == [
        "ELBO (higher is better)", "KL divergence", "Active latent dimensions",
    ]  # fmt: skip


@pytest.mark.parametrize("n_panels", [1, 2, 3, 4])
def test_figures_are_as_wide_as_a_page(n_panels: int) -> None:
    figure, axes = new_figure(n_panels)
    width, height = figure.get_size_inches()
    assert len(axes) == n_panels
    assert width <= 10
    assert width / height < 3


@pytest.mark.parametrize(
    ("values", "measured"),
    [
        ([6.8, 7.1, None], True), (list(range(30)), True), ([1, 2, 2], False), ([1.0, 2.0, None], False),
        ([True, False], False), (["a", "b"], False), ([None, None], False),
    ],
    ids=["few fractions", "many whole numbers", "few of them", "with missing ones", "truth values", "texts", "none"],
)  # fmt: skip
def test_numbers_are_shades_unless_they_name_few_groups(values: list[object], measured: bool) -> None:
    assert _is_measured(pd.Series(values)) is measured


def test_up_to_twenty_categories_have_a_colour_each_and_missing_values_a_row() -> None:
    groups = _groups(pd.Series([None, *(f"t{n:02d}" for n in range(20))]))
    assert [group.label for group in groups] == ["missing", *(f"t{n:02d}" for n in range(20))]
    assert [group.colour for group in groups] == [MISSING, *CATEGORIES]


def test_of_more_categories_the_largest_have_colours_and_the_others_one_row() -> None:
    values = pd.Series([f"t{n:02d}" for n in range(30) for _ in range(30 - n)])
    groups = _groups(values)
    assert [group.label for group in groups] == ["other (11 values)", *(f"t{n:02d}" for n in range(19))]
    assert [group.colour for group in groups] == [OTHER, *CATEGORIES[:19]]
    assert np.sum([group.cells for group in groups], axis=0).tolist() == [1] * len(values)  # each cell once


def test_axes_of_principal_components_say_how_much_of_the_variance_they_show() -> None:
    along = np.array([[-3, -1], [-3, 1], [3, -1], [3, 1]], np.float32)
    xy, labels = _embed(along, "pca", 0)
    assert labels == ["PC 1 (90 % of variance)", "PC 2 (10 % of variance)"]
    assert np.abs(xy[:, 0]).tolist() == pytest.approx([3, 3, 3, 3])
    assert _embed(along[:, :1], "pca", 0)[1] == ["PC 1 (100 % of variance)", "PC 2 (0 % of variance)"]
