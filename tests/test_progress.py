from __future__ import annotations

import logging
import time
from typing import Any

import pytest

from scvae_data.progress import progress, waiting, watched


@pytest.mark.parametrize("on_terminal", [True, False], ids=["terminal", "log"])
def test_watchers_are_told_each_item_that_is_done(on_terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: on_terminal)
    told: list[tuple[str, int, int | None]] = []
    with watched(lambda *what: told.append(what)):
        assert list(progress("ab", total=2, desc="scan")) == ["a", "b"]
    assert list(progress("c", total=1, desc="scan")) == ["c"]
    assert told == [("scan", 1, 2), ("scan", 2, 2)]


@pytest.mark.parametrize("on_terminal", [True, False], ids=["terminal", "log"])
def test_what_cannot_tell_how_far_it_is_says_what_it_does(
    on_terminal: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capsys: Any
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: on_terminal)
    monkeypatch.setattr("scvae_data.progress.TICK_SECONDS", 0.01)
    with caplog.at_level(logging.INFO), waiting("drawing"):
        time.sleep(0.3)
    assert caplog.messages == ["drawing"]
    assert capsys.readouterr().err.count("drawing 00:00") > 1 if on_terminal else True
