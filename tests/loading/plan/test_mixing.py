from __future__ import annotations

import logging
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from tests.loading.conftest import Directory, flat, module_of, rows_of

from scvae_data.loading.plan.diversity import label_counts, measure_diversity
from scvae_data.loading.plan.mixing import diversity_table, mix
from scvae_data.loading.select.rows import to_row_groups
from scvae_data.store import open_index


class FakeIndex:
    """Facts of a directory of 2,000 non-zeros a cell, 65.5 cells a stored block."""

    def __init__(self, n_obs: int, chunk_size: int, kind: str = "source", generations: tuple[int, ...] = ()) -> None:
        self.order = {"kind": kind}
        self.n_obs, self.n_vars, self.nnz, self.block_elements = n_obs, 20_000, 2_000 * n_obs, 131_072
        self.first_rows = np.append(np.arange(0, n_obs, chunk_size), n_obs)
        sizes = np.diff(self.first_rows).tolist()
        self.chunks = [type("Chunk", (), {"n_obs": n, "nnz": 2_000 * n, "max_count": 900}) for n in sizes]
        self.source = np.zeros(n_obs, np.int32)
        ends = np.cumsum(generations or (len(self.chunks),)).tolist()
        self.chunks_of_generations = [range(low, high) for low, high in pairwise([0, *ends])]

    def codes(self, column: str) -> np.ndarray:
        return self.source


@pytest.mark.parametrize(
    ("n_obs", "chunk_size", "n_sources", "decoded"),
    [
        pytest.param(8_000, 400, 4, 1.0, id="demo: one window"),
        pytest.param(100_000, 10_000, 20, 1.6, id="ten chunks"),
        pytest.param(1_000_000, 50_000, 100, 2.0, id="default chunks"),
        pytest.param(2_000_000, 50_000, 1_000, 3.1, id="many small experiments"),
    ],
)
def test_cells_in_source_order_are_mixed_at_default_settings(
    n_obs: int, chunk_size: int, n_sources: int, decoded: float
) -> None:
    index: Any = FakeIndex(n_obs, chunk_size)
    sizes = np.random.default_rng(0).lognormal(0, 0.7, n_sources)
    index.source = np.searchsorted(np.cumsum(sizes / sizes.sum()), np.linspace(0, 1 - 1e-9, n_obs)).astype(np.int32)
    mixing = mix(index, to_row_groups(None, index.first_rows), ["source"], batch_size=256)
    assert mixing.share >= 0.99
    assert mixing.decoded_per_used <= decoded
    # The window in use and the next: four chunks, or 128 MB.
    assert mixing.plan.window <= max(2, 64e6 / (chunk_size * 8_000) + 1)


@pytest.mark.parametrize("generations", [(9, 1), (5, 3, 2), (2, 8)])
def test_generations_that_were_shuffled_by_themselves_are_mixed(generations: tuple[int, ...]) -> None:
    index: Any = FakeIndex(100_000, 10_000, "hash", generations)
    rng = np.random.default_rng(0)
    sizes = [10_000 * n_chunks for n_chunks in generations]
    index.source = np.concatenate([20 * k + rng.integers(20, size=n) for k, n in enumerate(sizes)]).astype(np.int32)
    mixing = mix(index, to_row_groups(None, index.first_rows), ["source"], batch_size=256)
    counts = label_counts(mixing.plan, mixing.row_groups, index.source)
    assert mixing.plan.window == 1 and counts.sum() == 100_000
    assert measure_diversity(mixing.plan, mixing.row_groups, index.source, counts).share >= 0.99
    whole = mix(FakeIndex(100_000, 10_000, "hash"), to_row_groups(None, index.first_rows), ["source"], batch_size=256)  # type: ignore[arg-type]
    assert measure_diversity(whole.plan, whole.row_groups, index.source, counts).share < 0.95


def test_what_memory_cannot_mix_is_measured_and_said() -> None:
    index: Any = FakeIndex(500_000, 5_000)
    index.source = (np.arange(500_000) // 500).astype(np.int32)
    row_groups = to_row_groups(None, index.first_rows)
    small = mix(index, row_groups, ["source"], batch_size=4_096, window=1)
    assert 0.5 < small.share < 0.99 and small.decoded_per_used > 4
    assert small.worst is not None and small.worst[0] == "source"
    assert mix(index, row_groups, ["source"], batch_size=4_096, window=20).share > small.share


def test_hash_order_needs_neither_ranges_nor_a_measurement(hashed: Directory) -> None:
    mixing = module_of(hashed)._mixing
    assert mixing.range_rows is None and mixing.diversity is None and mixing.plan.window == 1


def test_the_choice_does_not_depend_on_the_cache(by_source: Directory) -> None:
    small, large = (module_of(by_source, chunk_cache_size=chunks)._mixing for chunks in (1, 10))
    assert small.plan == large.plan and small.range_rows == large.range_rows


@pytest.mark.parametrize("settings", [{}, {"num_workers": 2}, {"num_threads": 1}, {"chunk_cache_size": 10}], ids=str)
def test_ranges_serve_every_cell_once_in_one_order(by_source: Directory, settings: dict[str, Any]) -> None:
    shared = {"range_rows": 4, "max_chunks_in_memory": 2, "chunk_cache_size": 3}
    reference, module = module_of(by_source, **shared), module_of(by_source, **{**shared, **settings})
    expected = [rows_of(reference.train_dataloader()) for _ in range(3)]
    loader = module.train_dataloader()
    assert [rows_of(loader) for _ in range(3)] == expected
    assert sorted(flat(expected[0])) == sorted(flat(expected[1])) == sorted(set(flat(expected[2])))
    assert len(flat(expected[0])) == module.n_cells("train")
    counters = module.counters()["train"]
    assert counters["hit_rate"] == pytest.approx(counters["predicted_hit_rate"])
    loader.close()


def test_batches_of_ranges_hold_the_rows_they_name(by_source: Directory) -> None:
    module = module_of(by_source, range_rows=3, max_chunks_in_memory=1)
    for batch in module.train_dataloader():
        rows = batch["index"].numpy()
        np.testing.assert_array_equal(batch["x"].numpy(), by_source.counts[rows])
        np.testing.assert_array_equal(
            batch["obs"]["SRX_accession"].numpy(), by_source.obs["SRX_accession"].cat.codes.to_numpy()[rows]
        )


@pytest.mark.parametrize("capacity", [2, 5, 10])
def test_hits_of_ranges_are_those_predicted(by_source: Directory, capacity: int) -> None:
    module = module_of(by_source, range_rows=4, max_chunks_in_memory=2, chunk_cache_size=capacity, split=None)
    loader = module.train_dataloader()
    for _ in range(3):
        rows_of(loader)
    counters = loader.counters()
    assert counters.hits == counters.predicted_hits == 2 * capacity
    assert module.facts()["predicted_hit_rate_per_epoch"] == capacity / 10


def test_the_data_module_tells_how_cells_are_mixed(
    hashed: Directory, by_source: Directory, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="scvae_data")
    module_of(hashed)
    assert "order" not in caplog.text
    module_of(by_source)
    module_of(by_source, max_chunks_in_memory=1, range_rows=1_000)
    told, warned = [record for record in caplog.records if "order" in record.message]
    assert told.levelno == logging.INFO and "stored in source order" in told.message
    assert warned.levelno == logging.WARNING and "chunking.order=hash" in warned.message
    assert "SRX_accession" in warned.message and "max_chunks_in_memory=" in warned.message
    assert "\n" not in told.message + warned.message


def test_a_table_of_every_column_with_more_than_one_value(hashed: Directory, by_source: Directory) -> None:
    mixing, table = diversity_table(open_index(hashed.path), batch_size=30)
    assert mixing.describe() == "whole chunks, 1 of 10 mixed at a time"
    assert set(table.column) == {"SRX_accession", "source_file", "cell_type"} and (table.share > 0.9).all()
    mixing, table = diversity_table(open_index(by_source.path), batch_size=30)
    assert mixing.describe() == "whole chunks, 10 of 10 mixed at a time"
    assert (table.share > 0.97).all()
    mixing, table = diversity_table(open_index(by_source.path), batch_size=30, max_chunks_in_memory=1)
    assert mixing.describe().startswith("ranges of ") and "cells decoded for each one used" in mixing.describe()
    assert table.set_index("column").share["SRX_accession"] == pytest.approx(mixing.share)
