"""The genes of a dataset directory: one order for every chunk, and which genes each cell was measured for."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scvae_data.calling import mend
from scvae_data.errors import DamagedFileError, StoreError
from scvae_data.remote.location import Location
from scvae_data.store.files import FileFacts, read_json, write_atomic, write_json
from scvae_data.store.names import FORMAT_VERSION

__all__ = [
    "GENE_LIST_FILE",
    "GeneList",
    "GeneSets",
    "read_gene_list",
    "read_listed_sets",
    "write_gene_list",
    "write_gene_sets",
]

GENE_LIST_FILE = "gene_list.json"


@dataclass(frozen=True, eq=False)
class GeneSets:
    """Masks of the genes that cells were measured for: what ``obs["gene_set"]`` points into, a bit for each gene.

    A bit is set where a cell of that set had the gene in its input, so that a zero was measured.

    Parameters
    ----------
    packed
        uint8, (n_sets, (n_vars + 7) // 8); gene j is bit ``j % 8``, counted from the lowest, of byte ``j // 8``.
    n_vars
        Number of genes.
    """

    packed: NDArray[np.uint8]
    n_vars: int

    @classmethod
    def of(cls, masks: Sequence[NDArray[np.bool_]], n_vars: int) -> GeneSets:
        """Build from masks over the genes.

        Raises
        ------
        StoreError
            If there is none, or one of another length.
        """
        if not masks or any(len(mask) != n_vars for mask in masks):
            raise StoreError(f"gene sets must be masks of {n_vars} genes, and at least one")
        packed = [np.packbits(np.asarray(mask, bool), bitorder="little") for mask in masks]
        return cls(np.stack(packed), n_vars)

    def __len__(self) -> int:
        """Number of sets."""
        return len(self.packed)

    def masks(self, codes: ArrayLike) -> NDArray[np.bool_]:
        """Masks of the sets with the given codes; bool, (n_codes, n_vars)."""
        chosen = self.packed[np.asarray(codes, dtype=np.int64)]
        return np.unpackbits(chosen, axis=-1, count=self.n_vars, bitorder="little").astype(bool)


@dataclass(frozen=True, eq=False)
class GeneList:
    """Genes in column order.

    Parameters
    ----------
    names
        Unique names, the var index of every chunk; str, (n_vars,).
    ids, symbols
        Stable id and symbol where known, else None; (n_vars,).
    """

    names: NDArray[np.object_]
    ids: NDArray[np.object_]
    symbols: NDArray[np.object_]

    @classmethod
    def of(
        cls,
        names: Sequence[str],
        ids: Sequence[str | None] | None = None,
        symbols: Sequence[str | None] | None = None,
    ) -> GeneList:
        """Build from plain sequences.

        Raises
        ------
        StoreError
            If names repeat or lengths differ.
        """
        n_vars = len(names)
        ids = [None] * n_vars if ids is None else ids
        symbols = [None] * n_vars if symbols is None else symbols
        lengths = {n_vars, len(ids), len(symbols)}
        if len(lengths) > 1 or len(set(names)) != n_vars:
            raise StoreError(f"a gene list needs unique names and columns of one length, got lengths {sorted(lengths)}")
        columns = [np.array(column, dtype=object) for column in (names, ids, symbols)]
        return cls(columns[0], columns[1], columns[2])

    @property
    def n_vars(self) -> int:
        """Number of genes."""
        return self.names.size

    @cached_property
    def hash(self) -> str:
        """SHA-256 of names, ids and symbols in order: equal for two directories whose columns mean the same genes."""
        columns = [self.names.tolist(), self.ids.tolist(), self.symbols.tolist()]
        return hashlib.sha256(json.dumps(columns, ensure_ascii=True, separators=(",", ":")).encode()).hexdigest()


def write_gene_list(directory: Path, genes: GeneList, listed: GeneSets | None = None) -> FileFacts:
    """Write ``gene_list.json``; return its size and checksum for the index.

    Parameters
    ----------
    listed
        Gene sets, for a directory of version 1 of the format, which has them here.
    """
    content: dict[str, Any] = {
        "format": "scvae-data gene list",
        "format_version": FORMAT_VERSION if listed is None else 1,
        "n_vars": genes.n_vars,
        "hash": genes.hash,
        "genes": {"name": genes.names.tolist(), "id": genes.ids.tolist(), "symbol": genes.symbols.tolist()},
    }
    if listed is not None:
        content["gene_sets"] = [base64.b64encode(row.tobytes()).decode() for row in listed.packed]
    return write_json(directory / GENE_LIST_FILE, content)


def read_gene_list(directory: Location, *, n_vars: int | None = None, sha256: str | None = None) -> GeneList:
    """Read ``gene_list.json``.

    Raises
    ------
    DamagedFileError
        If it is absent, changed or malformed, does not hold ``n_vars`` genes, or has another checksum than ``sha256``.
    """
    path = directory / GENE_LIST_FILE
    content = read_json(path, sha256=sha256)
    try:
        genes = _parse(content)
        stated = content["hash"]
    except (KeyError, TypeError, ValueError, StoreError) as error:
        raise DamagedFileError(f"{path}: not a gene list ({error}); {mend()}") from None
    if genes.hash != stated or n_vars not in (None, genes.n_vars):
        raise DamagedFileError(f"{path}: its {genes.n_vars} genes are not those of this directory; {mend()}")
    return genes


def write_gene_sets(path: Path, gene_sets: GeneSets) -> FileFacts:
    """Write the masks one after the other; return size and checksum for the index."""
    content = gene_sets.packed.tobytes()
    write_atomic(path, content)
    return FileFacts(len(content), hashlib.sha256(content).hexdigest())


def read_listed_sets(directory: Location, *, n_vars: int, sha256: str) -> GeneSets:
    """Read the gene sets of a directory of version 1, which are in its ``gene_list.json``.

    Raises
    ------
    DamagedFileError
        As :func:`read_gene_list`.
    """
    path = directory / GENE_LIST_FILE
    content = read_json(path, sha256=sha256)
    n_bytes = (n_vars + 7) // 8
    try:
        packed = [np.frombuffer(base64.b64decode(item, validate=True), np.uint8) for item in content["gene_sets"]]
        if not packed or any(row.size != n_bytes for row in packed):
            raise ValueError(f"a gene set has not {n_bytes} bytes, or there is none")
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise DamagedFileError(f"{path}: not a gene list ({error}); {mend()}") from None
    return GeneSets(np.stack(packed), n_vars)


def _parse(content: dict[str, Any]) -> GeneList:
    columns = content["genes"]
    n_vars = content["n_vars"]
    for kind in ("name", "id", "symbol"):
        if len(columns[kind]) != n_vars or not all(isinstance(item, str | None) for item in columns[kind]):
            raise ValueError(f"{kind} is not a list of {n_vars} strings")
    return GeneList.of(columns["name"], columns["id"], columns["symbol"])
