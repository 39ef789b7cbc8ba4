from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from tests.loading.conftest import Directory

from scvae_data import ChunkedDataModule
from scvae_data.errors import ConfigError, SelectionError
from scvae_data.loading.select.split import ColumnSplit, GroupSplit, HashSplit, parse_split

HASHES = np.linspace(0, 2**32 - 1, 1001).astype(np.uint32)


@pytest.mark.parametrize(("val", "test"), [(0.1, 0.0), (0.25, 0.5), (0.0, 0.3), (0.0, 0.0)])
def test_parts_are_disjoint_ranges_that_cover_all(val: float, test: float) -> None:
    split = HashSplit(val, test)
    masks = {part: split.mask(HASHES, part) for part in ("val", "test", "train")}
    assert (sum(mask.astype(int) for mask in masks.values()) == 1).all()
    for part, mask in masks.items():
        assert mask.mean() == pytest.approx(split.fraction(part), abs=0.002)
        assert np.count_nonzero(np.diff(mask)) <= 2


def test_the_largest_hash_is_for_training() -> None:
    assert HashSplit(0.5, 0.4).mask(np.array([2**32 - 1], np.uint32), "train").all()


def test_parse() -> None:
    assert HashSplit.parse(None) == HashSplit(0.0, 0.0)
    assert HashSplit.parse({"val": 0.2}) == HashSplit(0.2, 0.0)


@pytest.mark.parametrize(
    ("split", "message"),
    [
        pytest.param({"val": 1.0}, r"split.val=1.0 must be a fraction", id="all"),
        pytest.param({"test": -0.1}, r"split.test=-0.1 must be a fraction", id="negative"),
        pytest.param({"val": "10%"}, r"split.val='10%' must be a fraction", id="text"),
        pytest.param({"val": 0.6, "test": 0.4}, "leave nothing to train on", id="sum"),
        pytest.param({"valid": 0.1}, r"unknown keys \['valid'\]", id="typo"),
        pytest.param(0.1, "split=0.1 must give fractions", id="number"),
    ],
)
def test_impossible_splits(split: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        HashSplit.parse(split)  # type: ignore[arg-type]


def split_module(directory: Directory, split: dict[str, object]) -> ChunkedDataModule:
    module = ChunkedDataModule(directory.path, batch_size=8, split=split)
    module.setup()
    return module


def groups_of(module: ChunkedDataModule, directory: Directory, column: str) -> dict[str, set[object]]:
    loaders = {"train": module.train_dataloader(), "val": module.val_dataloader(), "test": module.test_dataloader()}
    rows = {part: [int(row) for batch in loader for row in batch["index"]] for part, loader in loaders.items()}
    assert sorted(row for part in rows.values() for row in part) == list(range(len(directory.obs)))
    return {part: set(directory.obs[column].iloc[of]) for part, of in rows.items()}


@pytest.mark.parametrize("column", ["SRX_accession", "cell_type"])
def test_groups_stay_together(hashed: Directory, column: str) -> None:
    module = split_module(hashed, {"by": column, "val": 0.3, "test": 0.3})
    groups = groups_of(module, hashed, column)
    assert len(groups["val"]) == len(groups["test"]) == 1
    assert not groups["val"] & groups["test"] and not groups["train"] & (groups["val"] | groups["test"])


def test_the_order_of_groups_is_that_of_their_names_hashes() -> None:
    names = [f"donor{i}" for i in range(40)]
    split, sizes = GroupSplit("donor", 0.2, 0.1), np.array([25] * 40 + [0])
    parts = split.parts_of(sizes, names)
    assert np.bincount(parts[:-1]).tolist() == [28, 8, 4]
    shuffled = np.random.default_rng(0).permutation(40)
    renumbered = split.parts_of(sizes, [names[i] for i in shuffled])
    assert renumbered[:-1].tolist() == parts[shuffled].tolist()


def test_cells_without_a_group_are_for_training() -> None:
    parts = GroupSplit("donor", 0.4).parts_of(np.array([2, 2, 2]), ["a", "b"])
    assert parts[2] == 0 and set(parts.tolist()) == {0, 1}


def test_values_of_a_column(hashed: Directory) -> None:
    module = split_module(hashed, {"column": "SRX_accession", "val": "SRX2", "test": ["SRX3"]})
    assert groups_of(module, hashed, "SRX_accession") == {"train": {"SRX1"}, "val": {"SRX2"}, "test": {"SRX3"}}


@pytest.mark.parametrize("name", ["hashed", "by_source"])
def test_other_values_give_a_share_of_their_cells(name: str, request: pytest.FixtureRequest) -> None:
    directory: Directory = request.getfixturevalue(name)
    module = split_module(directory, {"column": "SRX_accession", "val": 0.2, "test": ["SRX3"]})
    groups = groups_of(module, directory, "SRX_accession")
    assert groups == {"train": {"SRX1", "SRX2"}, "val": {"SRX1", "SRX2"}, "test": {"SRX3"}}
    by_cell = split_module(directory, {"val": 0.2})
    # The same cells that are for validation where no value is named.
    chosen = set(rows_of(by_cell.val_dataloader()))
    assert set(rows_of(module.val_dataloader())) == chosen - set(rows_of(module.test_dataloader()))


def test_every_cell_knows_its_side(hashed: Directory) -> None:
    module = split_module(hashed, {"val": 0.2, "test": 0.1})
    rows = np.arange(0, 300, 2)
    parts = module.parts_of(rows)
    for place, loader in enumerate((module.train_dataloader(), module.val_dataloader(), module.test_dataloader())):
        assert rows[parts == place].tolist() == sorted(row for row in rows_of(loader) if row % 2 == 0)


@pytest.mark.parametrize("name", ["hashed", "by_source"])
@pytest.mark.parametrize(
    "split", [{"val": 0.2, "test": 0.1}, {"by": "cell_type", "val": 0.3}, {"column": "SRX_accession", "test": ["SRX3"]}]
)
def test_fractions_are_nested_and_held_out_cells_stay(
    name: str, split: dict[str, object], request: pytest.FixtureRequest
) -> None:
    directory: Directory = request.getfixturevalue(name)
    found = []
    for fraction in (0.25, 0.6, 1.0):
        module = ChunkedDataModule(directory.path, batch_size=8, split=split, train_fraction=fraction)
        module.setup()
        held_out = [sorted(rows_of(loader)) for loader in (module.val_dataloader(), module.test_dataloader())]
        train = set(rows_of(module.train_dataloader()))
        assert len(train) == module.n_cells("train") == module.facts()["n_train"]
        assert np.count_nonzero(module.parts_of(np.arange(300)) == -1) == 300 - len(train) - sum(map(len, held_out))
        found.append((train, held_out))
    (quarter, _), (more, _), (every, _) = found
    assert quarter < more < every
    assert len(quarter) / len(every) == pytest.approx(0.25, abs=0.1) and len(more) / len(every) == pytest.approx(
        0.6, abs=0.1
    )
    assert found[0][1] == found[1][1] == found[2][1]


def test_a_matched_epoch_goes_through_its_cells_as_often_as_it_takes(hashed: Directory) -> None:
    module = ChunkedDataModule(hashed.path, batch_size=32, split={"val": 0.2}, train_fraction=0.1, matched_epochs=True)
    module.setup()
    whole = ChunkedDataModule(hashed.path, batch_size=32, split={"val": 0.2})
    whole.setup()
    times = np.bincount(rows_of(module.train_dataloader()), minlength=300)
    n_times = round(whole.n_cells("train") / module.n_cells("train"))
    assert set(times[times > 0]) == {n_times} and np.count_nonzero(times) == module.n_cells("train") < 32
    assert len(module.train_dataloader()) == pytest.approx(len(whole.train_dataloader()), abs=1)


@pytest.mark.parametrize("fraction", [0, 1.5, "half", True])
def test_fractions_that_are_none(hashed: Directory, fraction: object) -> None:
    with pytest.raises(ConfigError, match=rf"train_fraction={fraction!r} must be a share of the training cells"):
        ChunkedDataModule(hashed.path, train_fraction=fraction)  # type: ignore[arg-type]


def rows_of(loader: Iterable[dict[str, Any]]) -> list[int]:
    return [int(row) for batch in loader for row in batch["index"]]


def test_leakage_tells_which_groups_are_shared(hashed: Directory) -> None:
    by_group = split_module(hashed, {"by": "SRX_accession", "val": 0.3}).leakage().set_index(["column", "part"])
    assert by_group.loc[("SRX_accession", "val")].tolist() == [1, 0, 0.0]
    assert by_group.loc[("source_file", "val")].tolist() == [1, 0, 0.0]  # one file per experiment
    by_cell = split_module(hashed, {"val": 0.1, "test": 0.1}).leakage().set_index(["column", "part"])
    assert by_cell.loc[("SRX_accession", "val")].tolist() == [3, 3, 1.0]
    assert ("SRX_accession", "test") in by_cell.index


def test_parse_split() -> None:
    assert parse_split(None) == HashSplit(0.0, 0.0) and parse_split({"val": 0.2}) == HashSplit(0.2, 0.0)
    assert parse_split({"by": "donor", "test": 0.2}) == GroupSplit("donor", 0.0, 0.2)
    assert parse_split({"by": "donor"}) == GroupSplit("donor", 0.1, 0.0)
    assert parse_split({"column": "study", "val": ["A"]}) == ColumnSplit("study", ("A",), ())
    mixed = {"column": "study", "val": 0.1, "test": ["A"]}
    assert parse_split(mixed) == ColumnSplit("study", (), ("A",), HashSplit(0.1, 0.0))


@pytest.mark.parametrize(
    ("split", "error", "message"),
    [
        pytest.param({"by": "donor", "val": 1.5}, ConfigError, r"split.val=1.5 must be a fraction", id="fraction"),
        pytest.param({"by": "donor", "column": "x"}, ConfigError, "beside one of by and column", id="two kinds"),
        pytest.param({"by": ["donor"]}, ConfigError, "which name a column", id="list"),
        pytest.param(
            {"column": "x", "val": 0.1}, ConfigError, r"split.column=x has no values in val or test", id="none"
        ),
        pytest.param(
            {"column": "x", "test": {"a": 1}}, ConfigError, r"must be values of x, e.g. \[A, B\]", id="mapping"
        ),
        pytest.param({"column": "x", "val": "a", "test": "a"}, ConfigError, "both val and test", id="both"),
        pytest.param(
            {"by": "SRX_accession", "val": 0.6, "test": 0.3}, SelectionError, "has 3 groups, too few", id="few"
        ),
        pytest.param({"by": "donor_age"}, SelectionError, "not categorical", id="numbers"),
        pytest.param({"column": "cell_type", "val": "type9"}, SelectionError, "no value 'type9'", id="value"),
    ],
)
def test_splits_that_cannot_be_made(hashed: Directory, split: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        split_module(hashed, split)
