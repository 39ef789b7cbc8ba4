"""Simulated experiments as H5AD files, written block by block."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np

from scvae_data.errors import ConfigError
from scvae_data.progress import progress
from scvae_data.simulate.counts import count_blocks
from scvae_data.simulate.experiment import Experiment, plan_experiment
from scvae_data.simulate.organism import make_organism

__all__ = ["simulate_files"]

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
    median_counts: float = 5500.0,
    shared_genes: float = 0.9,
    compression: Literal["gzip"] | None = "gzip",
) -> list[Path]:
    """Write experiments named ``SRX9000001.h5ad``, ``SRX9000002.h5ad``, … into a folder.

    Files measure different, overlapping genes, in different order, and name
    them in different ways: by Ensembl id, by id with version, or by symbol.
    ``obs`` holds cell_type, perturbation (controls are "non-targeting"),
    donor, is_doublet and is_low_quality. Barcodes repeat between files.
    ``X`` is float32 in compressed rows; memory is bounded per block of them.

    Parameters
    ----------
    out_dir
        Made if it is not there; files of the same name are replaced whole.
    n_files, cells_per_file
        Size.
    n_genes
        Genes of the organism, 100 to 65,536.
    seed
        The same seed gives the same counts, on any number of cores; file k does not depend on ``n_files``.
    median_counts
        UMIs of a typical cell; medians of real data sets were 1,500–4,400 (10x v1, v2) and 6,100–6,800 (v3).
    shared_genes
        Share of genes that every file measures; each file measures half of the others.
    compression
        Of X.

    Returns
    -------
    list of Path
        The files, in order.

    Raises
    ------
    ConfigError
        If a size is not possible.
    """
    for name, value in {"n_files": n_files, "cells_per_file": cells_per_file, "median_counts": median_counts}.items():
        if value < 1:
            raise ConfigError(f"{name} must be at least 1, got {value}; raise it")
    organism = make_organism(n_genes, seed, shared_genes)
    folder = Path(out_dir)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"SRX{FIRST_ACCESSION + number}.h5ad" for number in range(n_files)]
    for number, path in enumerate(progress(paths, total=n_files, desc="simulate")):
        experiment = plan_experiment(organism, number, cells_per_file, median_counts)
        with _replacing(path) as temporary, h5py.File(temporary, "w") as file:
            _write(file, experiment, compression)
    return paths


def _write(file: Any, experiment: Experiment, compression: str | None) -> None:
    import anndata.io  # slow to import, and only files need it

    anndata.io.write_elem(file, "obs", experiment.obs)
    anndata.io.write_elem(file, "var", experiment.var)
    for name in ("layers", "obsm", "obsp", "uns", "varm", "varp"):
        anndata.io.write_elem(file, name, {})
    file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
    group = file.create_group("X")
    shape = np.array((len(experiment.obs), len(experiment.var)))
    group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": shape})
    packed = {"compression": compression, "compression_opts": GZIP_LEVEL, "shuffle": True} if compression else {}
    growing = {"shape": (0,), "maxshape": (None,), "chunks": (HDF5_CHUNK,), **packed}
    data = group.create_dataset("data", dtype=np.float32, **growing)
    indices = group.create_dataset("indices", dtype=np.int32, **growing)
    borders = [np.zeros(1, dtype=np.int64)]
    nnz = 0
    for indptr, columns, counts in count_blocks(experiment):
        for dataset, values in ((data, counts), (indices, columns)):
            dataset.resize((nnz + len(counts),))
            dataset[nnz:] = values
        borders.append(indptr[1:] + nnz)
        nnz += len(counts)
    index_dtype = np.int32 if nnz < 2**31 else np.int64
    group.create_dataset("indptr", data=np.concatenate(borders).astype(index_dtype))


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
