"""What every reader hands on: rows of counts, gene names and cell tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, Self, TypedDict, runtime_checkable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scvae_data.system.hdf5_guard import Limits

__all__ = [
    "DEFAULT_MAX_ELEMENTS",
    "CsrBlock",
    "GeneTable",
    "LayeredReader",
    "Layout",
    "Reader",
    "ReaderClass",
    "Sample",
    "Storage",
    "row_spans",
]

Layout = Literal["csr", "csc", "dense", "coo"]
DEFAULT_MAX_ELEMENTS = 4_000_000
"""Stored elements in one block unless told otherwise: 48 MB as int64 indices and float32 values."""


class Storage(TypedDict):
    """How a matrix lies in its file."""

    layout: Layout
    dtype: str
    nnz: int | None


@dataclass(frozen=True, eq=False)
class GeneTable:
    """The columns of one matrix, in file order; each array has shape (n_vars,) and holds ``str``.

    A gene without an entry in ``ids`` or ``symbols`` has ``""`` there. A table equals itself alone.
    """

    names: NDArray[np.object_]
    """Names as stored; duplicates are possible. 10x files: the id."""
    ids: NDArray[np.object_] | None
    """Accession-like ids, mostly Ensembl, as stored (with version); None if the file has none."""
    symbols: NDArray[np.object_] | None
    """Gene symbols, or None if the file has none."""

    @property
    def n_vars(self) -> int:
        """Number of columns."""
        return len(self.names)


@dataclass(frozen=True)
class CsrBlock:
    """Consecutive rows of one matrix in compressed-row form.

    Explicit zeros may occur, and a row's indices may be unsorted, because
    files hold both.
    """

    first_row: int
    """Row of the matrix that is row 0 here."""
    indptr: NDArray[np.int64]
    """Row borders, shape (n_rows + 1,), starting at 0."""
    indices: NDArray[Any]
    """Columns, any integer dtype, shape (nnz,); every one below ``n_vars``."""
    data: NDArray[Any]
    """Values in a real numeric dtype, shape (nnz,); not checked."""
    n_vars: int
    """Columns of the matrix."""

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return len(self.indptr) - 1


class ReaderClass(Protocol):
    """A format of the user's own: what ``input.readers`` names by its import path."""

    def __call__(self, path: Path, limits: Limits) -> Reader:
        """Make the reader of a file or folder; it is opened on entry."""

    def recognises(self, path: Path) -> bool:
        """Whether a file or folder is of the format: by its content, quickly, without raising."""


class Reader(Protocol):
    """One input file, read in row blocks; a context manager that opens on entry.

    Before entry only ``path`` and ``format`` are set and the reader can be
    pickled; everything else needs the open file. Raises
    :class:`~scvae_data.errors.InputError` for whatever is wrong with the file.
    """

    @property
    def path(self) -> Path:
        """The file, or the folder of a 10x matrix."""

    @property
    def format(self) -> str:
        """``"h5ad"``, ``"10x_h5_v2"``, ``"10x_h5_v3"``, ``"10x_mtx"``, or a name of the reader's own."""

    @property
    def n_obs(self) -> int:
        """Number of cells."""

    @property
    def slots(self) -> tuple[str, ...]:
        """Matrices that may hold the counts, most likely first, e.g. ``("layers/counts", "raw/X", "X")``."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out or joined, e.g. ``"dropped 10 features of type Antibody Capture"``."""

    @property
    def obs_columns(self) -> tuple[str, ...]:
        """Names of the columns of :meth:`obs`, in file order."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def genes(self, slot: str) -> GeneTable:
        """Columns of the matrix in ``slot``."""

    def barcodes(self) -> NDArray[np.object_]:
        """Cell names as stored, ``str``, shape (n_obs,); duplicates are possible."""

    def obs(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Cell table with a RangeIndex; all columns, or the named ones in that order."""

    def storage(self, slot: str) -> Storage:
        """How the matrix in ``slot`` is stored."""

    def blocks(self, slot: str, *, max_elements: int = DEFAULT_MAX_ELEMENTS) -> Iterator[CsrBlock]:
        """Rows in order, every row exactly once, at most ``max_elements`` stored elements a block.

        A single row with more elements is a block of its own. For dense
        storage rows × columns counts.
        """


@dataclass(frozen=True)
class Sample:
    """Some of the values that a matrix stores."""

    values: NDArray[Any]
    """From the beginning, the middle and the end; all where there are few."""
    n_stored: int
    """How many there are in all."""

    @property
    def is_whole(self) -> bool:
        """Whether these are all values."""
        return len(self.values) == self.n_stored

    @property
    def total(self) -> float:
        """Sum of all values, estimated unless the sample is whole."""
        return float(self.values.sum(dtype=np.float64)) * self.n_stored / max(len(self.values), 1)


@runtime_checkable
class LayeredReader(Protocol):
    """What a reader has besides those of `Reader` if its files hold several matrices of the same cells."""

    @property
    def others(self) -> tuple[str, ...]:
        """Matrices that may be named, but are no counts of all molecules by their names, e.g. ``"layers/spliced"``."""

    def find_slot(self, name: str) -> str:
        """The slot that ``input.counts`` names, a matrix or a sum of layers; refused if there is none."""

    def notes_of(self, slot: str) -> tuple[str, ...]:
        """What of a matrix is left out."""

    def sample(self, slot: str) -> Sample:
        """Look at a matrix without reading it."""


def row_spans(indptr: NDArray[np.int64], max_elements: int) -> Iterator[tuple[int, int]]:
    """Cut rows into spans of at most ``max_elements`` elements and as many rows, at least one row each.

    Rows are bounded too, because unfiltered files hold millions of empty ones.

    >>> list(row_spans(np.array([0, 2, 4, 9, 9]), 4))
    [(0, 2), (2, 3), (3, 4)]
    """
    n_rows = len(indptr) - 1
    start = 0
    while start < n_rows:
        stop = int(np.searchsorted(indptr, indptr[start] + max_elements, side="right")) - 1
        stop = min(max(stop, start + 1), start + max(max_elements, 1), n_rows)
        yield start, stop
        start = stop
