"""Numbers in, Vega-Lite specifications out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scvae_data.report.colours import BLUE, GREY, VERMILION

__all__ = ["bars_between", "histogram", "line", "points", "steps"]

COLOURS = {
    "kept": BLUE,
    "not kept": VERMILION,
    "lost": VERMILION,
    "in": GREY,
    "flagged": VERMILION,
    "not flagged": BLUE,
}
# Each number with a unit of its own, where a format would give all that of the largest: 0, 500 and 1k, not 0k and 0.5k.
# Logarithmic axes have ticks without a label.
LABELS = {"labelExpr": "datum.label ? format(datum.value, '~s') : ''", "tickCount": 6, "labelSeparation": 8}
COUNTS = {**LABELS, "tickMinStep": 1}
DASHES = [[8, 3], [2, 3], [8, 3, 2, 3]]
WIDE = {"width": "container", "autosize": {"type": "fit-x", "contains": "padding"}}

Spec = dict[str, Any]


def steps(rows: Sequence[Mapping[str, Any]], about: str) -> Spec:
    """Draw what is left after each step as a waterfall.

    Parameters
    ----------
    rows
        ``step``, ``start``, ``end`` and ``kind``: ``in``, ``lost`` or ``kept``.
    about
        What the picture shows, for readers who do not see it.
    """
    y = {"field": "step", "type": "nominal", "sort": None, "title": None, "axis": {"labelLimit": 260}}
    length = {
        "x": {"field": "start", "type": "quantitative", "title": "cells", "axis": COUNTS},
        "x2": {"field": "end"},
        "y": y,
    }
    tip = [{"field": "step"}, {"field": "n", "format": ",", "title": "cells"}, {"field": "share", "title": "of all"}]
    return {
        "description": about,
        "data": {"values": list(rows)},
        **WIDE,
        "height": 26 * len(rows),
        "layer": [
            {
                "mark": {"type": "bar", "cornerRadius": 2},
                "encoding": {**length, "color": _colour("kind"), "tooltip": tip},
            },
            {
                "mark": {"type": "text", "align": "left", "dx": 4},
                "encoding": {"x": {"field": "far", "type": "quantitative"}, "y": y, "text": {"field": "label"}},
            },
        ],
    }


def histogram(
    bins: Mapping[str, Sequence[float]],
    title: str,
    about: str,
    *,
    logarithmic: bool = False,
    limits: Mapping[str, float] | None = None,
) -> Spec:
    """Draw kept and other cells over bins, with the limits that they were held against.

    Parameters
    ----------
    bins
        Columns ``low``, ``high``, ``kept`` and ``not kept``; empty bins may be left out.
    title
        Of the axis.
    limits
        Name of a rule → its limit.
    """
    rows = []
    for low, high, kept, other in zip(bins["low"], bins["high"], bins["kept"], bins["not kept"], strict=True):
        for kind, start, n in (("kept", 0, kept), ("not kept", kept, other)):
            if n:
                rows.append({"low": low, "high": high, "kind": kind, "start": start, "end": start + n, "n": n})
    scale = {"type": "log" if logarithmic else "linear", "nice": False}
    x = {"field": "low", "type": "quantitative", "title": title, "scale": scale, "axis": LABELS}
    y = {"field": "start", "type": "quantitative", "title": "cells", "axis": COUNTS}
    tip = [{"field": "low", "format": ",.4~r"}, {"field": "high", "format": ",.4~r"}, {"field": "kind"}]
    bars = {
        "data": {"values": rows},
        "mark": {"type": "bar", "binSpacing": 0},
        "encoding": {
            "x": x, "x2": {"field": "high"}, "y": y, "y2": {"field": "end"},
            "color": _colour("kind", ("kept", "not kept")),
            "tooltip": [*tip, {"field": "n", "format": ",", "title": "cells"}],
        },
    }  # fmt: skip
    drawn = [{"rule": f"{name} {limit:,g}", "at": limit} for name, limit in (limits or {}).items()]
    marks = [_marks({"values": drawn}, "x")] if drawn else []
    return {"description": about, **WIDE, "height": 220, "layer": [bars, *marks]}


def bars_between(rows: Sequence[Mapping[str, Any]], x_title: str, y_title: str, about: str) -> Spec:
    """Draw ``n`` over bins from ``low`` to ``high``, both per cent."""
    x = {"field": "low", "type": "quantitative", "title": x_title, "scale": {"domain": [0, 100], "nice": False}}
    axis = {**LABELS, "values": [0, *(10**power for power in range(8))]}
    y = {"field": "n", "type": "quantitative", "title": y_title, "axis": axis, "scale": {"type": "symlog"}}
    tip = [{"field": "low", "title": "from %"}, {"field": "high", "title": "to %"}, {"field": "n", "format": ","}]
    encoding = {"x": x, "x2": {"field": "high"}, "y": y, "y2": {"datum": 0}, "tooltip": tip}
    mark = {"type": "bar", "binSpacing": 1, "color": BLUE}
    return {
        "description": about, "data": {"values": list(rows)}, **WIDE, "height": 220, "mark": mark, "encoding": encoding,
    }  # fmt: skip


def points(rows: Sequence[Mapping[str, Any]], x: str, y: str, about: str) -> Spec:
    """Draw a point for each row over two of its numbers, both on logarithmic axes, coloured by ``kind``."""
    axis = LABELS
    scale = {"type": "log", "nice": False, "padding": 24}
    tip = [{"field": name} for name in ("name", "flags")] + [{"field": name, "format": ",.0f"} for name in (x, y)]
    return {
        "description": about,
        "data": {"values": list(rows)},
        **WIDE,
        "height": 260,
        "mark": {"type": "point", "filled": True, "opacity": 0.75, "size": 30},
        "encoding": {
            "x": {"field": x, "type": "quantitative", "scale": scale, "axis": axis},
            "y": {"field": y, "type": "quantitative", "scale": scale, "axis": axis},
            "color": _colour("kind", ("not flagged", "flagged")),
            "tooltip": tip,
        },
    }


def line(x_title: str, y_title: str, about: str) -> Spec:
    """Draw a line over two logarithmic axes with named marks across it, from the data sets ``curve`` and ``marks``.

    ``curve`` has the columns ``x`` and ``y``, ``marks`` ``rule`` and ``at``, on the y axis.
    """
    scale = {"type": "log", "nice": False}
    axis = LABELS
    x = {"field": "x", "type": "quantitative", "title": x_title, "scale": scale, "axis": axis}
    beside = {**scale, "padding": 8}  # what is drawn at either end lies off the axis
    y = {"field": "y", "type": "quantitative", "title": y_title, "scale": beside, "axis": axis}
    return {
        "description": about,
        **WIDE,
        "height": 260,
        "layer": [
            {
                "data": {"name": "curve"},
                "mark": {"type": "line", "interpolate": "step-after", "color": BLUE, "strokeWidth": 2},
                "encoding": {"x": x, "y": y},
            },
            _marks({"name": "marks"}, "y"),
        ],
    }


def _marks(data: Spec, channel: str) -> Spec:
    """Lines across a chart, told apart by their dashes and named above it: names beside them would meet."""
    legend = {"direction": "vertical", "symbolSize": 300}  # names of any length, on screens of any width
    dash = {
        "field": "rule", "type": "nominal", "sort": None, "title": None, "scale": {"range": DASHES}, "legend": legend,
    }  # fmt: skip
    return {
        "data": data,
        "mark": {"type": "rule", "strokeWidth": 1.5},
        "encoding": {channel: {"field": "at", "type": "quantitative"}, "strokeDash": dash},
    }


def _colour(name: str, kinds: Sequence[str] = ("in", "lost", "kept")) -> Spec:
    scale = {"domain": list(kinds), "range": [COLOURS[kind] for kind in kinds]}
    return {"field": name, "type": "nominal", "title": None, "scale": scale}
