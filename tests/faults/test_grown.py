"""A directory that grows, killed at any operation on files: what was there stays, and the same command goes on."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import pytest
from tests.support.fault_points import KILLED, Points, in_child

from scvae_data import open_index
from scvae_data.commands.compact import compact_directory
from scvae_data.commands.verify import verify

from .conftest import make, sample, share

RECORDS = {"processing_config_0001.json", "chunk_summary_0001.json"}
"""What holds times."""


@pytest.fixture(scope="module")
def first(raw: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of one of the two files."""
    directory = tmp_path_factory.mktemp("first") / "out"
    make(raw[:1], directory)
    return directory


def bytes_of(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file() and path.name != ".lock"}


def test_kill_at_every_operation_of_append(first: Path, raw: list[Path], tmp_path: Path, record: list[str]) -> None:
    grow = partial(make, raw, append=True)
    whole = Path(shutil.copytree(first, tmp_path / "whole"))
    assert in_child(partial(grow, whole), Points(str(whole), 0), tmp_path / "report") == 0
    n_points = int((tmp_path / "report").read_text())
    before, wanted = bytes_of(first), bytes_of(whole)
    # The last of them add the cells to the directory; those before make them.
    places = sorted({*sample(range(1, n_points + 1), 3), *sample(range(n_points - 45, n_points + 1), 5)})
    for at in places:
        out = Path(shutil.copytree(first, tmp_path / "out"))
        assert in_child(partial(grow, out), Points(str(out), at)) == KILLED, f"operation {at} of {n_points}"
        now = bytes_of(out)
        assert all(now[name] == content for name, content in before.items() if name != "chunk_index.json")
        assert not any(verify(out).values())
        if len(open_index(out).generations) == 1:
            assert now["chunk_index.json"] == before["chunk_index.json"]
            assert in_child(partial(grow, out), report=tmp_path / "again") == 0, (tmp_path / "again").read_text()
        found = bytes_of(out)
        assert {name for name in wanted if found[name] != wanted[name]} <= RECORDS
        shutil.rmtree(out)
    record.append(
        f"SIGKILL at an operation of `append=true` | {share(places, n_points)} | old files as they were, every "
        "directory whole; all went on to the bytes of an append that was not killed"
    )


def test_kill_at_every_operation_of_compact(first: Path, raw: list[Path], tmp_path: Path, record: list[str]) -> None:
    grown, target = Path(shutil.copytree(first, tmp_path / "grown")), tmp_path / "compact"
    make(raw, grown, append=True)
    before, compact = bytes_of(grown), partial(compact_directory, grown, target)
    assert in_child(compact, Points(str(target), 0), tmp_path / "report") == 0
    n_points, wanted = int((tmp_path / "report").read_text()), bytes_of(target)
    places = sample(range(1, n_points + 1), 5)
    for at in places:
        shutil.rmtree(target)
        assert in_child(compact, Points(str(target), at)) == KILLED, f"operation {at} of {n_points}"
        assert bytes_of(grown) == before
        if (target / "chunk_index.json").exists():
            assert not any(verify(target).values())
        else:
            assert in_child(compact, report=tmp_path / "again") == 0, (tmp_path / "again").read_text()
        assert {name for name in wanted if bytes_of(target).get(name) != wanted[name]} == set()
    record.append(
        f"SIGKILL at an operation of `scvae-data compact` | {share(places, n_points)} | the directory as it was; all "
        "went on to the same bytes"
    )
