"""A directory in a store has the bytes of one on this machine, and is there as a whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from tests.support.pipeline import position_counts, run_pipeline, settings_for

from scvae_data.commands.verify import verify
from scvae_data.errors import ConfigError, RemoteError, ScvaeDataError
from scvae_data.processing.engine.base import SerialEngine
from scvae_data.processing.survey.dry_run import dry_run
from scvae_data.processing.write import chunks as write_chunks
from scvae_data.remote import objects
from scvae_data.remote.location import RemotePath
from scvae_data.store import INDEX_FILE, open_index

Write = Callable[..., Path]
# They tell of times and places.
OF_THE_RUN = {"processing_config.json", "chunk_summary.json"}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RemotePath]:
    monkeypatch.setattr(objects, "BACK_OFF_SECONDS", 0.0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    yield RemotePath(f"memory://{tmp_path.name}/set")
    memory = fsspec.filesystem("memory")
    if memory.exists(f"/{tmp_path.name}"):
        memory.rm(f"/{tmp_path.name}", recursive=True)


@pytest.fixture
def files(write_raw: Write) -> list[Path]:
    return [
        write_raw(f"SRX{number}.h5ad", position_counts(5 + number, 3, 10 * number), ["A", "B", "C"])
        for number in (1, 2)
    ]


def content(place: Path | RemotePath) -> dict[str, bytes]:
    if isinstance(place, RemotePath):
        return {path.name: objects.read_whole(path, 1 << 30) for path in objects.find(place)}
    return {path.name: path.read_bytes() for path in place.iterdir() if not path.name.startswith(".")}


def of_cells(place: Path | RemotePath) -> dict[str, bytes]:
    return {name: what for name, what in content(place).items() if name not in OF_THE_RUN}


class Dying:
    """Uploads fail from the ``n``-th on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, n: int) -> None:
        self.left = n
        self._monkeypatch = monkeypatch
        self._put = objects.upload

    def __enter__(self) -> None:
        def upload(source: Path, path: RemotePath) -> Any:
            self.left -= 1
            if self.left < 0:
                raise RemoteError(f"{path}: gone")
            return self._put(source, path)

        for module in ("write.chunks", "run.directory"):
            self._monkeypatch.setattr(f"scvae_data.processing.{module}.upload", upload)

    def __exit__(self, *_: object) -> None:
        for module in ("write.chunks", "run.directory"):
            self._monkeypatch.setattr(f"scvae_data.processing.{module}.upload", self._put)


def test_it_has_the_bytes_of_a_local_one(files: list[Path], store: RemotePath, tmp_path: Path) -> None:
    run_pipeline(files, tmp_path / "local")
    summary = run_pipeline(files, store)
    assert of_cells(store) == of_cells(tmp_path / "local")
    assert content(store).keys() == content(tmp_path / "local").keys()
    assert str(summary.processed_dir) == str(store) and str(store) in str(summary)
    assert not any(verify(store, deep=True).values())
    assert not list((tmp_path / "data/scratch").glob("*/[!.]*")) and not list((tmp_path / "data").glob("**/.work"))
    assert not list(tmp_path.glob("*:*"))


def test_an_interrupted_run_is_no_dataset_and_goes_on(
    files: list[Path], store: RemotePath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_pipeline(files, tmp_path / "local")
    for n in range(4):
        with Dying(monkeypatch, n), pytest.raises(ScvaeDataError, match="gone"):
            run_pipeline(files, store, resume=True)
        assert INDEX_FILE not in content(store)
    with pytest.raises(ConfigError, match="holds an unfinished run"):
        run_pipeline(files, store)
    sent: list[str] = []
    put = write_chunks.upload
    monkeypatch.setattr(write_chunks, "upload", lambda source, path: sent.append(path.name) or put(source, path))
    run_pipeline(files, store, resume=True)
    assert sent == []  # chunks that are there are not sent again
    assert of_cells(store) == of_cells(tmp_path / "local")


def test_a_finished_one_is_left_alone_and_mended(files: list[Path], store: RemotePath, tmp_path: Path) -> None:
    run_pipeline(files, store)
    before = content(store)
    with pytest.raises(ConfigError, match=f"{store} already holds a dataset"):
        run_pipeline(files, store)
    assert run_pipeline(files, store, resume=True).left_alone
    assert content(store) == before
    chunk, genes = open_index(store).chunks[1].file, "gene_list.json"
    for name in (chunk, genes):
        fsspec.filesystem("memory").pipe_file((store / name).url, before[name][:-1])
    assert run_pipeline(files, store, resume=True).rebuilt == [chunk, genes]
    assert content(store) == before


def test_another_one_takes_its_place(files: list[Path], store: RemotePath, tmp_path: Path) -> None:
    run_pipeline(files, store)
    run_pipeline(files[:1], tmp_path / "local")
    run_pipeline(files[:1], store, overwrite=True)
    assert of_cells(store) == of_cells(tmp_path / "local")


def test_a_dry_run_says_what_would_stop_it(files: list[Path], store: RemotePath) -> None:
    assert not dry_run(settings_for(files), SerialEngine(), store).stops
    assert objects.find(store) == {}
    run_pipeline(files, store)
    assert "already holds a dataset" in dry_run(settings_for(files), SerialEngine(), store).stops
