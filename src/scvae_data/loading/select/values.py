"""Row groups in, what obs says of their cells out: read chunk by chunk when it is asked for, never for all cells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scvae_data.loading.select.rows import RowGroup
from scvae_data.store import CellIndex

__all__ = ["CellValues", "FactsReader", "RowFacts"]

# Where row groups have rows of many chunks, the values of chunks are kept up to so many cells.
MOST_CELLS = 4_000_000


class CellValues:
    """Reads obs columns of the cells of row groups; safe for threads and across fork, pickled without what it keeps.

    Parameters
    ----------
    index
        The directory.
    columns
        Names of columns that hold no text, unless it is categorical.
    """

    def __init__(self, index: CellIndex, columns: Iterable[str]) -> None:
        self.index = index
        self.columns = tuple(columns)
        self._kept: dict[int, dict[str, NDArray[Any]]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": {}}

    def of(self, group: RowGroup) -> dict[str, NDArray[Any]]:
        """Category codes, or numbers in their type, of the cells of a row group, by column; (n_rows,).

        Raises
        ------
        DamagedFileError
            If they cannot be read.
        """
        pieces = list(group.pieces())
        if len(pieces) == 1:
            chunk_id, rows = pieces[0]
            return {name: values[rows] for name, values in self._read(chunk_id).items()}
        parts = [{name: values[rows] for name, values in self._kept_of(chunk_id).items()} for chunk_id, rows in pieces]
        return {name: np.concatenate([part[name] for part in parts]) for name in self.columns}

    def _kept_of(self, chunk_id: int) -> dict[str, NDArray[Any]]:
        """Values of a chunk that other row groups will ask for as well."""
        found = self._kept.get(chunk_id)
        if found is None:
            # No lock, which a fork could copy in its locked state: at worst two threads read one chunk.
            found = self._kept[chunk_id] = self._read(chunk_id)
            chunks = self.index.chunks
            while len(self._kept) > 1 and sum(chunks[kept].n_obs for kept in list(self._kept)) > MOST_CELLS:
                self._kept.pop(next(iter(self._kept)), None)
        return found

    def _read(self, chunk_id: int) -> dict[str, NDArray[Any]]:
        values = self.index.cells.arrays(chunk_id, self.columns)
        return {name: value if isinstance(value, np.ndarray) else _as_floats(value) for name, value in values.items()}


def _as_floats(values: Any) -> NDArray[np.float32]:
    """Nullable numbers, NaN where missing."""
    floats: NDArray[np.float32] = values.to_numpy(np.float32, na_value=np.nan)
    return floats


@dataclass(frozen=True, eq=False)
class RowFacts:
    """What is known of some cells beside their counts, each array in their order."""

    size_factor: NDArray[np.float64]
    gene_set: NDArray[np.int32]
    obs: Mapping[str, NDArray[np.int32] | NDArray[np.float32]]
    """Category code, or number, by obs column."""

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return self.size_factor.nbytes + self.gene_set.nbytes + sum(values.nbytes for values in self.obs.values())

    def take(self, cells: NDArray[Any] | slice) -> RowFacts:
        """The facts of some of the cells."""
        obs = {column: values[cells] for column, values in self.obs.items()}
        return RowFacts(self.size_factor[cells], self.gene_set[cells], obs)

    @classmethod
    def joined(cls, parts: Sequence[RowFacts]) -> RowFacts:
        """Facts of the cells of all parts, of which there is at least one."""
        if len(parts) == 1:
            return parts[0]
        obs = {column: np.concatenate([part.obs[column] for part in parts]) for column in parts[0].obs}
        size_factor = np.concatenate([part.size_factor for part in parts])
        return cls(size_factor, np.concatenate([part.gene_set for part in parts]), obs)

    def served(self) -> dict[str, Any]:
        """The facts under their names in a batch."""
        return {
            "size_factor": self.size_factor.astype(np.float32),
            "obs": {column: _as_served(values) for column, values in self.obs.items()},
            "gene_set": self.gene_set.astype(np.int64),
        }


class FactsReader:
    """Reads the facts of the cells of row groups; safe for threads.

    Parameters
    ----------
    index
        The directory.
    obs_keys
        obs columns that batches carry.
    """

    def __init__(self, index: CellIndex, obs_keys: Sequence[str]) -> None:
        self._columns = {name: index.obs_columns[name] for name in obs_keys}
        self._cells = CellValues(index, dict.fromkeys(("size_factor", "gene_set", *obs_keys)))

    def of(self, group: RowGroup) -> RowFacts:
        """Facts of the cells of a row group.

        Raises
        ------
        DamagedFileError
            If they cannot be read.
        """
        values = self._cells.of(group)
        obs: dict[str, Any] = {
            name: values[name].astype(np.float32 if column.categories is None else np.int32)
            for name, column in self._columns.items()
        }
        return RowFacts(values["size_factor"].astype(np.float64), values["gene_set"].astype(np.int32), obs)


def _as_served(values: NDArray[Any]) -> NDArray[Any]:
    """Category codes as int64, numbers as they are."""
    return values.astype(np.int64) if values.dtype.kind == "i" else values
