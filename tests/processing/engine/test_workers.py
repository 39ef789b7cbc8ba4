"""Worker processes: what they are granted."""

from __future__ import annotations

import platform
import resource
import subprocess
import sys
from collections.abc import Iterator

import pytest

from scvae_data.processing.engine.workers import OPEN_FILES, allow_open_files

FAULTS_OF_A_PART = """
import resource
import numpy as np
from scvae_data.processing.engine.workers import limit_heap
from scvae_data.processing.write.chunks import PART_ENTRIES

def part():
    arrays = [np.ones(PART_ENTRIES, np.uint16) for _ in range(2)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

limit_heap()
before = part()
print(part() - before)
"""


@pytest.fixture
def few_files() -> Iterator[tuple[int, int]]:
    """A process that may have 256 files open, as by default on macOS."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    limits = (256, before[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    allow_open_files.cache_clear()
    yield limits
    resource.setrlimit(resource.RLIMIT_NOFILE, before)
    allow_open_files.cache_clear()


def test_more_files_may_be_open_where_they_may(few_files: tuple[int, int]) -> None:
    allow_open_files()
    granted, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert granted == (OPEN_FILES if most == resource.RLIM_INFINITY else min(OPEN_FILES, most)) > few_files[0]
    assert most == few_files[1]


def test_a_larger_limit_stays(few_files: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scvae_data.processing.engine.workers.OPEN_FILES", 100)
    allow_open_files()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == few_files


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators have no such limit")
def test_the_next_part_of_a_chunk_gets_memory_that_is_there() -> None:
    run = subprocess.run([sys.executable, "-c", FAULTS_OF_A_PART], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 5
