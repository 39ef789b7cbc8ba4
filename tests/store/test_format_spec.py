"""A reader written from docs/format.md alone, with h5py, numpy, json and zlib; compared with what was written."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import zlib
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp
from tests.support.datasets import make_dataset, positional_counts
from tests.support.recordings import VERSION1

CODECS = ["gzip", "lz4", "none"]


# --- the reader: nothing below up to the tests uses scvae_data -----------------------------------


def read_json_file(path: Path) -> dict:
    encoded = path.read_bytes()
    body, checksum = encoded.rsplit(b',\n "checksum": "sha256:', 1)
    assert checksum == hashlib.sha256(body).hexdigest().encode() + b'"\n}\n'
    return json.loads(encoded)


def read_index(directory: Path) -> dict:
    index = read_json_file(directory / "chunk_index.json")
    assert index["format"] == "scvae-data"
    assert index["format_version"] in (1, 2)
    return index


def chunk_rows(index: dict) -> list[dict]:
    columns = index["chunks"]
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def read_with_hdf5(directory: Path) -> tuple[np.ndarray, list[str]]:
    index = read_index(directory)
    dense = np.zeros((index["n_obs"], index["n_vars"]), np.int64)
    names: list[str] = []
    for chunk in chunk_rows(index):
        with h5py.File(directory / chunk["file"]) as file:
            assert sorted(file) == ["X", "obs", "uns", "var"]
            assert file["X"].attrs["shape"].tolist() == [chunk["n_obs"], index["n_vars"]]
            indptr, indices, data = (file["X"][name][()] for name in ("indptr", "indices", "data"))
            assert data.dtype == indices.dtype == indptr.dtype == np.int32
            names += [name.decode() for name in file["obs/_index"][()]]
        for row in range(chunk["n_obs"]):
            part = slice(indptr[row], indptr[row + 1])
            dense[chunk["first_row"] + row, indices[part]] = data[part]
    return dense, names


def decode_block(codec: str, stored: bytes, mask: int, length: int, itemsize: int) -> np.ndarray:
    assert codec in ("gzip", "none")
    if codec == "gzip" and not mask & 2:
        stored = zlib.decompress(stored)
    assert len(stored) == length * itemsize
    if codec == "gzip" and not mask & 1:
        stored = np.frombuffer(stored, np.uint8).reshape(itemsize, length).T.tobytes()
    return np.frombuffer(stored, f"<u{itemsize}")


def read_rows_without_hdf5(directory: Path, index: dict, chunk: dict, start: int, stop: int) -> np.ndarray:
    fd = os.open(directory / chunk["file"], os.O_RDONLY)
    try:
        assert os.fstat(fd).st_size == chunk["bytes"]
        stored = os.pread(fd, chunk["blocks_size"], chunk["blocks_offset"])
        assert zlib.crc32(stored) == chunk["blocks_crc32"]
        table = np.frombuffer(stored, "<u8").reshape(-1, 8).astype(np.int64)

        def elements(code: int, n_elements: int, first: int, last: int) -> np.ndarray:
            length = min(index["block_elements"], n_elements)
            blocks = table[table[:, 0] == code]
            assert blocks[:, 1].tolist() == list(range(0, n_elements, length))
            assert blocks[:, 2].sum() == n_elements
            parts = []
            for _, _, _, itemsize, offset, size, mask, crc32 in blocks[first // length : (last - 1) // length + 1]:
                content = os.pread(fd, size, offset)
                assert zlib.crc32(content) == crc32
                parts.append(decode_block(index["codec"]["name"], content, mask, length, itemsize))
            skipped = first // length * length
            return np.concatenate(parts)[first - skipped : last - skipped]

        indptr = elements(0, chunk["n_obs"] + 1, 0, chunk["n_obs"] + 1)
        dense = np.zeros((stop - start, index["n_vars"]), np.int64)
        e0, e1 = int(indptr[start]), int(indptr[stop])
        if e0 == e1:
            return dense
        indices, data = (elements(code, chunk["nnz"], e0, e1) for code in (1, 2))
        assert indices.max() < index["n_vars"]
        assert data.max() <= chunk["max_count"]
        for row in range(start, stop):
            part = slice(int(indptr[row]) - e0, int(indptr[row + 1]) - e0)
            dense[row - start, indices[part]] = data[part]
        return dense
    finally:
        os.close(fd)


def read_genes(directory: Path) -> tuple[dict, np.ndarray]:
    content = read_json_file(directory / "gene_list.json")
    index = read_index(directory)
    columns = [content["genes"][name] for name in ("name", "id", "symbol")]
    text = json.dumps(columns, ensure_ascii=True, separators=(",", ":"))
    assert hashlib.sha256(text.encode()).hexdigest() == content["hash"]
    if index["format_version"] == 1:
        packed = [np.frombuffer(base64.b64decode(mask), np.uint8) for mask in content["gene_sets"]]
    else:
        n_bytes = (content["n_vars"] + 7) // 8
        masks = b"".join((directory / generation["gene_sets"]).read_bytes() for generation in index["generations"])
        packed = [np.frombuffer(masks, np.uint8, n_bytes, first) for first in range(0, len(masks), n_bytes)]
    bits = [[mask[j // 8] >> (j % 8) & 1 for j in range(content["n_vars"])] for mask in packed]
    return content, np.array(bits, dtype=bool)


def read_row_table(directory: Path, index: dict, number: int) -> list[dict[str, np.ndarray]]:
    """Columns of each chunk of a generation: codes, where the number of categories is a missing value, and numbers."""
    generation = index["generations"][number]
    facts, types = index["files"][generation["rows"]], generation["row_columns"]
    content = (directory / generation["rows"]).read_bytes()
    tail = content[-facts["tail_bytes"] :]
    assert zlib.crc32(tail) == facts["tail_crc32"]
    numbers = np.frombuffer(tail, "<u4")
    bounds, crc32 = np.split(numbers, [101 * generation["n_chunks"]])
    bounds, crc32 = bounds.reshape(-1, 101), crc32.reshape(-1, len(types))
    before = sum(item["n_chunks"] for item in index["generations"][:number])
    chunks, offset = [], 0
    for chunk_id in range(generation["n_chunks"]):
        n_obs, columns = index["chunks"]["n_obs"][before + chunk_id], {}
        for place, (name, kind) in enumerate(types.items()):
            stored = content[offset : offset + n_obs * np.dtype(kind).itemsize]
            offset += len(stored)
            assert zlib.crc32(stored) == crc32[chunk_id, place]
            values = np.frombuffer(stored, np.dtype(kind).newbyteorder("<"))
            categories = index["obs_columns"][name].get("categories")
            if categories is not None:
                values = np.where(values == np.iinfo(kind).max, len(categories), values.astype(np.int64))
            columns[name] = values
        shares = np.array([round(step / 100 * 2**32) for step in range(101)])
        below = columns["split_hash"].astype(np.int64)[:, None] < shares
        assert below.sum(axis=0).tolist() == bounds[chunk_id].tolist()
        chunks.append(columns)
    assert offset == len(content) - len(tail)
    return chunks


# --- the tests -----------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", CODECS)
def test_every_cell_through_hdf5(tmp_path, codec):
    if codec == "lz4":
        pytest.importorskip("hdf5plugin")
    directory, x, obs = make_dataset(tmp_path / "data", compression=codec)
    dense, names = read_with_hdf5(directory)
    assert np.array_equal(dense, x.toarray())
    assert names == obs.index.tolist()


@pytest.mark.parametrize("codec", ["gzip", "none"])
def test_every_range_of_rows_through_pread(tmp_path, codec):
    directory, x, _ = make_dataset(tmp_path / "data", n_obs=50, chunk_size=20, compression=codec)
    index = read_index(directory)
    for chunk in chunk_rows(index):
        wanted = x[chunk["first_row"] : chunk["first_row"] + chunk["n_obs"]].toarray()
        for start in range(chunk["n_obs"] + 1):
            for stop in range(start, chunk["n_obs"] + 1):
                rows = read_rows_without_hdf5(directory, index, chunk, start, stop)
                assert np.array_equal(rows, wanted[start:stop])


def test_pread_of_empty_rows_and_wide_counts(tmp_path):
    x = sp.csr_matrix(np.array([[0, 0, 0], [70_000, 0, 256], [0, 0, 0], [0, 2_000_000_000, 1]]))
    directory, x, _ = make_dataset(tmp_path / "data", chunk_size=4, x=x, block_elements=3)
    index = read_index(directory)
    (chunk,) = chunk_rows(index)
    assert np.array_equal(read_rows_without_hdf5(directory, index, chunk, 0, 4), x.toarray())


def test_index_totals_and_checksums_of_all_files(tmp_path):
    directory, x, _ = make_dataset(tmp_path / "data")
    index = read_index(directory)
    chunks = chunk_rows(index)
    assert index["nnz"] == sum(chunk["nnz"] for chunk in chunks) == x.nnz
    assert index["n_obs"] == sum(chunk["n_obs"] for chunk in chunks)
    facts = {chunk["file"]: chunk for chunk in chunks} | index["files"]
    for name, fact in facts.items():
        content = (directory / name).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (fact["bytes"], fact["sha256"])
    hashes = [index["files"][name]["sha256"] for name in ("gene_list.json", "obs.parquet")]
    hashes += [chunk["sha256"] for chunk in chunks]
    assert hashlib.sha256("".join(f"{item}\n" for item in hashes).encode()).hexdigest() == index["content_hash"]


def test_checksums_of_the_obs_table(tmp_path):
    directory, _, _ = make_dataset(tmp_path / "data")
    facts = read_index(directory)["files"]["obs.parquet"]
    content = (directory / "obs.parquet").read_bytes()
    tail = content[-facts["tail_bytes"] :]
    assert zlib.crc32(tail) == facts["tail_crc32"]
    table = np.frombuffer(tail[: -8 - int.from_bytes(tail[-8:-4], "little")], "<u4")
    metadata = pq.ParquetFile(directory / "obs.parquet").metadata
    table = table.reshape(metadata.num_row_groups, metadata.num_columns)
    for group, column in np.ndindex(*table.shape):
        chunk = metadata.row_group(group).column(column)
        first = chunk.dictionary_page_offset if chunk.has_dictionary_page else chunk.data_page_offset
        assert zlib.crc32(content[first : first + chunk.total_compressed_size]) == table[group, column]


def test_the_row_table_has_the_columns_of_fixed_width(tmp_path):
    directory, _, obs = make_dataset(tmp_path / "data")
    index = read_index(directory)
    chunks = read_row_table(directory, index, 0)
    wanted = [name for name in obs if obs[name].dtype != object]
    assert list(index["generations"][0]["row_columns"]) == wanted
    for name in wanted:
        found = np.concatenate([columns[name] for columns in chunks])
        if isinstance(obs[name].dtype, pd.CategoricalDtype):
            categories = index["obs_columns"][name]["categories"]
            values = [None if code == len(categories) else categories[code] for code in found.tolist()]
            assert values == obs[name].astype(object).where(obs[name].notna(), None).tolist()
        else:
            assert np.array_equal(found, obs[name].to_numpy(), equal_nan=found.dtype.kind == "f")


def test_version_1_has_gene_sets_among_the_genes_and_one_obs_table():
    for name in ("gzip", "lz4"):
        directory = VERSION1 / name
        index = read_index(directory)
        content, sets = read_genes(directory)
        assert "generations" not in index and set(index["files"]) == {"gene_list.json", "obs.parquet"}
        assert content["format_version"] == 1 and sets.shape[1] == index["n_vars"]


def test_block_table_dataset_is_where_the_index_says(tmp_path):
    directory, _, _ = make_dataset(tmp_path / "data")
    for chunk in chunk_rows(read_index(directory)):
        with h5py.File(directory / chunk["file"]) as file:
            table = file["X/blocks"]
            assert (table.dtype, table.shape[1]) == (np.dtype("<u8"), 8)
            assert (table.id.get_offset(), table.nbytes) == (chunk["blocks_offset"], chunk["blocks_size"])
            assert table.attrs["crc32"] == chunk["blocks_crc32"]


def test_genes_and_gene_sets(tmp_path):
    directory, x, _ = make_dataset(tmp_path / "data")
    content, sets = read_genes(directory)
    assert content["hash"] == read_index(directory)["gene_list_hash"]
    assert sets.shape == (1, x.shape[1]) and sets.all()
    for chunk in chunk_rows(read_index(directory)):
        with h5py.File(directory / chunk["file"]) as file:
            assert [name.decode() for name in file["var/_index"][()]] == content["genes"]["name"]


def test_order_of_cells_and_row_groups(tmp_path):
    directory, _, obs = make_dataset(tmp_path / "data", seed=7)
    index = read_index(directory)
    file = pq.ParquetFile(directory / "obs.parquet")
    assert file.schema_arrow.names == ["obs_name", *index["obs_columns"]]
    table = file.read().to_pandas()
    h1, h2 = [], []
    for accession, row, name in zip(table["SRX_accession"], table["source_row"], table["obs_name"], strict=True):
        digest = hashlib.blake2b(f"{accession}\0{row}\0{name}".encode(), digest_size=16, key=b"7").digest()
        h1.append(int.from_bytes(digest[:8], "little"))
        h2.append(int.from_bytes(digest[8:], "little"))
    assert table["split_hash"].tolist() == [value >> 32 for value in h2]
    previous = -1
    for number, chunk in enumerate(chunk_rows(index)):
        rows = range(chunk["first_row"], chunk["first_row"] + chunk["n_obs"])
        assert file.metadata.row_group(number).num_rows == len(rows)
        assert min(h1[row] for row in rows) > previous
        previous = max(h1[row] for row in rows)
        assert [(h2[row], h1[row]) for row in rows] == sorted((h2[row], h1[row]) for row in rows)
    assert table["obs_name"].tolist() == obs.index.tolist()


def test_counts_are_the_positional_ones(tmp_path):
    directory, _, _ = make_dataset(tmp_path / "data")
    dense, names = read_with_hdf5(directory)
    source = positional_counts(100, 20).toarray()
    assert all(np.array_equal(dense[row], source[int(name[4:])]) for row, name in enumerate(names))
