"""Parts of a batch and a compiled function in, the work done by as many threads as torch uses."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch

__all__ = ["Part", "in_threads", "parts_of"]

Part = tuple[int, int]
"""First row, and the one after the last."""
ROWS = 16  # of a part, in batches that do not make more than MOST of it
MOST = 64


def parts_of(n: int) -> list[Part]:
    """Cut ``n`` rows into parts that depend on nothing else: what is summed within them has one order everywhere."""
    size = max(ROWS, -(-n // MOST))
    return [(first, min(n, first + size)) for first in range(0, n, size)]


def in_threads(work: Callable[[int, int, int], None], parts: Sequence[Part]) -> None:
    """Call ``work`` with the number, begin and end of each part; it must release the interpreter lock to gain by it."""
    n_threads = min(torch.get_num_threads(), len(parts))
    left = iter(list(enumerate(parts)))

    def take_parts() -> None:
        for number, (first, last) in left:
            work(number, first, last)

    helpers = [_pool(os.getpid(), n_threads - 1).submit(take_parts) for _ in range(n_threads - 1)]
    take_parts()
    for helper in helpers:
        helper.result()


@cache
def _pool(pid: int, n_threads: int) -> ThreadPoolExecutor:
    """Threads of this process: a fork has none of its parent's."""
    return ThreadPoolExecutor(n_threads, thread_name_prefix="train-step")
