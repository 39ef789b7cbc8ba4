"""Reading while the directory is made anew with other cells: the old one whole, the new one whole, or an error."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from tests.support.fault_points import KILLED, Points, in_child

from scvae_data.errors import ScvaeDataError
from scvae_data.processing.run.directory import clear

from .conftest import content, make, sample, share
from .test_bytes import cells, same, served


@pytest.fixture(scope="module")
def other(raw: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same inputs in another order: files of the same names and much the same sizes."""
    directory = tmp_path_factory.mktemp("other") / "out"
    make(raw, directory, seed=1)
    return directory


def steps(directory: Path, other: Path) -> list[Callable[[], Any]]:
    """What process.py does to a directory that it overwrites, in its order: all is removed, the index comes last."""
    names = sorted(path.name for path in other.glob("[!.]*.*"))
    names.sort(key=lambda name: (name == "chunk_index.json", not name.startswith("chunk_0")))

    def write(name: str) -> None:
        shutil.copyfile(other / name, directory / ".new")
        (directory / ".new").replace(directory / name)

    return [partial(clear, directory), *(partial(write, name) for name in names)]


def outcome(directory: Path, old: dict[str, Any], new: dict[str, Any]) -> str:
    """What loading makes of a directory."""
    try:
        found = served(directory)
    except ScvaeDataError as error:
        assert "\n" not in str(error)
        return "refused"
    assert same(found, old) or same(found, new)
    return "old" if same(found, old) else "new"


def opens(before: Callable[[int], None]) -> Any:
    """Call ``before(n)`` before the n-th file is opened."""
    real, count = os.open, iter(range(1, 1 << 30))

    def opened(*arguments: Any, **more: Any) -> int:
        if not str(arguments[0]).endswith(".new"):
            before(next(count))
        return real(*arguments, **more)

    return patch.object(os, "open", opened)


def test_at_every_file_that_is_opened(clean: Path, other: Path, tmp_path: Path, record: list[str]) -> None:
    directory = tmp_path / "out"
    old, new = served(clean), served(other)
    assert not same(old, new)
    met: list[int] = []
    with opens(met.append):
        served(clean)
    n_steps = len(steps(directory, other))
    tried = {"old": 0, "new": 0, "refused": 0}
    steps_at = [(at, n) for at in met for n in range(1, n_steps + 1)]
    points = sample(steps_at, 20)
    for at, n in points:
        shutil.copytree(clean, directory)

        def make_anew(number: int, at: int = at, n: int = n) -> None:
            if number == at:
                for step in steps(directory, other)[:n]:
                    step()

        with opens(make_anew):
            tried[outcome(directory, old, new)] += 1
        shutil.rmtree(directory)
    assert tried["refused"] > 0
    counts = ", ".join(f"{n} {what}" for what, n in tried.items())
    record.append(
        "a directory made anew while it is opened: files opened × steps of the writer | "
        f"{share(points, len(steps_at))} | {counts}, never mixed"
    )


def test_at_every_operation_of_the_writer(
    raw: list[Path], clean: Path, other: Path, tmp_path: Path, record: list[str]
) -> None:
    """Killed while it overwrites: what is there is read as a whole or not at all, and resumed to the new one."""
    directory, count = tmp_path / "out", tmp_path / "count"
    old, new = served(clean), served(other)
    anew = partial(make, raw, seed=1)
    shutil.copytree(clean, count)
    assert in_child(partial(anew, count, overwrite=True), Points(str(count), 0), tmp_path / "report") == 0
    n_points = int((tmp_path / "report").read_text())
    tried = {"old": 0, "new": 0, "refused": 0}
    places = sample(range(1, n_points + 1), 5)
    for at in places:
        shutil.copytree(clean, directory)
        assert in_child(partial(anew, directory, overwrite=True), Points(str(directory), at)) == KILLED
        found = outcome(directory, old, new)
        tried[found] += 1
        how = {"overwrite": True} if found == "old" else {"resume": True}
        assert in_child(partial(anew, directory, **how)) == 0
        assert content(directory) == content(other)
        shutil.rmtree(directory)
    counts = ", ".join(f"{n} {what}" for what, n in tried.items())
    record.append(
        f"SIGKILL at an operation of `overwrite=true`, then loaded | {share(places, n_points)} | {counts}; all "
        "made anew"
    )


def test_single_cells(clean: Path, other: Path, tmp_path: Path) -> None:
    directory = tmp_path / "out"
    shutil.copytree(clean, directory)
    expected = list(cells(clean))
    found = cells(directory)
    assert [next(found), next(found)] == expected[:2]
    for step in steps(directory, other):
        step()
    with pytest.raises(ScvaeDataError, match="chunk_0001"):
        for row in found:
            assert row in expected
