"""Plans of batches and the windows they draw from in, batches of tensors out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray

from scvae_data.loading.batch.fill import Piece, count_elements, fill_csr, fill_dense
from scvae_data.loading.batch.kernels import NO_GENES
from scvae_data.loading.batch.sparse import SparseRows, one_below_the_other
from scvae_data.loading.fetch.damage import check_totals
from scvae_data.loading.fetch.pool import BufferPool
from scvae_data.loading.fetch.window import Window
from scvae_data.loading.plan.sampler import BatchPlan
from scvae_data.loading.select.values import RowFacts
from scvae_data.loading.settings import XFormat
from scvae_data.store.cell_index import CellIndex
from scvae_data.store.csr import count_dtype

__all__ = ["LEAST_CELLS", "Assembler", "Batch", "Form", "Made", "Take", "converted", "joined"]

Batch = dict[str, Any]
Take = Callable[[tuple[int, ...], DTypeLike], torch.Tensor]
"""Memory for a tensor of a shape and type."""
# A batch of which damage leaves fewer cells is left out whole: a BatchNorm needs two.
LEAST_CELLS = 2


@dataclass(frozen=True, eq=False)
class Form:
    """What a batch looks like."""

    index: CellIndex
    obs_keys: tuple[str, ...]
    """obs columns that batches carry."""
    normalized: bool
    """``x`` is log1p(count / size_factor); otherwise counts."""
    counts: bool
    """Also deliver counts beside normalised values."""
    x_format: XFormat = "dense"
    genes: NDArray[np.int32] | None = None
    """Output column of every gene, ``n_columns`` for none; None for all genes in their order."""
    n_columns: int | None = None
    """Columns of ``x``; None for all genes."""
    pin_memory: bool = False

    @property
    def width(self) -> int:
        """Columns of ``x``."""
        return self.index.n_vars if self.n_columns is None else self.n_columns

    @property
    def twice(self) -> bool:
        """Whether counts take memory of their own; compact rows are counts until they are made dense."""
        return self.counts and self.normalized and self.x_format != "compact"

    def row_types(self) -> tuple[DTypeLike, DTypeLike]:
        """Types of columns and values in sparse batches: uint16 in compact ones, or a type that torch computes with."""
        if self.x_format != "compact":
            return np.int32, np.float32
        largest = max((chunk.max_count for chunk in self.index.chunks), default=0)
        wide = {2: np.uint16, 4: np.int32 if largest < 1 << 31 else np.int64}
        return np.uint16 if self.width < 1 << 16 else np.int32, wide.get(count_dtype(largest).itemsize, np.int64)

    def n_bytes(self, n_rows: int) -> int:
        """Estimate the bytes of a batch of ``n_rows`` rows: of ``x`` and counts, which are most of it."""
        x = 4 * n_rows * self.width
        if self.x_format != "dense":
            itemsize = sum(np.dtype(kind).itemsize for kind in self.row_types())
            x = round(n_rows * self.index.nnz / self.index.n_obs * itemsize * self.width / self.index.n_vars)
        return x * (2 if self.twice else 1)


class Made(NamedTuple):
    """Several batches, one below the other."""

    rows: Batch | None
    """None for no rows at all."""
    borders: list[int]
    """First row of each batch and, last, the number of rows."""

    def batches(self) -> list[Batch | None]:
        """Each batch over the same memory; None for one without cells."""
        if self.rows is None or len(self.borders) == 2:
            return [self.rows] * (len(self.borders) - 1)
        return [cut(self.rows, low, high) if low < high else None for low, high in pairwise(self.borders)]


class Assembler:
    """Makes batches, several of few rows at a time; safe for threads.

    Parameters
    ----------
    form
        What batches look like.
    """

    def __init__(self, form: Form) -> None:
        self.form = form
        self.skipped = 0
        """Cells that batches went on without."""
        self._genes = NO_GENES if form.genes is None else form.genes
        self._row_types = form.row_types()
        self._buffers = BufferPool()
        self._lock = threading.Lock()

    def make(
        self,
        plans: Sequence[BatchPlan],
        windows: Mapping[int, Callable[[], Window]],
        take: Take | None = None,
        least: int = LEAST_CELLS,
    ) -> Made:
        """Make batches of the windows they name, in one go.

        Parameters
        ----------
        plans
            What each is made of.
        windows
            Functions that wait for the windows, by number.
        take
            Gives the memory of what is large; None for memory that is used again when nobody has it any more.
        least
            A batch of which damage leaves fewer cells is left out whole.
        """
        ready = {number: wait() for number, wait in windows.items()}
        taken: list[tuple[int, NDArray[np.int64]]] = []
        borders = [0]
        for plan in plans:
            present = [(part.window, ready[part.window].present(part.slots)) for part in plan.segments]
            n_planned = sum(part.slots.size for part in plan.segments)
            n_present = sum(slots.size for _, slots in present)
            if n_present < min(n_planned, least):
                present, n_present = [], 0
            with self._lock:
                self.skipped += n_planned - n_present
            taken += present
            borders.append(borders[-1] + n_present)
        if not borders[-1]:
            return Made(None, borders)
        runs = groupby(taken, key=lambda item: item[0])
        pieces = [(ready[number], np.concatenate([slots for _, slots in run])) for number, run in runs]
        return Made(self._rows(pieces, take or self._buffer), borders)

    def _rows(self, pieces: list[tuple[Window, NDArray[np.int64]]], take: Take) -> Batch:
        """One batch of the rows of all pieces."""
        form = self.form
        rows = np.concatenate([window.global_rows(slots) for window, slots in pieces])
        taken: list[Piece] = [(window.parts, slots) for window, slots in pieces]
        library_size = np.empty(rows.size, np.float32)
        facts = RowFacts.joined([window.facts(slots) for window, slots in pieces if slots.size])
        factors = facts.size_factor if form.normalized else None
        fill = self._dense if form.x_format == "dense" else self._sparse
        made: Batch = {"x": fill(taken, factors, library_size, take)}
        if form.counts:
            made["counts"] = fill(taken, None, library_size, take) if form.twice else made["x"]
        check_totals(form.index, rows, library_size, facts.size_factor)
        return to_tensors({**made, "library_size": library_size, "index": rows, **facts.served()})

    def _dense(
        self, pieces: list[Piece], factors: NDArray[np.float64] | None, library_size: NDArray[np.float32], take: Take
    ) -> torch.Tensor:
        x = take((library_size.size, self.form.width), np.float32)
        fill_dense(pieces, self._genes, factors, x.numpy(), library_size)
        return x

    def _sparse(
        self, pieces: list[Piece], factors: NDArray[np.float64] | None, library_size: NDArray[np.float32], take: Take
    ) -> SparseRows:
        width = self.form.width
        indptr = count_elements(pieces, self._genes, width)
        nnz = int(indptr[-1])
        columns, values = (take((nnz + 1,), kind) for kind in self._row_types)
        kept = None if self.form.x_format == "compact" else factors
        fill_csr(pieces, self._genes, width, kept, indptr, columns.numpy(), values.numpy(), library_size)
        return SparseRows(torch.from_numpy(indptr), columns[:nnz], values[:nnz], width)

    def _buffer(self, shape: tuple[int, ...], kind: DTypeLike) -> torch.Tensor:
        if self.form.pin_memory:
            # torch keeps pinned memory for itself and hands it out again after the copy to the device.
            like = torch.from_numpy(np.empty(0, kind))
            return torch.empty(shape, dtype=like.dtype, pin_memory=True)
        return torch.from_numpy(self._buffers.take(shape, kind))


def to_tensors(batch: Batch) -> Batch:
    """Arrays as tensors over the same memory, also one level down; the rest unchanged."""
    return converted(batch, lambda value: torch.from_numpy(value) if isinstance(value, np.ndarray) else value)


def converted(batch: Batch, convert: Callable[[Any], Any]) -> Batch:
    """What ``convert`` makes of every value of a batch, also one level down; what is the same there stays the same."""
    made = {
        key: {name: convert(item) for name, item in value.items()} if isinstance(value, dict) else convert(value)
        for key, value in batch.items()
    }
    if batch.get("counts") is batch["x"]:
        made["counts"] = made["x"]
    return made


def cut(made: Batch, low: int, high: int) -> Batch:
    """Rows ``low`` to ``high`` of a batch, over the same memory."""
    return converted(made, lambda value: value.rows(low, high) if isinstance(value, SparseRows) else value[low:high])


def joined(parts: Sequence[Batch], take: Callable[..., NDArray[Any]]) -> Batch:
    """One batch of the rows of all ``parts``, in their order, in memory from ``take``; of one part, that part."""

    def join(values: Sequence[Any]) -> Any:
        if isinstance(values[0], dict):
            return {name: join([value[name] for value in values]) for name in values[0]}
        return (
            SparseRows.joined(values, take) if isinstance(values[0], SparseRows) else one_below_the_other(values, take)
        )

    if len(parts) == 1:
        return parts[0]
    batch: Batch = join(parts)
    if parts[0].get("counts") is parts[0]["x"]:
        batch["counts"] = batch["x"]
    return batch
