"""Cells come out the same wherever their columns lie, chunk by chunk or all at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.support.datasets import make_dataset
from tests.support.recordings import VERSION1

from scvae_data.errors import DamagedFileError
from scvae_data.store import DatasetIndex, open_index
from scvae_data.store.row_table import split_limit


def more(obs: pd.DataFrame) -> pd.DataFrame:
    number = np.arange(len(obs))
    return obs.assign(
        note=np.array([None if i % 7 == 3 else f"n{i}" for i in number], object),
        control=number % 4 == 1,
        age=pd.array([None if i % 5 == 2 else i for i in number], "Int64"),
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[DatasetIndex, pd.DataFrame]:
    path, _, obs = make_dataset(tmp_path_factory.mktemp("cells") / "data", more_obs=more)
    return open_index(path), obs


def test_rows_in_any_order_and_number(made: tuple[DatasetIndex, pd.DataFrame]) -> None:
    index, obs = made
    pd.testing.assert_frame_equal(index.obs(), obs)
    rows = np.random.default_rng(0).integers(100, size=150)
    pd.testing.assert_frame_equal(index.obs(rows=rows), obs.iloc[rows])
    pd.testing.assert_frame_equal(
        index.obs(["age", "note", "SRX_accession"], [7]), obs.iloc[[7]][["age", "note", "SRX_accession"]]
    )


def test_columns_of_fixed_width_are_read_without_the_obs_table(tmp_path: Path) -> None:
    path, _, obs = make_dataset(tmp_path / "data", more_obs=more)
    (path / "obs.parquet").unlink()
    index = open_index(path)
    for name in ("cell_type", "size_factor", "control", "split_hash"):
        found = [index.cells.array(chunk_id, name) for chunk_id in range(4)]
        expected = obs[name].cat.codes.replace(-1, 3) if name == "cell_type" else obs[name]
        assert np.concatenate(found).tolist() == expected.tolist()
    with pytest.raises(DamagedFileError, match=r"obs\.parquet"):
        index.cells.array(0, "note")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.15, 0.29, 0.333, 1.0])
def test_bounds_of_a_split_with_and_without_tables(made: tuple[DatasetIndex, pd.DataFrame], share: float) -> None:
    for index in (made[0], open_index(VERSION1 / "gzip")):
        hashes = [index.cells.array(chunk_id, "split_hash") for chunk_id in range(len(index.chunks))]
        expected = [int((values < split_limit(share)).sum()) for values in hashes]
        assert index.cells.split_bounds(split_limit(share)).tolist() == expected


def test_codes_of_no_category_are_damage(
    made: tuple[DatasetIndex, pd.DataFrame], monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = made[0].cells
    table = cells._rows[0]
    assert table is not None
    monkeypatch.setattr(table, "read", lambda _name, _chunk: np.array([0, 9], np.uint8))
    with pytest.raises(DamagedFileError, match=r"rows\.bin: cell_type has codes of no category"):
        cells.array(0, "cell_type")
