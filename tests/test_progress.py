from __future__ import annotations

import pytest

from scvae_data.progress import progress, watched


@pytest.mark.parametrize("on_terminal", [True, False], ids=["terminal", "log"])
def test_watchers_are_told_each_item_that_is_done(on_terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: on_terminal)
    told: list[tuple[str, int, int | None]] = []
    with watched(lambda *what: told.append(what)):
        assert list(progress("ab", total=2, desc="scan")) == ["a", "b"]
    assert list(progress("c", total=1, desc="scan")) == ["c"]
    assert told == [("scan", 1, 2), ("scan", 2, 2)]
