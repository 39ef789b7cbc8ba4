from __future__ import annotations

import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from tests.support.datasets import make_dataset, positional_counts

from scvae_data.errors import DamagedFileError
from scvae_data.store import ChunkContent, ChunkReader, CompactCsr, DatasetIndex, codec_of, open_index, write_chunk
from scvae_data.store.block_table import COLUMNS
from scvae_data.store.source import LocalFile

CODECS = ["gzip", "lz4", "none"]


def opened(path: Path, codec: str = "gzip", **changes) -> tuple[DatasetIndex, sp.csr_matrix]:
    directory, x, _ = make_dataset(path, **{"n_obs": 40, "chunk_size": 40, "compression": codec} | changes)
    return open_index(directory), x


def same(rows: CompactCsr, wanted: sp.csr_matrix) -> bool:
    back = rows.to_scipy()
    return back.shape == wanted.shape and (back != wanted).nnz == 0 and back.has_canonical_format


@pytest.mark.parametrize("codec", CODECS)
def test_every_range_equals_scipys(tmp_path, codec):
    index, x = opened(tmp_path / "data", codec)
    reader = index.reader(0)
    for start in range(41):
        for stop in range(start, 41):
            assert same(reader.read_rows(start, stop), x[start:stop])


def test_spans_come_in_the_order_given(tmp_path):
    index, x = opened(tmp_path / "data")
    spans = [(3, 9), (9, 9), (9, 12), (30, 40), (0, 2), (1, 4)]
    wanted = sp.vstack([x[start:stop] for start, stop in spans]).tocsr()
    assert same(index.reader(0).read_spans(spans), wanted)
    assert index.reader(0).read_spans([]).n_obs == 0


def test_read_into_fills_the_callers_arrays(tmp_path):
    index, x = opened(tmp_path / "data")
    reader = index.reader(0)
    indices, data = np.full(1000, 9, reader.index_dtype), np.full(1000, 9, reader.count_dtype)
    n_elements = reader.read_into([(5, 8), (20, 22)], indices, data)
    wanted = sp.vstack([x[5:8], x[20:22]]).tocsr()
    assert n_elements == wanted.nnz
    assert np.array_equal(indices[:n_elements], wanted.indices)
    assert np.array_equal(data[:n_elements], wanted.data)
    assert (data[n_elements:] == 9).all()
    with pytest.raises(TypeError, match="needs uint16 and uint16"):
        reader.read_into([(0, 1)], indices.astype(np.int32), data)
    with pytest.raises(ValueError, match="got room for 3"):
        reader.read_into([(0, 40)], indices[:3], data)


@pytest.mark.parametrize(
    ("largest", "n_vars", "kinds"),
    [(255, 20, "u2 u2"), (65_535, 20, "u2 u2"), (65_536, 20, "u2 u4"), (2**33, 20, "u2 u8"), (9, 65_537, "u4 u2")],
)
def test_types_in_memory_are_the_narrowest(tmp_path, largest, n_vars, kinds):
    x = sp.csr_matrix(([1, largest], ([0, 2], [0, n_vars - 1])), shape=(3, n_vars), dtype=np.int64)
    content = ChunkContent(CompactCsr.from_scipy(x), _names(3), _names(n_vars), {})
    gzip = codec_of("gzip")
    entry = write_chunk(tmp_path / "c.h5", content, gzip, block_elements=2)
    rows = ChunkReader(tmp_path / "c.h5", entry, n_vars=n_vars, codec=gzip, block_elements=2).read_rows(0, 3)
    assert f"{rows.indices.dtype.str[1:]} {rows.data.dtype.str[1:]}" == kinds
    assert (rows.to_scipy(np.int64) != x).nnz == 0


def _names(n):
    import pandas as pd

    return pd.DataFrame(index=pd.Index([str(i) for i in range(n)], dtype=object))


@pytest.mark.parametrize("rows", [(-1, 3), (3, 2), (0, 41)])
def test_rows_outside(tmp_path, rows):
    index, _ = opened(tmp_path / "data")
    with pytest.raises(IndexError, match="not within the 40 rows"):
        index.reader(0).read_rows(*rows)


def test_only_the_blocks_of_the_rows_are_read(tmp_path):
    index, x = opened(tmp_path / "data", block_elements=16)
    reader = index.reader(0)
    assert reader.bytes_read == 0
    assert np.array_equal(reader.indptr, x.indptr)
    opening = reader.bytes_read
    reader.read_rows(0, 40)
    whole = reader.bytes_read - opening
    reader.read_rows(7, 8)
    assert 0 < reader.bytes_read - opening - whole <= whole / 6


def test_threads_share_a_reader(tmp_path):
    index, x = opened(tmp_path / "data", n_obs=200, chunk_size=200)
    reader = index.reader(0)
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda start: reader.read_rows(start, start + 10), list(range(0, 200, 10)) * 3))
    assert all(same(part, x[10 * (k % 20) : 10 * (k % 20) + 10]) for k, part in enumerate(parts))


def test_pickling_drops_what_is_open(tmp_path):
    index, x = opened(tmp_path / "data")
    reader = index.reader(0)
    reader.read_rows(0, 3)
    copy = pickle.loads(pickle.dumps(reader))
    assert copy.bytes_read == 0
    assert same(copy.read_rows(2, 5), x[2:5])


def n_open() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_closing_frees_the_descriptor_and_reading_opens_again(tmp_path):
    index, x = opened(tmp_path / "data")
    before = n_open()
    with index.reader(0) as reader:
        reader.read_rows(0, 3)
        assert n_open() == before + 1
        reader.close()
        assert n_open() == before
        assert same(reader.read_rows(3, 5), x[3:5])
    assert n_open() == before


def test_a_forked_child_opens_its_own(tmp_path):
    index, x = opened(tmp_path / "data")
    openers = []
    reader = replace(index, open_source=lambda path: openers.append(os.getpid()) or LocalFile(path)).reader(0)
    reader.read_rows(0, 3)
    parent, pid = os.getpid(), os.fork()
    if pid == 0:
        fine = same(reader.read_rows(5, 9), x[5:9]) and openers == [parent, os.getpid()]
        os._exit(0 if fine else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert same(reader.read_rows(5, 9), x[5:9])
    assert openers == [parent]


# --- damage --------------------------------------------------------------------------------------


def table_of(index: DatasetIndex) -> np.ndarray:
    chunk = index.chunks[0]
    content = (index.path / chunk.file).read_bytes()
    stored = content[chunk.blocks_offset : chunk.blocks_offset + chunk.blocks_size]
    return np.frombuffer(stored, "<u8").reshape(-1, len(COLUMNS)).astype(np.int64)


def overwrite(index: DatasetIndex, offset: int, content: bytes) -> None:
    with (index.path / index.chunks[0].file).open("r+b") as file:
        file.seek(offset)
        file.write(content)


@pytest.mark.parametrize("codec", CODECS)
def test_a_flipped_bit_in_any_block_or_the_table_is_found(tmp_path, codec):
    index, _ = opened(tmp_path / "data", codec, n_obs=12, chunk_size=12)
    chunk = index.chunks[0]
    content = (index.path / chunk.file).read_bytes()
    places = [(offset, size) for offset, size in table_of(index)[:, 4:6]]
    places.append((chunk.blocks_offset, chunk.blocks_size))
    for offset, size in places:
        for byte in {offset, offset + size // 2, offset + size - 1}:
            overwrite(index, byte, bytes([content[byte] ^ 1 << byte % 8]))
            with pytest.raises(DamagedFileError, match=r"chunk_0000.h5: .*checksum.*resume=true"):
                index.reader(0).read_rows(0, 12)
            overwrite(index, byte, content[byte : byte + 1])
    index.reader(0).read_rows(0, 12)


def test_a_valid_block_in_the_wrong_place_is_found(tmp_path):
    # All rows alike: the blocks of an array differ in their order only.
    index, _ = opened(tmp_path / "data", "none", n_obs=12, chunk_size=12, block_elements=8)
    rows = table_of(index)
    first, second = rows[rows[:, 0] == 2][:2]
    assert first[5] == second[5]
    content = (index.path / index.chunks[0].file).read_bytes()
    overwrite(index, first[4], content[second[4] : second[4] + second[5]])
    overwrite(index, second[4], content[first[4] : first[4] + first[5]])
    with pytest.raises(DamagedFileError, match="block 0 of data does not match its checksum"):
        index.reader(0).read_rows(0, 12)


def test_another_valid_chunk_in_its_place_is_found(tmp_path):
    index, _ = opened(tmp_path / "data", n_obs=40, chunk_size=20)
    first, second = (index.path / chunk.file for chunk in index.chunks)
    second.write_bytes(first.read_bytes())
    with pytest.raises(DamagedFileError, match=r"chunk_0001\.h5"):
        index.reader(1).read_rows(0, 20)


def test_truncated_and_missing_files(tmp_path):
    index, _ = opened(tmp_path / "data")
    file = index.path / index.chunks[0].file
    reader = index.reader(0)
    reader.indptr  # noqa: B018 - opens it, so that the file shrinks under an open reader
    os.truncate(file, int(table_of(index)[3, 4]))
    with pytest.raises(DamagedFileError, match="ends at byte"):
        reader.read_rows(0, 40)
    with pytest.raises(DamagedFileError, match=rf"has \d+ bytes, the index says {index.chunks[0].bytes}"):
        index.reader(0).read_rows(0, 1)
    file.unlink()
    with pytest.raises(DamagedFileError, match="cannot be opened"):
        index.reader(0).read_rows(0, 1)


def impossible(index: DatasetIndex, changes: dict) -> ChunkReader:
    entry = replace(index.chunks[0], **changes)
    path = index.path / entry.file
    return ChunkReader(path, entry, n_vars=index.n_vars, codec=index.codec, block_elements=index.block_elements)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"nnz": 7}, "block table does not cover", id="nnz"),
        pytest.param({"n_obs": 39}, "block table does not cover indptr", id="n_obs"),
        pytest.param({"max_count": 2**40}, "block table does not cover data", id="itemsize"),
        pytest.param({"max_count": 3}, "holds a count of", id="count"),
        pytest.param({"blocks_size": 7}, "block table", id="table size"),
        pytest.param({"blocks_crc32": 0}, "block table does not match its checksum", id="table checksum"),
    ],
)
def test_an_index_that_contradicts_the_file_is_found(tmp_path, changes, message):
    index, _ = opened(tmp_path / "data")
    with pytest.raises(DamagedFileError, match=message):
        impossible(index, changes).read_rows(0, 39)


def test_columns_beyond_the_genes_are_found(tmp_path):
    index, _ = opened(tmp_path / "data")
    reader = index.reader(0)
    reader.n_vars = 10
    with pytest.raises(DamagedFileError, match="refers to gene 19 of 10"):
        reader.read_rows(0, 40)


def test_positional_counts_hold_no_empty_row():
    assert np.diff(positional_counts(50, 20).indptr).min() > 0
