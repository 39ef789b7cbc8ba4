"""H5AD files, written by any anndata since 0.5."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scvae_data.errors import InputError
from scvae_data.readers.base import DEFAULT_MAX_ELEMENTS, CsrBlock, GeneTable, Storage
from scvae_data.readers.frames import StoredFrame
from scvae_data.readers.gene_names import ID_COLUMNS, SYMBOL_COLUMNS, genes_from_var
from scvae_data.readers.hdf5 import open_file, reading
from scvae_data.readers.matrices import StoredMatrix, find_matrix
from scvae_data.system.hdf5_guard import DEFAULT_LIMITS, Limits

__all__ = ["COUNT_LAYERS", "H5adReader"]

COUNT_LAYERS = ("counts", "raw_counts", "count")
"""Layers that hold counts by their name, in order of preference."""


class H5adReader:
    """Reader of one H5AD file; see :class:`~scvae_data.readers.base.Reader`."""

    format = "h5ad"

    def __init__(self, path: Path, limits: Limits = DEFAULT_LIMITS) -> None:
        self.path = path
        self._limits = limits
        self._file: Any = None
        self._matrices: dict[str, StoredMatrix] = {}
        self._notes: list[str] = []

    def __enter__(self) -> Self:
        self._file = open_file(self.path, self._limits)
        try:
            with reading(self.path):
                self._open_tables()
                self._matrices = self._find_matrices()
                self._check_sizes()
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._matrices = {}
        self._file.close()

    @property
    def n_obs(self) -> int:
        """Number of cells."""
        return len(self._obs)

    @property
    def slots(self) -> tuple[str, ...]:
        """Matrices that may hold the counts, most likely first."""
        return tuple(self._matrices)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out."""
        return tuple(self._notes)

    @property
    def obs_columns(self) -> tuple[str, ...]:
        """Names of the columns of ``obs``."""
        return self._obs.columns

    def genes(self, slot: str) -> GeneTable:
        """Columns of ``slot``; ``raw/X`` has its own."""
        frame = self._var_of(slot)
        with reading(self.path):
            known = [name for name in (*ID_COLUMNS, *SYMBOL_COLUMNS) if name in frame.columns]
            return genes_from_var(frame.index(), {name: frame.strings(name) for name in known})

    def barcodes(self) -> NDArray[np.object_]:
        """Cell names as stored."""
        with reading(self.path):
            return self._obs.index()

    def obs(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Cell table with a RangeIndex."""
        with reading(self.path):
            return self._obs.frame(columns)

    def storage(self, slot: str) -> Storage:
        """How the matrix in ``slot`` is stored."""
        return self._matrices[slot].storage

    def blocks(self, slot: str, *, max_elements: int = DEFAULT_MAX_ELEMENTS) -> Iterator[CsrBlock]:
        """Rows of ``slot`` in order."""
        matrix = self._matrices[slot]
        with reading(self.path):
            yield from matrix.blocks(max_elements)

    def _open_tables(self) -> None:
        uns = self._file.get("uns")
        self._obs = StoredFrame(self.path, self._file["obs"], uns)
        self._var = StoredFrame(self.path, self._file["var"], uns)
        raw_var = self._file.get("raw/var", self._file.get("raw.var"))
        self._raw_var = None if raw_var is None else StoredFrame(self.path, raw_var, uns)

    def _find_matrices(self) -> dict[str, StoredMatrix]:
        nodes = {f"layers/{name}": self._file.get(f"layers/{name}") for name in COUNT_LAYERS}
        nodes["raw/X"] = self._file.get("raw/X", self._file.get("raw.X"))  # "raw.X": anndata before 0.7
        nodes["X"] = self._file.get("X")
        found = {slot: find_matrix(self.path, node) for slot, node in nodes.items() if node is not None}
        matrices = {slot: matrix for slot, matrix in found.items() if matrix is not None}
        if not matrices:
            layers = ", ".join(self._file.get("layers", {})) or "none"
            raise InputError(
                self.path,
                "no_counts",
                f"neither X nor raw.X nor a layer named {' or '.join(COUNT_LAYERS)} (layers: {layers}); leave it out",
            )
        return matrices

    def _check_sizes(self) -> None:
        for slot, matrix in list(self._matrices.items()):
            n_vars = len(self._var_of(slot))
            if matrix.shape != (self.n_obs, n_vars):
                raise InputError(
                    self.path,
                    "size_mismatch",
                    f"{slot} is {matrix.shape[0]:,} × {matrix.shape[1]:,} but there are {self.n_obs:,} cells and "
                    f"{n_vars:,} genes; write the file again",
                )

    def _var_of(self, slot: str) -> StoredFrame:
        return self._raw_var if slot == "raw/X" and self._raw_var is not None else self._var
