"""Simulated experiments as H5AD files, written block by block."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import pandas as pd
from numpy.typing import DTypeLike, NDArray
from scipy import sparse

from scvae_data.errors import ConfigError
from scvae_data.simulate.counts import as_dtype, count_blocks
from scvae_data.simulate.experiment import Experiment, plan_experiment
from scvae_data.simulate.genes import Universe, make_universe
from scvae_data.simulate.organism import shared_genes
from scvae_data.simulate.parameters import CellParameters

__all__ = ["FIRST_ACCESSION", "simulate_files"]

FIRST_ACCESSION = 9_000_001
HDF5_CHUNK = 65_536
GZIP_LEVEL = 1


def simulate_files(
    out_dir: Path | str,
    *,
    n_files: int = 4,
    cells_per_file: int = 2000,
    n_genes: int = 20_000,
    seed: int = 0,
    parameters: CellParameters | None = None,
    layout: Literal["csr", "csc", "dense"] = "csr",
    dtype: DTypeLike = np.float32,
    compression: Literal["gzip", "lzf"] | None = "gzip",
) -> list[Path]:
    """Write experiments named ``SRX9000001.h5ad``, ``SRX9000002.h5ad``, … into a folder.

    Files measure different, overlapping genes, in different order, and name
    them in different ways: by Ensembl id, by id with version, or by symbol.
    ``obs`` holds cell_type, perturbation (controls are "non-targeting"),
    donor, is_doublet and is_low_quality. Barcodes repeat between files.
    Memory is bounded per block except for ``layout="csc"``.

    Parameters
    ----------
    out_dir
        Made if it is not there; files of the same name are replaced whole.
    n_files, cells_per_file
        Size.
    n_genes
        Genes of the organism; a file measures those that every file shares
        and half of the others (``parameters.shared_genes``).
    seed
        The same seed gives the same counts, whatever the storage; file k does not depend on ``n_files``.
    parameters
        Distributions; defaults if None.
    layout, dtype, compression
        How X is stored.

    Returns
    -------
    list of Path
        The files, in order.

    Raises
    ------
    ConfigError
        If a size or a choice is not possible.
    """
    _check(n_files, cells_per_file, layout, compression)
    settings = parameters or CellParameters()
    universe = make_universe(n_genes)
    folder = Path(out_dir)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(n_files):
        path = folder / f"SRX{FIRST_ACCESSION + number}.h5ad"
        genes = _measured_genes(universe, seed, number, settings)
        experiment = plan_experiment(universe, cells_per_file, seed, number, settings, genes)
        with _replacing(path) as temporary, h5py.File(temporary, "w") as file:
            _write(file, experiment, _var(universe, genes, number), layout, np.dtype(dtype), compression)
        paths.append(path)
    return paths


def _check(n_files: int, cells_per_file: int, layout: str, compression: str | None) -> None:
    for name, value in (("n_files", n_files), ("cells_per_file", cells_per_file)):
        if value < 1:
            raise ConfigError(f"{name} must be at least 1, got {value}; raise it")
    if layout not in ("csr", "csc", "dense"):
        raise ConfigError(f"layout must be csr, csc or dense, got {layout!r}; choose one")
    if compression not in (None, "gzip", "lzf"):
        raise ConfigError(f"compression must be gzip, lzf or None, got {compression!r}; choose one")


def _measured_genes(universe: Universe, seed: int, number: int, parameters: CellParameters) -> NDArray[np.int64]:
    """Genes of one file; every second file lists them out of order."""
    shared = shared_genes(universe, seed, parameters)
    rng = np.random.default_rng([seed, number, 3])
    genes = np.flatnonzero(shared | (rng.random(universe.n_genes) < 0.5))
    return rng.permutation(genes) if number % 2 else genes


def _var(universe: Universe, genes: NDArray[np.int64], number: int) -> pd.DataFrame:
    """Gene table in one of the three ways that real files name genes."""
    ids, symbols = universe.ids[genes], universe.symbols[genes]
    if number % 4 == 1:
        versioned = np.array([f"{name}.{1 + i % 17}" for name, i in zip(ids, genes, strict=True)], dtype=object)
        var = pd.DataFrame({"gene_name": symbols}, index=pd.Index(versioned, dtype=object))
    elif number % 4 == 2:
        var = pd.DataFrame({"gene_ids": ids}, index=pd.Index(symbols, dtype=object))
    else:
        var = pd.DataFrame({"gene_symbols": symbols}, index=pd.Index(ids, dtype=object))
    var["feature_types"] = pd.Categorical(["Gene Expression"] * len(var))
    return var


def _write(
    file: Any, experiment: Experiment, var: pd.DataFrame, layout: str, dtype: np.dtype[Any], compression: str | None
) -> None:
    import anndata.io  # slow to import, and only files need it

    anndata.io.write_elem(file, "obs", experiment.obs)
    anndata.io.write_elem(file, "var", var)
    for name in ("layers", "obsm", "obsp", "uns", "varm", "varp"):
        anndata.io.write_elem(file, name, {})
    file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
    storage: dict[str, Any] = {} if compression is None else {"compression": compression, "shuffle": True}
    if compression == "gzip":
        storage["compression_opts"] = GZIP_LEVEL
    shape = (experiment.n_obs, len(var))
    if layout == "dense":
        _write_dense(file, experiment, shape, dtype, storage)
    elif layout == "csr":
        _write_csr(file, experiment, shape, dtype, storage)
    else:
        _write_csc(file, experiment, shape, dtype, storage)


def _sparse_group(file: Any, layout: str, shape: tuple[int, int]) -> Any:
    group = file.create_group("X")
    group.attrs.update({"encoding-type": f"{layout}_matrix", "encoding-version": "0.1.0", "shape": np.array(shape)})
    return group


def _write_csr(
    file: Any, experiment: Experiment, shape: tuple[int, int], dtype: np.dtype[Any], storage: dict[str, Any]
) -> None:
    group = _sparse_group(file, "csr", shape)
    growing = {"shape": (0,), "maxshape": (None,), "chunks": (HDF5_CHUNK,), **storage}
    data = group.create_dataset("data", dtype=dtype, **growing)
    indices = group.create_dataset("indices", dtype=np.int32, **growing)
    borders = [np.zeros(1, dtype=np.int64)]
    nnz = 0
    for indptr, columns, counts in count_blocks(experiment):
        data.resize((nnz + len(counts),))
        data[nnz:] = as_dtype(counts, dtype)
        indices.resize((nnz + len(counts),))
        indices[nnz:] = columns
        borders.append(indptr[1:] + nnz)
        nnz += len(counts)
    index_dtype = np.int32 if nnz < 2**31 else np.int64
    group.create_dataset("indptr", data=np.concatenate(borders).astype(index_dtype))


def _write_csc(
    file: Any, experiment: Experiment, shape: tuple[int, int], dtype: np.dtype[Any], storage: dict[str, Any]
) -> None:
    blocks = list(count_blocks(experiment))
    indptr = np.concatenate([[0], np.cumsum(np.concatenate([np.diff(block[0]) for block in blocks]))])
    counts = as_dtype(np.concatenate([block[2] for block in blocks]), dtype)
    rows = sparse.csr_matrix((counts, np.concatenate([block[1] for block in blocks]), indptr), shape=shape)
    columns = rows.tocsc()
    group = _sparse_group(file, "csc", shape)
    group.create_dataset("data", data=columns.data, **storage)
    group.create_dataset("indices", data=columns.indices, **storage)
    group.create_dataset("indptr", data=columns.indptr)


def _write_dense(
    file: Any, experiment: Experiment, shape: tuple[int, int], dtype: np.dtype[Any], storage: dict[str, Any]
) -> None:
    matrix = file.create_dataset("X", shape=shape, dtype=dtype, chunks=(min(16, shape[0]), shape[1]), **storage)
    matrix.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
    start = 0
    for indptr, columns, counts in count_blocks(experiment):
        n_rows = len(indptr) - 1
        values = as_dtype(counts, dtype)
        dense = sparse.csr_matrix((values, columns, indptr), shape=(n_rows, shape[1])).toarray()
        matrix[start : start + n_rows] = dense
        start += n_rows


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside ``path`` that takes its place when the block ends without an error."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
