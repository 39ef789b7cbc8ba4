"""What all pages have in common: text that can be read on its ground, content that stays text, only what is needed."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest
from matplotlib.colors import to_rgb
from tests.support.pages import data_of

from scvae_data.report.page import Column, Table, page

CSS = (files("scvae_data.report") / "templates" / "page.css").read_text()
SCHEMES = re.findall(r":root \{([^}]*)\}", CSS)


def contrast(one: str, other: str) -> float:
    """Of two colours, 1 to 21, as WCAG 2 defines it."""
    light = []
    for colour in (one, other):
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
        light.append(sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True)))
    return (max(light) + 0.05) / (min(light) + 0.05)


@pytest.mark.parametrize("scheme", SCHEMES, ids=["light", "dark", "paper"])
@pytest.mark.parametrize("ground", ["paper", "block"])
@pytest.mark.parametrize("text", ["ink", "soft", "accent", "alarm"])
def test_text_can_be_read_on_its_ground(scheme: str, ground: str, text: str) -> None:
    colours = dict(re.findall(r"--(\w+): (#\w+)", scheme))
    assert contrast(colours[text], colours[ground]) >= 4.5


def sweep(**more: object) -> str:
    facts = {
        "title": "t",
        "lead": "",
        "sections": {},
        "best": "",
        "told": "",
        "left": "",
        "pictures": [],
        "next": {},
        "files": {},
    }
    return page("sweep.html", {}, **{"tables": {}, "command": "", **facts, **more})  # type: ignore[arg-type]


def test_a_page_carries_only_what_it_draws_with() -> None:
    without = sweep()
    assert 'id="packed-vega"' not in without and 'id="packed-tables"' not in without
    with_table = sweep(tables={"jobs": Table([Column("x", [1, None])])})
    assert 'id="packed-tables"' in with_table and 'id="packed-vega"' not in with_table
    assert data_of(with_table)["tables"]["jobs"]["columns"][0]["values"] == [1, None]


def test_whatever_it_is_given_is_text() -> None:
    odd = "</script><script>alert('µ')</script>"
    shown = sweep(title=odd, command=odd, told=odd, next={odd: odd}, tables={"jobs": Table([Column(odd, [odd])])})
    assert "<script>alert" not in shown
    assert shown.count("&lt;/script&gt;&lt;script&gt;alert") == 6
    assert data_of(shown)["tables"]["jobs"]["columns"][0]["values"] == [odd]


def test_numbers_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="Out of range float values are not JSON compliant"):
        sweep(tables={"jobs": Table([Column("x", [float("nan")], 1)])})
