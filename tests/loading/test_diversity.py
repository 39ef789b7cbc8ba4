from __future__ import annotations

import logging

import numpy as np
import pytest
from tests.loading.conftest import Directory

from scvae_data import ChunkedDataModule
from scvae_data.loading.diversity import diversity_table, measure
from scvae_data.loading.plan import Plan
from scvae_data.loading.select import to_blocks
from scvae_data.store import open_index


def measured(codes: np.ndarray, chunk: int, batch_size: int, window: int = 1):
    blocks = to_blocks(None, np.arange(0, codes.size + 1, chunk))
    return measure(Plan((chunk,) * len(blocks), batch_size, window=window), blocks, codes.astype(np.int32))


def test_random_order_is_as_diverse_as_random_draws() -> None:
    codes = np.random.default_rng(0).integers(0, 20, 20_000)
    found = measured(codes, 1_000, 200)
    assert found.share == pytest.approx(1, abs=0.01)
    assert found.random_entropy == pytest.approx(np.log2(20) - 19 / (2 * 200 * np.log(2)), abs=0.02)  # Miller-Madow
    assert found.labels == found.random_labels == 20
    assert found.variation == pytest.approx(found.random_variation, abs=0.02)


def test_one_label_per_chunk_is_no_diversity_without_mixing() -> None:
    codes = np.repeat(np.arange(20), 1_000)
    alone, mixed, all_mixed = (measured(codes, 1_000, 200, window) for window in (1, 4, 20))
    assert alone.entropy == 0 and alone.labels == 1 and alone.variation == pytest.approx(0.95)
    assert 0.4 < mixed.share < 0.6
    assert all_mixed.share == pytest.approx(1, abs=0.03)


def test_one_label_in_all_is_as_diverse_as_can_be() -> None:
    assert measured(np.zeros(2_000), 500, 100).share == 1


def test_a_table_of_every_column_with_more_than_one_value(hashed: Directory, by_source: Directory) -> None:
    table = diversity_table(open_index(hashed.path), batch_size=30).set_index("column")
    assert set(table.index) == {"SRX_accession", "source_file", "cell_type"}
    sorted_table = diversity_table(open_index(by_source.path), batch_size=30).set_index("column")
    assert sorted_table.share["SRX_accession"] < 0.2 < 0.9 < table.share["SRX_accession"]


def test_the_data_module_warns_of_batches_from_few_experiments(
    hashed: Directory, by_source: Directory, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        ChunkedDataModule(hashed.path, batch_size=32, split=None).setup()
        assert caplog.text == ""
        ChunkedDataModule(by_source.path, batch_size=32, split=None).setup()
    (record,) = caplog.records
    assert "SRX_accession" in record.message and "chunking.order=hash" in record.message and "\n" not in record.message
    assert "max_chunks_in_memory" in record.message
