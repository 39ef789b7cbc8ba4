"""The genes of a dataset directory: one order for every chunk, and which genes each cell was measured for."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scvae_data.errors import DamagedFileError, StoreError
from scvae_data.remote.location import Location
from scvae_data.store.files import FileFacts, read_json, write_json

__all__ = ["GENE_LIST_FILE", "GeneList", "read_gene_list", "write_gene_list"]

GENE_LIST_FILE = "gene_list.json"


@dataclass(frozen=True, eq=False)
class GeneList:
    """Genes in column order.

    Parameters
    ----------
    names
        Unique names, the var index of every chunk; str, (n_vars,).
    ids, symbols
        Stable id and symbol where known, else None; (n_vars,).
    gene_sets
        bool, (n_sets, n_vars): what ``obs["gene_set"]`` points into. True where
        a cell of that set had the gene in its input, so that a zero was measured.
    """

    names: NDArray[np.object_]
    ids: NDArray[np.object_]
    symbols: NDArray[np.object_]
    gene_sets: NDArray[np.bool_]

    @classmethod
    def of(
        cls,
        names: Sequence[str],
        ids: Sequence[str | None] | None = None,
        symbols: Sequence[str | None] | None = None,
        gene_sets: Sequence[NDArray[np.bool_]] | None = None,
    ) -> GeneList:
        """Build from plain sequences; without gene sets, one that holds every gene.

        Raises
        ------
        StoreError
            If names repeat or lengths differ.
        """
        n_vars = len(names)
        ids = [None] * n_vars if ids is None else ids
        symbols = [None] * n_vars if symbols is None else symbols
        masks = [np.ones(n_vars, bool)] if gene_sets is None else list(gene_sets)
        lengths = {n_vars, len(ids), len(symbols), *(len(mask) for mask in masks)}
        if len(lengths) > 1 or len(set(names)) != n_vars:
            raise StoreError(f"a gene list needs unique names and columns of one length, got lengths {sorted(lengths)}")
        sets = np.array(masks, dtype=bool).reshape(len(masks), n_vars)
        columns = [np.array(column, dtype=object) for column in (names, ids, symbols)]
        return cls(columns[0], columns[1], columns[2], sets)

    @property
    def n_vars(self) -> int:
        """Number of genes."""
        return self.names.size

    @property
    def hash(self) -> str:
        """SHA-256 of names, ids and symbols in order: equal for two directories whose columns mean the same genes."""
        columns = [self.names.tolist(), self.ids.tolist(), self.symbols.tolist()]
        return hashlib.sha256(json.dumps(columns, ensure_ascii=True, separators=(",", ":")).encode()).hexdigest()


def write_gene_list(directory: Path, genes: GeneList) -> FileFacts:
    """Write ``gene_list.json``; return its size and checksum for the index."""
    packed = np.packbits(genes.gene_sets, axis=1, bitorder="little")
    return write_json(
        directory / GENE_LIST_FILE,
        {
            "format": "scvae-data gene list",
            "format_version": 1,
            "n_vars": genes.n_vars,
            "hash": genes.hash,
            "genes": {"name": genes.names.tolist(), "id": genes.ids.tolist(), "symbol": genes.symbols.tolist()},
            "gene_sets": [base64.b64encode(row.tobytes()).decode() for row in packed],
        },
    )


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
    except (KeyError, TypeError, ValueError, StoreError, binascii.Error) as error:
        raise DamagedFileError(f"{path}: not a gene list ({error}); run process.py again with resume=true") from None
    if genes.hash != stated or n_vars not in (None, genes.n_vars):
        raise DamagedFileError(
            f"{path}: its {genes.n_vars} genes are not those of this directory; run process.py again with resume=true"
        )
    return genes


def _parse(content: dict[str, Any]) -> GeneList:
    columns = content["genes"]
    n_vars = content["n_vars"]
    for kind in ("name", "id", "symbol"):
        if len(columns[kind]) != n_vars or not all(isinstance(item, str | None) for item in columns[kind]):
            raise ValueError(f"{kind} is not a list of {n_vars} strings")
    n_bytes = (n_vars + 7) // 8
    masks = []
    if not content["gene_sets"]:
        raise ValueError("it has no gene set")
    for encoded in content["gene_sets"]:
        packed = np.frombuffer(base64.b64decode(encoded, validate=True), np.uint8)
        if packed.size != n_bytes:
            raise ValueError(f"a gene set has {packed.size} bytes instead of {n_bytes}")
        masks.append(np.unpackbits(packed, count=n_vars, bitorder="little").astype(bool))
    return GeneList.of(columns["name"], columns["id"], columns["symbol"], masks)
