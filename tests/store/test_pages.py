"""What a directory says about itself is checked like the rest of it: each byte counts, and what cells it is about."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.datasets import make_dataset

from scvae_data.store import DatasetIndex, open_index
from scvae_data.store.pages import OTHER, PAGES, QC_REPORT_FILE, page_faults, remove_pages, write_pages

TABLE = {"qc_experiments_mqc.json": {"id": "experiments", "data": {"SRX1": {"kept": 3}}}}
SOUND = {"qc_experiments_mqc.json": None, QC_REPORT_FILE: None}


@pytest.fixture
def index(tmp_path: Path) -> DatasetIndex:
    return open_index(make_dataset(tmp_path / "chunks", n_obs=6)[0])


def test_what_was_written_is_sound(index: DatasetIndex) -> None:
    assert page_faults(index) == {}
    write_pages(Path(str(index.path)), index, "<p>µ</p>\n", TABLE)
    assert page_faults(index) == SOUND


def test_every_flipped_byte_and_every_cut_shows(index: DatasetIndex) -> None:
    path = write_pages(Path(str(index.path)), index, "<p>six</p>", {})
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert page_faults(index)[QC_REPORT_FILE], place
        path.write_bytes(whole[:place])
        assert page_faults(index)[QC_REPORT_FILE] == "its checksum does not match", place
    path.write_bytes(whole + b" ")
    assert page_faults(index)[QC_REPORT_FILE] == "its checksum does not match"


def test_a_page_of_another_directory_is_told_apart(index: DatasetIndex) -> None:
    other = replace(index, processing_id="5" * 32)
    write_pages(Path(str(index.path)), other, "<p>five</p>", TABLE)
    assert page_faults(index) == dict.fromkeys(SOUND, OTHER)


def test_tables_of_before_go(index: DatasetIndex) -> None:
    folder = Path(str(index.path))
    write_pages(folder, index, "<p>a</p>", TABLE)
    write_pages(folder, index, "<p>b</p>", {})
    assert page_faults(index) == {QC_REPORT_FILE: None}
    remove_pages(folder)
    assert not any((folder / name).exists() for name in PAGES)
