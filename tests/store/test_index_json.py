from __future__ import annotations

import json
import pickle
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from tests.support.datasets import make_dataset

from scvae_data.errors import (
    DamagedFileError,
    FormatVersionError,
    MissingIndexError,
    SelectionError,
    StoreError,
)
from scvae_data.store import INDEX_FILE, chunk_file_name, open_index, write_index
from scvae_data.store.files import encode_json
from scvae_data.store.row_table import n_bytes_of, tail_bytes_of


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("index") / "data")


@pytest.fixture
def index(dataset):
    return open_index(dataset[0])


def content_of(directory) -> dict:
    content = json.loads((directory / INDEX_FILE).read_bytes())
    del content["checksum"]
    return content


def test_round_trip_is_byte_identical(index, dataset, tmp_path):
    written = write_index(tmp_path, index)
    again = open_index(tmp_path)
    assert (tmp_path / INDEX_FILE).read_bytes() == (dataset[0] / INDEX_FILE).read_bytes()
    for name in ("n_obs", "chunks", "obs_columns", "codec", "order", "normalization", "files", "content_hash"):
        assert getattr(again, name) == getattr(written, name) == getattr(index, name)


def test_facts(index, dataset):
    _, x, _ = dataset
    assert (index.n_obs, index.n_vars, index.nnz, index.chunk_size) == (*x.shape, x.nnz, 30)
    assert [chunk.file for chunk in index.chunks] == [chunk_file_name(k) for k in range(4)]
    assert index.first_rows.tolist() == [0, 30, 60, 90, 100]
    assert index.genes.symbols[3] == "GENE3"
    assert chunk_file_name(12_345) == "chunk_12345.h5"


def test_locate_every_row(index):
    chunk_ids, local = index.locate(np.arange(100))
    assert chunk_ids.tolist() == [row // 30 for row in range(100)]
    assert local.tolist() == [row % 30 for row in range(100)]
    assert [int(value) for value in index.locate(31)] == [1, 1]
    assert index.locate([])[0].size == 0
    for rows in ([100], [3, -1]):
        with pytest.raises(IndexError, match=f"row {rows[-1]} is not within the 100 rows"):
            index.locate(rows)


def test_readers_return_the_rows_of_their_chunk(index, dataset):
    for number, chunk in enumerate(index.chunks):
        rows = index.reader(number).read_rows(0, chunk.n_obs).to_scipy()
        assert (rows != dataset[1][chunk.first_row : chunk.first_row + chunk.n_obs]).nnz == 0


def test_obs_of_all_and_of_some_rows(index, dataset):
    obs = dataset[2]
    pd.testing.assert_frame_equal(index.obs(), obs)
    rows = [99, 3, 3, 40]
    pd.testing.assert_frame_equal(
        index.obs(["donor_age", "cell_type"], rows), obs.iloc[rows][["donor_age", "cell_type"]]
    )
    assert index.obs(["donor_age"], []).shape == (0, 1)
    assert index.obs([], [5]).index.tolist() == [obs.index[5]]


def test_codes_and_rows(index, dataset):
    obs = dataset[2]
    for column in ("SRX_accession", "cell_type"):
        codes = obs[column].cat.codes.to_numpy(copy=True)
        codes[codes < 0] = len(obs[column].cat.categories)
        assert index.codes(column).tolist() == codes.tolist()
    assert np.concatenate([index.codes("cell_type", k) for k in range(4)]).tolist() == index.codes("cell_type").tolist()
    assert index.rows(["SRX3", "SRX1"]).tolist() == np.flatnonzero(obs["SRX_accession"] != "SRX2").tolist()
    assert index.rows([]).size == 0


def test_pickling_keeps_facts_and_drops_cells(index):
    index.codes("SRX_accession")
    index.genes  # noqa: B018 - cached, so that it could be pickled along
    size = len(pickle.dumps(index))
    copy = pickle.loads(pickle.dumps(index))
    assert size < 8000
    assert copy.rows(["SRX1"]).tolist() == index.rows(["SRX1"]).tolist()


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        pytest.param(lambda index: index.rows(["SRX1", "SRX11"]), "SRX11 not in .* did you mean SRX1", id="close"),
        pytest.param(lambda index: index.rows(["zzz"]), "zzz not in .* it has 3, e.g. SRX1, SRX2, SRX3", id="far"),
        pytest.param(lambda index: index.rows("SRX1"), r"must be a list, .* write \[SRX1\]", id="string"),
        pytest.param(lambda index: index.obs(["cel_type"]), "did you mean cell_type", id="column"),
        pytest.param(lambda index: index.codes("donor_age"), "is int64, not categorical; .* cell_type", id="codes"),
    ],
)
def test_selections_that_cannot_be_served(index, ask, message):
    with pytest.raises(SelectionError, match=message) as caught:
        ask(index)
    assert "\n" not in str(caught.value)


def test_missing_and_unfinished(tmp_path):
    with pytest.raises(
        MissingIndexError,
        match=r"no dataset at .*; make one with: scvae-data process input=files .* paths.processed_dir",
    ):
        open_index(tmp_path / "none")
    with pytest.raises(
        MissingIndexError, match=r"holds no chunk_index\.json; .* 'input\.paths=…' paths\.processed_dir=/"
    ):
        open_index(tmp_path)
    (tmp_path / "SRX1.h5ad").touch()
    with pytest.raises(MissingIndexError, match=rf"input\.paths={tmp_path} .?paths\.processed_dir=…"):
        open_index(tmp_path)
    (tmp_path / "chunk_0000.h5").touch()
    with pytest.raises(MissingIndexError, match=r"has chunks, but neither .* elsewhere with: .*processed_dir=…"):
        open_index(tmp_path)
    with pytest.raises(
        MissingIndexError, match=r"chunk_0000\.h5 is a file; give the directory that scvae-data process"
    ):
        open_index(tmp_path / "chunk_0000.h5")
    (tmp_path / ".work").mkdir()
    with pytest.raises(MissingIndexError, match=r"is unfinished, .* resume=true"):
        open_index(tmp_path)


def test_a_newer_version_is_refused_by_name(dataset, tmp_path):
    (tmp_path / INDEX_FILE).write_text(json.dumps(content_of(dataset[0]) | {"format_version": 3}))
    with pytest.raises(FormatVersionError, match="has format version 3, this scvae-data reads up to 2; upgrade"):
        open_index(tmp_path)


def test_a_codec_is_not_imported_because_an_index_names_it(dataset, tmp_path, monkeypatch):
    (tmp_path / "their_codecs.py").write_text("raise SystemExit('it runs')")
    monkeypatch.syspath_prepend(tmp_path)
    encoded = encode_json(changed(content_of(dataset[0]), ("codec", "name"), "their_codecs.Codec"))
    (tmp_path / INDEX_FILE).write_bytes(encoded)
    with pytest.raises(StoreError, match=r"compressed by their_codecs\.Codec, .* import their_codecs first") as caught:
        open_index(tmp_path)
    assert not isinstance(caught.value, DamagedFileError)


def test_flipped_bits_are_found(dataset, tmp_path):
    content = (dataset[0] / INDEX_FILE).read_bytes()
    for place in range(0, len(content), 5):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 7
        (tmp_path / INDEX_FILE).write_bytes(damaged)
        with pytest.raises((DamagedFileError, FormatVersionError)):
            open_index(tmp_path)


def changed(content: dict, keys: tuple, value) -> dict:
    """The content with one value replaced; a value of ``...`` deletes the key."""
    content = json.loads(json.dumps(content))
    inner = content
    for key in keys[:-1]:
        inner = inner[key]
    if value is ...:
        del inner[keys[-1]]
    else:
        inner[keys[-1]] = value
    return content


WRONG = {
    (): [],
    ("format",): ["other", ..., None],
    ("format_version",): [0, ..., "1", True, -1],
    ("n_obs",): [99, -1, "100", 100.0, ..., None, 2**70],
    ("nnz",): [1, ...],
    ("codec",): [..., "gzip", {"name": "zip", "level": 1}, {"name": "gzip"}, {"name": "gzip", "level": 99}],
    ("block_elements",): [0, "64"],
    ("chunk_size",): [0],
    ("obs_columns",): [..., [], {"a": 3}, {"a": {}}, {"a": {"dtype": "categorical", "categories": [1]}}],
    ("generations",): [..., [], {}, [{}], [{"n_chunks": 4, "obs": "obs.parquet"}]],
    ("generations", 0, "n_chunks"): [3, "4", True],
    ("generations", 0, "obs"): ["../obs.parquet", "rows.bin", "other.parquet", 1],
    ("generations", 0, "row_columns"): [{}, [], {"split_hash": "uint32"}],
    ("generations", 0, "row_columns", "cell_type"): ["int32", "float64", "object", "uint16"],
    ("files",): [..., {}, {"../gene_list.json": {"bytes": 1, "sha256": "0" * 64}}],
    ("chunks",): [..., [], {}],
    ("chunks", "file"): [..., ["a"], ["../a", "b", "c", "d"], ["/a", "b", "c", "d"], ["a", "a", "b", "c"], "abcd"],
    ("chunks", "n_obs"): [[30, 30, 30, 11], [30, 30, 30, "10"], [30, 30, 40, 0]],
    ("chunks", "first_row"): [[0, 30, 61, 90], [0, 60, 30, 90]],
    ("chunks", "sha256"): [["x"] * 4, [1] * 4, ["0" * 64] * 4],
    ("chunks", "blocks_offset"): [[10**9] * 4],
    ("chunks", "blocks_crc32"): [[2**32] * 4],
    ("content_hash",): ["0" * 64],
}


@pytest.mark.parametrize(
    ("keys", "value"),
    [pytest.param(keys, value, id=f"{'.'.join(map(str, keys))}={value}") for keys in WRONG for value in WRONG[keys]],
)
def test_malformed_with_a_valid_checksum_is_one_line(dataset, tmp_path, keys, value):
    content = changed(content_of(dataset[0]), keys, value)
    (tmp_path / INDEX_FILE).write_bytes(encode_json(content))
    with pytest.raises(StoreError, match=r"chunk_index\.json") as caught:
        open_index(tmp_path)
    assert "\n" not in str(caught.value)


def test_unknown_keys_are_ignored(dataset, tmp_path):
    (tmp_path / INDEX_FILE).write_bytes(encode_json(content_of(dataset[0]) | {"splits": {"val": [1]}}))
    assert open_index(tmp_path).n_obs == 100


def test_an_index_that_contradicts_itself_is_not_written(index, tmp_path):
    with pytest.raises(ValueError, match="n_obs is 7, the chunks hold 100"):
        write_index(tmp_path, replace(index, n_obs=7))
    assert list(tmp_path.iterdir()) == []


def test_genes_of_another_directory(dataset, tmp_path):
    directory, _, _ = make_dataset(tmp_path / "data", n_vars=21)
    (directory / "gene_list.json").write_bytes((dataset[0] / "gene_list.json").read_bytes())
    with pytest.raises(DamagedFileError, match="is not the one of this dataset"):
        open_index(directory).genes  # noqa: B018


def test_ten_thousand_chunks_stay_small(index, tmp_path):
    part = index.chunks[0]
    chunks = tuple(replace(part, file=chunk_file_name(k), first_row=k * 30) for k in range(10_000))
    (generation,) = index.generations
    rows = generation.rows
    n_bytes, tail = n_bytes_of(generation.row_columns, 300_000, 10_000), tail_bytes_of(generation.row_columns, 10_000)
    files = {**index.files, rows: replace(index.files[rows], bytes=n_bytes, tail_bytes=tail)}
    generations = (replace(generation, n_chunks=10_000),)
    facts = {"n_obs": 300_000, "nnz": 10_000 * part.nnz, "files": files, "generations": generations}
    write_index(tmp_path, replace(index, chunks=chunks, **facts))
    assert (tmp_path / INDEX_FILE).stat().st_size < 2_000_000
    assert open_index(tmp_path).locate(299_999)[0] == 9_999


def test_a_training_run_is_no_dataset(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(MissingIndexError, match="is the directory of a training run; give the dataset directory"):
        open_index(tmp_path)
