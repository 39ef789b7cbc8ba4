"""A cover of all pairs of settings; ``make grid`` runs every combination."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
from tests.loading.conftest import Directory
from tests.support.grid import EVERYTHING, Setting, every_setting, faults, of_ranks

from scvae_data import ChunkedDataModule

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")

COVER = [
    Setting(1, 0, None, 1, 1),
    Setting(2, 0, None, 2, 2),
    Setting(1, 0, None, 4, EVERYTHING),
    Setting(2, 1, "spawn", 1, 2),
    Setting(2, 1, "fork", 2, EVERYTHING),
    Setting(1, 1, "fork", 4, 1),
    Setting(1, 2, "fork", 1, EVERYTHING),
    Setting(1, 2, "spawn", 2, 1),
    Setting(2, 2, "fork", 4, 2),
    Setting(2, 4, "fork", 1, 1),
    Setting(1, 4, "fork", 2, 2),
    Setting(1, 4, "spawn", 4, EVERYTHING),
]

Ranks = list[list[dict[str, Any]]]


def pairs(settings: list[Setting]) -> set[Any]:
    """Every two values that come together in a setting."""
    return {pair for setting in settings for pair in combinations(setting._asdict().items(), 2)}


@pytest.fixture(scope="module")
def made(by_source: Directory) -> dict[int, Ranks]:
    """By number of ranks: what each rank made, with the plainest setting first and then those of the cover."""
    return {
        world_size: of_ranks(by_source.path, [setting for setting in COVER if setting.world_size == world_size])
        for world_size in (1, 2)
    }


def test_the_cover_has_every_pair_of_the_grid() -> None:
    assert pairs(COVER) == pairs(every_setting())
    assert set(COVER) <= set(every_setting())


@pytest.mark.parametrize("setting", COVER, ids=str)
def test_a_setting_gives_the_batches_of_the_plainest(made: dict[int, Ranks], setting: Setting) -> None:
    place = [other for other in COVER if other.world_size == setting.world_size].index(setting)
    for rank in made[setting.world_size]:
        assert faults(rank[1 + place], rank[0]) == []


def test_ranks_make_different_batches_and_agree_on_the_position(made: dict[int, Ranks]) -> None:
    (first, *_), (second, *_) = made[2]
    assert first["state"] == second["state"] and first["state"]["world_size"] == 2
    assert not set(first["epoch"]) & set(second["epoch"])


def test_what_two_processes_left_is_served_by_one(by_source: Directory, made: dict[int, Ranks]) -> None:
    (first, *_), (second, *_) = made[2]
    module = ChunkedDataModule(
        by_source.path, batch_size=16, split=None, label_keys="cell_type", max_chunks_in_memory=1
    )
    module.load_state_dict(first["state"])
    module.setup()
    rest = [row for batch in module.train_dataloader() for row in batch["index"].tolist()]
    assert sorted([*first["rows"], *second["rows"], *rest]) == list(range(300))
