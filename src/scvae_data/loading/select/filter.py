"""A filter and a dataset directory in, a mask of its cells out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scvae_data.filter import Filter, mask
from scvae_data.store import DatasetIndex

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["filter_mask"]


def filter_mask(index: DatasetIndex, given: Filter) -> NDArray[np.bool_]:
    """Cells that a filter keeps, (n_obs,); a missing value equals nothing.

    Raises
    ------
    SelectionError
        If a column or a category does not exist, or a comparison makes no sense for the column.
    """
    return mask(ObsColumns(index), given)


class ObsColumns:
    """The obs columns of a directory."""

    setting, kind = "filter", "obs column"

    def __init__(self, index: DatasetIndex) -> None:
        self._index = index
        self.where = str(index.path)
        self.names = list(index.obs_columns)

    def categories(self, name: str) -> Sequence[str] | None:
        """Categories of a column, None for one of numbers or other texts."""
        return self._index.obs_columns[name].categories

    def codes(self, name: str) -> NDArray[Any]:
        """Code of the category of each cell."""
        return self._index.codes(name)

    def read(self, name: str) -> pd.Series[Any]:
        """A column of all cells."""
        return self._index.obs_reader.read([name])[name]
