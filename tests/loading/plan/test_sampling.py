from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.loading import conftest
from tests.loading.conftest import Directory, flat, rows_of

from scvae_data import ConfigError, SelectionError
from scvae_data.loading.plan.epoch import Plan
from scvae_data.loading.plan.sampling import Draws, Sampling, parse_sampling
from scvae_data.loading.select.rows import RowGroup, to_row_groups

NAMES = ("a", "b", "c")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        pytest.param({"alpha": 1.0}, [1, 1, 1], id="as they are"),
        pytest.param({"alpha": 0.0}, [35 / 3, 35 / 27, 35 / 75], id="equal shares"),
        pytest.param({"alpha": 0.5}, [35 / 9, 35 / 27, 35 / 45], id="square root"),
        pytest.param({"n_obs": 75}, [25, 25 / 9, 1], id="equal shares of 75"),
        pytest.param({"replacement": False}, [1, 1 / 9, 1 / 25], id="equal shares, each once"),
        pytest.param({"replacement": False, "n_obs": 9}, [1, 4 / 9, 4 / 25], id="all of the rarest"),
        pytest.param({"replacement": False, "n_obs": 29}, [1, 1, 19 / 25], id="all of two"),
        pytest.param({"replacement": False, "n_obs": 35}, [1, 1, 1], id="all"),
        pytest.param({"weights": (("a", 0.0), ("b", 1.0), ("c", 1.0))}, [0, 17 / 9, 17 / 25], id="weights"),
    ],
)
def test_expected_draws_of_one_cell(settings: dict[str, Any], expected: list[float]) -> None:
    assert Sampling("x", **settings).rates(np.array([1, 9, 25, 0]), NAMES).tolist() == pytest.approx([*expected, 0])


def test_cells_without_a_value_are_one_more_value_or_left_out() -> None:
    sizes = np.array([10, 0, 10, 10])
    assert Sampling("x").rates(sizes, NAMES).tolist() == pytest.approx([1, 0, 1, 1])
    weighted = Sampling("x", weights=(("a", 1.0), ("c", 1.0))).rates(sizes, NAMES)
    assert weighted.tolist() == [1, 0, 1, 0]


class Held:
    """Values of cells that are no directory's."""

    def __init__(self, codes: np.ndarray) -> None:
        self.codes = codes

    def of(self, group: RowGroup) -> dict[str, np.ndarray]:
        return {"x": self.codes[group.global_rows(slice(None))]}


def draws_of(sizes: list[int], rates: list[float], seed: int) -> tuple[Draws, np.ndarray]:
    """Draws from row groups of these sizes, whose cells have the values 0, 1, 2, 0, …"""
    firsts = np.cumsum([0, *sizes])
    codes = (np.arange(firsts[-1]) % len(rates)).astype(np.int32)
    return Draws(to_row_groups(None, firsts), Held(codes), "x", np.array(rates), seed), codes


made = st.builds(
    draws_of,
    st.lists(st.integers(1, 30), min_size=1, max_size=6),
    st.lists(st.floats(0.01, 5), min_size=1, max_size=4),
    st.integers(0, 9),
)


@given(made, st.integers(0, 20))
def test_every_epoch_has_the_expected_draws_rounded(made: tuple[Draws, np.ndarray], epoch: int) -> None:
    draws, codes = made
    rows = [draws.of_rows(epoch, group) for group in range(len(draws.row_groups))]
    assert [int(of_group.sum()) for of_group in rows] == draws.of_groups(epoch).tolist()
    assert sum(map(np.sum, rows)) == draws.n_draws == pytest.approx(draws.rates[codes].sum(), abs=0.5001)
    expected = draws.rates[codes]
    times = np.concatenate(rows)
    assert (times >= np.floor(expected - 1e-9)).all() and (times <= np.ceil(expected + 1e-9)).all()


def test_over_epochs_cells_are_drawn_as_often_as_expected() -> None:
    draws, codes = draws_of([20, 30, 10], [0.1, 0.5, 2.25], seed=1)
    times = np.mean(
        [np.concatenate([draws.of_rows(epoch, group) for group in range(3)]) for epoch in range(600)], axis=0
    )
    np.testing.assert_allclose(times, draws.rates[codes], atol=0.09)  # 4 standard deviations of a coin


weighted_plans = st.builds(
    lambda made, batch_size, window, seed: Plan(
        tuple(group.n_rows for group in made[0].row_groups), batch_size, seed, window, draws=made[0]
    ),
    made.filter(lambda made: made[0].n_draws >= 4),
    st.integers(1, 20),
    st.integers(1, 3),
    st.integers(0, 5),
)


def drawn(plan: Plan, epoch: int, start: int = 0) -> list[list[tuple[int, int]]]:
    """Batches of an epoch as lists of (row group, row within it)."""
    share = plan.epoch(epoch)
    batches = []
    for batch in share.batches(start):
        cells = []
        for segment in batch.segments:
            rows = [(group, row) for group in share.windows[segment.window] for row in range(plan.group_rows[group])]
            cells += [rows[slot] for slot in segment.slots]
        batches.append(cells)
    return batches


@given(weighted_plans, st.integers(0, 4), st.data())
def test_ranks_share_the_draws_of_an_epoch(plan: Plan, epoch: int, data: st.DataObject) -> None:
    world_size = data.draw(st.integers(1, 4))
    shares = [
        drawn(Plan(plan.group_rows, plan.batch_size, plan.seed, plan.window, True, world_size, rank, plan.draws), epoch)
        for rank in range(world_size)
    ]
    assert plan.draws is not None
    times = np.concatenate([plan.draws.of_rows(epoch, group) for group in range(len(plan.group_rows))])
    rows = [(group, row) for group, n_rows in enumerate(plan.group_rows) for row in range(n_rows)]
    expected = [row for row, n in zip(rows, times.tolist(), strict=True) for _ in range(n)]
    assert sorted(flat(flat(batches) for batches in shares)) == expected
    sizes = [len(batch) for batches in shares for batch in batches]
    assert len({len(batches) for batches in shares}) == 1 and max(sizes) - min(sizes) <= 1 <= min(sizes)
    start = data.draw(st.integers(0, len(shares[0])))
    rest = Plan(plan.group_rows, plan.batch_size, plan.seed, plan.window, True, world_size, 0, plan.draws)
    assert drawn(rest, epoch, start) == shares[0][start:]


# --- in the data module -----------------------------------------------------------------------------------------------


module_of = partial(conftest.module_of, split=None)


@pytest.mark.parametrize("directory", ["hashed", "by_source"])
def test_cell_types_in_equal_shares(directory: str, request: pytest.FixtureRequest) -> None:
    cells: Directory = request.getfixturevalue(directory)
    module = module_of(cells, sampling={"column": "cell_type"}, filter='donor_age < 40 or cell_type == "type0"')
    loader = module.train_dataloader()
    types = cells.obs["cell_type"].cat.codes.to_numpy()
    for _ in range(2):
        rows = flat(rows_of(loader))
        assert len(rows) == module.n_cells("train") == module.facts()["cells_per_epoch"]
        shares = np.bincount(types[rows] + 1, minlength=4) / len(rows)
        np.testing.assert_allclose(shares, 0.25, atol=0.05)
        assert len(set(rows)) < len(rows)


def test_without_replacement_no_cell_comes_twice(hashed: Directory) -> None:
    module = module_of(hashed, sampling={"column": "cell_type", "replacement": False})
    rows = flat(rows_of(module.train_dataloader()))
    sizes = np.bincount(hashed.obs["cell_type"].cat.codes.to_numpy() + 1)
    assert len(rows) == len(set(rows)) == pytest.approx(4 * sizes.min(), abs=1)


def test_what_has_no_weight_is_neither_drawn_nor_read(by_source: Directory) -> None:
    weights = {"SRX1": 0, "SRX2": 1, "SRX3": 2}
    module = module_of(by_source, sampling={"column": "SRX_accession", "weights": weights, "n_obs": 90})
    rows = flat(rows_of(module.train_dataloader()))
    drawn_from = by_source.obs["SRX_accession"].to_numpy(object)[rows]
    assert [int((drawn_from == name).sum()) for name in weights] == pytest.approx([0, 30, 60], abs=1)
    assert module.n_cells("train") == 200 and module.facts()["n_train_blocks"] == 7


@pytest.mark.parametrize("settings", [{"num_threads": 4}, {"num_workers": 2}, {"chunk_cache_size": 1}], ids=str)
def test_draws_do_not_depend_on_how_they_are_made_and_resume(hashed: Directory, settings: dict[str, Any]) -> None:
    shared = {"sampling": {"column": "cell_type", "alpha": 0.3, "n_obs": 250}, "max_chunks_in_memory": 1}
    reference = module_of(hashed, **shared).train_dataloader()
    expected = [*rows_of(reference), *rows_of(reference)]
    first = module_of(hashed, **shared, **settings)
    done = []
    for batch in first.train_dataloader():
        done.append(batch["index"].tolist())
        if len(done) == 7:
            break
    second = module_of(hashed, **shared)
    second.load_state_dict(first.state_dict())
    loader = second.train_dataloader()
    assert [*done, *rows_of(loader), *rows_of(loader)] == expected
    first.teardown()
    other = module_of(hashed, **{**shared, "sampling": {"column": "cell_type", "alpha": 0.4, "n_obs": 250}})
    other.load_state_dict(first.state_dict())
    with pytest.raises(SelectionError, match="the saved run has sampling="):
        other.train_dataloader()


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        pytest.param({"alpha": 0.5}, "sampling.alpha is set, but sampling.column is null", id="no column"),
        pytest.param("cell_type", "must be a mapping", id="text"),
        pytest.param({"column": 3}, "sampling.column=3 must be the name", id="column"),
        pytest.param({"column": "x", "power": 1}, "unknown keys", id="key"),
        pytest.param({"column": "x", "alpha": "big"}, "sampling.alpha='big'", id="alpha"),
        pytest.param({"column": "x", "alpha": 1, "weights": {"a": 1}}, "alpha=1 and sampling.weights", id="both"),
        pytest.param({"column": "x", "weights": {"a": -1}}, "must give numbers of 0 or more", id="negative"),
        pytest.param({"column": "x", "weights": {"a": 0}}, "must give numbers of 0 or more", id="all zero"),
        pytest.param({"column": "x", "replacement": 1}, "sampling.replacement=1", id="replacement"),
        pytest.param({"column": "x", "n_obs": 0}, "sampling.n_obs=0", id="n_obs"),
    ],
)
def test_wrong_settings_are_refused_at_once(sampling: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_sampling(sampling)


def test_without_a_column_every_cell_is_drawn_once() -> None:
    assert parse_sampling(None) is parse_sampling({"column": None, "alpha": 0.0, "replacement": True}) is None


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        pytest.param({"column": "cell_typ"}, "cell_typ not in", id="column"),
        pytest.param({"column": "donor_age"}, "not categorical", id="number"),
        pytest.param({"column": "cell_type", "weights": {"type9": 1}}, "no value 'type9'; it has type0", id="unknown"),
        pytest.param({"column": "cell_type", "weights": {"type0": 1}}, "no weight for 'type1'.*2 such", id="missing"),
        pytest.param(
            {"column": "cell_type", "replacement": False, "n_obs": 301}, "n_obs=301 exceeds the 300 cells", id="n_obs"
        ),
        pytest.param({"column": "cell_type", "replacement": False, "n_obs": 9}, "batch_size=16 exceeds", id="few"),
    ],
)
def test_what_cannot_be_drawn_is_refused_at_setup(hashed: Directory, sampling: dict[str, Any], message: str) -> None:
    with pytest.raises(SelectionError, match=message):
        module_of(hashed, sampling=sampling)
