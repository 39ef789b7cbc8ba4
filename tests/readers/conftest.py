"""Small matrices whose values say where they belong, and files that hold them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from anndata.io import write_elem
from numpy.typing import NDArray
from pandas import DataFrame, Index
from scipy import sparse

from scvae_data.readers.base import Reader

N_OBS, N_VARS = 7, 11
Dense = Callable[..., NDArray[Any]]


def encoded_counts() -> NDArray[np.int64]:
    """x[i, j] = 11 i + j + 1, with a third of the entries, row 2 and column 4 empty; fits uint8."""
    rows, columns = np.indices((N_OBS, N_VARS))
    counts = N_VARS * rows + columns + 1
    counts[(rows + columns) % 3 == 0] = 0
    counts[2] = 0
    counts[:, 4] = 0
    return counts


@pytest.fixture
def counts() -> NDArray[np.int64]:
    return encoded_counts()


@pytest.fixture
def read_dense() -> Dense:
    """All blocks of a slot put together, checking that they tile the rows."""

    def read(reader: Reader, slot: str, max_elements: int = 10) -> NDArray[Any]:
        n_vars = reader.genes(slot).n_vars
        rows = []
        next_row = 0
        for block in reader.blocks(slot, max_elements=max_elements):
            assert block.first_row == next_row
            assert block.n_rows >= 1
            assert block.indptr.dtype == np.int64
            assert block.indptr[0] == 0
            assert block.indptr[-1] == len(block.indices) == len(block.data)
            assert block.n_vars == n_vars
            assert block.n_rows == 1 or len(block.data) <= max_elements
            shape = (block.n_rows, n_vars)
            rows.append(sparse.csr_matrix((block.data, block.indices, block.indptr), shape=shape).toarray())
            next_row += block.n_rows
        assert next_row == reader.n_obs
        return np.concatenate(rows) if rows else np.empty((0, n_vars))

    return read


def write_matrix(
    parent: Any,
    name: str,
    matrix: Any,
    *,
    layout: str = "csr",
    dtype: str = "float32",
    index: str = "int32",
    **storage: Any,
) -> None:
    """One matrix in the encoding of today's anndata, with any dtype of values and indices."""
    matrix = np.asarray(matrix)
    if layout == "dense":
        node = parent.create_dataset(name, data=matrix.astype(dtype), **storage)
        node.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
        return
    stored = sparse.csr_matrix(matrix) if layout == "csr" else sparse.csc_matrix(matrix)
    group = parent.create_group(name)
    group.attrs.update({"encoding-type": f"{layout}_matrix", "encoding-version": "0.1.0", "shape": matrix.shape})
    group.create_dataset("data", data=stored.data.astype(dtype), **storage)
    group.create_dataset("indices", data=stored.indices.astype(index), **storage)
    group.create_dataset("indptr", data=stored.indptr.astype("int64"), **storage)


@pytest.fixture
def write_h5ad(tmp_path: Path) -> Callable[..., Path]:
    """Write matrices at slots into an H5AD file; further keywords go to :func:`write_matrix`."""

    def write(matrices: dict[str, Any], obs: DataFrame | None = None, var: DataFrame | None = None, **how: Any) -> Path:
        path = tmp_path / "cells.h5ad"
        sizes = next(iter(matrices.values())).shape if matrices else (N_OBS, N_VARS)
        with h5py.File(path, "w") as file:
            file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
            write_elem(file, "obs", obs if obs is not None else DataFrame(index=named("cell", sizes[0])))
            write_elem(file, "var", var if var is not None else DataFrame(index=named("gene", sizes[1])))
            for slot, matrix in matrices.items():
                parent = file
                for part in slot.split("/")[:-1]:
                    parent = parent.require_group(part)
                write_matrix(parent, slot.split("/")[-1], matrix, **how)
            if "raw/X" in matrices:
                write_elem(file["raw"], "var", DataFrame(index=named("raw_gene", matrices["raw/X"].shape[1])))
        return path

    return write


def named(prefix: str, n: int) -> Index:
    return Index([f"{prefix}{i}" for i in range(n)], dtype=object)


@pytest.fixture
def write_10x_v3(tmp_path: Path) -> Callable[..., Path]:
    """A 10x v3 file of the encoded counts; ``types`` gives a feature type to each column."""

    def write(matrix: NDArray[Any], types: list[str] | None = None, **changes: Any) -> Path:
        path = tmp_path / "matrix.h5"
        n_obs, n_vars = matrix.shape
        rows = sparse.csr_matrix(matrix)
        with h5py.File(path, "w") as file:
            group = file.create_group("matrix")
            members = {
                "barcodes": np.array([f"AAAC{i}-1" for i in range(n_obs)], dtype="S"),
                "data": rows.data.astype("int32"),
                "indices": rows.indices.astype("int64"),
                "indptr": rows.indptr.astype("int64"),
                "shape": np.array([n_vars, n_obs], dtype="int32"),
            }
            for name, values in (members | changes).items():
                group.create_dataset(name, data=values)
            features = group.create_group("features")
            features["id"] = np.array([f"ENSG{j:011d}" for j in range(n_vars)], dtype="S")
            features["name"] = np.array([f"SYM{j}" for j in range(n_vars)], dtype="S")
            features["feature_type"] = np.array(types or ["Gene Expression"] * n_vars, dtype="S")
        return path

    return write


@pytest.fixture
def write_mtx(tmp_path: Path) -> Callable[..., Path]:
    """A 10x mtx folder from text; every file can be left out or replaced."""

    def write(
        matrix: str,
        barcodes: str = "".join(f"AAAC{i}-1\n" for i in range(N_OBS)),
        features: str = "".join(f"ENSG{j:011d}\tSYM{j}\tGene Expression\n" for j in range(N_VARS)),
        *,
        prefix: str = "",
        features_name: str = "features.tsv",
        gz: bool = False,
        folder: str = "mtx",
    ) -> Path:
        import gzip

        target = tmp_path / folder
        target.mkdir(exist_ok=True)
        for name, text in {"matrix.mtx": matrix, "barcodes.tsv": barcodes, features_name: features}.items():
            data = text.encode()
            path = target / f"{prefix}{name}{'.gz' if gz else ''}"
            path.write_bytes(gzip.compress(data) if gz else data)
        return target

    return write


@pytest.fixture
def mtx_text(counts: NDArray[np.int64]) -> Callable[..., str]:
    """Matrix Market text of a matrix (the encoded counts unless given), in any orientation and order."""

    def text(
        matrix: NDArray[Any] | None = None, *, cells: str = "columns", order: str = "cells", field: str = "integer"
    ) -> str:
        x = counts if matrix is None else matrix
        i, j = np.nonzero(x)
        shuffled = np.random.default_rng(0).permutation(len(i))
        by = {"cells": np.lexsort((j, i)), "genes": np.lexsort((i, j)), "shuffled": shuffled}
        entries = [(a + 1, b + 1, x[a, b]) for a, b in zip(i[by[order]], j[by[order]], strict=True)]
        shape = x.shape if cells == "rows" else x.shape[::-1]
        lines = [f"%%MatrixMarket matrix coordinate {field} general", "%", f"{shape[0]} {shape[1]} {len(entries)}"]
        for cell, gene, value in entries:
            position = (cell, gene) if cells == "rows" else (gene, cell)
            lines.append(" ".join(str(part) for part in (*position, *([] if field == "pattern" else [value]))))
        return "\n".join(lines) + "\n"

    return text
