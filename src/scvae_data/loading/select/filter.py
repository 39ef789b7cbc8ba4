"""A filter and a dataset directory in, a mask of the cells of each chunk out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scvae_data.filter import Filter, mask
from scvae_data.store import CellIndex

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["filter_mask"]


def filter_mask(index: CellIndex, chunk_id: int, given: Filter) -> NDArray[np.bool_]:
    """Cells of a chunk that a filter keeps, (n_obs,); a missing value equals nothing.

    Raises
    ------
    SelectionError
        If a column or a category does not exist, or a comparison makes no sense for the column.
    """
    return mask(ObsColumns(index, chunk_id), given)


class ObsColumns:
    """The obs columns of a chunk."""

    setting, kind = "filter", "obs column"

    def __init__(self, index: CellIndex, chunk_id: int) -> None:
        self._index, self._chunk_id = index, chunk_id
        self.where = index.where
        self.names, self.n_rows = list(index.obs_columns), index.chunks[chunk_id].n_obs

    def categories(self, name: str) -> Sequence[str] | None:
        """Categories of a column, None for one of numbers or other texts."""
        return self._index.obs_columns[name].categories

    def place(self, name: str) -> Mapping[str, int]:
        """Position of each category of a column."""
        return self._index.obs_columns[name].place

    def codes(self, name: str) -> NDArray[Any]:
        """Code of the category of each cell."""
        return self._index.codes(name, self._chunk_id)

    def read(self, name: str) -> pd.Series[Any]:
        """A column of the chunk's cells."""
        import pandas as pd  # here: a start of training needs none of it

        return pd.Series(self._index.cells.array(self._chunk_id, name))
