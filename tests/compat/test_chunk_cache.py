"""Raw files are processed once, and found again by content."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path

import anndata as ad
import pytest
from tests.compat.conftest import KEEP_ALL

from scvae_data import ConfigError, ScvaeDataError, open_index
from scvae_data.compat import chunk_cache
from scvae_data.compat.chunk_cache import chunked, content_hashes, content_key, is_raw
from scvae_data.simulate import simulate_files


def age(path: Path, seconds: int = 60) -> None:
    """Make a file look as if it had been written a while ago."""
    facts = path.stat()
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns - seconds * 10**9))


def test_raw_files_are_processed_once(raw: Path, cache_dir: Path, tmp_path: Path) -> None:
    made = chunked(raw, cache_dir, KEEP_ALL)
    index = open_index(made)
    assert index.obs_columns["SRX_accession"].categories == ("SRX9000001", "SRX9000002")
    assert (index.n_obs, index.chunk_size) == (240, 100)
    log = made.with_suffix(".log")  # where each run of process.py leaves its configuration
    moved = tmp_path / "elsewhere"
    shutil.copytree(raw, moved)
    shutil.rmtree(log)
    assert chunked(raw, cache_dir, KEEP_ALL) == made
    assert chunked(moved, cache_dir, KEEP_ALL) == made
    assert not log.exists()


def test_what_the_key_depends_on(raw: Path, tmp_path: Path) -> None:
    def key(path: Path, settings: Sequence[str] = ()) -> str:
        return content_key(path, tmp_path, settings)

    one = raw / "SRX9000001.h5ad"
    (tmp_path / "SRX1").mkdir()
    changed, renamed, same = tmp_path / one.name, tmp_path / "SRX1.h5ad", tmp_path / "SRX1" / one.name
    for copy in (changed, renamed, same):
        shutil.copy2(one, copy)
    flipped = bytearray(one.read_bytes())
    flipped[len(flipped) // 3] ^= 1  # neither size nor time tell
    changed.write_bytes(flipped)
    shutil.copystat(one, changed)
    keys = [key(one), key(raw), key(one, ["qc=none"]), key(changed), key(renamed)]
    assert len(set(keys)) == len(keys)
    assert key(same) == key(one)


def test_a_file_is_hashed_again_only_if_it_may_have_changed(tmp_path: Path) -> None:
    file, memory = tmp_path / "a.h5ad", tmp_path / "seen.json"
    file.write_bytes(b"1")
    young = content_hashes([file], memory)
    assert not memory.exists()  # it may change again within a tick of the clock
    age(file)
    assert content_hashes([file], memory) == young
    facts = file.stat()
    file.write_bytes(b"2")
    os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert content_hashes([file], memory) == young  # it looks the same and is not read
    file.write_bytes(b"2")
    assert content_hashes([file], memory) != young


def test_a_damaged_memory_is_forgotten(tmp_path: Path) -> None:
    file, memory = tmp_path / "a.h5ad", tmp_path / "seen.json"
    file.write_bytes(b"1")
    age(file)
    first = content_hashes([file], memory)
    memory.write_text(memory.read_text().replace(first[0], "0" * 64))
    assert content_hashes([file], memory) == first


def test_two_at_once_process_once(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Path] = []

    def make(target: Path, overrides: Sequence[str]) -> None:
        calls.append(target)
        target.mkdir()
        (target / "chunk_index.json").touch()

    monkeypatch.setattr(chunk_cache, "process", make)
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(chunked(raw, tmp_path))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert found == calls * 4


def test_a_cache_that_cannot_be_written(raw: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"cache_dir=.*file/below cannot be written: Not a directory; choose another"):
        chunked(raw, tmp_path / "file" / "below")


def test_what_is_raw(raw: Path, tmp_path: Path) -> None:
    empty, dataset = tmp_path / "empty", tmp_path / "dataset"
    empty.mkdir()
    shutil.copytree(raw, dataset)
    (dataset / "chunk_index.json").touch()
    assert is_raw(raw)
    assert is_raw(raw / "SRX9000001.h5ad")
    assert not is_raw(empty)
    assert not is_raw(dataset)
    assert not is_raw(tmp_path / "absent")


def test_what_processing_warns_of_is_told(raw: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    simulate_files(tmp_path / "raw", n_files=1, cells_per_file=60, n_genes=600, seed=4)
    few = ad.read_h5ad(raw / "SRX9000002.h5ad")[:, :50]
    few.write_h5ad(tmp_path / "raw" / "SRX9000002.h5ad")
    settings = ["engine=serial", "qc.min_counts=null", "qc.max_pct_counts_mt=null", "qc.min_genes=60"]
    chunked(tmp_path / "raw", tmp_path / "cache", settings)
    assert "no cell is kept of 1 file: SRX9000002.h5ad (120 min_genes)" in caplog.messages


def test_files_that_fail(raw: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder, cache = tmp_path / "raw", tmp_path / "cache"
    shutil.copytree(raw, folder)
    bad = folder / "SRX9000003.h5ad"
    bad.write_text("no cells")
    with pytest.raises(ScvaeDataError, match=r"process_overrides=\[\"max_failed_fraction=0\.95\"\]$") as caught:
        chunked(folder, cache, KEEP_ALL)
    assert "resume" not in str(caught.value)
    with caplog.at_level("WARNING", "scvae_data"):
        made = chunked(folder, cache, [*KEEP_ALL, "max_failed_fraction=0.95"])
    assert open_index(made).n_obs == 240
    told = next(record.getMessage() for record in caplog.records if "files failed" in record.getMessage())
    assert told.splitlines() == [
        "1 of 3 files failed:",
        f"  {bad.name}: not_single_cell: a text file that is no table: lines have not the same number of "
        "columns by any of tab, comma, semicolon and blank; give a table of counts with a header",
    ]
