from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import scipy.sparse as sp

from scvae_data.errors import DamagedFileError
from scvae_data.processing.sort import sorted_run as spool
from scvae_data.processing.sort.packed import pack_rows
from scvae_data.processing.sort.sorted_run import SortedRun, SortedRunWriter


def write_run(path: Path, matrix: sp.csr_matrix, pieces: int = 2) -> np.ndarray:
    keys = np.column_stack([np.arange(matrix.shape[0]) * 10, np.arange(matrix.shape[0])]).astype(np.uint64)
    writer = SortedRunWriter(path, pa.schema([("row", pa.int64())]), matrix.shape[1])
    for rows in np.array_split(np.arange(matrix.shape[0]), pieces):
        part = matrix[rows]
        obs = pa.table({"row": rows.astype(np.int64)})
        packed = pack_rows(part.indptr.astype(np.int64), part.indices.astype(np.uint16), part.data)
        writer.append(keys[rows], *packed, obs)
    writer.close()
    return keys


@pytest.mark.parametrize("piece_bytes", [1, 70, 10_000])
def test_any_slice_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece_bytes: int) -> None:
    monkeypatch.setattr(spool, "PIECE_BYTES", piece_bytes)
    dense = np.arange(1, 61, dtype=np.uint32).reshape(10, 6) * 10_000
    dense[3] = 0
    dense[:, 2] = 0
    keys = write_run(tmp_path / "run", sp.csr_matrix(dense))
    with SortedRun(tmp_path / "run") as run:
        assert run.n_rows == 10
        np.testing.assert_array_equal(run.array("order"), keys[:, 0])
        np.testing.assert_array_equal(run.array("hash"), keys[:, 1])
        for step in (1, 3, 20):
            np.testing.assert_array_equal(run.some_keys(step), keys[::step, 0])
        assert run.obs().column("row").to_pylist() == list(range(10))
        for key in range(-1, 101):
            assert run.rank(key) == (keys[:, 0].astype(int) < key).sum()
        for start in range(11):
            for stop in range(start, 11):
                assert run.obs(start, stop).column("row").to_pylist() == list(range(start, stop))
                seen = np.zeros((10, 6), np.int64)
                for block in run.blocks(start, stop):
                    n_rows = block.n_rows
                    part = sp.csr_matrix((block.data, block.indices, block.indptr), shape=(n_rows, 6))
                    seen[block.first_row : block.first_row + n_rows] += part.toarray()
                assert not seen[:start].any()
                assert not seen[stop:].any()
                np.testing.assert_array_equal(seen[start:stop], dense[start:stop])


def test_of_many_batches_of_obs_few_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(tmp_path / "run", sp.csr_matrix(np.eye(100, dtype=np.uint32)), pieces=50)
    read: list[int] = []
    opened = pa.ipc.open_file

    class Reader:
        def __init__(self, source: pa.NativeFile) -> None:
            self._reader = opened(source)
            self.schema = self._reader.schema

        def get_batch(self, number: int) -> pa.RecordBatch:
            read.append(number)
            return self._reader.get_batch(number)

    monkeypatch.setattr(pa.ipc, "open_file", Reader)
    with SortedRun(tmp_path / "run") as run:
        assert run.obs(41, 45).column("row").to_pylist() == [41, 42, 43, 44]
    assert read == [20, 21, 22]


def test_totals_come_back(tmp_path: Path) -> None:
    write_run(tmp_path / "run", sp.csr_matrix(np.eye(3, dtype=np.uint32)))
    with SortedRun(tmp_path / "run") as run:
        run.write_totals(np.array([5, 0, 7]), np.array([1, 0, 1], np.int32))
        totals, lengths = run.totals()
        assert (totals.tolist(), lengths.tolist()) == ([5, 0, 7], [1, 0, 1])


def read_all(path: Path) -> None:
    with SortedRun(path) as run:
        run.obs()
        run.totals()


@pytest.mark.parametrize("n_bytes", [0, 1, 10, -3])
@pytest.mark.parametrize("suffix", [".run", ".arrow", ".totals"])
def test_a_file_that_is_cut_off_is_named(suffix: str, n_bytes: int, tmp_path: Path) -> None:
    write_run(tmp_path / "run", sp.csr_matrix(np.eye(3, dtype=np.uint32)))
    with SortedRun(tmp_path / "run") as run:
        run.write_totals(np.ones(3, np.int64), np.ones(3, np.int32))
    read_all(tmp_path / "run")
    file = tmp_path / f"run{suffix}"
    file.write_bytes(file.read_bytes()[:n_bytes])
    told_of = rf"run\{suffix}: is not as it was written \(.+\); resume=true makes it again"
    with pytest.raises(DamagedFileError, match=told_of) as told:
        read_all(tmp_path / "run")
    assert "\n" not in str(told.value)


def test_a_key_that_is_cut_off_meanwhile_is_not_taken_for_zero(tmp_path: Path) -> None:
    write_run(tmp_path / "run", sp.csr_matrix(np.eye(3, dtype=np.uint32)))
    with SortedRun(tmp_path / "run") as run:
        os.truncate(tmp_path / "run.run", 8)
        with pytest.raises(DamagedFileError, match=r"run\.run: is not as it was written"):
            run.rank(10)


def test_a_writer_holds_no_more_for_more_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "SPOOL_BYTES", 1_000)
    matrix = sp.csr_matrix(np.ones((100, 3), np.uint32))
    held = []
    for times in (20, 80):
        tracemalloc.start()
        writer = SortedRunWriter(tmp_path / f"run{times}", pa.schema([("row", pa.int64())]), 3)
        for number in range(times):
            keys = np.column_stack([np.arange(100) + 100 * number] * 2).astype(np.uint64)
            packed = pack_rows(matrix.indptr.astype(np.int64), matrix.indices.astype(np.uint16), matrix.data)
            obs = pa.table({"row": keys[:, 0].astype(np.int64)})
            writer.append(keys, *packed, obs, totals=(np.full(100, 3), np.full(100, 3)))
        writer.close()
        held.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        with SortedRun(tmp_path / f"run{times}") as run:
            assert run.array("order").tolist() == list(range(100 * times))
            assert run.array("starts")[-1] == 600 * times
            assert [array.sum() for array in run.totals()] == [300 * times] * 2
    assert held[1] < 1.1 * held[0]
