"""The folder stays within its bound, gives up what is needed last, and makes each entry once."""

from __future__ import annotations

import errno
import threading
import time
from pathlib import Path
from shutil import _ntuple_diskusage

import pytest

from scvae_data.errors import RemoteError
from scvae_data.remote.disk_cache import DiskCache, Refused


def key(number: int) -> str:
    return f"{number:02x}" * 32


def cache_of(folder: Path, max_bytes: int = 30) -> DiskCache:
    return DiskCache(folder / "cache", max_bytes, "data.cache_disk_gb=x")


def put(cache: DiskCache, number: int, n_bytes: int = 10, due: float | None = None) -> Path:
    return cache.fetch(key(number), n_bytes, lambda part: part.write_bytes(bytes([number]) * n_bytes) and None, due=due)


def held(cache: DiskCache) -> set[int]:
    return {number for number in range(20) if cache.path(key(number), 10).exists()}


def test_an_entry_is_made_once(tmp_path: Path) -> None:
    cache = cache_of(tmp_path)
    assert put(cache, 1).read_bytes() == b"\1" * 10
    assert cache.fetch(key(1), 10, lambda part: pytest.fail("made again")) == cache.path(key(1), 10)
    assert cache.used_bytes() == 10


def test_what_is_needed_last_is_given_up(tmp_path: Path) -> None:
    cache = cache_of(tmp_path)
    for number, seconds in ((1, 100.0), (2, 500.0), (3, 10.0)):
        cache.expect(put(cache, number), seconds)
    put(cache, 4)
    assert held(cache) == {1, 3, 4}


def test_what_is_long_overdue_is_given_up_before_what_comes_soon(tmp_path: Path) -> None:
    cache = cache_of(tmp_path)
    for number, seconds in ((1, 100.0), (2, -5000.0), (3, 10.0)):
        cache.expect(put(cache, number), seconds)
    put(cache, 4)
    assert held(cache) == {1, 3, 4}


def test_what_is_needed_sooner_stays(tmp_path: Path) -> None:
    cache = cache_of(tmp_path)
    for number, seconds in ((1, 100.0), (2, 50.0), (3, 10.0)):
        cache.expect(put(cache, number), seconds)
    with pytest.raises(Refused):
        put(cache, 4, due=200.0)
    assert held(cache) == {1, 2, 3}
    put(cache, 4, due=75.0)
    assert held(cache) == {2, 3, 4}


def test_what_another_process_needs_sooner_stays_so(tmp_path: Path) -> None:
    cache = cache_of(tmp_path)
    path = put(cache, 1)
    other = cache.expect(path, 100.0)
    mine = cache.expect(path, 500.0)  # another has told 100 s before
    assert abs(path.stat().st_mtime_ns - other) < 1e9
    cache.expect(path, 800.0, told=path.stat().st_mtime_ns)
    assert path.stat().st_mtime_ns > mine


def test_an_entry_may_not_be_larger_than_all(tmp_path: Path) -> None:
    with pytest.raises(RemoteError, match=r"data.cache_disk_gb=x is less than the .* GB of one file"):
        put(cache_of(tmp_path), 1, 31)


def test_a_failed_entry_leaves_nothing(tmp_path: Path) -> None:
    cache = cache_of(tmp_path)

    def fail(part: Path) -> None:
        part.write_bytes(b"half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        cache.fetch(key(1), 10, fail)
    assert cache.used_bytes() == 0


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    def full(part: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(RemoteError, match="No space left on device; make room there"):
        cache_of(tmp_path).fetch(key(1), 10, full)


def test_a_bound_beyond_the_disk_is_told_before_it_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cache = cache_of(tmp_path, max_bytes=60_000_000)
    put(cache, 1)
    monkeypatch.setattr("shutil.disk_usage", lambda place: _ntuple_diskusage(0, 0, 20_000_000 if place.exists() else 0))
    for n_bytes in (20_000_000, 20_000_010):
        cache.tell_room(n_bytes)
    assert not caplog.messages
    cache.tell_room(90_000_000)
    assert caplog.messages == [
        f"data.cache_disk_gb=x is more than the disk of {tmp_path}/cache has room for: 0.020 GB, and 0.060 GB will "
        "come; set it lower, as a full disk ends the run"
    ]


def test_what_killed_processes_left_makes_room(tmp_path: Path) -> None:
    cache = cache_of(tmp_path)
    put(cache, 1)
    for number in (2, 3):
        cache.path(key(number), 10).with_suffix(".10.part").touch()
    put(cache, 4)
    assert held(cache) == {1, 4}
    assert cache.used_bytes() <= 30


def test_threads_make_it_once_and_stay_within_the_bound(tmp_path: Path) -> None:
    cache = cache_of(tmp_path)
    made: list[int] = []
    most: list[int] = []

    def slowly(number: int, part: Path) -> None:
        made.append(number)
        most.append(cache.used_bytes())
        time.sleep(0.01)
        part.write_bytes(b"x" * 10)

    def work() -> None:
        for number in range(3):
            cache.fetch(key(number), 10, lambda part, number=number: slowly(number, part))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == [0, 1, 2] and max(most) <= 30


def test_a_key_leads_nowhere_else(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no SHA-256"):
        cache_of(tmp_path).path("../x", 1)
