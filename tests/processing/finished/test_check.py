"""A finished directory is left alone by the same run, and by no other; interrupted ones leave nothing behind."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.support.pipeline import NO_QC, position_counts

from scvae_data.errors import ConfigError, ScvaeDataError
from scvae_data.processing import pipeline
from scvae_data.processing.engine.local import LocalEngine
from scvae_data.processing.finished.check import different_settings
from scvae_data.processing.settings.inputs import FileInput
from scvae_data.store import Chunking, open_index

Write = Callable[..., Path]
Process = Callable[..., Any]


@pytest.fixture
def two_files(write_raw: Write) -> list[Path]:
    return [write_raw(f"SRX{n}.h5ad", position_counts(6, 3, 10 * n), list("ABC")) for n in (1, 2)]


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def state(directory: Path) -> dict[str, tuple[int, int]]:
    return {path.name: (path.stat().st_mtime_ns, path.stat().st_size) for path in directory.glob("[!.]*")}


def test_the_same_run_leaves_it_alone(two_files: list[Path], process: Process, tmp_path: Path) -> None:
    process(two_files)
    out = tmp_path / "out"
    before = state(out)
    (out / ".work" / "scan").mkdir(parents=True)
    (out / ".chunk_0000.h5.123-0123abcd.tmp").touch()
    summary = process(two_files[::-1], resume=True, engine=LocalEngine(2))
    assert summary.left_alone
    assert "is finished, with these settings and inputs: 12 cells, 3 genes, 3 chunks; nothing to do" in str(summary)
    assert state(out) == before


@pytest.mark.parametrize(
    ("settings", "config", "message"),
    [
        ({"chunking": Chunking(chunk_size=5)}, {}, "made with other settings; overwrite=true replaces it"),
        ({"seed": 1}, {"seed": 1}, r"made with seed=0 \(now 1\); overwrite=true"),
        ({"keep_duplicates": "first"}, {}, "made with other settings"),
    ],
)
def test_other_settings_are_named(
    settings: dict[str, Any], config: dict[str, Any], message: str, two_files: list[Path], process: Process
) -> None:
    process(two_files, config={"seed": 0, "engine": {"n_workers": 1}})
    with pytest.raises(ConfigError, match=message) as caught:
        process(two_files, resume=True, config={"seed": 0, "engine": {"n_workers": 2}} | config, **settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("stage", ["scan", "write", "publish", "settle"])
def test_an_interrupted_overwrite_goes_on_at_any_moment(
    stage: str, two_files: list[Path], process: Process, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = replace(NO_QC, min_counts=300)
    process(two_files)
    process(two_files, tmp_path / "other", qc=wanted)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(pipeline, stage, interrupted)
        process(two_files, qc=wanted, overwrite=True)
    if stage == "scan":  # the old one is still there, and left alone by what it was made with
        with pytest.raises(ConfigError, match="holds a finished dataset made with"):
            process(two_files, qc=replace(NO_QC, min_counts=400), resume=True)
    process(two_files, qc=wanted, resume=True)
    assert open_index(tmp_path / "out").content_hash == open_index(tmp_path / "other").content_hash
    assert not (tmp_path / "out/.work").exists()


def test_a_damaged_index_stays_until_another_one_can_be_written(
    two_files: list[Path], process: Process, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process(two_files)
    index = tmp_path / "out/chunk_index.json"
    damaged = index.read_bytes()[:-1]
    index.write_bytes(damaged)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(pipeline, "scan", interrupted)
        process(two_files, resume=True)
    assert index.read_bytes() == damaged
    process(two_files, resume=True)
    assert open_index(tmp_path / "out").n_obs == 12


def test_other_inputs_are_named(two_files: list[Path], process: Process, write_raw: Write) -> None:
    process(two_files)
    third = write_raw("SRX3.h5ad", position_counts(4, 3), list("ABC"))
    with pytest.raises(ConfigError, match=r"made with fewer inputs \(new: SRX3\.h5ad\)"):
        process([*two_files, third], resume=True)
    with pytest.raises(ConfigError, match=r"made with more inputs \(now absent or unreadable: SRX2\.h5ad\)"):
        process(two_files[:1], resume=True)
    write_raw("SRX2.h5ad", position_counts(6, 3, 50), list("ABC"))
    with pytest.raises(ConfigError, match=r"made with other content in SRX2\.h5ad"):
        process(two_files, resume=True)


def test_whole_hashes_see_what_samples_miss(
    two_files: list[Path], process: Process, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("scvae_data.processing.survey.file.SAMPLE_BYTES", 8)
    paths = [str(path) for path in two_files]
    sampled, whole = FileInput(paths=paths), FileInput(paths=paths, full_hash=True)
    process([], input=sampled)
    assert process([], input=whole, resume=True).left_alone
    assert "the finished run has no hashes of whole files; sampled ones are compared" in caplog.text
    process([], input=whole, overwrite=True)
    assert process([], input=whole, resume=True).left_alone
    content = bytearray(two_files[1].read_bytes())
    at = content.rindex(b"cell5")
    content[at : at + 5] = b"CELL5"
    two_files[1].write_bytes(content)
    assert process([], input=sampled, resume=True).left_alone
    with pytest.raises(ConfigError, match=r"other content in SRX2\.h5ad"):
        process([], input=whole, resume=True)


def test_whole_hashes_change_no_chunk(two_files: list[Path], process: Process, tmp_path: Path) -> None:
    process(two_files)
    paths = [str(path) for path in two_files]
    process([], tmp_path / "whole", input=FileInput(paths=paths, full_hash=True))
    index = "chunk_index.json"
    assert (tmp_path / "whole" / index).read_bytes() == (tmp_path / "out" / index).read_bytes()
    recorded = json.loads((tmp_path / "whole" / "processing_config.json").read_text())["inputs"]["sha256"]
    assert all(len(value) == 64 for value in recorded)


def test_results_of_another_version_are_made_again(
    two_files: list[Path], process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    scanned: list[str] = []
    from scvae_data.processing.scan import file as scan

    class Counted(scan.SlotScan):
        def run(self) -> Any:
            scanned.append(self.file.source_file)
            return super().run()

    monkeypatch.setattr("scvae_data.processing.pipeline.publish", stop)
    monkeypatch.setattr(scan, "SlotScan", Counted)
    for expected, version in ((2, 1), (2, 1), (4, 2)):
        monkeypatch.setattr(scan, "FORMAT_VERSION", version)
        with pytest.raises(KeyboardInterrupt):
            process(two_files, resume=bool(scanned))
        assert len(scanned) == expected


def test_failed_files_are_reported_and_forgotten_once_they_are_gone(
    two_files: list[Path], process: Process, tmp_path: Path
) -> None:
    bad = tmp_path / "raw" / "SRX9.h5ad"
    bad.write_text("gene,cell\n")
    with pytest.raises(ScvaeDataError, match="1 of 3 files failed"):
        process([*two_files, bad], qc=NO_QC)
    out = tmp_path / "out"
    assert (out / "quarantine.txt").read_text() == f"{bad}\n"
    report = json.loads((out / "failure_report.json").read_text())
    assert [(file["source_file"], file["reason"]) for file in report["failed"]] == [("SRX9.h5ad", "not_single_cell")]
    process([*two_files, bad], resume=True, max_failed_fraction=0.4)
    assert (out / "quarantine.txt").exists()
    process(two_files, overwrite=True)
    assert not (out / "quarantine.txt").exists()
    assert not (out / "failure_report.json").exists()


def test_settings_that_differ_are_written_as_in_the_config() -> None:
    before, now = {"qc": {"max_pct_counts_hb": None, "scale": 1.0}}, {"qc": {"max_pct_counts_hb": 5, "scale": 1.0}}
    assert different_settings(before, now) == "qc.max_pct_counts_hb=null (now 5)"
