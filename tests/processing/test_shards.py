"""Shards together make the bytes of one run; one that is missing, doubled or of another run is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.pipeline import position_counts, settings_for

from scvae_data.errors import ConfigError, ScvaeDataError
from scvae_data.processing.engine.base import SerialEngine
from scvae_data.processing.run.directory import held_directory, held_file
from scvae_data.processing.settings.run import Settings
from scvae_data.processing.settings.shard import Shard
from scvae_data.processing.shards import decide_for_shards, merge, run_shard
from scvae_data.processing.survey import room
from scvae_data.store import Chunking

Write = Callable[..., Path]


@pytest.fixture
def files(write_raw: Write) -> list[Path]:
    """Five experiments; each has a gene of its own, and the last one holds cells of the first."""
    names = [write_raw(f"SRX{n}.h5ad", position_counts(4, 3, 10 * n), ["A", f"G{n}", "B"]) for n in range(4)]
    return [*names, write_raw("SRX4.h5ad", position_counts(3, 3), ["A", "G0", "B"])]


@pytest.fixture
def chosen(files: list[Path]) -> Settings:
    return settings_for(files)


def shard(settings: Settings, out: Path, text: str) -> str:
    return run_shard(settings, SerialEngine(), out, Shard.parse(text))


def dataset(directory: Path) -> dict[str, bytes]:
    names = ["obs.parquet", "gene_list.json", "chunk_index.json", "dropped_cells.parquet"]
    chunks = [path.name for path in directory.glob("chunk_0*.h5")]
    return {name: (directory / name).read_bytes() for name in (*names, *chunks)}


@pytest.mark.parametrize("writers", ["all", "some", "none"])
def test_shards_make_the_bytes_of_one_run(
    writers: str, chosen: Settings, process: Callable[..., Any], files: list[Path], tmp_path: Path
) -> None:
    process(files, tmp_path / "one")
    out = tmp_path / "shards"
    said = [shard(chosen, out, f"{number}/3") for number in (2, 3, 1)]
    assert said[0].startswith("shard 2/3: scanned 2 of 5 files; once all shards have: merge=true, or merge=decide")
    if writers != "none":
        assert decide_for_shards(chosen, SerialEngine(), out).startswith("decided 5 chunks; run all shards again")
        for number in (1, 2, 3)[: 3 if writers == "all" else 1]:
            assert shard(chosen, out, f"{number}/3").endswith("of 5 chunks; once all shards have: merge=true")
        assert len([*out.glob("chunk_0*.h5")]) == (5 if writers == "all" else 2)
    summary = merge(chosen, SerialEngine(), out)
    assert (summary.n_obs, summary.n_chunks) == (19, 5)
    assert dataset(out) == dataset(tmp_path / "one")
    assert not (out / ".work").exists()
    assert merge(chosen, SerialEngine(), out).left_alone
    with pytest.raises(ConfigError, match="already holds a dataset; choose another"):
        shard(chosen, out, "1/3")


def test_more_shards_than_files_and_chunks(chosen: Settings, tmp_path: Path) -> None:
    said = [shard(chosen, tmp_path / "out", f"{number}/9") for number in range(1, 10)]
    assert sum("scanned 1 of" in one for one in said) == 5
    assert merge(chosen, SerialEngine(), tmp_path / "out").n_obs == 19


def test_a_missing_shard_is_named(chosen: Settings, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(ConfigError, match=r"no shard has begun; run scvae-data process with shard=1/N"):
        merge(chosen, SerialEngine(), out)
    shard(chosen, out, "1/3")
    with pytest.raises(ScvaeDataError, match=r"2 of 3 shards have not scanned their files: 2/3, 3/3; run these, then"):
        decide_for_shards(chosen, SerialEngine(), out)
    shard(chosen, out, "3/3")
    with pytest.raises(ScvaeDataError, match=r"1 of 3 shards have not scanned their files: 2/3; run shard=2/3, then"):
        decide_for_shards(chosen, SerialEngine(), out)
    assert not (out / "chunk_index.json").exists()


def test_shards_whose_work_does_not_fit_are_refused_before_they_scan(
    chosen: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    monkeypatch.setattr(room, "free_bytes", lambda path: 0)
    with pytest.raises(ConfigError, match=r"/out: the run needs some .* are free; .* go on with check_disk=false"):
        shard(chosen, out, "1/2")
    assert not list(out.glob(".work/scan/*"))
    said = run_shard(chosen, SerialEngine(), out, Shard.parse("1/2"), check_disk=False)
    assert said.startswith("shard 1/2: scanned 3 of 5 files")


def test_a_shard_run_again_scans_only_what_is_missing(
    chosen: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    shard(chosen, out, "1/2")
    before = {path: path.stat().st_mtime_ns for path in out.glob(".work/scan/*/done.json")}
    assert len(before) == 3
    next(iter(before)).unlink()
    monkeypatch.setattr("scvae_data.processing.survey.corpus.survey_file", pytest.fail)
    shard(chosen, out, "1/2")
    after = {path: path.stat().st_mtime_ns for path in out.glob(".work/scan/*/done.json")}
    assert sum(after[path] == before[path] for path in before) == 2


def test_other_settings_inputs_or_numbers_than_the_first_shard_are_refused(
    files: list[Path], chosen: Settings, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shard(chosen, out, "1/2")
    with pytest.raises(ConfigError, match="was begun with 3 shards instead of 2; give those, or, once no shard runs"):
        shard(chosen, out, "2/3")
    others = [
        settings_for(files, seed=1),
        settings_for(files[:4]),
        settings_for(files, chunking=Chunking(chunk_size=9)),
    ]
    for other in others:
        with pytest.raises(ConfigError, match="was begun with other inputs or settings"):
            shard(other, out, "2/2")
    shard(chosen, out, "2/2")
    files[4].write_bytes(files[3].read_bytes())
    with pytest.raises(ConfigError, match="was begun with other inputs or settings"):
        merge(chosen, SerialEngine(), out)


def test_a_file_that_fails_is_left_to_the_merge(files: list[Path], write_raw: Write, tmp_path: Path) -> None:
    counts = position_counts(4, 3).astype(float)
    counts[3, 2] = 0.5
    files.append(write_raw("SRX5.h5ad", np.vstack([counts[:3]] * 400 + [counts]), ["A", "C", "B"]))
    out = tmp_path / "out"
    strict, lenient = settings_for(files), settings_for(files, max_failed_fraction=0.5)
    said = [shard(strict, out, f"{number}/2") for number in (1, 2)]
    assert said[1].startswith("shard 2/2: scanned 3 of 6 files, of which 1 failed;")
    with pytest.raises(ScvaeDataError, match=r"1 of 6 files failed, more than max_failed_fraction=0 allows"):
        merge(strict, SerialEngine(), out)
    assert [file.source_file for file in merge(lenient, SerialEngine(), out).failed] == ["SRX5.h5ad"]


def test_a_file_whose_headers_cannot_be_read_is_told_by_the_merge(files: list[Path], tmp_path: Path) -> None:
    whole = files[3].read_bytes()
    files[3].write_bytes(whole[:500])
    out = tmp_path / "out"
    lenient = settings_for(files, max_failed_fraction=0.5)
    for number in (1, 2):
        shard(lenient, out, f"{number}/2")
    assert [file.reason for file in merge(lenient, SerialEngine(), out).failed] == ["truncated"]


def test_who_works_beside_whom(chosen: Settings, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shard(chosen, out, "1/2")
    with held_directory(out, shared=True):
        assert shard(chosen, out, "2/2").startswith("shard 2/2")
        with pytest.raises(ConfigError, match=r"is being written by another process\.py"):
            merge(chosen, SerialEngine(), out)
        with (
            held_file(out / ".work/shards/0001.lock"),
            pytest.raises(ConfigError, match=r"shard=1/2 of .* is being run by another process"),
        ):
            shard(chosen, out, "1/2")
    with held_directory(out), pytest.raises(ConfigError, match=r"is being written by another process\.py"):
        shard(chosen, out, "1/2")


def test_one_run_goes_on_with_what_shards_have_scanned(
    chosen: Settings, process: Callable[..., Any], files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    for number in (1, 2):
        shard(chosen, out, f"{number}/2")
    monkeypatch.setattr("scvae_data.processing.scan.file.SlotScan", pytest.fail)
    process(files, out, resume=True)
    assert (out / "chunk_index.json").exists()
