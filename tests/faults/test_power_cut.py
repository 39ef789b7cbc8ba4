"""A power cut after any stage: whatever was not synced may be gone, cut off or full of zeros, and the run goes on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest.mock import patch

import pytest
from tests.support.fault_points import in_child

from .conftest import make, sample, share
from .test_points import resume

PIPELINE = "scvae_data.processing.pipeline"
STAGES = ("scan", "decide", "publish")
"""What the power cut comes before."""
SYNCED = ".synced"


def zeros_within(whole: bytes) -> bytes:
    """Of pages that came to the disk in no order."""
    start, stop = len(whole) // 3, 2 * len(whole) // 3
    return whole[:start] + bytes(stop - start) + whole[stop:]


LEFT: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda whole: b"",
    "half": lambda whole: whole[: len(whole) // 2],
    "zeros": lambda whole: bytes(len(whole)),
    "zeros within": zeros_within,
}


def make_until(stage: str, raw: list[Path], directory: Path) -> None:
    """Process the files up to a stage, and list the numbers of the files that were synced."""
    synced, real = set[int](), os.fsync

    def fsync(fd: int) -> None:
        synced.add(os.fstat(fd).st_ino)
        real(fd)

    def cut(*_: object, **__: object) -> None:
        (directory / SYNCED).write_text(" ".join(map(str, synced)))
        os._exit(0)

    with patch.object(os, "fsync", fsync), patch(f"{PIPELINE}.{stage}", cut):
        make(raw, directory)


def losses(directory: Path) -> list[tuple[str, str]]:
    """What a power cut may take of a directory: names of files, and what is left of them."""
    synced = {int(number) for number in (directory / SYNCED).read_text().split()}
    (directory / SYNCED).unlink()
    files = sorted(path for path in directory.glob("**/*") if path.is_file() and path.name != ".lock")
    return [
        (str(path.relative_to(directory)), how)
        for path in files
        for how, left in LEFT.items()
        if path.stat().st_ino not in synced and left(path.read_bytes()) != path.read_bytes()
    ]


@pytest.mark.parametrize("stage", STAGES)
def test_what_was_not_synced_is_lost(
    stage: str, raw: list[Path], clean: Path, tmp_path: Path, record: list[str]
) -> None:
    cut, out = tmp_path / "cut", tmp_path / "out"
    assert in_child(partial(make_until, stage, raw, cut), report=tmp_path / "report") == 0
    found = losses(cut)
    together = [[(name, how) for name, how in found if how == one] for one in LEFT]
    tried = sample([*together, *([one] for one in found)], 6)
    for lost in tried:
        shutil.copytree(cut, out)
        for name, how in lost:
            (out / name).write_bytes(LEFT[how]((cut / name).read_bytes()))
        try:
            resume(out, raw, clean, tmp_path)
        except BaseException as error:
            error.add_note(f"of these was left: {lost}")
            raise
        shutil.rmtree(out)
    record.append(
        f"a power cut before `{stage}`: of a file that was not synced, or of all, is left nothing, half, zeros, or "
        f"zeros within | {share(tried, len(found) + len(LEFT))} | all resumed to identical bytes"
    )
