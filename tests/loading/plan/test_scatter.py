from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.loading.conftest import Directory, flat
from tests.support.datasets import make_dataset, positional_counts

from scvae_data.loading.fetch.fetch import RowGroupSource, run_now
from scvae_data.loading.fetch.readers import ReaderPool, ScatteredReader, reader_of
from scvae_data.loading.plan.scatter import Selected, scatter
from scvae_data.loading.select.rows import to_row_groups
from scvae_data.store import open_index


def first_rows(*sizes: int) -> np.ndarray:
    return np.cumsum([0, *sizes])


@given(st.lists(st.integers(1, 60), min_size=1, max_size=7), st.integers(1, 30), st.integers(0, 5), st.integers(1, 100))
def test_every_selected_row_is_in_one_row_group(sizes: list[int], range_rows: int, seed: int, every: int) -> None:
    firsts = first_rows(*sizes)
    mask = np.arange(firsts[-1]) % 7 < every  # some rows of most chunks, or all
    pieces = to_row_groups(mask, firsts)
    row_groups = scatter(Selected.of(pieces), range_rows, seed)
    assert len(row_groups) == len(pieces)
    rows = [group.global_rows(slice(None)).tolist() for group in row_groups]
    assert sorted(flat(rows)) == np.flatnonzero(mask).tolist()
    assert [len(of_group) for of_group in rows] == [group.n_rows for group in row_groups]
    for group, of_group in zip(row_groups, rows, strict=True):
        assert of_group == sorted(of_group)
        some = np.arange(group.n_rows)[::3][::-1]
        assert group.global_rows(some).tolist() == np.array(of_group)[some].tolist()


def test_a_row_group_has_one_range_of_every_stretch_as_long_as_there_are_row_groups() -> None:
    pieces = to_row_groups(None, first_rows(20, 20, 20, 20))
    row_groups = scatter(Selected.of(pieces), 5, seed=3)  # 16 ranges of 5 rows, 4 row groups
    for group in row_groups:
        ranges = group.global_rows(slice(None)).reshape(-1, 5)
        assert (np.diff(ranges) == 1).all()
        assert (ranges[:, 0] // 20).tolist() == [0, 1, 2, 3]
    assert scatter(Selected.of(pieces), 5, seed=4)[0].low.tolist() != row_groups[0].low.tolist()


@pytest.mark.parametrize("n_threads", [1, 3])
@pytest.mark.parametrize("max_open", [1, 256])
def test_row_groups_are_read_as_they_were_stored(by_source: Directory, n_threads: int, max_open: int) -> None:
    index = open_index(by_source.path)
    pieces = to_row_groups(np.arange(300) % 4 != 1, index.first_rows)
    row_groups = scatter(Selected.of(pieces), 4, seed=0)
    pool = ReaderPool(index, max_open=max_open)
    source = RowGroupSource(row_groups, lambda number: ScatteredReader(row_groups[number], pool))  # type: ignore[arg-type]
    for number, group in enumerate(row_groups):
        (rows,) = source.start(number, run_now, n_threads).result().parts
        np.testing.assert_array_equal(rows.to_scipy().toarray(), by_source.counts[group.global_rows(slice(None))])
    assert source.bytes_read > 0


def test_threads_share_a_reader_and_its_count_of_bytes(by_source: Directory) -> None:
    index = open_index(by_source.path)
    row_groups = scatter(Selected.of(to_row_groups(None, index.first_rows)), 3, seed=0)

    def read(threads: int) -> list[int]:
        pool = ReaderPool(index)
        readers = [ScatteredReader(group, pool) for group in row_groups]

        def one(reader: ScatteredReader) -> None:
            indices, data = (np.empty(reader.indptr[-1], kind) for kind in (reader.index_dtype, reader.count_dtype))
            assert reader.read_into([(0, reader.entry.n_obs)], indices, data) == indices.size

        with ThreadPoolExecutor(threads) as executor:
            list(executor.map(one, readers))
        return [reader.bytes_read for reader in readers]

    # Tables and row starts count for whoever came first, so only the sum is the same.
    assert sum(read(1)) <= sum(read(4)) < 1.5 * sum(read(1))


def test_counts_of_a_wider_type_share_a_row_group_with_narrow_ones(tmp_path: Path) -> None:
    x = positional_counts(60, 20)
    x.data[-3:] = 70_000
    path, counts, _ = make_dataset(tmp_path / "data", x=x, order="source", chunk_size=20)
    index = open_index(path)
    assert {reader.count_dtype.itemsize for reader in map(index.reader, range(3))} == {2, 4}
    row_groups = scatter(Selected.of(to_row_groups(None, index.first_rows)), 5, seed=0)
    source = RowGroupSource(row_groups, reader_of(index, row_groups))
    for number, group in enumerate(row_groups):
        (rows,) = source.start(number, run_now, 1).result().parts
        expected = counts[group.global_rows(slice(None))].toarray()
        np.testing.assert_array_equal(rows.to_scipy().toarray(), expected)
