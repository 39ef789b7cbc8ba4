"""An upgraded directory is the same dataset, and a sound one whenever the upgrade stops."""

from __future__ import annotations

import shutil
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.support.fault_points import KILLED, Points, in_child
from tests.support.recordings import VERSION1
from tests.support.remote import TO_ADDRESSES, Dying, content, put

from scvae_data import ChunkedDataModule, open_index
from scvae_data.commands.upgrade import upgrade_directory
from scvae_data.commands.verify import verify
from scvae_data.errors import ConfigError, DamagedFileError, MissingIndexError, RemoteError
from scvae_data.processing.run.directory import held_directory
from scvae_data.remote.location import RemotePath

DIRECTORIES = pytest.mark.parametrize("name", ["gzip", "lz4"])


@pytest.fixture
def copy(tmp_path: Path, name: str) -> Path:
    return Path(shutil.copytree(VERSION1 / name, tmp_path / name))


def batches(directory: Path) -> list[dict[str, np.ndarray]]:
    data = ChunkedDataModule(
        directory, batch_size=16, label_keys=["cell_type"], split={"val": 0.2, "test": 0.15}, seed=3,
        sampling={"column": "cell_type", "alpha": 0.5}, filter="total_counts > 3000",
    )  # fmt: skip
    data.setup()
    loaders = (data.train_dataloader(), data.val_dataloader(), data.test_dataloader())
    found = [{**batch, **batch["obs"]} for loader in loaders for batch in loader]
    return [{name: value.numpy() for name, value in batch.items() if name != "obs"} for batch in found]


@DIRECTORIES
def test_nothing_but_the_index_changes(name: str, copy: Path) -> None:
    before, old = {path.name: path.read_bytes() for path in copy.iterdir()}, open_index(copy)
    obs, expected = old.obs(), batches(copy)
    assert upgrade_directory(copy).startswith(f"{copy}: format version 1 → 2; ")
    index = open_index(copy)
    assert (index.format_version, index.content_hash) == (2, old.content_hash)
    assert {file.name for file in copy.iterdir()} - set(before) == {"rows.bin", "gene_sets.bin", ".lock"}
    assert [file for file, content in before.items() if (copy / file).read_bytes() != content] == ["chunk_index.json"]
    assert not any(verify(copy, deep=True).values())
    pd.testing.assert_frame_equal(index.obs(), obs)
    assert index.gene_sets.masks([0]).tolist() == old.gene_sets.masks([0]).tolist()
    for one, other in zip(batches(copy), expected, strict=True):
        assert all(np.array_equal(one[key], other[key], equal_nan=True) for key in other)
    assert upgrade_directory(copy) == f"{copy} has format version 2 already; nothing to do"


@pytest.mark.parametrize("name", ["gzip"])
def test_killed_at_any_operation_it_is_one_of_the_two(copy: Path, tmp_path: Path) -> None:
    counted = tmp_path / "counted"
    shutil.copytree(copy, counted)
    assert in_child(partial(upgrade_directory, counted), Points(str(counted), 0), tmp_path / "report") == 0
    n_points = int((tmp_path / "report").read_text())
    wanted = {path.name: path.read_bytes() for path in counted.iterdir()}
    for at in range(1, n_points + 1):
        out = tmp_path / "out"
        shutil.copytree(copy, out)
        assert in_child(partial(upgrade_directory, out), Points(str(out), at)) == KILLED
        assert not any(verify(out).values())
        upgrade_directory(out)
        assert {path.name: path.read_bytes() for path in out.iterdir()} == wanted
        shutil.rmtree(out)


@pytest.mark.parametrize("name", ["gzip"])
def test_what_cannot_be_upgraded(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingIndexError):
        upgrade_directory(tmp_path / "none")
    assert not (tmp_path / "none").exists()
    with held_directory(copy), pytest.raises(ConfigError, match="is being written"):
        upgrade_directory(copy)
    content = bytearray((copy / "obs.parquet").read_bytes())
    content[len(content) // 2] ^= 1
    (copy / "obs.parquet").write_bytes(content)
    with pytest.raises(DamagedFileError, match=r"obs\.parquet: .*checksum"):
        upgrade_directory(copy)
    assert open_index(copy).format_version == 1 and not (copy / "rows.bin").exists()


@pytest.mark.parametrize("name", ["gzip"])
def test_interrupted_in_a_store_it_is_one_of_the_two(
    copy: Path, store: RemotePath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, n_tries, dying = content(put(copy, store)), 0, Dying(monkeypatch, 0, TO_ADDRESSES)
    for n_tries in range(10):
        dying.left = n_tries
        with dying, suppress(RemoteError):
            said = upgrade_directory(store)
            break
        assert before.items() <= content(store).items() and open_index(store).format_version == 1
    assert n_tries == 4  # who writes, two files, the index
    assert said.startswith(f"{store}: format version 1 → 2; ")
    upgrade_directory(copy)
    assert content(store) == content(copy)
    assert not list((tmp_path / "data/scratch").glob("*/[!.]*"))
    assert upgrade_directory(store).endswith("nothing to do")
