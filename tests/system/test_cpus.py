from __future__ import annotations

import os

import pytest

from scvae_data.system.cpus import n_cpus


def test_cores_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2, 5}, raising=False)
    assert n_cpus() == 3


@pytest.mark.parametrize(("known", "expected"), [(7, 7), (None, 1)])
def test_systems_that_do_not_tell(monkeypatch: pytest.MonkeyPatch, known: int | None, expected: int) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: known)
    assert n_cpus() == expected
