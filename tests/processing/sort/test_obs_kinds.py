"""Columns of any two types come together in one type, and no value is lost or changed on the way."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from scvae_data.processing.labels import as_label
from scvae_data.processing.sort.obs_kinds import kind_of, to_arrow, without_labels
from scvae_data.processing.sort.obs_schema import cast, decide_schema, distinct_values

BIG = 2**60 + 1
COLUMNS: dict[str, Any] = {
    "int": [1, 2],
    "int8": np.array([-1, 2], np.int8),
    "uint64": np.array([1, 2], np.uint64),
    "beyond 64 bits": np.array([2**64 - 1, 2], np.uint64),
    "long": [BIG, -BIG],
    "long with a gap": pd.array([BIG, None], dtype="Int64"),
    "Int64": pd.array([1, None], dtype="Int64"),
    "UInt8": pd.array([1, None], dtype="UInt8"),
    "float": [0.5, np.nan],
    "whole float": [1.0, 2.0],
    "large float": [1e18, 1e300],
    "infinite": [np.inf, -np.inf],
    "float16": np.array([0.5, np.nan], np.float16),
    "float32": np.array([0.5, 3.0], np.float32),
    "longdouble": np.array([0.5, np.nan], np.longdouble),
    "Float64": pd.array([0.5, None], dtype="Float64"),
    "bool": [True, False],
    "boolean": pd.array([True, None], dtype="boolean"),
    "text": ["1.0", "x"],
    "words": np.array(["true", None], object),
    "string": pd.array(["a", None], dtype="string"),
    "categories of text": pd.Categorical(["a", None]),
    "categories of int": pd.Categorical([1, 2]),
    "categories of float": pd.Categorical([1.0, None]),
    "categories of bool": pd.Categorical([True, None]),
    "objects": np.array([1, "1"], object),
    "bytes": np.array([b"x", None], object),
    "times": pd.to_datetime(["2024-01-02", None]),
    "no value": [np.nan, np.nan],
    "none": np.array([None, None], object),
}


def spooled(values: Any) -> tuple[str, pa.ChunkedArray]:
    series = pd.Series(values)
    kind = kind_of(series)
    return kind, pa.chunked_array([to_arrow(series, kind.rstrip("?"))])


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize(("one", "other"), [*itertools.combinations_with_replacement(COLUMNS, 2)])
def test_any_two_types_come_together(one: str, other: str) -> None:
    files = [spooled(COLUMNS[name]) for name in (one, other)]
    kind = decide_schema((), [{"x": kind} for kind, _ in files]).kinds["x"]
    for name, (_, column) in zip((one, other), files, strict=True):
        found = cast(column, kind)
        expected = [None if pd.isna(value) else as_label(value) for value in pd.Series(COLUMNS[name])]
        texts = [None if pd.isna(value) else as_label(value) for value in found.to_pylist()]
        assert texts == expected
        if kind.rstrip("?") in ("string", "label"):
            assert distinct_values(pa.table({"x": column}), "x", kind) == sorted({t for t in found.to_pylist() if t})


def test_types_of_both_files_are_told(caplog: pytest.LogCaptureFixture) -> None:
    decide_schema((), [{"x": "int", "y": "int"}, {"x": "label?", "y": "long"}, {"x": "string", "y": "none?"}])
    assert caplog.messages == [
        "obs column x is categories of numbers and int and string in different files; it is stored as text"
    ]


@pytest.mark.parametrize(
    ("values", "counts"),
    [
        pytest.param(pd.Categorical(["nan", "T", "nan", None, "NA"]), {"nan": 2, "NA": 1}, id="categories"),
        pytest.param(np.array(["nan", "T", "nan", None, "NA"], object), {"nan": 2, "NA": 1}, id="objects"),
        pytest.param(pd.array(["nan", "T", "nan", None, "NA"], dtype="string"), {"nan": 2, "NA": 1}, id="string"),
        pytest.param(np.array(["nan", 1, "nan", np.nan, "NA"], object), {"nan": 2, "NA": 1}, id="beside numbers"),
        pytest.param(pd.Categorical(["a", None], categories=["a", "nan"]), {}, id="unused category"),
        pytest.param(np.array(["-2147483648", "T"], object), {"-2147483648": 1}, id="integers of R as text"),
        pytest.param([0.5, np.nan], {}, id="floats"),
        pytest.param([True, False], {}, id="booleans"),
        pytest.param(["unknown", "unassigned", "Nan", "nano", " "], {}, id="words"),
    ],
)
def test_labels_that_may_mean_a_missing_value(values: Any, counts: dict[str, int]) -> None:
    series = pd.Series(values)
    stays, found = without_labels(series, [])
    assert found == counts
    pd.testing.assert_series_equal(stays, series)
    without, found = without_labels(series, ["nan", "T"])
    assert {name: n for name, n in found.items() if name != "T"} == counts
    gone = series.isin(["nan", "T"])
    assert without[gone].isna().all()
    assert without[~gone].astype(object).equals(series[~gone].astype(object))


@pytest.mark.parametrize(
    ("values", "without"),
    [
        (np.array([3, -(2**31), BIG]), pd.array([3, None, BIG], dtype="Int64")),
        (pd.array([3, -(2**31), None], dtype="Int32"), pd.array([3, None, None], dtype="Int64")),
        (np.array([3, -(2**31), np.nan]), np.array([3, np.nan, np.nan])),
    ],
    ids=["integers", "integers with gaps", "floats"],
)
def test_the_missing_integer_of_r_is_told_and_may_be_missing(values: Any, without: Any) -> None:
    stays, found = without_labels(pd.Series(values), ["NA"])
    assert found == {"-2147483648": 1}
    pd.testing.assert_series_equal(stays, pd.Series(values))
    gone, found = without_labels(pd.Series(values), ["-2147483648"])
    assert found == {"-2147483648": 1}
    pd.testing.assert_series_equal(gone, pd.Series(without))


@pytest.mark.parametrize("dtype", ["float16", "uint8", "uint64", "bool", "boolean", "datetime64[s]", "timedelta64[s]"])
def test_a_column_that_cannot_hold_the_missing_integer_of_r_stays(dtype: str) -> None:
    series = pd.Series([0, 1]).astype(dtype)
    stays, found = without_labels(series, ["-2147483648"])
    assert found == {}
    pd.testing.assert_series_equal(stays, series)
