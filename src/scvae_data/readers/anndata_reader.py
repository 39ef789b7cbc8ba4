"""AnnData objects: H5AD files of any anndata since 0.5, the RNA of MuData, Zarr stores, and loom files, read alike."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scvae_data.errors import InputError
from scvae_data.readers.base import DEFAULT_MAX_ELEMENTS, CsrBlock, GeneTable, Sample, Storage
from scvae_data.readers.features import FeatureFilter, keep_gene_expression, says_types, tell_kinds_apart
from scvae_data.readers.frames import StoredFrame
from scvae_data.readers.gene_names import are_numbers, genes_from_var, may_name_genes
from scvae_data.readers.hdf5 import reading
from scvae_data.readers.matrices import StoredMatrix, find_matrix
from scvae_data.readers.sums import added, named_slot, parts_of
from scvae_data.readers.trees import COUNT_LAYERS, Tree, TreeFormat, open_tree
from scvae_data.system.hdf5_guard import DEFAULT_LIMITS, Limits

__all__ = ["AnnDataReader"]

Strings = NDArray[np.object_]

TYPE_COLUMN = re.compile(r"(feature[._ ]?types?|gbm|modality|type)([-._].*)?", re.IGNORECASE)
"""Columns that tell genes from other features, with what anndata adds to their names where it joins files."""

MISSING = ("nan", "NaN", "None", "NA", "<NA>")
"""How missing values are spelt where they became text."""


class AnnDataReader:
    """Reader of one AnnData object, or what is laid out alike; see :class:`~scvae_data.readers.base.Reader`.

    Parameters
    ----------
    path
        The file, or the folder of a Zarr store.
    format
        What holds the object.
    limits
        What it may ask for.
    """

    def __init__(self, path: Path, format: TreeFormat = "h5ad", limits: Limits = DEFAULT_LIMITS) -> None:
        self.path = path
        self.format = format
        self._limits = limits
        self._tree: Tree
        self._matrices: dict[str, StoredMatrix] = {}
        self._features: dict[StoredFrame, GeneTable] = {}
        self._filters: dict[StoredFrame, FeatureFilter] = {}

    def __enter__(self) -> Self:
        self._tree = open_tree(self.path, self.format, self._limits)
        try:
            with reading(self.path):
                self._matrices = self._find_matrices()
                self._check_sizes()
        except BaseException:
            self._tree.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._matrices = {}
        self._features, self._filters = {}, {}
        self._tree.close()

    @property
    def n_obs(self) -> int:
        """Number of cells."""
        return len(self._tree.obs)

    @property
    def slots(self) -> tuple[str, ...]:
        """Matrices that may hold the counts, most likely first; refused where all are layers of other names."""
        others = self.others
        if len(others) == len(self._matrices):
            remedy = "leave it out"
            if others:
                remedy = "say with input.counts=layers/NAME or sum:NAME+NAME if one is meant"
            raise InputError(
                self.path,
                "no_counts",
                f"neither X nor raw.X nor a layer named {' or '.join(COUNT_LAYERS)} (layers: "
                f"{', '.join(name.removeprefix('layers/') for name in others) or 'none'}); {remedy}",
            )
        return tuple(slot for slot in self._matrices if slot not in others)

    @property
    def others(self) -> tuple[str, ...]:
        """Layers that are no counts by their name."""
        usual = {f"layers/{name}" for name in COUNT_LAYERS}
        return tuple(slot for slot in self._matrices if slot.startswith("layers/") and slot not in usual)

    @property
    def notes(self) -> tuple[str, ...]:
        """What is left out of the file and of its first matrix."""
        return self.notes_of(self.slots[0])

    def notes_of(self, slot: str) -> tuple[str, ...]:
        """What is left out of the file and of a matrix."""
        return (*self._tree.notes, *self._filter_of(slot).notes)

    @property
    def obs_columns(self) -> tuple[str, ...]:
        """Names of the columns of ``obs``."""
        return self._tree.obs.columns

    def genes(self, slot: str) -> GeneTable:
        """Columns of ``slot`` that are genes; ``raw/X`` has its own."""
        return self._filter_of(slot).genes(self._features_of(slot))

    def barcodes(self) -> NDArray[np.object_]:
        """Cell names as stored."""
        with reading(self.path):
            return self._tree.obs.index()

    def obs(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Cell table with a RangeIndex."""
        with reading(self.path):
            return self._tree.obs.frame(columns)

    def storage(self, slot: str) -> Storage:
        """How the matrix in ``slot`` is stored."""
        parts = [self._matrices[name].storage for name in parts_of(slot)]
        if len(parts) == 1:
            return parts[0]
        sizes = [part["nnz"] for part in parts]
        nnz = None if None in sizes else sum(size or 0 for size in sizes)
        return Storage(layout=max(part["layout"] for part in parts), dtype="float64", nnz=nnz)

    def sample(self, slot: str) -> Sample:
        """Some of the values that a matrix stores."""
        with reading(self.path):
            return self._matrices[slot].sample()

    def find_slot(self, name: str) -> str:
        """The slot that ``X``, ``raw``, ``layers/NAME`` or ``sum:NAME+NAME`` names."""
        return named_slot(self.path, name, list(self._matrices))

    def blocks(self, slot: str, *, max_elements: int = DEFAULT_MAX_ELEMENTS) -> Iterator[CsrBlock]:
        """Rows of ``slot`` in order."""
        names = parts_of(slot)
        with reading(self.path):
            parts = {name: self._matrices[name].blocks(max(max_elements // len(names), 1)) for name in names}
            for block in added(self.path, parts) if len(parts) > 1 else parts[slot]:
                yield self._filter_of(slot).apply(block)

    def _find_matrices(self) -> dict[str, StoredMatrix]:
        found = {}
        for slot, node in self._tree.nodes.items():
            usual = slot in ("X", "raw/X") or slot.removeprefix("layers/") in COUNT_LAYERS
            with nullcontext() if usual else suppress(InputError):  # another layer may be no matrix of numbers
                found[slot] = find_matrix(self.path, node)
        return {slot: matrix for slot, matrix in found.items() if matrix is not None}

    def _check_sizes(self) -> None:
        for slot, matrix in list(self._matrices.items()):
            n_vars = len(self._var_of(slot))
            if matrix.shape != (self.n_obs, n_vars) and slot in self.others:
                del self._matrices[slot]
            elif matrix.shape != (self.n_obs, n_vars):
                raise InputError(
                    self.path,
                    "size_mismatch",
                    f"{slot} is {matrix.shape[0]:,} × {matrix.shape[1]:,} but there are {self.n_obs:,} cells and "
                    f"{n_vars:,} genes; write the file again",
                )

    def _features_of(self, slot: str) -> GeneTable:
        frame = self._var_of(slot)
        if frame not in self._features:
            with reading(self.path):
                index = frame.index()
                numbered = are_numbers(index)
                wanted = [name for name in frame.columns if may_name_genes(name) or (numbered and frame.is_text(name))]
                self._features[frame] = genes_from_var(index, {name: frame.strings(name) for name in wanted})
        return self._features[frame]

    def _filter_of(self, slot: str) -> FeatureFilter:
        """Which columns of ``slot`` are genes; ``var`` and ``raw/var`` share one table of types by the names."""
        frame = self._var_of(slot)
        if frame not in self._filters:
            types = self._types_of(frame)
            # Where each has a type the names, which take long to read, decide nothing.
            names, symbols = self._names_of(slot) if types is None or (types == "").any() else (types, None)
            self._filters[frame] = keep_gene_expression(self.path, types, names, symbols)
        return self._filters[frame]

    def _names_of(self, slot: str) -> tuple[Strings, Strings | None]:
        """Id, or else name, of each feature, and its symbol."""
        table = self._features_of(slot)
        ids = table.names if table.ids is None else np.where(table.ids == "", table.names, table.ids)
        return ids, table.symbols

    def _types_of(self, frame: StoredFrame) -> Strings | None:
        with reading(self.path):
            if (types := stored_types(frame)) is not None:
                return types
            other = self._tree.var if frame is self._tree.raw_var else self._tree.raw_var
            if other is None or (types := stored_types(other)) is None:
                return None
            type_of = dict(zip(other.index(), types, strict=True))
            return np.array([type_of.get(name, "") for name in frame.index()], dtype=object)

    def _var_of(self, slot: str) -> StoredFrame:
        return self._tree.raw_var if slot == "raw/X" and self._tree.raw_var is not None else self._tree.var


def stored_types(frame: StoredFrame) -> Strings | None:
    """Type of each feature, the first that any column of types gives it; None where no column says any."""
    types: Strings | None = None
    for name in frame.columns:
        match = TYPE_COLUMN.fullmatch(name)
        if not match and (may_name_genes(name) or not frame.is_text(name)):
            continue
        values = frame.strings(name)
        values[pd.Index(values, dtype=object).isin(MISSING)] = ""
        # Only by its values: a column of these names, or of another one, may hold anything.
        if not match and not tell_kinds_apart(values):
            continue
        if match and match[1].lower() in ("type", "modality", "gbm") and not says_types(values):
            continue
        types = values if types is None else np.where(types == "", values, types)
    return types
