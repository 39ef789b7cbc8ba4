"""What a page holds: its rows and code as readers see them, its charts and tables as the browser gets them."""

from __future__ import annotations

import base64
import html
import json
import re
import zlib
from collections import Counter
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any


def data_of(page: str) -> dict[str, Any]:
    """Charts and tables of a page."""
    found = re.search(r'<script type="text/plain" id="packed-data">([^<]*)</script>', page)
    assert found
    data: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(found[1])))
    return data


def table_of(page: str, name: str) -> dict[str, list[Any]]:
    """Columns of a table that can be sorted, by their titles."""
    return {column["title"]: column["values"] for column in data_of(page)["tables"][name]["columns"]}


def rows_of(page: str) -> list[list[str]]:
    """Rows of all plain tables, as texts."""
    return [
        [text_of(cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL)]
        for row in re.findall(r"<tr>(.*?)</tr>", page, re.DOTALL)
    ]


def code_of(page: str) -> list[str]:
    """Blocks of code and commands."""
    return [html.unescape(block) for block in re.findall(r"<pre>(.*?)</pre>", page, re.DOTALL)]


def text_of(part: str) -> str:
    """A part of a page without its tags."""
    return html.unescape(re.sub(r"<[^>]+>", "", part)).strip()


class _Structure(HTMLParser):
    """What a page's readers find their way by who do not see it."""

    def __init__(self) -> None:
        super().__init__()
        self.faults: list[str] = []
        self.headings: list[int] = []
        self.ids: list[str] = []
        self.landmarks: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.ids += [str(given["id"])] if "id" in given else []
        self.landmarks += [tag] if tag in ("main", "header") else []
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        wanted = {"html": "lang", "img": "alt", "th": "scope", "nav": "aria-label", "button": "type"}
        if tag in wanted and not given.get(wanted[tag]):
            self.faults.append(f"{tag} without {wanted[tag]}: {given}")
        if tag == "table" and "data-table" in given and not given.get("aria-label"):
            self.faults.append(f"table without a name: {given}")


def faults_of(page: str) -> list[str]:
    """What keeps some readers from a page: of its structure, before any script has run."""
    found = _Structure()
    found.feed(page)
    steps = [f"h{low} is followed by h{high}" for low, high in pairwise(found.headings) if high > low + 1]
    twice = [f"id {name} is there twice" for name, n in Counter(found.ids).items() if n > 1]
    first = [] if found.headings[:1] == [1] and found.headings.count(1) == 1 else ["there is not one h1, at the top"]
    links = re.findall(r'href="#([^"]+)"', page)
    lost = [f"#{name} leads nowhere" for name in links if name not in found.ids]
    marks = [] if found.landmarks == ["header", "main"] else [f"landmarks are {found.landmarks}"]
    return [*found.faults, *steps, *twice, *first, *lost, *marks]
