"""A run that is killed, or meets a full or failing disk, at any operation on files, and is resumed."""

from __future__ import annotations

import errno
import shutil
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from tests.support.fault_points import CLEAN_ERROR, ERRORS, HUNG, KILLED, Points, in_child

from scvae_data.commands.verify import verify

from .conftest import content, make, many, sample, share


@pytest.fixture(scope="module")
def n_points(clean: Path, raw: list[Path], tmp_path_factory: pytest.TempPathFactory) -> int:
    """Operations of an undisturbed run."""
    folder = tmp_path_factory.mktemp("count")
    assert in_child(partial(make, raw, folder / "out"), Points(str(folder / "out"), 0), folder / "report") == 0
    return int((folder / "report").read_text())


def check_what_is_there(directory: Path, clean: Path) -> None:
    """Whatever has a final name is whole: the file of the undisturbed run."""
    expected = content(clean)
    for name in expected:
        if (directory / name).exists():
            assert (directory / name).read_bytes() == expected[name], name
    if (directory / "chunk_index.json").exists():
        assert not any(verify(directory).values())


def resume(directory: Path, raw: list[Path], clean: Path, folder: Path) -> None:
    status = in_child(partial(make, raw, directory, resume=True), None, folder / "report")
    assert status == 0, (folder / "report").read_text() if (folder / "report").exists() else status
    assert content(directory) == content(clean)
    assert not [path.name for path in directory.iterdir() if path.suffix in (".tmp", ".part") or path.name == ".work"]


def test_kill_at_every_operation(
    n_points: int, raw: list[Path], clean: Path, tmp_path: Path, record: list[str]
) -> None:
    places = sample(range(1, n_points + 1), 8)
    for at in places:
        out = tmp_path / "out"
        status = in_child(partial(make, raw, out), Points(str(out), at), tmp_path / "report")
        assert status == KILLED, f"operation {at} of {n_points}: {status}"
        check_what_is_there(out, clean)
        resume(out, raw, clean, tmp_path)
        shutil.rmtree(out)
    record.append(
        f"SIGKILL at an operation on files | {share(places, n_points)} of a run | all resumed to identical bytes"
    )


def test_kill_at_any_moment(raw: list[Path], clean: Path, tmp_path: Path, record: list[str]) -> None:
    started = time.perf_counter()
    assert in_child(partial(make, raw, tmp_path / "timed")) == 0
    whole = time.perf_counter() - started
    n, moments = many(200, 4), np.random.default_rng(0)
    runs = killed = 0
    while killed < n:
        runs += 1
        assert runs < 5 * n
        out = tmp_path / "out"
        status = in_child(partial(make, raw, out), seconds=float(moments.uniform(0, whole)))
        assert status in (0, HUNG)
        killed += status == HUNG
        check_what_is_there(out, clean)
        resume(out, raw, clean, tmp_path)
        shutil.rmtree(out)
    record.append(f"SIGKILL at a random moment | {killed} runs that it hit | all resumed to identical bytes")


@pytest.mark.parametrize("error", ERRORS, ids=["ENOSPC", "EIO"])
def test_error_at_every_operation(
    error: int, n_points: int, raw: list[Path], clean: Path, tmp_path: Path, record: list[str]
) -> None:
    places = sample(range(1, n_points + 1), 6)
    passed = 0
    for at in places:
        out = tmp_path / "out"
        status = in_child(partial(make, raw, out), Points(str(out), at, error), tmp_path / "report")
        told = (tmp_path / "report").read_text() if (tmp_path / "report").exists() else ""
        assert status in (0, CLEAN_ERROR), f"operation {at} of {n_points}: {status}\n{told}"
        passed += status == 0
        check_what_is_there(out, clean)
        resume(out, raw, clean, tmp_path)
        shutil.rmtree(out)
        (tmp_path / "report").unlink(missing_ok=True)
    record.append(
        f"{errno.errorcode[error]} at an operation on files | {share(places, n_points)} of a run | "
        f"{len(places) - passed} clean errors, {passed} went on (tried again, or while cleaning up); all resumed to "
        "identical bytes"
    )


def test_kill_while_a_chunk_is_built_again(raw: list[Path], clean: Path, tmp_path: Path, record: list[str]) -> None:
    """The sound files of a finished directory stay what they are."""
    again = partial(make, raw, resume=True)

    def lacking_a_chunk() -> Path:
        shutil.copytree(clean, tmp_path / "out")
        (tmp_path / "out" / "chunk_0001.h5").unlink()
        return tmp_path / "out"

    out = lacking_a_chunk()
    assert in_child(partial(again, out), Points(str(out), 0), tmp_path / "report") == 0
    n_points = int((tmp_path / "report").read_text())
    places = sample(range(1, n_points + 1), 5)
    for at in places:
        shutil.rmtree(out)
        lacking_a_chunk()
        assert in_child(partial(again, out), Points(str(out), at)) == KILLED
        faults = {name for name, fault in verify(out).items() if fault}
        assert faults <= {"chunk_0001.h5"}
        resume(out, raw, clean, tmp_path)
    record.append(
        f"SIGKILL while a damaged chunk is built again | {share(places, n_points)} operations | no sound file harmed, "
        "all resumed"
    )
