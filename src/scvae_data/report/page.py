"""A template, facts, charts and tables in; one HTML page with all that it needs inside, out.

Charts are Vega-Lite specifications, tables are columns; both travel
compressed, as do the libraries that draw them, and are unpacked by the
browser.
"""

from __future__ import annotations

import base64
import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from scvae_data.report import libraries

__all__ = ["Column", "Picture", "Table", "page"]


@dataclass(frozen=True)
class Column:
    """A column of a table."""

    title: str
    """What stands above it."""
    values: Sequence[Any]
    """One for each row: numbers, texts, lists of texts; None where unknown."""
    digits: int | None = None
    """Decimal places of numbers; None for texts."""
    about: str = ""
    """What it means, shown where the mouse rests on the title."""
    links: Sequence[str | None] | None = None
    """For each row, what it leads to; None for a column without links."""


@dataclass(frozen=True)
class Table:
    """A table that a reader can sort, search and page through."""

    columns: Sequence[Column]
    """All of one length."""
    order: int | None = None
    """Number of the column that it is sorted by first, largest value first; None: as given."""
    details: Sequence[Any] | None = None
    """For each row, data sets of the chart that is drawn where it is chosen, as columns; None for no such chart."""
    detail_chart: str | None = None
    """Name of that chart."""


@dataclass(frozen=True)
class Picture:
    """A picture within a page."""

    png: Path
    alt: str
    """What it shows, for readers who do not see it."""
    caption: str
    """What stands below it."""

    @functools.cached_property
    def _content(self) -> bytes:
        return self.png.read_bytes()

    @property
    def source(self) -> str:
        """The picture itself, as an address."""
        return f"data:image/png;base64,{base64.b64encode(self._content).decode()}"

    @property
    def width(self) -> int:
        """In pixels, as the head of the file says."""
        return int.from_bytes(self._content[16:20], "big")

    @property
    def height(self) -> int:
        """In pixels."""
        return int.from_bytes(self._content[20:24], "big")


def page(template: str, charts: Mapping[str, Any], tables: Mapping[str, Table], **facts: Any) -> str:
    """Fill a template of this folder.

    Parameters
    ----------
    template
        Its file name.
    charts
        Vega-Lite specifications by the name that the template has in ``data-chart``.
    tables
        Tables by the name that it has in ``data-table``.
    facts
        Everything else that it names.

    Returns
    -------
    HTML that opens from a file, without network.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("scvae_data.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"thousands": lambda number: f"{number:,}"}
    data = json.dumps({"charts": charts, "tables": tables}, default=vars, separators=(",", ":"), allow_nan=False)
    packed = {"data": libraries.packed(data)}
    if charts:
        packed["vega"] = libraries.vega()
    if tables:
        packed["tables"] = libraries.tables()
    own = {name: _own(name) for name in ("page.css", "page.js")}
    style = libraries.table_style() if tables else ""
    return environment.get_template(template).render(packed=packed, own=own, table_css=style, **facts)


def _own(name: str) -> str:
    return (files("scvae_data.report") / "templates" / name).read_text(encoding="utf-8")
