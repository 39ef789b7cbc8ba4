"""Training from a remote directory gives what a local one gives, by way of a folder that stays within its bound."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from tests.support.datasets import make_dataset
from tests.support.s3 import FAULTS, Proxy, every, lead_to, s3_server

from scvae_data import ChunkedDataModule
from scvae_data.errors import DamagedFileError, MissingIndexError, RemoteError
from scvae_data.loading.fetch import ahead
from scvae_data.remote import objects
from scvae_data.remote.location import RemotePath
from scvae_data.store import DatasetIndex, open_index
from scvae_data.store.dataset_index import listed
from scvae_data.store.remote_files import CachedFiles
from scvae_data.store.verify import file_fault

N_FAULTS = 20
SETTINGS: dict[str, Any] = {"batch_size": 16, "split": {"val": 0.2}, "seed": 3}


class Store:
    """A directory of 12 chunks on this machine, and the same in a store."""

    def __init__(self, local: DatasetIndex, remote: RemotePath) -> None:
        self.local = local
        self.remote = remote

    def module(self, folder: Path | None, n_chunks: float = 100, **settings: Any) -> ChunkedDataModule:
        """A data module of the remote directory with room for some chunks; without a folder, of the local one."""
        largest = max(chunk.bytes for chunk in self.local.chunks)
        of_cache = {"cache_dir": str(folder), "cache_disk_gb": n_chunks * largest / 1e9} if folder else {}
        data = ChunkedDataModule(self.remote if folder else self.local.path, **(SETTINGS | of_cache | settings))
        data.setup()
        return data


def upload(local: Path, remote: RemotePath) -> None:
    for path in sorted(local.iterdir()):
        objects.upload(path, remote / path.name)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> DatasetIndex:
    return open_index(make_dataset(tmp_path_factory.mktemp("remote") / "data", n_obs=240, chunk_size=20)[0])


@pytest.fixture
def store(local: DatasetIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setattr(objects, "BACK_OFF_SECONDS", 0.0)
    remote = RemotePath(f"memory://{tmp_path.name}/data")
    upload(local.path, remote)
    yield Store(local, remote)
    fsspec.filesystem("memory").rm(f"/{tmp_path.name}", recursive=True)


def rows_of(data: ChunkedDataModule, n_epochs: int = 1) -> list[np.ndarray]:
    loader = data.train_dataloader()
    return [batch["x"].numpy() for _ in range(n_epochs) for batch in loader]


def same(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return len(one) == len(other) and all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def used(folder: Path) -> int:
    """Bytes of the entries; one that is renamed while it is listed counts once."""
    sizes = {}
    for path in folder.iterdir():
        with suppress(FileNotFoundError):
            sizes[path.name.removesuffix(".part")] = path.stat().st_size
    return sum(sizes.values())


class Counted:
    """Counts the bytes that are asked for of each object."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.n_bytes: dict[str, int] = {}
        whole = objects.read

        def read(path: RemotePath, offset: int, n_bytes: int) -> bytes:
            self.n_bytes[path.name] = self.n_bytes.get(path.name, 0) + n_bytes
            return whole(path, offset, n_bytes)

        monkeypatch.setattr(objects, "read", read)

    def take(self) -> int:
        """Bytes of chunks since the last call."""
        now = sum(n for name, n in self.n_bytes.items() if name.endswith(".h5"))
        self.n_bytes.clear()
        return now


def test_what_is_served_is_the_same(store: Store, tmp_path: Path) -> None:
    wanted = rows_of(store.module(None), 2)
    assert same(rows_of(store.module(tmp_path / "cache"), 2), wanted)


def test_a_warm_cache_is_all_that_is_read(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted(monkeypatch)
    rows_of(store.module(tmp_path / "cache"))
    assert counted.take() == sum(chunk.bytes for chunk in store.local.chunks)
    monkeypatch.setattr(ahead.FilesAhead, "_run", lambda _: pytest.fail("a thread began"))
    rows_of(store.module(tmp_path / "cache"), 2)
    assert counted.take() == 0


def test_a_small_cache_stays_small_and_keeps_what_comes_first(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted, room, n_passes = Counted(monkeypatch), 8, 4
    monkeypatch.setattr(ahead, "MAKING_ROOM", 1)
    # Always in the same order: whoever gives up what was not used for longest copies every chunk in every pass.
    data = store.module(tmp_path / "cache", room, chunk_cache_size=1, batch_size=2)
    wanted = [batch["x"].numpy() for batch in store.module(None, batch_size=2).predict_dataloader()]
    loader = data.predict_dataloader()
    for _ in range(n_passes):
        rows = []
        for batch in loader:
            rows.append(batch["x"].numpy())
            assert used(tmp_path / "cache") <= data.disk_cache.max_bytes
        assert same(rows, wanted)
    assert counted.take() < 0.8 * n_passes * sum(chunk.bytes for chunk in store.local.chunks)


def test_a_file_too_large_for_copies_is_read_in_place(store: Store, tmp_path: Path) -> None:
    wanted = rows_of(store.module(None))
    assert same(rows_of(store.module(tmp_path / "cache", 0.5)), wanted)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for at in range(0, len(content), 500):  # in every block and every table
        content[at] ^= 1
    path.write_bytes(content)


def test_a_copy_that_is_damaged_is_made_anew(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first = store.module(tmp_path / "cache")
    rows_of(first)
    first.index.obs()
    wanted = rows_of(store.module(None))
    counted, files = Counted(monkeypatch), first.index.open_source
    assert isinstance(files, CachedFiles)
    flipped, cut = store.local.chunks[3].file, store.local.chunks[5].file
    names = [flipped, cut, "rows.bin", "obs.parquet"]
    copies = {name: files.place(store.remote / name) for name in names}
    sound = {name: copy.read_bytes() for name, copy in copies.items()}
    for name, copy in copies.items():
        copy.write_bytes(sound[name][:-1]) if name == cut else flip(copy)
    data = store.module(tmp_path / "cache")
    assert same(rows_of(data), wanted)
    assert data.index.obs().equals(store.local.obs())
    assert {name for name in counted.n_bytes if name in copies or name.endswith(".h5")} == set(names)
    for name, copy in copies.items():
        assert copy.read_bytes() == sound[name]
        told = [
            text for text in caplog.messages if text.startswith(f"{store.remote / name}: its copy {copy} is damaged")
        ]
        assert len(told) == 1


class Changing:
    """Every range that is asked for comes with a flipped bit the first ``times`` times."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
        self.seen = Counter[tuple[RemotePath, int]]()
        whole = objects.read

        def read(path: RemotePath, offset: int, n_bytes: int) -> bytes:
            content = bytearray(whole(path, offset, n_bytes))
            self.seen[path, offset] += 1
            if self.seen[path, offset] <= times:
                content[n_bytes // 2] ^= 1
            return bytes(content)

        monkeypatch.setattr(objects, "read", read)


def test_bytes_that_come_changed_are_asked_for_once_more(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = rows_of(store.module(None))
    with monkeypatch.context() as patch:
        changing = Changing(patch, 1)
        data = store.module(tmp_path / "cache", 0.5)  # all is read in place
        assert same(rows_of(data), wanted)
        assert data.index.obs().equals(store.local.obs())
        assert data.index.genes.hash == store.local.genes.hash and len(data.index.gene_sets) == 1
        files = listed(store.local).items()
        assert not any(file_fault(store.remote / name, *facts) for name, facts in files)
        assert max(changing.seen.values()) > 1
    data = store.module(tmp_path / "cache", 0.5)
    Changing(monkeypatch, 2)
    for read in (lambda: rows_of(data), lambda: data.index.obs(["cell_type"]), lambda: open_index(store.remote)):
        with pytest.raises(DamagedFileError, match="checksum"):
            read()


def test_metadata_are_the_same(store: Store, tmp_path: Path) -> None:
    index = store.module(tmp_path / "cache").index
    assert index.obs().equals(store.local.obs())
    assert index.genes.hash == store.local.genes.hash
    assert str(index.path) == str(store.remote)


def test_a_directory_that_is_not_there_is_one_line(store: Store) -> None:
    with pytest.raises(MissingIndexError, match=f"no dataset at {store.remote}x"):
        open_index(f"{store.remote}x")


def test_a_chunk_that_is_missing_or_damaged_is_named(store: Store, tmp_path: Path) -> None:
    chunk = store.local.chunks[3]
    path = store.remote / chunk.file
    content = objects.read_whole(path, 1 << 30)
    (tmp_path / "x").write_bytes(content[:-1] + b"x")
    objects.upload(tmp_path / "x", path)
    with pytest.raises(DamagedFileError, match=f"{path}: its content does not match its checksum"):
        rows_of(store.module(tmp_path / "cache"))
    objects.delete(path)
    with pytest.raises(DamagedFileError, match=f"{path}: is missing"):
        store.module(tmp_path / "other")


def test_a_damaged_chunk_may_be_left_out(store: Store, tmp_path: Path) -> None:
    chunk = store.local.chunks[3]
    (tmp_path / "x").write_bytes(bytes(chunk.bytes))
    objects.upload(tmp_path / "x", store.remote / chunk.file)
    data = store.module(tmp_path / "cache", on_bad_chunk="skip")
    assert rows_of(data)
    assert data.counters()["train"]["bad_chunks"] == 1


def test_a_network_that_is_gone_is_no_damage(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = store.module(tmp_path / "cache", on_bad_chunk="skip")

    def gone(path: RemotePath, *_: object) -> bytes:
        raise RemoteError(f"{path}: no network")

    monkeypatch.setattr(objects, "read", gone)
    with pytest.raises(RemoteError, match="no network"):
        rows_of(data)


@pytest.mark.services
def test_faults_of_a_network_are_retried_or_refused(
    local: DatasetIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(local, RemotePath("s3://data/set"))
    wanted = rows_of(store.module(None), 2)
    with s3_server() as port:
        lead_to(port, monkeypatch)
        upload(local.path, store.remote)
        proxy = Proxy(port, every(3))
        lead_to(proxy.port, monkeypatch)
        refused = []
        for number in itertools.count():
            try:
                # Every other time with workers, and with too little room to copy obs.parquet as a whole.
                data = store.module(tmp_path / f"cache{number}", 40 - 34 * (number % 2), num_workers=2 * (number % 2))
                assert same(rows_of(data, 2), wanted)
            except DamagedFileError as error:
                refused.append(str(error))
            if len(proxy.injected) >= N_FAULTS:
                break
        proxy.close()
    lead_to(9, monkeypatch)
    with pytest.raises(RemoteError, match=r"s3://data/set/chunk_index.json: .*6 attempts"):
        open_index(store.remote)
    assert set(proxy.injected) == set(FAULTS)
    # Where checksums prove what was read in place, a changed byte is refused; copies are made again.
    assert len(refused) <= proxy.injected.count("flip")
    assert all("checksum" in text for text in refused)
