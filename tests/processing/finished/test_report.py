"""The report of a directory: written once, again where it is damaged or the cells are others, and never in the way."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.commands.test_verify import write_raw
from tests.support.pipeline import position_counts, run_pipeline

from scvae_data.commands.compact import compact_directory
from scvae_data.commands.verify import how_to_mend, verify
from scvae_data.processing.finished.report import keep_report
from scvae_data.store.pages import PAGES, QC_REPORT_FILE


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("raw")
    return [write_raw(folder / f"SRX{n}.h5ad", position_counts(6, 5, 10 * n)) for n in (1, 2)]


@pytest.fixture(scope="module")
def reported(raw: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("reported") / "out"
    run_pipeline(raw[:1], out)
    assert keep_report(out, changed=True) == out / QC_REPORT_FILE
    return out


@pytest.fixture
def copy(reported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(reported, tmp_path / "out"))


def inode(directory: Path) -> int:
    return (directory / QC_REPORT_FILE).stat().st_ino


def test_a_directory_has_one_that_is_part_of_what_is_verified(reported: Path) -> None:
    faults = verify(reported)
    assert {name: faults[name] for name in PAGES} == dict.fromkeys(PAGES)
    assert not any(faults.values())


def test_one_that_stands_is_left_alone(copy: Path) -> None:
    before = inode(copy)
    keep_report(copy, changed=False)
    assert inode(copy) == before
    keep_report(copy, changed=True)
    assert inode(copy) != before


def test_one_that_was_edited_or_lost_is_written_again(copy: Path) -> None:
    page = copy / QC_REPORT_FILE
    page.write_text(page.read_text().replace("6 cells", "7 cells"))
    damaged = [name for name, fault in verify(copy).items() if fault]
    assert damaged == [QC_REPORT_FILE]
    assert how_to_mend(copy, damaged).endswith(f"scvae-data report {copy}")
    keep_report(copy, changed=False)
    assert "7 cells" not in page.read_text()
    assert not any(verify(copy).values())
    page.unlink()
    keep_report(copy, changed=False)
    assert page.exists()


def test_a_run_that_builds_damaged_files_again_does_not_scan_for_a_page(raw: list[Path], copy: Path) -> None:
    (copy / QC_REPORT_FILE).write_text("<p>mine</p>")
    summary = run_pipeline(raw[:1], copy, resume=True)
    assert (summary.left_alone, list(summary.rebuilt)) == (True, [])


def test_a_directory_that_grows_or_is_written_anew_has_none_of_before(raw: list[Path], copy: Path) -> None:
    run_pipeline(raw[1:], copy, append=True)
    assert not any((copy / name).exists() for name in PAGES)
    keep_report(copy, changed=True)
    assert "12 cells of 2 experiments in, 12 kept" in (copy / QC_REPORT_FILE).read_text()
    compact_directory(copy)
    compacted = copy.with_name("out.compact")
    assert "12 cells of 2 experiments in, 12 kept" in (compacted / QC_REPORT_FILE).read_text()
    assert not any(verify(compacted).values())
    run_pipeline(raw[1:], copy, overwrite=True)
    assert not any((copy / name).exists() for name in PAGES)


def test_what_goes_wrong_is_a_line_and_no_more(copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    (copy / "experiments.parquet").write_bytes(np.zeros(100, np.uint8).tobytes())
    with caplog.at_level(logging.WARNING):
        assert keep_report(copy, changed=True) is None
    (record,) = caplog.records
    assert record.getMessage().startswith(f"no report: {copy}/experiments.parquet: ")
    assert record.getMessage().endswith(f"the dataset is complete, scvae-data report {copy} tries again")
    assert "\n" not in record.getMessage()
