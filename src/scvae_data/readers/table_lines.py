"""Lines of a table that names cells in; their fields, the names, and what stands behind these, out."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["Row", "Strings", "columns_behind", "fields_of", "first_column", "is_running_number"]

Strings = NDArray[np.object_]
Row = list[str]


def first_column(path: Path, lines: Sequence[str]) -> Strings:
    """Names of cells: the first column, but for a running number; commas separate columns in a .csv alone."""
    rows = rows_of_cells(path, lines)
    first = names_at(rows)
    return np.array([row[first] for row in rows], dtype=object)


def columns_behind(path: Path, header: str, lines: Sequence[str]) -> dict[str, Strings]:
    """What a table with a header says of cells behind their names; nothing if its columns have not names each."""
    rows, (names,) = rows_of_cells(path, lines), rows_of_cells(path, [header])
    first = names_at(rows)
    named = [(at, name) for at, name in enumerate(names) if at > first and name]
    if len(dict.fromkeys(names)) < len(names) or max(map(len, rows), default=0) > len(names):
        return {}
    # Fields that are empty at the end of a line are not there.
    return {name: np.array([row[at] if at < len(row) else "" for row in rows], dtype=object) for at, name in named}


def rows_of_cells(path: Path, lines: Sequence[str]) -> list[Row]:
    """Fields of each line of a table of cells."""
    separator = "," if ".csv" in path.suffixes else "\t"
    return [fields_of(line, separator) for line in lines]


def names_at(rows: Sequence[Row]) -> int:
    """Which column of a table of cells names them: the first, but for a running number."""
    return 1 if min(map(len, rows), default=1) > 1 and is_running_number([row[0] for row in rows]) else 0


def fields_of(line: str, separator: str) -> Row:
    """Fields of a line, without quotes, blanks around them and empty ones at the end."""
    if not separator:
        fields = [line]
    elif '"' in line:
        fields = next(csv.reader([line], delimiter=separator, skipinitialspace=True))
    else:
        fields = line.split(separator)
    fields = [field.strip().strip("\"'").strip() for field in fields]
    while len(fields) > 1 and not fields[-1]:
        fields.pop()
    return fields


def is_running_number(values: Sequence[str]) -> bool:
    """Whether values are only 0, 1, 2, … or 1, 2, 3, …, as table writers put first."""
    if not values or values[0] not in ("0", "1"):
        return False
    first = int(values[0])
    return list(values) == [str(number) for number in range(first, first + len(values))]
