"""A filter and a table in, a mask of its rows out: of cells by their ``obs``, or of experiments before they are read.

A filter is a mapping of columns to the values to keep, or a text such as
``cell_type == "T cell" and total_counts > 1000 and donor not in ["d1", "d2"]``.
The text is parsed and never run: it knows column names, numbers, texts, lists
of them, comparisons, ``in``, ``and``, ``or``, ``not`` and brackets, nothing else.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from scvae_data.errors import ConfigError, SelectionError
from scvae_data.wording import did_you_mean, named, similar

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Columns", "Filter", "as_list", "check_filter", "columns_in", "mask"]

Filter = str | Mapping[str, Any]
COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
SWAPPED: dict[type[ast.cmpop], type[ast.cmpop]] = {ast.Lt: ast.Gt, ast.LtE: ast.GtE, ast.Gt: ast.Lt, ast.GtE: ast.LtE}
SYNTAX = 'e.g. cell_type == "T cell" and total_counts > 1000 and donor in ["d1", "d2"]'


class Columns(Protocol):
    """The table that a filter is about.

    Parameters
    ----------
    setting, kind, where
        What the filter is called, what its columns are and where the table is, for errors.
    """

    @property
    def setting(self) -> str: ...  # noqa: D102

    @property
    def kind(self) -> str: ...  # noqa: D102

    @property
    def where(self) -> str: ...  # noqa: D102

    @property
    def names(self) -> Sequence[str]:
        """Names of the columns."""

    @property
    def n_rows(self) -> int:
        """Number of the rows."""

    def categories(self, name: str) -> Sequence[str] | None:
        """Return the distinct values of a column of categories, else None."""

    def place(self, name: str) -> Mapping[str, int]:
        """Return the position of each category of a column."""

    def codes(self, name: str) -> NDArray[Any]:
        """Return the position of each row's category; their number where it is missing."""

    def read(self, name: str) -> pd.Series[Any]:
        """Return a column that is none of categories."""


def check_filter(given: Filter | None, setting: str = "filter") -> Filter | None:
    """Check what can be checked without a table; a text is parsed.

    Raises
    ------
    ConfigError
        If it is no filter.
    """
    if given is None:
        return None
    if isinstance(given, str):
        _parse(given, setting)
        return given
    if not isinstance(given, Mapping) or not given:
        raise ConfigError(f"{setting}={given!r} must map obs columns to values to keep, or be a text, {SYNTAX}")
    return {str(column): as_list(values) for column, values in given.items()}


def mask(columns: Columns, given: Filter, *, judged: bool = False) -> NDArray[np.bool_]:
    """Rows that a filter keeps, one value a row; a missing value equals nothing.

    Parameters
    ----------
    judged
        The table is a part of one that has all columns and values of the filter: those that it lacks are of no row.

    Raises
    ------
    SelectionError
        If a column or a category does not exist, or a comparison makes no sense for the column.
    """
    evaluator = _Evaluator(columns, judged)
    if isinstance(given, str):
        return evaluator.mask(_parse(given, columns.setting))
    masks = [evaluator.members(column, as_list(values)) for column, values in given.items()]
    every: NDArray[np.bool_] = np.logical_and.reduce(masks)
    return every


def columns_in(text: str, setting: str = "filter") -> tuple[str, ...]:
    """Columns that a text names, each once, in its order.

    Examples
    --------
    >>> columns_in("donor == 'd1' and (age > 40 or donor == 'd2')")
    ('donor', 'age')
    """
    names = [node for node in ast.walk(_parse(text, setting)) if isinstance(node, ast.Name)]
    return tuple(dict.fromkeys(node.id for node in sorted(names, key=lambda node: (node.lineno, node.col_offset))))


def as_list(values: Any) -> list[Any]:
    """One value or a sequence of them, as a list."""
    return list(values) if isinstance(values, Sequence) and not isinstance(values, str) else [values]


def _parse(text: str, setting: str) -> ast.expr:
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ConfigError(f"{setting}={text!r} cannot be read; write {SYNTAX}") from None


class _Evaluator:
    """Masks of the parts of an expression, each over all rows."""

    def __init__(self, columns: Columns, judged: bool) -> None:
        self._columns, self._judged = columns, judged

    def mask(self, node: ast.expr) -> NDArray[np.bool_]:
        if isinstance(node, ast.BoolOp):
            combine = np.logical_and if isinstance(node.op, ast.And) else np.logical_or
            return combine.reduce([self.mask(value) for value in node.values])  # type: ignore[no-any-return]
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return ~self.mask(node.operand)
        if isinstance(node, ast.Compare):
            steps = zip([node.left, *node.comparators], node.ops, node.comparators, strict=False)
            return np.logical_and.reduce([self._compare(*step) for step in steps])  # type: ignore[no-any-return]
        raise self._unknown(node)

    def members(self, column: str, values: list[Any]) -> NDArray[np.bool_]:
        """Rows whose value is one of ``values``; all must exist if the column is categorical, unless it is a part."""
        categories = self._categories(column)
        if categories is None:
            found: NDArray[np.bool_] = self._numbers(column, values).isin(values).to_numpy(dtype=bool)
            return found
        wanted, place = [str(value) for value in values], self._columns.place(column)
        missing = [value for value in wanted if value not in place]
        if missing and not self._judged:
            hint = did_you_mean(similar(missing[0], categories), f"it has {named(categories)}")
            raise SelectionError(f"{self._columns.setting}: {column} has no value {missing[0]!r}; {hint}")
        chosen = np.zeros(len(categories) + 1, np.bool_)
        chosen[[place[value] for value in wanted if value in place]] = True
        kept: NDArray[np.bool_] = chosen[self._columns.codes(column)]
        return kept

    def _compare(self, left: ast.expr, how: ast.cmpop, right: ast.expr) -> NDArray[np.bool_]:
        if not isinstance(left, ast.Name) and isinstance(right, ast.Name) and not isinstance(how, ast.In | ast.NotIn):
            left, right, how = right, left, SWAPPED.get(type(how), type(how))()
        if not isinstance(left, ast.Name):
            raise self._unknown(left)
        column, value = left.id, self._constant(right)
        if self._judged and column not in self._columns.names:
            return np.zeros(self._columns.n_rows, np.bool_)
        known = self._known(column)
        if isinstance(how, ast.In | ast.NotIn | ast.Eq | ast.NotEq):
            found = self.members(column, as_list(value))
            return found if isinstance(how, ast.In | ast.Eq) else ~found & known
        if type(how) not in COMPARE:
            raise self._unknown(right)
        if self._categories(column) is not None:
            raise SelectionError(f"{self._columns.setting}: {column} is categorical; compare it with ==, != or in")
        # Whole numbers with gaps compare to neither true nor false there.
        compared = COMPARE[type(how)](self._numbers(column, [value]), value).fillna(False)
        return np.asarray(compared.to_numpy(dtype=bool) & known)

    def _constant(self, node: ast.expr) -> Any:
        if isinstance(node, ast.List | ast.Tuple):
            return [self._constant(item) for item in node.elts]
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            inner = self._constant(node.operand)
            if isinstance(inner, int | float):
                return -inner
        if isinstance(node, ast.Constant) and isinstance(node.value, str | int | float | bool):
            return node.value
        raise self._unknown(node)

    def _categories(self, column: str) -> Sequence[str] | None:
        columns = self._columns
        if column not in columns.names:
            hint = did_you_mean(similar(column, columns.names), f"it has {named(columns.names)}")
            raise SelectionError(f"{columns.setting}: no {columns.kind} {column!r} in {columns.where}; {hint}")
        return columns.categories(column)

    def _known(self, column: str) -> NDArray[np.bool_]:
        """Rows whose value is not missing."""
        categories = self._categories(column)
        if categories is not None:
            return self._columns.codes(column) < len(categories)
        return self._columns.read(column).notna().to_numpy()

    def _numbers(self, column: str, values: list[Any]) -> pd.Series[Any]:
        """A column that may be compared with ``values``."""
        import pandas as pd  # here: a start of training needs none of it

        cells = self._columns.read(column)
        texts = [value for value in values if isinstance(value, str)]
        if pd.api.types.is_numeric_dtype(cells) and texts:
            raise SelectionError(f"{self._columns.setting}: {column} holds numbers and is compared with {texts[0]!r}")
        if not pd.api.types.is_numeric_dtype(cells) and len(texts) < len(values):
            raise SelectionError(f"{self._columns.setting}: {column} holds texts; put quotes around the value")
        return cells

    def _unknown(self, node: ast.expr) -> ConfigError:
        return ConfigError(f"{self._columns.setting}: {ast.unparse(node)!r} is not understood; write {SYNTAX}")
