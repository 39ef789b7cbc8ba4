from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from scvae_data.errors import DamagedFileError, StoreError
from scvae_data.store import ObsColumn, ObsReader, ObsWriter, obs_columns

SIZES = (3, 1, 4)
FIRST_ROWS = np.array([0, 3, 4, 8], np.int64)


def cells(n: int = 8) -> pd.DataFrame:
    number = np.arange(n)
    return pd.DataFrame(
        {
            "kind": pd.Categorical(np.array(["z", "a", None, "m"], object)[number % 4]),
            "text": [None if i == 2 else f"t{i}" for i in number],
            "flag": number % 2 == 0,
            "maybe_flag": pd.array([None if i % 3 == 0 else i % 2 == 0 for i in number], "boolean"),
            "whole": number.astype(np.uint32) + np.uint32(2**32 - 9),
            "maybe_whole": pd.array([None if i == 1 else 2**60 + i for i in number], "Int64"),
            "ratio": np.where(number == 4, np.nan, number / 3).astype(np.float32),
        },
        index=pd.Index([f"cell{i}" for i in number], dtype=object),
    )


def write(path, obs=None, columns=None):
    obs = cells() if obs is None else obs
    columns = obs_columns(obs) if columns is None else columns
    with ObsWriter(path, columns) as writer:
        first = 0
        for size in SIZES:
            part = obs.iloc[first : first + size]
            writer.append(part.assign(kind=part["kind"].cat.remove_unused_categories()))
            first += size
    return ObsReader(path, writer.close(), columns, FIRST_ROWS)


def test_round_trip_with_categories_that_are_local_to_a_chunk(tmp_path):
    reader = write(tmp_path / "obs.parquet")
    frame = reader.read(["obs_name", *cells().columns]).set_index("obs_name").rename_axis(None)
    pd.testing.assert_frame_equal(frame, cells())
    assert frame["kind"].cat.categories.tolist() == ["a", "m", "z"]


def test_a_row_group_holds_the_categories_that_occur_in_it_or_all(tmp_path):
    parts = np.split(np.arange(8), [3, 4])
    for every, wanted in ((False, [["a", "z"], ["m"], ["a", "z", "m"]]), (True, [["a", "m", "z"]] * 3)):
        with ObsWriter(tmp_path / "obs.parquet", obs_columns(cells()), every_category=every) as writer:
            for part in parts:
                writer.append(cells().iloc[part])
        file = pq.ParquetFile(tmp_path / "obs.parquet")
        found = [file.read_row_group(k, ["kind"])["kind"].chunk(0).dictionary.to_pylist() for k in range(3)]
        assert list(map(sorted, found)) == list(map(sorted, wanted))


def test_row_groups_are_chunks_and_carry_no_statistics(tmp_path):
    write(tmp_path / "obs.parquet")
    metadata = pq.ParquetFile(tmp_path / "obs.parquet").metadata
    assert [metadata.row_group(k).num_rows for k in range(3)] == list(SIZES)
    assert metadata.row_group(0).column(5).statistics is None


def test_columns_and_row_groups_in_the_order_asked_for(tmp_path):
    frame = write(tmp_path / "obs.parquet").read(["ratio", "obs_name"], [2, 0])
    assert frame.columns.tolist() == ["ratio", "obs_name"]
    assert frame["obs_name"].tolist() == [f"cell{i}" for i in (4, 5, 6, 7, 0, 1, 2)]


def test_codes_are_positions_in_the_sorted_categories(tmp_path):
    reader = write(tmp_path / "obs.parquet")
    assert reader.arrays(["kind"])["kind"].tolist() == [2, 0, 3, 1, 2, 0, 3, 1]
    assert pickle.loads(pickle.dumps(reader)).arrays(["kind"])["kind"].dtype == np.int32


def test_equal_cells_give_equal_bytes(tmp_path):
    paths = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    facts = [write(path).facts for path in paths]
    assert facts[0] == facts[1]
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_described_types():
    assert {name: column.dtype for name, column in obs_columns(cells()).items()} == {
        "kind": "categorical",
        "text": "string",
        "flag": "bool",
        "maybe_flag": "boolean",
        "whole": "uint32",
        "maybe_whole": "Int64",
        "ratio": "float32",
    }
    nothing = pd.DataFrame({"gone": np.array([None, None], object)})
    assert obs_columns(nothing)["gone"] == ObsColumn("string")


@pytest.mark.parametrize(
    ("dtype", "categories", "message"),
    [
        pytest.param("datetime64[ns]", None, "cannot have type 'datetime64", id="type"),
        pytest.param("categorical", None, "if and only if", id="no categories"),
        pytest.param("int64", ("a",), "if and only if", id="needless categories"),
        pytest.param("categorical", ("a", "a"), "must be unique", id="repeated"),
    ],
)
def test_impossible_columns(dtype, categories, message):
    with pytest.raises(StoreError, match=message):
        ObsColumn(dtype, categories)


@pytest.mark.parametrize(
    ("obs", "message"),
    [
        pytest.param(cells().drop(columns="ratio"), "obs lacks the columns ratio", id="missing"),
        pytest.param(cells().assign(kind=pd.Categorical(["new"] * 8)), "'kind' .* not among its categories", id="new"),
        pytest.param(cells().assign(whole="x"), "'whole' does not hold uint32", id="type"),
    ],
)
def test_cells_that_do_not_fit_leave_nothing_behind(tmp_path, obs, message):
    with pytest.raises(StoreError, match=message):
        write(tmp_path / "obs.parquet", obs, obs_columns(cells()))
    assert list(tmp_path.iterdir()) == []


def test_flipped_bits_after_the_leading_magic_are_found(tmp_path):
    path = tmp_path / "obs.parquet"
    reader = write(path)
    content = path.read_bytes()
    for place in range(4, len(content), 13):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        fresh = ObsReader(path, reader.facts, obs_columns(cells()), FIRST_ROWS)
        with pytest.raises(DamagedFileError, match="checksum"):
            fresh.read(["obs_name", *cells().columns])


def test_any_parquet_reader_reads_it(tmp_path):
    reader = write(tmp_path / "obs.parquet")
    frame = pd.read_parquet(tmp_path / "obs.parquet")
    assert frame["obs_name"].tolist() == cells().index.tolist()
    assert frame["whole"].tolist() == reader.read(["whole"])["whole"].tolist()


def test_truncated_missing_and_wrong_shape(tmp_path):
    path = tmp_path / "obs.parquet"
    reader = write(path)
    other = ObsReader(path, reader.facts, obs_columns(cells()), np.array([0, 8], np.int64))
    with pytest.raises(DamagedFileError, match="row groups or columns"):
        other.read(["text"])
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DamagedFileError, match="the index says"):
        reader.read(["text"])
    path.unlink()
    with pytest.raises(DamagedFileError, match="No such file"):
        reader.read(["text"])
