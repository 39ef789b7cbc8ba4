from __future__ import annotations

import shutil
import threading
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from tests.loading.conftest import Directory

from scvae_data.errors import DamagedFileError
from scvae_data.loading.fetch.cache import RowGroupCache
from scvae_data.loading.fetch.fetch import PendingRowGroup, RowGroupSource, WindowFetcher, part_borders, run_now
from scvae_data.loading.plan.epoch import Plan
from scvae_data.loading.plan.reuse import ReuseModel
from scvae_data.loading.select.rows import ChunkRows, to_row_groups
from scvae_data.store import DatasetIndex, open_index


def decode_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("scvae-")]


def source_of(index: DatasetIndex, mask: np.ndarray | None = None) -> RowGroupSource:
    return RowGroupSource(to_row_groups(mask, index.first_rows), index.reader)


def plan_of(source: RowGroupSource, window: int = 1) -> Plan:
    return Plan(tuple(group.n_rows for group in source.row_groups), batch_size=7, seed=2, window=window)


@pytest.mark.parametrize("n_threads", [1, 3])
def test_scattered_rows_of_a_row_group_in_many_parts(hashed: Directory, n_threads: int) -> None:
    index = open_index(hashed.path)
    row_groups = to_row_groups(np.arange(300) % 3 != 0, index.first_rows)
    source = RowGroupSource(row_groups, index.reader, part_nnz=20)
    for number, rows in enumerate(source.row_groups):
        pending = source.start(number, run_now, n_threads)
        assert len(pending._parts) > 2
        (rows_read,) = pending.result().parts
        np.testing.assert_array_equal(rows_read.to_scipy().toarray(), hashed.counts[rows.global_rows(slice(None))])


def test_windows_arrive_whatever_the_number_of_threads(hashed: Directory) -> None:
    source = source_of(open_index(hashed.path))
    epoch = plan_of(source, window=2).epoch(1)
    for n_threads in (1, 2, 5):
        with closing(
            WindowFetcher(epoch, source, RowGroupCache[PendingRowGroup](2), ReuseModel(2), n_threads)
        ) as fetcher:
            for number, row_groups in enumerate(epoch.windows):
                fetcher.advance(number, number)
                window = fetcher.handle(number)()
                rows = np.concatenate([source.row_groups[group].global_rows(slice(None)) for group in row_groups])
                found = np.concatenate([part.to_scipy().toarray() for _, part in window.parts])
                np.testing.assert_array_equal(found, hashed.counts[rows])
                np.testing.assert_array_equal(window.global_rows(np.arange(rows.size)), rows)
        assert decode_threads() == []


@pytest.mark.parametrize("window", [1, 2])
@pytest.mark.parametrize("capacity", [1, 2, 5, 10])
def test_measured_hits_equal_the_prediction(hashed: Directory, capacity: int, window: int) -> None:
    source = source_of(open_index(hashed.path))
    plan = plan_of(source, window)
    room = max(capacity, window)
    cache, reuse = RowGroupCache[PendingRowGroup](room), ReuseModel(room)
    for number in range(3):
        epoch = plan.epoch(number)
        with closing(WindowFetcher(epoch, source, cache, reuse, 2)) as fetcher:
            for batch in epoch.batches():
                windows = [segment.window for segment in batch.segments]
                fetcher.advance(windows[0], windows[-1])
                for wanted in windows:
                    fetcher.handle(wanted)()
    counters = cache.counters()
    assert counters.hits == reuse.hits == 2 * 10 * plan.expected_hit_rate(capacity)
    assert counters.blocks <= room


def test_looks_one_window_ahead_and_no_further(hashed: Directory) -> None:
    source = source_of(open_index(hashed.path))
    epoch = plan_of(source).epoch(0)
    cache = RowGroupCache[PendingRowGroup](10)
    with closing(WindowFetcher(epoch, source, cache, ReuseModel(10), 2)) as fetcher:
        fetcher.advance(0, 0)
        assert cache.counters().misses == 2
        fetcher.advance(0, 0)
        assert cache.counters().misses == 2
        fetcher.advance(9, 9)
        assert cache.counters().misses == 3


def test_bytes_read_are_those_of_the_rows_wanted(hashed: Directory) -> None:
    index = open_index(hashed.path)
    everything, little = source_of(index), source_of(index, np.arange(300) % 30 < 3)
    for source in (everything, little):
        for number in range(len(source.row_groups)):
            source.start(number, run_now, 1).result()
    assert 0 < little.bytes_read < 0.8 * everything.bytes_read  # a table and row starts are read with any row


def test_a_damaged_file_is_named_where_the_window_is_used(hashed: Directory, tmp_path: Path) -> None:
    shutil.copytree(hashed.path, tmp_path / "copy")
    victim = tmp_path / "copy" / "chunk_0003.h5"
    content = bytearray(victim.read_bytes())
    entry = open_index(hashed.path).chunks[3]
    content[entry.blocks_offset + 8] ^= 1
    victim.write_bytes(content)
    source = source_of(open_index(tmp_path / "copy"))
    epoch = Plan((30,) * 10, batch_size=30, shuffle=False).epoch(0)
    cache = RowGroupCache[PendingRowGroup](10)
    with closing(WindowFetcher(epoch, source, cache, ReuseModel(10), 2)) as fetcher:
        fetcher.advance(2, 2)
        fetcher.handle(2)()
        fetcher.advance(3, 3)
        with pytest.raises(DamagedFileError, match=r"chunk_0003\.h5.*resume=true"):
            fetcher.handle(3)()
    assert decode_threads() == []
    assert cache.counters().blocks in (1, 2)  # the row group before; the one after, if it was begun


def test_closing_early_leaves_no_thread_and_no_half_row_group(hashed: Directory) -> None:
    gate = threading.Event()

    class SlowIndex:
        def reader(self, chunk_id: int) -> object:
            reader = open_index(hashed.path).reader(chunk_id)
            whole = reader.read_into

            def wait(*arguments: object) -> object:
                gate.wait(5)
                return whole(*arguments)

            reader.read_into = wait  # type: ignore[method-assign]
            return reader

    row_groups = [ChunkRows(number, 30 * number, 0, 30, None) for number in range(10)]
    source = RowGroupSource(row_groups, SlowIndex().reader)  # type: ignore[arg-type]
    cache = RowGroupCache[PendingRowGroup](10)
    epoch = Plan((30,) * 10, batch_size=30, window=4, shuffle=False).epoch(0)
    fetcher = WindowFetcher(epoch, source, cache, ReuseModel(10), 1)
    fetcher.advance(0, 0)  # eight row groups asked for, one being read
    threading.Timer(0.05, gate.set).start()
    fetcher.close()
    assert decode_threads() == []
    assert cache.counters().blocks == 1  # the one that was being read is whole


def test_a_row_group_another_iterator_gave_up_is_read_after_all(hashed: Directory) -> None:
    source = source_of(open_index(hashed.path))
    cache = RowGroupCache[PendingRowGroup](10)
    epoch = Plan((30,) * 10, batch_size=30, shuffle=False).epoch(0)
    first = WindowFetcher(epoch, source, cache, ReuseModel(10), 1)
    blocker = threading.Event()
    first._pool.submit(blocker.wait, 5)
    first.advance(0, 0)
    with closing(WindowFetcher(epoch, source, cache, ReuseModel(10), 1)) as second:
        second.advance(0, 0)
        threading.Timer(0.05, blocker.set).start()
        first.close()
        found = second.handle(0)().parts[0][1].to_scipy().toarray()
    np.testing.assert_array_equal(found, hashed.counts[:30])


@pytest.mark.parametrize(
    ("n_rows", "nnz_per_row", "n_threads", "n_parts"),
    [
        pytest.param(10, 2_000, 4, 1, id="small row group, one part"),
        pytest.param(2_500, 2_000, 4, 4, id="a part a thread"),
        pytest.param(50_000, 2_000, 2, 25, id="parts of bounded size"),
        pytest.param(1, 10**9, 2, 1, id="a row is not cut"),
        pytest.param(5, 0, 2, 1, id="empty rows"),
    ],
)
def test_part_borders(n_rows: int, nnz_per_row: float, n_threads: int, n_parts: int) -> None:
    borders = part_borders(n_rows, nnz_per_row, n_threads)
    assert len(borders) - 1 == n_parts
    assert borders[0] == 0 and borders[-1] == n_rows and (np.diff(borders) > 0).all()
