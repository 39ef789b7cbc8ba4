"""A column of one file in; its kind, and its values as Arrow or as numbers, out."""

from __future__ import annotations

from collections.abc import Collection
from numbers import Number
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from scvae_data.errors import InputError
from scvae_data.processing.labels import EXACT, R_MISSING, WRITTEN_MISSING, label, number
from scvae_data.processing.sort.obs_schema import ARROW, is_text

__all__ = ["kind_of", "numbers", "to_arrow", "without_labels"]


def kind_of(series: pd.Series) -> str:
    """Return the kind of a file's column; ``?`` marks missing values.

    It is bool, int, long (whole numbers, some too large for a float), float,
    string, label (text that was made of numbers: categories, whole numbers
    beyond 64 bits), or none without a value.
    """
    if series.isna().all():
        return "none?"
    categorical = isinstance(series.dtype, pd.CategoricalDtype)
    values = pd.Series(series.cat.categories) if categorical else series
    missing = "?" if series.isna().any() else ""
    if pd.api.types.is_bool_dtype(values):
        return "bool" + missing
    if pd.api.types.is_object_dtype(values):
        return kind_of_objects(values) + missing
    if categorical and pd.api.types.is_numeric_dtype(values):
        return "label" + missing
    if pd.api.types.is_integer_dtype(values):
        return kind_of_integers(int(values.min()), int(values.max())) + missing
    if pd.api.types.is_float_dtype(values):
        return "float"
    return "string" + missing


def kind_of_objects(values: pd.Series) -> str:
    """Return the kind of a column of Python objects."""
    types = {type(value) for value in values.dropna().unique()}
    if types <= {bool, np.bool_}:
        return "bool"
    return "label" if any(issubclass(one, bool | np.bool_ | Number) for one in types) else "string"


def kind_of_integers(least: int, largest: int) -> str:
    """Return the kind of whole numbers in a range."""
    if largest > np.iinfo(np.int64).max:
        return "label"
    return "int" if max(-least, largest) <= EXACT else "long"


def to_arrow(series: pd.Series, kind: str) -> pa.Array:
    """Return a column as an Arrow array of its kind; missing values become null."""
    if kind == "none":
        return pa.nulls(len(series), pa.float64())
    if is_text(kind):
        codes, distinct = pd.factorize(series)
        names = pa.array([label(value) for value in distinct], pa.string())
        return names.take(pa.array(codes, mask=codes < 0))
    if kind == "bool":
        missing = series.isna().to_numpy()
        return pa.array(np.where(missing, False, series.to_numpy(object)).astype(bool), mask=missing)
    if kind == "float":
        single = series.dtype in ("float32", "Float32")
        return pa.array(series if single else series.astype("float64"), from_pandas=True)
    return pa.array(series, ARROW[kind], from_pandas=True)


def numbers(series: pd.Series, path: str, name: str, first_row: int = 0) -> pd.Series:
    """Return a column as numbers: integers where all are written so; text is parsed, ``""`` is missing.

    Parameters
    ----------
    path, name, first_row
        The column's file and name, and the number of its first row there, for errors.

    Raises
    ------
    InputError
        Names the first cell that is no number, or that could not stay exact beside the others.
    """
    if kind_of(series).rstrip("?") in ("int", "long", "float", "none"):
        return series
    codes, distinct = pd.factorize(series)
    values = [read_number(value) for value in distinct]
    whole = all(value is None or isinstance(value, int) for value in values)
    for place, value in enumerate(values):
        if isinstance(value, str) or (not whole and isinstance(value, int) and abs(value) > EXACT):
            why = value if isinstance(value, str) else f"{value} cannot stay exact beside fractions"
            row = first_row + int(np.flatnonzero(codes == place)[0])
            raise InputError(
                path, "not_a_number",
                f"obs column {name}, row {row}: {why}; correct it, or leave {name} "
                "out of input.numeric_columns",
            )  # fmt: skip
    table = pd.Series([*values, None], dtype="Int64" if whole else "Float64")
    return table.take(codes % len(table)).reset_index(drop=True)  # a missing value has the code -1


def without_labels(series: pd.Series, missing: Collection[str]) -> tuple[pd.Series, dict[str, int]]:
    """Return a column without the texts that mean a missing value, and how many cells have which of such texts.

    Parameters
    ----------
    missing
        The texts that mean one; of numbers `R_MISSING` alone may. Those of `WRITTEN_MISSING` are counted, too, and
        stay.
    """
    looked_for = {*WRITTEN_MISSING, *missing}
    if isinstance(series.dtype, pd.CategoricalDtype):
        names = [name for name in series.cat.categories if isinstance(name, str) and name in looked_for]
    elif pd.api.types.is_object_dtype(series) or isinstance(series.dtype, pd.StringDtype):
        names = [name for name in series[series.isin(looked_for)].unique() if isinstance(name, str)]
    else:
        return without_r_missing(series, missing)
    counts = {name: int((series == name).sum()) for name in names}
    if gone := [name for name in names if name in missing]:
        series = series.mask(series.isin(gone))
        if isinstance(series.dtype, pd.CategoricalDtype):
            series = series.cat.remove_categories(gone)
    return series, {name: n for name, n in counts.items() if n}


def without_r_missing(series: pd.Series, missing: Collection[str]) -> tuple[pd.Series, dict[str, int]]:
    """Return what `without_labels` does, of a column of numbers."""
    found = series == np.int64(R_MISSING)  # which float16, that cannot hold it, is compared with as float64
    if not found.any():
        return series, {}
    name = label(R_MISSING)
    if name in missing:
        series = (series.astype("Int64") if pd.api.types.is_integer_dtype(series) else series).mask(found)
    return series, {name: int(found.sum())}


def read_number(value: Any) -> int | float | str | None:
    """Return the number that a value spells, None for an empty text, or what is wrong with it."""
    text = label(value).strip()
    try:
        return number(text) if text else None
    except ValueError as error:
        return str(error)
