"""A fault that may pass is tried again, but not for ever."""

from __future__ import annotations

import errno
from types import SimpleNamespace

import pytest

from scvae_data.processing.engine import task
from scvae_data.processing.engine.base import SerialEngine
from scvae_data.processing.engine.task import Task


def test_retries_are_bounded_and_wait_longer_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, pauses = [], []

    def read() -> None:
        calls.append(1)
        raise OSError(errno.EIO, "Input/output error")

    # Not the function of the module: threads of other tests may sleep too.
    monkeypatch.setattr(task, "time", SimpleNamespace(sleep=pauses.append))
    (outcome,) = (outcome for _, outcome in SerialEngine(retries=3).run([Task(read, ())]))
    assert (outcome.reason, len(calls), pauses) == ("unreadable", 4, [0.5, 1.0, 2.0])
    list(SerialEngine(retries=0).run([Task(read, ())]))
    assert len(calls) == 5
