"""What a page holds: its rows and code as readers see them, its charts and tables as the browser gets them."""

from __future__ import annotations

import base64
import html
import json
import re
import zlib
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
