"""Results come in the order of the tasks, whichever ends first; progress counts those that were asked for first."""

from __future__ import annotations

from itertools import permutations
from types import SimpleNamespace
from typing import Any

import pytest

from scvae_data.errors import ScvaeDataError
from scvae_data.processing.engine.task import Failure
from scvae_data.processing.run.context import Context
from scvae_data.progress import watched

TASKS: Any = ["a", "b"]
THEN: Any = ["c", "d"]


def context_of(outcomes: list[tuple[int, Any]]) -> Any:
    """A context whose engine gives these outcomes."""
    return SimpleNamespace(engine=SimpleNamespace(run=lambda tasks: iter(outcomes)))


@pytest.mark.parametrize("order", [*permutations(range(4))], ids=lambda order: "".join(map(str, order)))
@pytest.mark.parametrize("on_terminal", [True, False], ids=["terminal", "log"])
def test_results_come_in_order(order: tuple[int, ...], on_terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: on_terminal)
    context = context_of([(number, [*TASKS, *THEN][number]) for number in order])
    told: list[tuple[str, int, int | None]] = []
    with watched(lambda *what: told.append(what)):
        assert list(Context.in_order(context, "write", TASKS, "chunk", then=THEN)) == ["a", "b", "c", "d"]
    assert told == [("write", 1, 2), ("write", 2, 2)]


def test_a_result_is_given_when_those_before_it_are() -> None:
    given = Context.in_order(
        context_of([(1, "b"), (0, "a"), (3, Failure("no", "x.h5ad: ends"))]), "write", TASKS, "chunk", THEN
    )
    assert [next(given), next(given)] == ["a", "b"]
    with pytest.raises(ScvaeDataError, match=r"write failed: x\.h5ad: ends; nothing is lost, resume=true"):
        next(given)


def test_a_bar_ends_with_the_line_where_a_task_fails(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with pytest.raises(ScvaeDataError) as failed:
        list(Context.in_order(context_of([(0, "a"), (1, Failure("no", "ends"))]), "write", TASKS, "chunk"))
    assert "write failed" in str(failed.value)
    assert capsys.readouterr().err.endswith("\n")
