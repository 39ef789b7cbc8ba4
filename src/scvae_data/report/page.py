"""A template, facts, charts and tables in; one HTML page with all that it needs inside, out.

Charts are Vega-Lite specifications, tables are columns; both travel
compressed, as do the libraries that draw them, and are unpacked by the
browser.
"""

from __future__ import annotations

import base64
import functools
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from typing import Any

__all__ = ["Column", "Table", "page"]


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Parameters
    ----------
    title
        What stands above it.
    values
        One for each row: numbers, texts, lists of texts; None where unknown.
    digits
        Decimal places of numbers; None for texts.
    about
        What it means, shown where the mouse rests on the title.
    """

    title: str
    values: Sequence[Any]
    digits: int | None = None
    about: str = ""


@dataclass(frozen=True)
class Table:
    """A table that a reader can sort, search and page through.

    Parameters
    ----------
    columns
        All of one length.
    order
        Number of the column that it is sorted by first, largest value first; None: as given.
    details
        For each row, data sets of the chart that is drawn where the row is chosen; None for no such chart.
    detail_chart
        Name of that chart.
    """

    columns: Sequence[Column]
    order: int | None = None
    details: Sequence[Any] | None = None
    detail_chart: str | None = None


@dataclass(frozen=True)
class _Data:
    charts: Mapping[str, Any] = field(default_factory=dict)
    tables: Mapping[str, Any] = field(default_factory=dict)


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
    data = _Data(charts, {name: asdict(table) for name, table in tables.items()})
    packed = {"data": _packed(json.dumps(asdict(data), separators=(",", ":"), allow_nan=False)), **_libraries()}
    own = {name: _own(name) for name in ("page.css", "page.js")}
    return environment.get_template(template).render(packed=packed, own=own, table_css=_table_css(), **facts)


@functools.cache
def _libraries() -> dict[str, str]:
    """Libraries that draw charts and tables, packed, by their names in the page."""
    import vl_convert

    tables = (files("itables") / "html" / "dt_bundle.js").read_text(encoding="utf-8")
    vega = vl_convert.javascript_bundle()  # type: ignore[call-arg]  # without a snippet, which its stub asks for: all
    return {"vega": _packed(vega), "tables": _packed(tables)}


def _table_css() -> str:
    return (files("itables") / "html" / "dt_bundle.css").read_text(encoding="utf-8")


def _own(name: str) -> str:
    return (files("scvae_data.report") / "templates" / name).read_text(encoding="utf-8")


def _packed(text: str) -> str:
    """Text, deflated and in base64, for ``unpacked`` of page.js."""
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode()
