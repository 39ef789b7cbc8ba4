from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.loading.conftest import flat

from scvae_data.errors import ConfigError, SelectionError
from scvae_data.loading.plan.epoch import Plan, Served
from scvae_data.loading.plan.reuse import ReuseModel

plans = st.builds(
    Plan,
    group_rows=st.lists(st.integers(1, 40), min_size=1, max_size=9).map(tuple),
    batch_size=st.integers(2, 50),
    seed=st.integers(0, 2**40),
    window=st.integers(1, 4),
).filter(lambda plan: plan.n_rows >= 6)


def cells_of(plan: Plan, epoch: int, start: int = 0) -> list[list[tuple[int, int]]]:
    """Batches of an epoch as lists of (row group, row within it)."""
    share = plan.epoch(epoch)
    batches = []
    for batch in share.batches(start):
        cells = []
        for segment in batch.segments:
            of_window = [
                (group, row) for group in share.windows[segment.window] for row in range(plan.group_rows[group])
            ]
            cells += [of_window[slot] for slot in segment.slots]
        batches.append(cells)
    return batches


def every_cell(plan: Plan) -> list[tuple[int, int]]:
    return [(group, row) for group, rows in enumerate(plan.group_rows) for row in range(rows)]


def over_ranks(plan: Plan, world_size: int) -> list[Plan]:
    shared = (plan.group_rows, plan.batch_size, plan.seed, plan.window, plan.shuffle)
    return [Plan(*shared, world_size, rank) for rank in range(world_size)]


@given(plans, st.integers(0, 5))
def test_every_cell_once_per_epoch(plan: Plan, epoch: int) -> None:
    assert sorted(flat(cells_of(plan, epoch))) == every_cell(plan)


@given(plans, st.integers(0, 5))
def test_batches_are_near_equal_and_not_too_large(plan: Plan, epoch: int) -> None:
    sizes = [len(batch) for batch in cells_of(plan, epoch)]
    assert len(sizes) == plan.n_batches == -(-plan.n_rows // plan.batch_size)
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= plan.batch_size


@given(plans, st.integers(0, 4), st.data())
def test_resume_at_any_batch_gives_exactly_the_rest(plan: Plan, epoch: int, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, plan.n_batches))
    assert cells_of(plan, epoch, start) == cells_of(plan, epoch)[start:]


@given(plans, st.integers(1, 4), st.integers(0, 5))
def test_ranks_share_an_epoch_in_equal_numbers_of_batches(plan: Plan, world_size: int, epoch: int) -> None:
    shares = [cells_of(rank, epoch) for rank in over_ranks(plan, world_size)]
    assert len({len(batches) for batches in shares}) == 1
    assert sorted(flat(flat(batches) for batches in shares)) == every_cell(plan)
    assert all(batch for batches in shares for batch in batches)


@settings(max_examples=25)
@given(plans, st.integers(2, 4))
def test_a_rank_sees_every_cell_over_two_epochs_per_rank(plan: Plan, world_size: int) -> None:
    rank = over_ranks(plan, world_size)[1]
    seen = {cell for epoch in range(2 * world_size) for batch in cells_of(rank, epoch) for cell in batch}
    # A cell near a border may fall to the neighbour in every pass; windows of permuted rows blur the borders.
    assert len(seen) >= plan.n_rows - max(plan.group_rows) * plan.window * world_size


def test_ranks_move_over_all_row_groups() -> None:
    plans_of_ranks = over_ranks(Plan((10,) * 8, batch_size=5, seed=3), 2)
    for plan in plans_of_ranks:
        row_groups = [{group for batch in cells_of(plan, epoch) for group, _ in batch} for epoch in range(4)]
        assert row_groups[0] == row_groups[1] and row_groups[2] == row_groups[3]  # forth and back: the cache stays warm
        assert row_groups[0] | row_groups[2] == set(range(8)) and not row_groups[0] & row_groups[2]


@given(plans, st.integers(0, 3))
def test_any_rank_needs_only_the_windows_of_its_share(plan: Plan, epoch: int) -> None:
    for rank in over_ranks(plan, 2):
        share = rank.epoch(epoch)
        used = {segment.window for batch in share.batches() for segment in batch.segments}
        assert sorted(used) == share.needed_windows()


def test_order_is_new_each_epoch_and_the_same_for_a_seed() -> None:
    plan = Plan((50, 50, 50), batch_size=16, seed=1)
    orders = [flat(cells_of(plan, epoch)) for epoch in range(6)]
    assert len({tuple(order) for order in orders}) == 6
    assert orders == [flat(cells_of(Plan((50, 50, 50), batch_size=16, seed=1), epoch)) for epoch in range(6)]
    assert orders[0] != flat(cells_of(Plan((50, 50, 50), batch_size=16, seed=2), 0))


def test_odd_epochs_walk_the_row_groups_backwards() -> None:
    plan = Plan((3,) * 7, batch_size=4, seed=5)
    forth = plan.group_order(0).tolist()
    assert sorted(forth) == list(range(7)) and forth != list(range(7))
    assert plan.group_order(1).tolist() == forth[::-1]
    assert plan.group_order(2).tolist() == forth


def test_windows_mix_their_row_groups_and_their_borders_move() -> None:
    plan = Plan((20,) * 8, batch_size=10, seed=0, window=2)
    mixed = [len({group for group, _ in batch}) for batch in cells_of(plan, 0)]
    assert np.mean(mixed) > 1.5
    first_windows = {len(plan.epoch(epoch).windows[0]) for epoch in range(20)}
    assert first_windows == {1, 2}


def test_unshuffled_rows_keep_their_order_in_every_epoch() -> None:
    plan = Plan((3, 4), batch_size=3, shuffle=False)
    expected = [[(0, 0), (0, 1)], [(0, 2), (1, 0)], [(1, 1), (1, 2), (1, 3)]]
    assert cells_of(plan, 0) == expected
    assert cells_of(plan, 7) == expected


@pytest.mark.parametrize("window", [1, 2, 3])
@pytest.mark.parametrize("capacity", [1, 2, 5, 9])
@pytest.mark.parametrize("seed", [0, 1])
def test_hit_rate_is_min_cache_over_row_groups(capacity: int, window: int, seed: int) -> None:
    """Requests walked row group by row group, against the closed form."""
    plan = Plan((4,) * 9, batch_size=5, seed=seed, window=window)
    room = max(capacity, window)
    model = ReuseModel(room)
    for epoch in range(3):
        for group in (group for row_groups in plan.epoch(epoch).windows for group in row_groups):
            model.request(group)
        assert model.hits == epoch * min(room, 9)
    assert plan.expected_hit_rate(capacity) == min(room, 9) / 9


def test_a_tiny_batch_size_never_leaves_a_rank_an_empty_batch() -> None:
    shares = [cells_of(plan, 0) for plan in over_ranks(Plan((5,), batch_size=1), 2)]
    assert [len(batches) for batches in shares] == [2, 2]
    assert sorted(len(batch) for batches in shares for batch in batches) == [1, 1, 1, 2]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        pytest.param({"batch_size": 0}, "batch_size=0", id="batch_size"),
        pytest.param({"window": 0}, "max_chunks_in_memory=0", id="window"),
        pytest.param({"world_size": 2, "rank": 2}, "rank=2", id="rank"),
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Plan(**{"group_rows": (10,), "batch_size": 2, **wrong})


def test_more_ranks_than_cells_are_refused() -> None:
    with pytest.raises(SelectionError, match="3 cells cannot be shared by 4 ranks"):
        Plan((3,), batch_size=2, world_size=4)


@given(plans, st.integers(0, 4), st.lists(st.integers(1, 4), min_size=1, max_size=3), st.data())
def test_ranks_may_change_in_mid_epoch(plan: Plan, epoch: int, world_sizes: list[int], data: st.DataObject) -> None:
    """Each number of ranks in turn serves some batches, the last one the rest: no cell is lost or repeated."""
    seen: list[tuple[int, int]] = []
    served: tuple[tuple[int, int], ...] = ()
    for turn, world_size in enumerate(world_sizes):
        ranks = [replace(of_rank, served=Served(epoch, served)) for of_rank in over_ranks(plan, world_size)]
        n_left = plan.n_rows - len(seen)
        if 0 < n_left < world_size:
            with pytest.raises(SelectionError, match=f"{n_left} cells of epoch {epoch} are left, too few"):
                ranks[0].epoch(epoch)
            return
        shares = [rank.epoch(epoch) for rank in ranks]
        (first,) = {share.first_batch for share in shares}
        (n_batches,) = {share.n_batches for share in shares}
        assert n_batches == ranks[0].n_batches  # what a trainer was told, whatever the epoch
        last = turn == len(world_sizes) - 1
        stop = n_batches if last else data.draw(st.integers(first, n_batches))
        batches = [batch for rank in ranks for batch in cells_of(rank, epoch)[: stop - first]]
        sizes = [len(batch) for batch in batches]
        assert not sizes or (max(sizes) - min(sizes) <= 1 <= min(sizes) and max(sizes) <= max(plan.batch_size, 2))
        seen += flat(batches)
        served = (*served, (world_size, stop))
        for share in shares:
            used = {segment.window for batch in share.batches() for segment in batch.segments}
            assert sorted(used) == share.needed_windows()
    assert sorted(seen) == every_cell(plan)


@given(plans, st.integers(1, 3), st.data())
def test_other_epochs_do_not_know_of_a_change_of_ranks(plan: Plan, world_size: int, data: st.DataObject) -> None:
    (rank, *_) = over_ranks(plan, world_size)
    after = replace(rank, served=Served(2, ((1, data.draw(st.integers(0, plan.n_batches))),)))
    assert cells_of(after, 3) == cells_of(rank, 3)


@given(plans, st.data())
def test_what_is_left_can_be_resumed_at_any_batch(plan: Plan, data: st.DataObject) -> None:
    stop = data.draw(st.integers(0, plan.n_batches))
    after = replace(over_ranks(plan, 2)[1], served=Served(0, ((1, stop),)))
    if 0 < len(flat(cells_of(plan, 0, stop))) < 2:
        return
    share = after.epoch(0)
    start = data.draw(st.integers(share.first_batch, share.n_batches))
    assert cells_of(after, 0, start) == cells_of(after, 0)[start - share.first_batch :]
