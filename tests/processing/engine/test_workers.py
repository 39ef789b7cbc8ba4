"""Worker processes: what they are granted."""

from __future__ import annotations

import resource
from collections.abc import Iterator

import pytest

from scvae_data.processing.engine.workers import OPEN_FILES, allow_open_files


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
