"""What is wrong with a file, for directories whose bytes are what was written and whose content is not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from tests.support.datasets import make_dataset

from scvae_data.store import DatasetIndex, open_index
from scvae_data.store.index_json import write_index
from scvae_data.store.verify import chunk_fault, file_fault, listed, piecewise, table_faults


def test_a_sound_directory(tmp_path: Path) -> None:
    index = open_index(make_dataset(tmp_path / "data")[0])
    assert [file_fault(index.path / name, *facts) for name, facts in listed(index).items()] == [None] * 8
    assert [chunk_fault(index, number) for number in range(4)] == [None] * 4
    assert table_faults(index) == {"obs.parquet": None, "rows.bin": None}


def test_pieces_are_all_rows_in_order(tmp_path: Path) -> None:
    directory, x, _ = make_dataset(tmp_path / "data")
    with open_index(directory).reader(1) as reader:
        pieces = list(piecewise(reader, max_elements=15))
    assert all(rows.nnz <= 15 or rows.n_obs == 1 for _, rows in pieces)
    assert [first for first, _ in pieces] == np.cumsum([0, *(rows.n_obs for _, rows in pieces)])[:-1].tolist()
    assert (sp.vstack([rows.to_scipy() for _, rows in pieces]) != x[30:60]).nnz == 0


def test_files_that_are_not_what_is_listed(tmp_path: Path) -> None:
    index = open_index(make_dataset(tmp_path / "data")[0])
    path, facts = index.path / "chunk_0002.h5", listed(index)["chunk_0002.h5"]
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    assert file_fault(path, *facts) == f"has {len(content) - 1:,} bytes instead of {len(content):,}"
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert file_fault(path, *facts) == "its content does not match its checksum"
    path.unlink()
    assert file_fault(path, *facts) == "is missing"
    (tmp_path / "outside.h5").write_bytes(content)
    path.symlink_to(tmp_path / "outside.h5")
    assert file_fault(path, *facts) == "cannot be read: is a symbolic link; put the file itself there"


def claiming(path: Path, column: str, value: Any) -> DatasetIndex:
    """A dataset that claims ``value`` for its cell 7."""

    def claim(obs: pd.DataFrame) -> pd.DataFrame:
        obs = obs.copy()
        obs.loc["cell00007", column] = value
        return obs

    return open_index(make_dataset(path, more_obs=claim)[0])


@pytest.mark.parametrize(
    ("column", "value", "fault"),
    [
        ("size_factor", 3.5, "which obs contradicts (cell cell00007)"),
        ("total_counts", 1, "which obs contradicts (cell cell00007)"),
        ("gene_set", 1, "obs names a gene set that the directory does not have"),
        ("split_hash", np.uint32(2**32 - 1), "its rows are not in the order of split_hash"),
    ],
)
def test_cells_that_contradict_their_counts(column: str, value: Any, fault: str, tmp_path: Path) -> None:
    index = claiming(tmp_path / "data", column, value)
    found = [chunk_fault(index, number) for number in range(4)]
    assert sum(item is not None for item in found) == 1
    assert fault in "".join(filter(None, found))


def test_a_size_factor_that_is_none(tmp_path: Path) -> None:
    faults = table_faults(claiming(tmp_path / "data", "size_factor", np.nan))
    assert "size_factor" in (faults["obs.parquet"] or "")


def test_equal_cell_names(tmp_path: Path) -> None:
    path, *_ = make_dataset(tmp_path / "data", more_obs=lambda obs: obs.rename(index={"cell00011": "cell00012"}))
    assert table_faults(open_index(path))["obs.parquet"] == "two cells have one name"


def test_an_index_that_points_at_another_valid_chunk(tmp_path: Path) -> None:
    index = open_index(make_dataset(tmp_path / "data", n_obs=60, chunk_size=30)[0])
    first, second = index.chunks
    taken = replace(second, first_row=first.first_row, file="other.h5")
    (index.path / "other.h5").write_bytes((index.path / second.file).read_bytes())
    swapped = write_index(index.path, replace(index, chunks=(taken, second), nnz=taken.nnz + second.nnz))
    assert file_fault(index.path / "other.h5", taken.bytes, taken.sha256) is None
    assert "contradicts" in (chunk_fault(swapped, 0) or "")
    assert chunk_fault(swapped, 1) is None


def test_a_largest_count_that_no_cell_has(tmp_path: Path) -> None:
    index = open_index(make_dataset(tmp_path / "data", n_obs=30, chunk_size=30)[0])
    most = index.chunks[0].max_count
    wrong = write_index(index.path, replace(index, chunks=(replace(index.chunks[0], max_count=most + 1),)))
    assert chunk_fault(wrong, 0) == f"its largest count is {most}, the index says {most + 1}"
