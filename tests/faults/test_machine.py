"""A machine that is short of something: disk, shared memory, rights to write, quick and sound reads."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.datasets import make_dataset
from tests.support.fault_points import CLEAN_ERROR, in_child
from tests.support.mounts import make_read_only, mount_memory, own_mounts
from tests.support.warm import run_python

from scvae_data import ChunkedDataModule, ChunkedDataset
from scvae_data.commands.info import info
from scvae_data.commands.verify import verify
from scvae_data.errors import DamagedFileError, ScvaeDataError
from scvae_data.store import open_index

from .conftest import content, make, many, sample, share
from .test_bytes import same, served

ROOT = Path(__file__).parents[2]
NO_MOUNTS = 77
PAGE = 4096


def mounting(function: Callable[[], None]) -> None:
    """Run a function that mounts, in a child of its own; skip the test where the system does not allow it."""
    try:
        own_mounts()
    except PermissionError:
        os._exit(NO_MOUNTS)
    function()


def check(function: Callable[[], None], tmp_path: Path) -> None:
    status = in_child(partial(mounting, function), report=tmp_path / "report", seconds=600)
    if status == NO_MOUNTS:
        pytest.skip("the system does not let this user mount")
    assert status == 0, (tmp_path / "report").read_text() if (tmp_path / "report").exists() else status


# --- disks ------------------------------------------------------------------------------------------------------------


def test_a_disk_of_every_size(raw: list[Path], clean: Path, tmp_path: Path, record: list[str]) -> None:
    """The run ends with one error however early the disk is full, and goes on when it has grown."""
    disk, told = tmp_path / "disk", tmp_path / "sizes"
    disk.mkdir()

    def fill() -> None:
        whole = sum(path.stat().st_size for path in clean.iterdir())
        n_full = 0
        for n_bytes in sample(range(PAGE, 8 * whole, 2 * PAGE), 5):
            mount_memory(disk, n_bytes)
            status = in_child(partial(make, raw, disk / "out"), report=tmp_path / "report")
            assert status in (0, CLEAN_ERROR), n_bytes
            n_full += status != 0
            mount_memory(disk, 64 << 20, again=True)
            make(raw, disk / "out", resume=True)
            assert content(disk / "out") == content(clean)
            assert subprocess.run(["/bin/umount", disk], check=False).returncode == 0
        told.write_text(f"{n_full}")
        assert n_full > 1
        assert status == 0  # the largest suffices

    check(fill, tmp_path)
    record.append(
        f"a small disk (tmpfs) of every size that does not suffice | {told.read_text()} | clean errors; with more room "
        "all resumed to identical bytes"
    )


def test_media_that_cannot_be_written(clean: Path, raw: list[Path], tmp_path: Path) -> None:
    shutil.copytree(clean, tmp_path / "out")

    def use() -> None:
        make_read_only(tmp_path / "out")
        with pytest.raises(OSError, match="Read-only"):
            (tmp_path / "out" / "file").touch()
        assert not any(verify(tmp_path / "out", deep=True, against=raw).values())
        assert "cells" in info(tmp_path / "out")
        assert same(served(tmp_path / "out"), served(clean))
        assert ChunkedDataset(tmp_path / "out")[3]["x"].shape == (open_index(clean).n_vars,)
        for how in ({}, {"resume": True}, {"overwrite": True}):
            with pytest.raises(ScvaeDataError, match="cannot be written: Read-only") as caught:
                make(raw, tmp_path / "out", **how)
            assert "\n" not in str(caught.value)

    check(use, tmp_path)


# --- shared memory ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_bytes", [2 * PAGE, 16 * PAGE])
def test_shared_memory_that_does_not_suffice(n_bytes: int, tmp_path: Path) -> None:
    """One error, not a wait for ever; without worker processes none is needed."""
    directory = make_dataset(tmp_path / "data", n_obs=600, n_vars=100, chunk_size=60)[0]

    def load() -> None:
        mount_memory(Path("/dev/shm"), n_bytes)
        data = ChunkedDataModule(directory, batch_size=64, split=None, num_workers=2)
        data.setup()
        with pytest.raises(ScvaeDataError, match=r"cannot hand over batches: .*num_workers=0 does without") as caught:
            list(data.train_dataloader())
        assert "\n" not in str(caught.value)
        data = ChunkedDataModule(directory, batch_size=64, split=None)
        data.setup()
        assert sum(len(batch["index"]) for batch in data.train_dataloader()) == 600

    check(load, tmp_path)


def test_batches_need_no_shared_memory_with_a_name(tmp_path: Path) -> None:
    directory = make_dataset(tmp_path / "data", n_obs=600, n_vars=2000, chunk_size=60)[0]

    def load() -> None:
        mount_memory(Path("/dev/shm"), 64 * PAGE)  # half of what one batch takes
        data = ChunkedDataModule(directory, batch_size=64, split=None, num_workers=2)
        data.setup()
        assert sum(len(batch["index"]) for batch in data.train_dataloader()) == 600

    check(load, tmp_path)


def test_a_worker_that_is_killed_is_one_error(tmp_path: Path) -> None:
    data = ChunkedDataModule(
        make_dataset(tmp_path / "data", n_obs=600, chunk_size=60)[0], batch_size=4, split=None, num_workers=2
    )
    data.setup()
    batches = iter(data.train_dataloader())
    next(batches)
    (child, *_) = Path("/proc/self/task").glob("*/children")
    workers = [int(pid) for pid in child.read_text().split() if b"resource_tracker" not in command_of(pid)]
    os.kill(workers[-1], 9)
    with pytest.raises(ScvaeDataError, match=r"a worker process has ended: .* the system log says") as caught:
        list(batches)
    data.teardown()
    assert "\n" not in str(caught.value)


def command_of(pid: str) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


# --- reads ------------------------------------------------------------------------------------------------------------


def patched_reads(before: Callable[[int], None]) -> None:
    """From now on this process calls ``before(n)`` before its n-th read of a file by position."""
    count = 0

    def wrap(real: Callable[..., Any]) -> Callable[..., Any]:
        def read(*arguments: Any) -> Any:
            nonlocal count
            count += 1
            before(count)
            return real(*arguments)

        return read

    os.preadv, os.pread = wrap(os.preadv), wrap(os.pread)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_slow_reads_change_nothing(num_workers: int, clean: Path, tmp_path: Path) -> None:
    expected = served(clean)

    def load() -> None:
        patched_reads(lambda number: time.sleep(0.003))
        assert same(served(clean, num_workers=num_workers), expected)

    assert in_child(load, report=tmp_path / "report") == 0, (tmp_path / "report").read_text()


def test_a_read_that_fails_wherever_it_is(clean: Path, tmp_path: Path, record: list[str]) -> None:
    """EIO at the n-th read: an error that names the file; what is served is never wrong."""
    expected = served(clean)

    def count() -> None:
        reads: list[int] = []
        patched_reads(reads.append)
        served(clean)
        (tmp_path / "count").write_text(str(reads[-1]))

    def load(at: int, num_workers: int) -> None:
        def fail(number: int) -> None:
            if number == at:
                raise OSError(errno.EIO, os.strerror(errno.EIO))

        patched_reads(fail)
        try:
            assert same(served(clean, num_workers=num_workers), expected)
        except DamagedFileError as error:
            assert "Input/output error" in str(error)
            assert "\n" not in str(error)
            raise

    assert in_child(count) == 0
    n_reads = int((tmp_path / "count").read_text())
    assert n_reads > 10
    places = sample(range(1, n_reads + 1), 4)
    for at in places:
        for num_workers in (0, 2):
            status = in_child(partial(load, at, num_workers), report=tmp_path / "report")
            assert status == CLEAN_ERROR or (status == 0 and num_workers), (at, (tmp_path / "report").read_text())
    record.append(
        f"EIO at a read of loading, in threads and in workers | {share(places, n_reads)}, twice | an error "
        "that names the file, 0 wrong values"
    )


# --- processes --------------------------------------------------------------------------------------------------------


def test_workers_forked_while_threads_load(tmp_path: Path, record: list[str]) -> None:
    """Whatever lock a thread holds at that moment, the workers do not wait for it."""
    directory, x, _ = make_dataset(tmp_path / "data", n_obs=600, n_vars=40, chunk_size=20)
    n = many(50, 2)

    def load() -> None:
        for trial in range(n):
            settings: dict[str, Any] = {"batch_size": 8, "normalized": False, "split": None, "seed": trial}
            threads = ChunkedDataModule(directory, chunk_cache_size=1, **settings)
            workers = ChunkedDataModule(directory, num_workers=2, multiprocessing_context="fork", **settings)
            threads.setup()
            workers.setup()
            running = iter(threads.train_dataloader())
            next(running)
            rows = []
            for batch in workers.train_dataloader():
                np.testing.assert_array_equal(batch["x"].numpy(), x[batch["index"].numpy()].toarray())
                rows += batch["index"].tolist()
            assert sorted(rows) == list(range(600))
            assert sum(len(batch["index"]) for batch in running) == 592
            workers.teardown()

    status = in_child(load, report=tmp_path / "report", seconds=600)
    assert status == 0, (tmp_path / "report").read_text() if (tmp_path / "report").exists() else status
    record.append(f"workers forked while threads load | {n} epochs | 0 hangs, every cell comes")


def test_two_programs_on_one_directory(raw: list[Path], clean: Path, tmp_path: Path, record: list[str]) -> None:
    """Started together: one makes the directory, the other says in one line that somebody does."""
    n = many(40, 2)
    for trial in range(n):
        out = tmp_path / f"out{trial}"
        pids = []
        for place in range(2):
            if (pid := os.fork()) == 0:
                time.sleep(place * 0.05 * trial / n)
                os._exit(in_child(partial(make, raw, out)))
            pids.append(pid)
        statuses = sorted(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids)
        assert statuses == [0, CLEAN_ERROR]
        assert content(out) == content(clean)
    record.append(f"two runs started at once on one directory | {n} | one makes it, the other is refused in one line")


def test_a_second_program_says_so_in_one_line(raw: list[Path], tmp_path: Path) -> None:
    from scvae_data.processing.run.directory import held_directory

    out = tmp_path / "out"
    command = [
        ROOT / "process.py", "input=files", f"input.paths={raw[0].parent}/*.h5ad", "qc=none",
        f"paths.processed_dir={out}", f"hydra.run.dir={tmp_path}/log", "hydra.output_subdir=null",
    ]  # fmt: skip
    with held_directory(out):
        result = run_python(*command, cwd=tmp_path)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith(f"error: {out} is being written by another process.py; wait")
    assert "Traceback" not in result.stderr
