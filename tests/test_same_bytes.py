"""The same input gives the same bytes and the same batches as when they were recorded; see tests/data/README.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.support import recordings
from tests.support.recordings import BATCHES, RUNS

RECORD = recordings.read_record()


def skip_if_other_versions() -> None:
    if others := recordings.other_versions(RECORD):
        pytest.skip(f"only the content is compared, because of other versions (recorded): {others}")


@pytest.fixture(scope="module", params=RUNS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A directory made anew, and what was recorded of it."""
    name = request.param
    run = RUNS[name]
    shared_data = request.getfixturevalue("shared_data") if run.sources else None
    return recordings.make(run, tmp_path_factory.mktemp(name), shared_data), RECORD["runs"][name]


def test_files_are_the_same_bytes(made: tuple[Path, dict[str, Any]]) -> None:
    skip_if_other_versions()
    assert recordings.file_hashes(made[0]) == made[1]["files"]


def test_files_hold_the_same(made: tuple[Path, dict[str, Any]]) -> None:
    found = recordings.content(made[0])
    assert found["hashes"] == made[1]["hashes"]
    assert found["floats"] == pytest.approx(made[1]["floats"], rel=1e-5)


@pytest.mark.parametrize("setting", BATCHES, ids=lambda setting: recordings.key_of(*setting))
def test_a_seed_gives_the_same_batches(setting: tuple[str, str, bool]) -> None:
    if setting[-1]:  # logarithms
        skip_if_other_versions()
    assert recordings.epoch_hashes(*setting) == RECORD["batches"][recordings.key_of(*setting)]
