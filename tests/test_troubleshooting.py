"""Messages that the page on troubleshooting explains are those of the package."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import scvae_data

PAGE = Path(__file__).resolve().parents[1] / "docs" / "troubleshooting.md"
MESSAGES = re.findall(r"^\| `([^`]+)` \|", PAGE.read_text(), flags=re.MULTILINE)


def text_of(node: ast.AST) -> str:
    """The text that an expression gives, with ``…`` for what only a run knows."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(map(text_of, parts))
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return text_of(left) + text_of(right)
    return "…"


def texts_of(package: Path) -> Iterator[str]:
    for path in package.rglob("*.py"):
        yield from map(text_of, ast.walk(ast.parse(path.read_text())))


@pytest.fixture(scope="module")
def texts() -> str:
    return "\n".join(set(texts_of(Path(scvae_data.__file__).parent)))


def test_what_only_a_run_knows_is_left_out() -> None:
    assert text_of(ast.parse("f'{path}: row {row}' + ' is empty; ' + remedy", mode="eval").body) == (
        "…: row … is empty; …"
    )


def test_the_page_has_messages() -> None:
    assert len(MESSAGES) == len(set(MESSAGES)) > 30


@pytest.mark.parametrize("message", MESSAGES)
def test_the_message_is_one_of_the_package(message: str, texts: str) -> None:
    assert re.search("[^\n]*".join(map(re.escape, message.split("…"))), texts)
