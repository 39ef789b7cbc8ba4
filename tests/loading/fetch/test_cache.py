from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from scvae_data.errors import ConfigError
from scvae_data.loading.fetch.cache import RowGroupCache


class Value:
    def __init__(self, key: int, nbytes: int = 10) -> None:
        self.key = key
        self.nbytes = nbytes
        self.failed = False


def use(cache: RowGroupCache[Value], *keys: int) -> None:
    for key in keys:
        value = cache.acquire(key, lambda key=key: Value(key))
        assert value.key == key
        cache.release(key, value)


def test_keeps_the_most_recent() -> None:
    cache = RowGroupCache[Value](2)
    use(cache, 1, 2, 1, 3, 1, 2)  # 3 drives out 2, the last 2 drives out 3
    counters = cache.counters()
    assert (counters.hits, counters.misses, counters.evictions, counters.blocks) == (2, 4, 2, 2)
    assert counters.hit_rate == pytest.approx(1 / 3)


def test_bytes_bound_what_is_kept() -> None:
    cache = RowGroupCache[Value](10, max_bytes=25)
    use(cache, 1, 2, 3)
    assert cache.counters().blocks == 2
    assert cache.counters().nbytes == 20
    assert cache.counters().evictions == 1


def test_pinned_row_groups_stay_beyond_the_bounds() -> None:
    cache = RowGroupCache[Value](1)
    held = [cache.acquire(key, lambda key=key: Value(key)) for key in range(3)]
    assert cache.counters().blocks == 3
    assert cache.acquire(0, lambda: Value(99)) is held[0]
    for key in (0, 0, 1, 2):
        cache.release(key, held[key])
    assert cache.counters().blocks == 1


def test_a_failed_row_group_is_asked_for_again() -> None:
    cache = RowGroupCache[Value](2)
    broken = cache.acquire(1, lambda: Value(1))
    broken.failed = True
    again = cache.acquire(1, lambda: Value(1))
    assert again is not broken
    cache.release(1, broken)  # an earlier user gives back what is no longer there
    cache.release(1, again)
    assert cache.counters().misses == 2
    assert cache.acquire(1, lambda: Value(2)) is again


def test_a_row_group_that_failed_does_not_stay() -> None:
    cache = RowGroupCache[Value](2)
    broken = cache.acquire(1, lambda: Value(1, nbytes=0))
    broken.failed = True
    cache.release(1, broken)
    assert cache.counters().blocks == 0


def test_bytes_of_a_row_group_given_back_before_it_was_decoded() -> None:
    cache = RowGroupCache[Value](5, max_bytes=25)
    early = cache.acquire(1, lambda: Value(1, nbytes=0))
    cache.release(1, early)
    assert cache.counters().nbytes == 0
    early.nbytes = 20
    assert cache.counters().nbytes == 20
    use(cache, 2)
    assert (cache.counters().blocks, cache.counters().nbytes) == (1, 10)


def test_many_threads_start_a_row_group_once() -> None:
    cache = RowGroupCache[Value](4)
    started: list[int] = []
    ready = threading.Barrier(8)

    def ask(_: int) -> Value:
        ready.wait()
        return cache.acquire(7, lambda: (started.append(7), Value(7))[1])

    with ThreadPoolExecutor(8) as pool:
        values = set(pool.map(ask, range(8)))
    assert started == [7] and len(values) == 1
    assert cache.counters().hits == 7


@pytest.mark.parametrize(("bounds", "message"), [((0, None), "chunk_cache_size=0"), ((1, 0), "cache_bytes=0")])
def test_a_cache_holds_something(bounds: tuple[int, int | None], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RowGroupCache(*bounds)
