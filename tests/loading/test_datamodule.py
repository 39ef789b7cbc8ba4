from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf
from tests.loading.conftest import Directory, module_of
from tests.support.datasets import make_dataset

from scvae_data import (
    ChunkedDataModule,
    ChunkedDataset,
    ConfigError,
    FormatVersionError,
    MissingIndexError,
    SelectionError,
)

PARTS = {"val": 0.2, "test": 0.1}


def rows_of(loader: Any) -> list[int]:
    return [row for batch in loader for row in batch["index"].tolist()]


def test_the_constructor_touches_nothing(tmp_path: Path) -> None:
    module = ChunkedDataModule(tmp_path / "absent")
    with pytest.raises(ConfigError, match=r"call setup\(\) first"):
        _ = module.n_vars
    assert module.state_dict() == {} and module.counters() == {}


@pytest.mark.parametrize("order", ["hashed", "by_source"])
def test_parts_follow_the_hash_of_each_cell(order: str, request: pytest.FixtureRequest) -> None:
    directory: Directory = request.getfixturevalue(order)
    module = module_of(directory, split=PARTS)
    share = directory.obs["split_hash"].to_numpy() / 2**32
    expected = {"val": share < 0.2, "test": (share >= 0.2) & (share < 0.3), "train": share >= 0.3}
    for part, loader in zip(
        expected, (module.val_dataloader(), module.test_dataloader(), module.train_dataloader()), strict=True
    ):
        rows = rows_of(loader)
        assert sorted(rows) == np.flatnonzero(expected[part]).tolist()
        assert len(loader) == -(-len(rows) // 16)
    assert rows_of(module.predict_dataloader()) == list(range(300))
    assert module.n_obs == 300


def test_a_hash_ordered_part_is_one_range_in_every_chunk(hashed: Directory, by_source: Directory) -> None:
    row_groups = module_of(hashed, split=PARTS)._row_groups
    assert all(group.rows is None for part in ("train", "val", "test") for group in row_groups[part])
    assert any(group.rows is not None for group in module_of(by_source, split=PARTS)._row_groups["val"])


def test_validation_reads_little_of_a_chunk(tmp_path: Path) -> None:
    # Blocks of 68 cells, as those of usual data.
    path, _, _ = make_dataset(tmp_path / "data", n_obs=9000, n_vars=400, chunk_size=9000, block_elements=8192)
    read = {}
    for part in ("val", "predict"):
        module = module_of(path, split={"val": 0.1}, num_threads=1)
        rows_of(getattr(module, f"{part}_dataloader")())
        read[part] = module.counters()[part]["bytes_read"]
    assert 0.09 * read["predict"] < read["val"] < 0.12 * read["predict"]


def test_validation_order_is_the_same_in_every_epoch(hashed: Directory) -> None:
    loader = module_of(hashed).val_dataloader()
    assert rows_of(loader) == rows_of(loader) == sorted(rows_of(loader))


def test_no_validation_part_is_an_empty_list(hashed: Directory) -> None:
    module = module_of(hashed, split=None)
    assert module.val_dataloader() == [] and module.test_dataloader() == []


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        pytest.param("SRX2", None, {"SRX2"}, id="one string"),
        pytest.param(["SRX1", "SRX3"], None, {"SRX1", "SRX3"}, id="list"),
        pytest.param(OmegaConf.create(["SRX1"]), None, {"SRX1"}, id="from a config"),
        pytest.param(None, "SRX2", {"SRX1", "SRX3"}, id="exclude"),
        pytest.param(["SRX1", "SRX2"], ["SRX2"], {"SRX1"}, id="both"),
    ],
)
def test_filters(hashed: Directory, include: Any, exclude: Any, expected: set[str]) -> None:
    module = module_of(hashed, include_srx_accessions=include, exclude_srx_accessions=exclude)
    accessions = hashed.obs["SRX_accession"].to_numpy(object)
    selected = np.flatnonzero(np.isin(accessions, list(expected)))
    assert rows_of(module.predict_dataloader()) == selected.tolist()
    assert sorted(rows_of(module.train_dataloader()) + rows_of(module.val_dataloader())) == selected.tolist()
    assert module.n_obs == selected.size


def test_categories_and_genes(hashed: Directory) -> None:
    module = module_of(hashed, batch_key="SRX_accession", label_keys="cell_type")
    assert module.categories == {"SRX_accession": ["SRX1", "SRX2", "SRX3"], "cell_type": ["type0", "type1", "type2"]}
    assert module.n_vars == len(module.var_names) == 20
    assert module.var_names[1] == "ENSG00000000001"
    assert module.gene_mask([0, 0]).shape == (2, 20) and module.gene_mask([0]).all()
    assert module_of(hashed, batch_key=None).categories == {}


def test_every_rank_has_a_share_of_the_same_length(hashed: Directory) -> None:
    loaders = []
    for rank in range(2):
        module = module_of(hashed, split=None)
        module.trainer = SimpleNamespace(world_size=2, global_rank=rank)
        loaders.append(module.train_dataloader())
    assert len(loaders[0]) == len(loaders[1]) == 10
    assert sorted(rows_of(loaders[0]) + rows_of(loaders[1])) == list(range(300))


def test_facts_are_plain(hashed: Directory) -> None:
    module = module_of(hashed, chunk_cache_size=4)
    facts = module.facts()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["n_train"] + facts["n_val"] == facts["n_obs"] == 300
    assert facts["predicted_hit_rate_per_epoch"] == 0.4
    assert facts["holds_everything"] is False and facts["simulated"] is True
    assert module_of(hashed, chunk_cache_size=10).facts()["holds_everything"] is True
    assert module_of(hashed, chunk_cache_size=10, cache_bytes=100).facts()["holds_everything"] is False


def test_bytes_once_decoded_are_foretold(hashed: Directory) -> None:
    module = module_of(hashed, chunk_cache_size=10)
    rows_of(module.train_dataloader())
    assert module.counters()["train"]["cached_bytes"] == pytest.approx(module.facts()["decoded_bytes_train"], rel=0.05)


def test_counters_are_kept_apart_and_outlive_teardown(hashed: Directory) -> None:
    module = module_of(hashed, chunk_cache_size=10)
    for _ in range(2):
        rows_of(module.train_dataloader())
        rows_of(module.val_dataloader())
    module.teardown("fit")
    counters = module.counters()
    assert set(counters) == {"train", "val"}
    for part in ("train", "val"):
        assert counters[part]["hit_rate"] == counters[part]["predicted_hit_rate"] == 0.5
        assert counters[part]["bytes_read"] > 0 and counters[part]["cached_bytes"] == 0
    assert counters["train"]["cells"] + counters["val"]["cells"] == 600


def test_position_outlives_the_module(hashed: Directory) -> None:
    whole = module_of(hashed)
    epochs = [rows_of(whole.train_dataloader()) for _ in range(2)]
    module = module_of(hashed)
    rows_of(module.train_dataloader())
    done = []
    for batch in module.train_dataloader():
        done += batch["index"].tolist()
        if len(done) > 50:
            break
    resumed = ChunkedDataModule(hashed.path, batch_size=16, normalized=False)
    resumed.load_state_dict(module.state_dict())
    resumed.setup()
    assert done + rows_of(resumed.train_dataloader()) == epochs[1]


def ranks_of(directory: Directory, world_size: int, state: dict[str, Any] | None = None, **settings: Any) -> list[Any]:
    """Modules of all ranks, each with its training loader, resumed at ``state`` if there is one."""
    ranks = []
    for rank in range(world_size):
        module = ChunkedDataModule(directory.path, batch_size=16, normalized=False, **settings)
        if state is not None:
            module.load_state_dict(state)
        module.setup()
        progress = SimpleNamespace(ready=0, started=0, processed=0, completed=0)
        epoch_loop = SimpleNamespace(batch_progress=SimpleNamespace(current=progress))
        module.trainer = SimpleNamespace(
            world_size=world_size, global_rank=rank, fit_loop=SimpleNamespace(epoch_loop=epoch_loop)
        )
        ranks.append((module, module.train_dataloader()))
    return ranks


@pytest.mark.parametrize(("saved", "resumed"), [(1, 2), (2, 1), (2, 3), (3, 2)])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_another_number_of_ranks_serves_exactly_the_rest(
    by_source: Directory, saved: int, resumed: int, num_workers: int
) -> None:
    settings: dict[str, Any] = {"max_chunks_in_memory": 2, "range_rows": 4}
    first = ranks_of(by_source, saved, **settings)
    done, states = [], []
    for module, loader in first:
        rows_of(loader)  # an epoch before
        batches = iter(loader)
        done += [row for _ in range(3) for row in next(batches)["index"].tolist()]
        states.append(module.state_dict())
    assert all(state == states[0] for state in states) and states[0]["next_batch"] == 3
    second = ranks_of(by_source, resumed, states[0], num_workers=num_workers, **settings)
    rest = [row for _, loader in second for row in rows_of(loader)]
    assert sorted(done + rest) == sorted(rows_of(module_of(by_source, **settings).train_dataloader()))
    assert len({len(loader) for _, loader in second}) == 1
    for module, loader in second:
        done_by_now = module.trainer.fit_loop.epoch_loop.batch_progress.current.completed + 3
        assert len(loader) - done_by_now == len(rest) // (16 * resumed) + bool(len(rest) % (16 * resumed))
        assert module.state_dict()["served"] == [[saved, 3]]
        next_epoch = module_of(by_source, **settings)
        next_epoch.trainer = module.trainer
        fresh = next_epoch.train_dataloader()
        rows_of(fresh), rows_of(fresh)
        assert rows_of(loader) == rows_of(fresh)
        assert module.state_dict()["served"] == []
        loader.close()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        pytest.param({"seed": 1}, "saved run has seed=0, this one 1", id="seed"),
        pytest.param({"max_chunks_in_memory": 2}, "max_chunks_in_memory=1, this one 2", id="window"),
        pytest.param({"batch_size": 8}, "batch_size=16, this run has 8", id="batch size"),
    ],
)
def test_a_position_of_another_order_is_refused(hashed: Directory, settings: dict[str, int], message: str) -> None:
    saved = module_of(hashed)
    saved.train_dataloader()
    module = module_of(hashed, **settings)
    module.load_state_dict(saved.state_dict())
    with pytest.raises(SelectionError, match=message):
        module.train_dataloader()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        pytest.param({"batch_size": 0}, "batch_size=0 must be a whole number of at least 1", id="zero"),
        pytest.param({"batch_size": "256"}, "batch_size='256'", id="text"),
        pytest.param({"chunk_cache_size": 0}, "chunk_cache_size=0", id="cache"),
        pytest.param({"max_chunks_in_memory": True}, "max_chunks_in_memory=True", id="bool"),
        pytest.param({"num_workers": -1}, "num_workers=-1 must be a whole number of at least 0", id="workers"),
        pytest.param({"num_threads": 0}, "num_threads=0", id="threads"),
        pytest.param({"cache_bytes": 0}, "cache_bytes=0", id="bytes"),
        pytest.param({"split": {"val": 2}}, "split.val=2", id="split"),
        pytest.param({"include_srx_accessions": []}, "include_srx_accessions=", id="empty filter"),
        pytest.param({"multiprocessing_context": "thread"}, "multiprocessing_context='thread'", id="context"),
    ],
)
def test_wrong_settings_are_refused_at_once(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ChunkedDataModule("nowhere", **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        pytest.param({"batch_size": 4096}, r"batch_size=4096 exceeds the 2\d\d cells to train on", id="batch size"),
        pytest.param({"include_srx_accessions": ["SRX22"]}, "SRX22 not in .*did you mean SRX2", id="accession"),
        pytest.param(
            {"include_srx_accessions": "SRX1", "exclude_srx_accessions": "SRX1"},
            r"no cell is left of 300: .*\[SRX1\]",
            id="none",
        ),
        pytest.param({"split": {"val": 1e-9}}, "the val part .* of 300 cells", id="empty part"),
    ],
)
def test_what_cannot_be_served_is_refused_at_setup(hashed: Directory, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SelectionError, match=message):
        module_of(hashed, **settings)


def test_a_missing_directory_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(MissingIndexError, match=r"scvae-data process .*paths\.processed_dir="):
        module_of(tmp_path / "absent")


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    path, _, _ = make_dataset(tmp_path / "data")
    file = path / "chunk_index.json"
    content = json.loads(file.read_text())
    content["format_version"] = 3
    file.write_text(json.dumps(content))
    with pytest.raises(FormatVersionError, match="version 3"):
        module_of(path)


def test_a_window_beyond_the_cache_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"chunk_cache_size=1 is smaller than max_chunks_in_memory=3.*=3 or more"):
        ChunkedDataModule("nowhere", chunk_cache_size=1, max_chunks_in_memory=3)


NUMBERS = ["donor_age", "pct_counts_hb", "size_factor", "flag", "maybe"]


@pytest.fixture(scope="module")
def with_numbers(tmp_path_factory: pytest.TempPathFactory) -> Directory:
    """Integers, floats with and without values, booleans, and integers some of which are missing."""

    def more(obs: pd.DataFrame) -> pd.DataFrame:
        flags = np.arange(len(obs)) % 3 == 0
        return obs.assign(flag=flags, maybe=obs["donor_age"].astype("Int64").mask(flags), note="text")

    return Directory(*make_dataset(tmp_path_factory.mktemp("numbers") / "data", n_obs=120, more_obs=more))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_numbers_are_served_beside_codes(with_numbers: Directory, num_workers: int) -> None:
    module = module_of(with_numbers, label_keys=["cell_type", *NUMBERS], num_workers=num_workers)
    assert set(module.categories) == {"SRX_accession", "cell_type"}
    for batch in module.train_dataloader():
        rows = batch["index"].numpy()
        assert batch["obs"]["cell_type"].dtype == torch.int64
        for column in NUMBERS:
            assert batch["obs"][column].dtype == torch.float32
            wanted = with_numbers.obs[column].iloc[rows].to_numpy(np.float32, na_value=np.nan)
            np.testing.assert_array_equal(batch["obs"][column].numpy(), wanted)
    module.teardown()
    cell = ChunkedDataset(with_numbers.path, obs_keys=["donor_age", "cell_type"])[7]
    assert cell["obs"]["donor_age"] == with_numbers.obs["donor_age"].iloc[7]
    assert (cell["obs"]["donor_age"].dtype, cell["obs"]["cell_type"].dtype) == (np.float32, np.int64)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_key": "donor_age"}, r"'donor_age' is int64, not categorical; choose one of SRX_accession, "),
        ({"label_keys": ["note"]}, r"'note' is string, not numbers; numbers are source_row, "),
        ({"label_keys": ["donor_agee"]}, r"donor_agee not in .*did you mean donor_age"),
    ],
    ids=["batch_key", "text", "absent"],
)
def test_columns_that_cannot_be_served(with_numbers: Directory, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SelectionError, match=message):
        module_of(with_numbers, **settings)
