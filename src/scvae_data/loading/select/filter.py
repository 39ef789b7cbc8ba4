"""A filter in, a mask of cells out: what the loader understands of ``obs`` columns.

A filter is a mapping of columns to the values to keep, or a text such as
``cell_type == "T cell" and total_counts > 1000 and donor not in ["d1", "d2"]``.
The text is parsed and never run: it knows column names, numbers, texts, lists
of them, comparisons, ``in``, ``and``, ``or``, ``not`` and brackets, nothing else.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scvae_data.errors import ConfigError, SelectionError
from scvae_data.store import DatasetIndex

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CellFilter", "Filter", "check_filter"]

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


def check_filter(given: Filter | None) -> Filter | None:
    """Check what can be checked without a directory; a text is parsed.

    Raises
    ------
    ConfigError
        If it is no filter.
    """
    if given is None:
        return None
    if isinstance(given, str):
        _parse(given)
        return given
    if not isinstance(given, Mapping) or not given:
        raise ConfigError(f"filter={given!r} must map obs columns to values to keep, or be a text, {SYNTAX}")
    return {str(column): as_list(values) for column, values in given.items()}


class CellFilter:
    """A filter on a directory, chunk by chunk; a missing value equals nothing.

    Parameters
    ----------
    index
        The directory.
    given
        As of :func:`check_filter`.
    """

    def __init__(self, index: DatasetIndex, given: Filter) -> None:
        self._index = index
        self._given = _parse(given) if isinstance(given, str) else given

    def mask(self, chunk_id: int) -> NDArray[np.bool_]:
        """Cells of a chunk that are kept, (n_obs,).

        Raises
        ------
        SelectionError
            If a column or a category does not exist, or a comparison makes no sense for the column.
        """
        evaluator = _Evaluator(self._index, chunk_id)
        if isinstance(self._given, ast.expr):
            return evaluator.mask(self._given)
        masks = [evaluator.members(column, as_list(values)) for column, values in self._given.items()]
        every: NDArray[np.bool_] = np.logical_and.reduce(masks)
        return every


def as_list(values: Any) -> list[Any]:
    """One value or a sequence of them, as a list."""
    return list(values) if isinstance(values, Sequence) and not isinstance(values, str) else [values]


def _parse(text: str) -> ast.expr:
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ConfigError(f"filter={text!r} cannot be read; write {SYNTAX}") from None


class _Evaluator:
    """Masks of the parts of an expression, each over the cells of a chunk."""

    def __init__(self, index: DatasetIndex, chunk_id: int) -> None:
        self._index = index
        self._chunk_id = chunk_id

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
        """Cells whose value is one of ``values``; all must exist if the column is categorical."""
        categories = self._categories(column)
        if categories is None:
            found: NDArray[np.bool_] = self._numbers(column, values).isin(values).to_numpy()
            return found
        wanted, place = [str(value) for value in values], self._index.obs_columns[column].place
        if missing := [value for value in wanted if value not in place]:
            close = get_close_matches(missing[0], categories, n=3)
            hint = f"did you mean {', '.join(close)}?" if close else f"it has {', '.join(categories[:5])}"
            raise SelectionError(f"filter: {column} has no value {missing[0]!r}; {hint}")
        chosen = np.zeros(len(categories) + 1, np.bool_)
        chosen[[place[value] for value in wanted]] = True
        return chosen[self._index.codes(column, self._chunk_id)]

    def _compare(self, left: ast.expr, how: ast.cmpop, right: ast.expr) -> NDArray[np.bool_]:
        if not isinstance(left, ast.Name) and isinstance(right, ast.Name) and not isinstance(how, ast.In | ast.NotIn):
            left, right, how = right, left, SWAPPED.get(type(how), type(how))()
        if not isinstance(left, ast.Name):
            raise self._unknown(left)
        column, value = left.id, self._constant(right)
        known = self._known(column)
        if isinstance(how, ast.In | ast.NotIn | ast.Eq | ast.NotEq):
            found = self.members(column, as_list(value))
            return found if isinstance(how, ast.In | ast.Eq) else ~found & known
        if type(how) not in COMPARE:
            raise self._unknown(right)
        if self._categories(column) is not None:
            raise SelectionError(f"filter: {column} is categorical; compare it with ==, != or in")
        compared: NDArray[np.bool_] = COMPARE[type(how)](self._numbers(column, [value]), value).to_numpy(dtype=bool)
        return compared & known

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

    def _categories(self, column: str) -> tuple[str, ...] | None:
        columns = self._index.obs_columns
        if column not in columns:
            close = get_close_matches(column, columns, n=3)
            hint = f"did you mean {', '.join(close)}?" if close else f"it has {', '.join(list(columns)[:5])}"
            raise SelectionError(f"filter: no obs column {column!r} in {self._index.path}; {hint}")
        return columns[column].categories

    def _known(self, column: str) -> NDArray[np.bool_]:
        """Cells whose value is not missing."""
        categories = self._categories(column)
        if categories is not None:
            return self._index.codes(column, self._chunk_id) < len(categories)
        return self._column(column).notna().to_numpy()

    def _numbers(self, column: str, values: list[Any]) -> pd.Series[Any]:
        """A column that may be compared with ``values``."""
        import pandas as pd  # here: a start of training needs none of it

        cells = self._column(column)
        texts = [value for value in values if isinstance(value, str)]
        if pd.api.types.is_numeric_dtype(cells) and texts:
            raise SelectionError(f"filter: {column} holds numbers and is compared with {texts[0]!r}")
        if not pd.api.types.is_numeric_dtype(cells) and len(texts) < len(values):
            raise SelectionError(f"filter: {column} holds texts; put quotes around the value")
        return cells

    def _column(self, column: str) -> pd.Series[Any]:
        import pandas as pd  # here: a start of training needs none of it

        return pd.Series(self._index.cells.array(self._chunk_id, column))

    @staticmethod
    def _unknown(node: ast.expr) -> ConfigError:
        return ConfigError(f"filter: {ast.unparse(node)!r} is not understood; write {SYNTAX}")
