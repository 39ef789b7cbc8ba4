"""Where bytes come from does not matter to what is made of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.support.datasets import make_dataset
from tests.support.held_bytes import HeldFiles, flipped, held

from scvae_data.errors import DamagedFileError
from scvae_data.loading.batch.assemble import Form
from scvae_data.loading.loader import BatchLoader
from scvae_data.loading.plan.epoch import Plan
from scvae_data.loading.select.rows import to_row_groups
from scvae_data.loading.stream import StreamSpec
from scvae_data.store import DatasetIndex, open_index
from scvae_data.store.source import ListedFile, LocalFile


def batches(index: DatasetIndex, num_workers: int = 0) -> list[dict]:
    row_groups = to_row_groups(None, index.first_rows)
    plan = Plan(tuple(group.n_rows for group in row_groups), batch_size=16, seed=1, window=2)
    form = Form(index, ("cell_type",), normalized=True, counts=True)
    loader = BatchLoader(StreamSpec(form, row_groups, plan, 2, None, 2), num_workers, "spawn" if num_workers else None)
    made = list(loader)
    loader.close()
    return made


def equal(one: list[dict], other: list[dict]) -> bool:
    def flat(batch: dict) -> list[torch.Tensor]:
        return [part for value in batch.values() for part in (value.values() if isinstance(value, dict) else [value])]

    pairs = zip(one, other, strict=True)
    return all(torch.equal(a, b) for mine, its in pairs for a, b in zip(flat(mine), flat(its), strict=True))


@pytest.mark.parametrize("codec", ["gzip", "lz4", "none"])
def test_a_directory_served_from_memory_gives_the_same(tmp_path: Path, codec: str) -> None:
    index = open_index(make_dataset(tmp_path / "data", n_obs=200, compression=codec)[0])
    wanted, obs = batches(index), index.obs()
    rows = [index.reader(number).read_rows(3, 17) for number in range(3)]
    index = held(index)
    assert not list(index.path.glob("*.h5"))
    assert equal(batches(index), wanted)
    assert index.obs().equals(obs)
    for number, one in enumerate(rows):
        same = index.reader(number).read_rows(3, 17)
        assert all(np.array_equal(getattr(one, name), getattr(same, name)) for name in ("indptr", "indices", "data"))


def test_workers_have_it_too(tmp_path: Path) -> None:
    index = open_index(make_dataset(tmp_path / "data", n_obs=120)[0])
    wanted = batches(index)
    assert equal(batches(held(index), num_workers=2), wanted)


def test_a_flipped_bit_is_found(tmp_path: Path) -> None:
    index = held(open_index(make_dataset(tmp_path / "data")[0]))
    chunk = index.chunks[1]
    first_block = int(index.reader(1)._load()[0]["data"].offset[0])
    for place in (chunk.blocks_offset, first_block):
        with pytest.raises(DamagedFileError, match=rf"{chunk.file}: .*checksum"):
            flipped(index, chunk.file, place).reader(1).read_rows(0, 30)
    for name in ("obs.parquet", "rows.bin"):
        for place in (20, index.files[name].bytes - 20):
            with pytest.raises(DamagedFileError, match=rf"{name}: .*checksum"):
                flipped(index, name, place).obs()
    with pytest.raises(DamagedFileError, match=r"gene_sets\.bin: .*checksum"):
        flipped(index, "gene_sets.bin", 0).gene_sets  # noqa: B018


def test_what_is_absent_or_of_another_size_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "chunk_0000.h5"
    with pytest.raises(DamagedFileError, match=r"chunk_0000\.h5: cannot be opened \(chunk_0000\.h5 is not held\)"):
        ListedFile(file, 3, HeldFiles({})).read(0, 1)
    with pytest.raises(DamagedFileError, match="has 3 bytes, the index says 4"):
        ListedFile(file, 4, HeldFiles({file.name: b"abc"})).read(0, 1)


def test_bytes_of_a_local_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(100)))
    source = LocalFile(path)
    assert source.size == 100
    assert source.read(10, 5) == bytes(range(10, 15))
    assert source.read(98, 5) == b"bc"
    file = ListedFile(path, 100, LocalFile)
    with pytest.raises(DamagedFileError, match="ends at byte 100"):
        file.read(98, 5)
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(DamagedFileError, match="is a symbolic link"):
        ListedFile(tmp_path / "link", 100, LocalFile).read(0, 1)
