"""Matrix Market folders with several matrices of the same cells: molecules by their state of splicing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scvae_data.errors import InputError
from scvae_data.readers.base import DEFAULT_MAX_ELEMENTS, CsrBlock, GeneTable, Reader, Sample, Storage
from scvae_data.readers.features import FeatureFilter
from scvae_data.readers.gene_names import genes_from_features
from scvae_data.readers.mtx import MtxReader
from scvae_data.readers.mtx_folder import find_states, find_triple, read_lines
from scvae_data.readers.sums import added, named_slot, parts_of
from scvae_data.system.hdf5_guard import DEFAULT_LIMITS, Limits

__all__ = ["LayeredMtxReader", "open_mtx"]

USA = ("spliced", "unspliced", "ambiguous")
"""What the thirds of the features of alevin-fry are, in its mode of this name."""


def open_mtx(path: Path, limits: Limits = DEFAULT_LIMITS) -> Reader:
    """Choose the reader of a folder, or of one matrix file in it."""
    if find_states(path):
        return LayeredMtxReader(path, limits)
    triple = find_triple(path)
    in_thirds = "quants_mat" in triple.matrix.name and _thirds(read_lines(triple.features, limits.max_table_bytes))
    return LayeredMtxReader(path, limits) if in_thirds else MtxReader(path, limits)


def _thirds(names: Sequence[str]) -> int:
    """How many genes there are if names come as spliced, ``-U`` and ``-A``; else 0."""
    n = len(names) // 3
    spliced = names[:n]
    is_usa = n and list(names[n:]) == [f"{name}-{state}" for state in "UA" for name in spliced]
    return n if is_usa else 0


@dataclass(frozen=True)
class Layer:
    """The molecules of one state: a matrix, or some columns of one."""

    reader: MtxReader
    genes: GeneTable
    filter: FeatureFilter


class LayeredMtxReader:
    """Reader of a folder of STARsolo's Velocyto, of kallisto's nascent and mature counts, or of alevin-fry's USA mode.

    None of its matrices holds the counts of all molecules by its name, and
    which of them to add up, nuclei and whole cells want otherwise: so there
    is no slot but what ``input.counts`` names.

    Parameters
    ----------
    path
        The folder, or alevin-fry's matrix in it.
    limits
        What it may ask for.
    """

    format = "mtx_layers"
    notes: tuple[str, ...] = ()

    def __init__(self, path: Path, limits: Limits = DEFAULT_LIMITS) -> None:
        self.path = path
        self._limits = limits
        self._layers: dict[str, Layer] = {}
        self._open = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            states = find_states(self.path)
            readers = {name: stack.enter_context(MtxReader(file, self._limits)) for name, file in states.items()}
            layers = self._of_states(readers) if states else self._of_thirds(stack)
            self._layers = {f"layers/{name}": layer for name, layer in layers.items()}
            self._open = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._layers = {}
        self._open.close()

    @property
    def n_obs(self) -> int:
        """Number of cells."""
        return self._first.reader.n_obs

    @property
    def slots(self) -> tuple[str, ...]:
        """Always refused: what is to be counted must be said."""
        names = [name.removeprefix("layers/") for name in self._layers]
        first = next(name for name in ("spliced", "mature", names[0]) if name in names)
        raise InputError(
            self.path,
            "no_counts",
            f"counts stand in {', '.join(names)}, and none of them has all; say with input.counts which: "
            f"sum:{first}+ambiguous for cells and sum:{'+'.join(self._states)} for nuclei are usual, or layers/NAME",
        )

    @property
    def others(self) -> tuple[str, ...]:
        """The matrices."""
        return tuple(self._layers)

    def notes_of(self, slot: str) -> tuple[str, ...]:
        """What of a matrix is left out."""
        return self._layers[parts_of(slot)[0]].reader.notes

    def genes(self, slot: str) -> GeneTable:
        """The kept features, the same for all matrices."""
        return self._first.genes

    def barcodes(self) -> NDArray[np.object_]:
        """Cell barcodes as stored."""
        return self._first.reader.barcodes()

    @property
    def obs_columns(self) -> tuple[str, ...]:
        """Names of the columns that stand behind the names of cells, the same for all matrices."""
        return self._first.reader.obs_columns

    def obs(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Cell table of the matrices."""
        return self._first.reader.obs(columns)

    def storage(self, slot: str) -> Storage:
        """How the matrices are stored."""
        parts = [self._layers[name].reader.storage("matrix") for name in parts_of(slot)]
        return Storage(layout="coo", dtype=parts[0]["dtype"], nnz=sum(part["nnz"] or 0 for part in parts))

    def find_slot(self, name: str) -> str:
        """The slot that ``layers/NAME`` or ``sum:NAME+NAME`` names."""
        return named_slot(self.path, name, self.others)

    def sample(self, slot: str) -> Sample:
        """The first values of a matrix."""
        layer = self._layers[slot]
        head = next(iter(layer.reader.blocks("matrix")), None)
        values = np.zeros(0) if head is None else layer.filter.apply(head).data
        n_stored = layer.reader.storage("matrix")["nnz"] or 0
        return Sample(values, round(n_stored * len(values) / max(1 if head is None else len(head.data), 1)))

    def blocks(self, slot: str, *, max_elements: int = DEFAULT_MAX_ELEMENTS) -> Iterator[CsrBlock]:
        """Rows of one matrix, or of a sum, in order."""
        names = parts_of(slot)
        parts = {name: self._blocks(name, max(max_elements // len(names), 1)) for name in names}
        yield from added(self.path, parts) if len(parts) > 1 else parts[slot]

    def _blocks(self, name: str, max_elements: int) -> Iterator[CsrBlock]:
        layer = self._layers[name]
        for block in layer.reader.blocks("matrix", max_elements=max_elements):
            yield layer.filter.apply(block)

    @property
    def _first(self) -> Layer:
        return next(iter(self._layers.values()))

    @property
    def _states(self) -> list[str]:
        """Names of the matrices that are no sums of others."""
        names = [name.removeprefix("layers/") for name in self._layers]
        return [name for name in names if name not in ("cell", "nucleus", "total")]

    def _of_states(self, readers: dict[str, MtxReader]) -> dict[str, Layer]:
        """A matrix for each state, with the same tables."""
        layers: dict[str, Layer] = {}
        for name, reader in readers.items():
            genes = reader.genes("matrix")
            first = next(iter(layers.values()), None)
            if first and not (
                np.array_equal(first.reader.barcodes(), reader.barcodes())
                and np.array_equal(first.genes.names, genes.names)
            ):
                raise InputError(
                    self.path,
                    "ambiguous",
                    f"the matrices of {next(iter(layers))} and {name} have cells or genes of their own; give one",
                )
            layers[name] = Layer(reader, genes, FeatureFilter(np.ones(genes.n_vars, dtype=bool), ()))
        return layers

    def _of_thirds(self, stack: ExitStack) -> dict[str, Layer]:
        """The thirds of the columns of one matrix."""
        reader = stack.enter_context(MtxReader(self.path, self._limits))
        names = reader.genes("matrix").names
        n_genes = len(names) // 3
        genes = genes_from_features(names[:n_genes], None)
        state = np.arange(len(names)) // n_genes
        return {name: Layer(reader, genes, FeatureFilter(state == i, ())) for i, name in enumerate(USA)}
