"""Damaged chunks: one error that says what is wrong, or batches without their cells; never wrong counts."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.loading.conftest import module_of
from tests.support.datasets import make_dataset

from scvae_data import ChunkedDataModule, open_index
from scvae_data.errors import ConfigError, DamagedFileError
from scvae_data.loading.fetch.damage import DamagePolicy
from scvae_data.loading.loader import BatchLoader
from scvae_data.store.index_json import write_index

BAD = "chunk_0001.h5"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return make_dataset(tmp_path / "data", n_obs=120, chunk_size=30)[0]


def expected(tmp_path: Path) -> np.ndarray:
    return make_dataset(tmp_path / "expected", n_obs=120, chunk_size=30)[1].toarray()


def flip(directory: Path) -> None:
    """Change a byte in a block of counts."""
    index = open_index(directory)
    with index.reader(1) as reader:
        offset = int(reader._load()[0]["data"].offset[-1])
    content = bytearray((directory / BAD).read_bytes())
    content[offset] ^= 1
    (directory / BAD).write_bytes(content)


def flip_table(directory: Path) -> None:
    content = bytearray((directory / BAD).read_bytes())
    content[open_index(directory).chunks[1].blocks_offset + 3] ^= 1
    (directory / BAD).write_bytes(content)


def cut(directory: Path) -> None:
    os.truncate(directory / BAD, 3000)


def delete(directory: Path) -> None:
    (directory / BAD).unlink()


def swap(directory: Path) -> None:
    """Another chunk, itself sound, of the same directory."""
    (directory / BAD).write_bytes((directory / "chunk_0002.h5").read_bytes())


DAMAGES = [flip, flip_table, cut, delete, swap]


set_up = partial(module_of, batch_size=8, split=None, seed=3)


@pytest.mark.parametrize(("damage", "num_workers"), [*((damage, 0) for damage in DAMAGES), (flip, 2), (delete, 2)])
def test_raise_names_file_fault_and_remedy_before_a_wrong_number(
    damage: Callable[[Path], None], num_workers: int, directory: Path, tmp_path: Path
) -> None:
    x = expected(tmp_path)
    data = set_up(directory, num_workers=num_workers)
    damage(directory)
    with pytest.raises(DamagedFileError, match=rf"{BAD}: .*run scvae-data process again with resume=true") as caught:
        for batch in data.train_dataloader():
            torch.testing.assert_close(batch["x"].numpy(), x[batch["index"]].astype(np.float32))
    data.teardown()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", [cut, delete])
def test_what_sizes_tell_is_told_at_once(damage: Callable[[Path], None], directory: Path) -> None:
    damage(directory)
    with pytest.raises(DamagedFileError, match=BAD):
        set_up(directory)


@pytest.mark.parametrize("x_format", ["dense", "csr", "compact"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_skip_serves_every_other_cell_and_says_so_once(
    damage: Callable[[Path], None], x_format: str, directory: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    x = expected(tmp_path)
    damage(directory)
    data = set_up(directory, on_bad_chunk="skip", x_format=x_format, max_chunks_in_memory=2, chunk_cache_size=2)
    with caplog.at_level(logging.WARNING):
        for epoch in (1, 2):
            served = []
            for batch in data.train_dataloader():
                rows = batch["x"] if x_format == "dense" else batch["x"].to_dense()
                np.testing.assert_array_equal(rows.numpy(), x[batch["index"]])
                assert len(batch["index"]) >= 2
                served += batch["index"].tolist()
            left = set(range(120)) - set(range(30, 60))
            assert len(served) == len(set(served))
            assert set(served) <= left
            counters = data.counters()["train"]
            assert counters["bad_chunks"] == 1
            # A batch of which one cell is left is left out whole.
            assert counters["cells"] + counters["skipped_cells"] == 120 * epoch
            assert len(left - set(served)) <= 2
    said = [record.message for record in caplog.records if "on_bad_chunk=skip" in record.message]
    assert len(said) == 1
    assert BAD in said[0]


@pytest.mark.parametrize("damage", [flip, flip_table, delete])
@pytest.mark.parametrize("range_rows", [3, 10])
def test_skip_leaves_out_the_cells_of_the_chunk_alone_where_row_groups_have_ranges_of_many(
    damage: Callable[[Path], None], range_rows: int, tmp_path: Path
) -> None:
    path, counts, _ = make_dataset(tmp_path / "data", n_obs=120, chunk_size=30, order="source")
    x = counts.toarray()
    damage(path)
    data = set_up(path, on_bad_chunk="skip", x_format="csr", range_rows=range_rows, batch_size=20)
    served = []
    for batch in data.train_dataloader():
        np.testing.assert_array_equal(batch["x"].to_dense().numpy(), x[batch["index"]])
        served += batch["index"].tolist()
    lost = set(range(120)) - set(served)
    # One flipped bit costs no more than the ranges that need its block.
    assert lost == set(range(30, 60)) if damage is not flip else lost and lost <= set(range(30, 60))
    assert data.counters()["train"]["skipped_cells"] == len(lost)


def test_skip_with_workers_and_a_window_of_one(directory: Path) -> None:
    delete(directory)
    data = set_up(directory, on_bad_chunk="skip", num_workers=2)
    served = [row for batch in data.train_dataloader() for row in batch["index"].tolist()]
    data.teardown()
    assert len(served) == len(set(served))
    assert set(range(120)) - set(range(30, 60)) >= set(served)
    assert len(served) >= 84


def test_prediction_never_skips(directory: Path) -> None:
    delete(directory)
    data = set_up(directory, on_bad_chunk="skip")
    with pytest.raises(DamagedFileError, match=BAD):
        list(data.predict_dataloader())


def test_ranks_out_of_step_are_an_error(directory: Path) -> None:
    delete(directory)
    spec = set_up(directory, on_bad_chunk="skip", max_chunks_in_memory=1, batch_size=2).train_dataloader().spec
    loader = BatchLoader(replace(spec, sampler=replace(spec.sampler, world_size=2, rank=1)))
    with pytest.raises(DamagedFileError, match="out of step; scvae-data verify"):
        list(loader)


def test_settings() -> None:
    with pytest.raises(ConfigError, match="on_bad_chunk='ignore' must be one of raise, skip"):
        ChunkedDataModule("anywhere", on_bad_chunk="ignore")  # type: ignore[arg-type]
    with pytest.raises(DamagedFileError):
        DamagePolicy("raise").leave_out(DamagedFileError("x"))


def test_a_directory_that_is_made_anew_meanwhile(directory: Path, tmp_path: Path) -> None:
    """Other cells under the same names: those of before, or an error."""
    x = expected(tmp_path)
    data = set_up(directory, max_chunks_in_memory=1, chunk_cache_size=1)
    other = make_dataset(tmp_path / "other", n_obs=120, chunk_size=30, seed=5)[0]
    with pytest.raises(DamagedFileError):
        for number, batch in enumerate(data.train_dataloader()):
            np.testing.assert_array_equal(batch["x"].numpy(), x[batch["index"]])
            if number == 2:
                for chunk in sorted(other.glob("chunk_0*.h5")):
                    chunk.replace(directory / chunk.name)


def test_an_entry_that_points_at_another_valid_chunk(directory: Path) -> None:
    """As sound as the right one, with an index that agrees: only the cells tell."""
    index = open_index(directory)
    taken = replace(index.chunks[2], file=BAD, first_row=index.chunks[1].first_row)
    chunks = (index.chunks[0], taken, *index.chunks[2:])
    write_index(directory, replace(index, chunks=chunks, nnz=sum(chunk.nnz for chunk in chunks)))
    swap(directory)
    data = set_up(directory)
    with pytest.raises(DamagedFileError, match=rf"{BAD}: cell \d+ has .* counts where obs\.parquet says"):
        list(data.train_dataloader())
