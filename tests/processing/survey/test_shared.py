"""Shards survey each file once, whoever comes first; failures and changed files are looked at again."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from scvae_data.errors import InputError
from scvae_data.processing.engine.base import SerialEngine
from scvae_data.processing.engine.task import Failure, Task
from scvae_data.processing.facts import InputFacts, SlotFacts
from scvae_data.processing.settings.inputs import InputFile
from scvae_data.processing.settings.shard import Shard
from scvae_data.processing.survey.shared import SharedSurvey
from scvae_data.processing.work import ShardFolder

SEEN: list[str] = []


def look(file: InputFile) -> InputFacts:
    """Facts with every kind of value, of a file that is not empty."""
    SEEN.append(file.path.name)
    if not file.path.stat().st_size:
        raise InputError(file.path, "empty", "holds nothing")
    slot = SlotFacts("X", "table", 3, True, {"layout": "csr", "nnz": None}, ("human",))
    values = {"dose": float("inf"), "tissue": None}
    return InputFacts(
        str(file.path),
        file.path.name,
        "h5ad",
        4,
        9,
        "f",
        None,
        "SRX_accession",
        ("SRX1",),
        (slot,),
        ("a",),
        ("n",),
        values,
    )


@pytest.fixture
def tasks(tmp_path: Path) -> list[Task]:
    paths = [tmp_path / name for name in "abcde"]
    for path in paths:
        path.write_text("x")
    return [Task(look, (InputFile(path),)) for path in paths]


def outcomes(tasks: Sequence[Task], folder: Path, shard: str) -> tuple[dict[int, object], list[str]]:
    """What a shard learns, and which files it looked at itself."""
    SEEN.clear()
    folder.mkdir(exist_ok=True)
    return dict(SharedSurvey(SerialEngine(), ShardFolder(folder), Shard.parse(shard)).run(tasks)), [*SEEN]


def test_each_file_is_looked_at_once(tasks: list[Task], tmp_path: Path) -> None:
    first, seen = outcomes(tasks, tmp_path / "shards", "2/3")
    assert seen == ["b", "e", "c", "a", "d"]
    assert outcomes(tasks, tmp_path / "shards", "1/3") == (first, [])
    assert first[3] == look(tasks[3].arguments[0])


def test_what_another_shard_has_published_is_read(tasks: list[Task], tmp_path: Path) -> None:
    outcomes(tasks, tmp_path / "shards", "1/3")
    parts = sorted((tmp_path / "shards").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    parts[0].unlink()
    assert outcomes(tasks, tmp_path / "shards", "2/3")[1] == ["a", "d"]


def test_failures_and_changed_files_are_looked_at_again(tasks: list[Task], tmp_path: Path) -> None:
    (tmp_path / "d").write_text("")
    found, _ = outcomes(tasks, tmp_path / "shards", "1/3")
    assert isinstance(found[3], Failure)
    os.utime(tmp_path / "e", ns=(1, 1))
    again, seen = outcomes(tasks, tmp_path / "shards", "1/3")
    assert seen == ["d", "b", "e"]
    assert (again.keys(), again[4]) == (found.keys(), found[4])
