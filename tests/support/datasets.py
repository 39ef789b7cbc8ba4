"""Small complete dataset directories whose counts say where they belong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from scvae_data.store import (
    GENE_LIST_FILE,
    CellTablesWriter,
    ChunkContent,
    ChunkEntry,
    Chunking,
    CompactCsr,
    DatasetIndex,
    GeneList,
    GeneSets,
    chunk_file_name,
    obs_columns,
    write_chunk,
    write_gene_list,
    write_index,
)

TARGET_SUM = 1000.0


def positional_counts(n_obs: int, n_vars: int, density: float = 0.3) -> sp.csr_matrix:
    """Counts ``x[i, j] = (1000 * i + j) % 5003 + 1`` where ``(7 * i + 13 * j) % 100 < 100 * density``, else 0.

    Row i also has gene ``i % n_vars``, so that no cell is empty.
    """
    row, column = np.divmod(np.arange(n_obs * n_vars, dtype=np.int64), n_vars)
    stored = ((7 * row + 13 * column) % 100 < 100 * density) | (column == row % n_vars)
    row, column = row[stored], column[stored]
    counts = (1000 * row + column) % 5003 + 1
    return sp.csr_matrix((counts.astype(np.int32), (row, column)), shape=(n_obs, n_vars))


def cell_obs(x: sp.csr_matrix, accessions: Sequence[str], seed: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Obs of source cells and their h1; cell i is the next cell of experiment ``accessions[i % n]``."""
    n_obs = x.shape[0]
    which = np.arange(n_obs) % len(accessions)
    source_row = np.arange(n_obs, dtype=np.int64) // len(accessions)
    names = [f"cell{i:05d}" for i in range(n_obs)]
    digests = b"".join(
        blake2b(
            f"{accessions[which[i]]}\0{source_row[i]}\0{names[i]}".encode(), digest_size=16, key=str(seed).encode()
        ).digest()
        for i in range(n_obs)
    )
    hashes = np.frombuffer(digests, "<u8").reshape(-1, 2)
    totals = np.asarray(x.sum(axis=1)).ravel().astype(np.int64)
    n_genes = np.diff(x.indptr).astype(np.int32)
    obs = pd.DataFrame(
        {
            "SRX_accession": pd.Categorical(np.array(accessions, object)[which]),
            "source_file": pd.Categorical([f"{accessions[k]}.h5ad" for k in which]),
            "source_row": source_row,
            "total_counts": totals,
            "n_genes_by_counts": n_genes,
            "log1p_total_counts": np.log1p(totals).astype(np.float32),
            "log1p_n_genes_by_counts": np.log1p(n_genes.astype(np.float64)),
            "pct_counts_mt": np.zeros(n_obs, np.float32),
            "pct_counts_ribo": np.zeros(n_obs, np.float32),
            "pct_counts_hb": np.full(n_obs, np.nan, np.float32),
            "size_factor": totals / TARGET_SUM,
            "gene_set": np.zeros(n_obs, np.int32),
            "split_hash": (hashes[:, 1] >> np.uint64(32)).astype(np.uint32),
            "cell_type": pd.Categorical([None if i % 11 == 0 else f"type{i % 3}" for i in range(n_obs)]),
            "donor_age": np.arange(n_obs, dtype=np.int64) % 90,
        },
        index=pd.Index(names, dtype=object),
    )
    return obs, hashes


def stored_order(hashes: np.ndarray, chunk_size: int) -> np.ndarray:
    """Source cells in the order of the directory: by h1, and by (h2, h1) within each chunk."""
    by_h1 = np.lexsort((hashes[:, 1], hashes[:, 0]))
    chunks = [by_h1[first : first + chunk_size] for first in range(0, len(by_h1), chunk_size)]
    return np.concatenate([cells[np.lexsort((hashes[cells, 0], hashes[cells, 1]))] for cells in chunks])


def make_dataset(
    path: Path,
    n_obs: int = 100,
    n_vars: int = 20,
    chunk_size: int = 30,
    accessions: Sequence[str] = ("SRX1", "SRX2", "SRX3"),
    seed: int = 0,
    *,
    compression: Any = "gzip",
    block_elements: int = 64,
    x: sp.csr_matrix | None = None,
    order: Any = "hash",
    gene_names: Sequence[str] | None = None,
    more_obs: Callable[[pd.DataFrame], pd.DataFrame] = lambda obs: obs,
) -> tuple[Path, sp.csr_matrix, pd.DataFrame]:
    """Write a complete, hash-ordered dataset directory.

    Returns the directory, all counts (int32 CSR) and all obs (indexed by cell
    name) in global row order. Cell ``cell00042`` is source cell 42, whose
    counts are row 42 of :func:`positional_counts`, or of ``x`` if given.
    ``more_obs`` changes obs in global row order before it is written.
    ``order="source"`` leaves the cells in source order instead, experiment by experiment.
    """
    path.mkdir(parents=True, exist_ok=True)
    group_column = "SRX_accession" if order == "group" else None
    chunking = Chunking(chunk_size, compression, None, order, group_column, block_elements)
    x = positional_counts(n_obs, n_vars) if x is None else x.tocsr()
    n_obs, n_vars = x.shape
    obs, hashes = cell_obs(x, accessions, seed)
    place = (
        stored_order(hashes, chunk_size)
        if order == "hash"
        else np.argsort(np.arange(n_obs) % len(accessions), kind="stable")
    )
    x, obs = x[place].astype(np.int32), more_obs(obs.iloc[place])
    names = [f"ENSG{j:011d}" for j in range(n_vars)] if gene_names is None else gene_names
    genes = GeneList.of(names, None, [f"GENE{j}" for j in range(n_vars)])
    var = pd.DataFrame({"gene_symbol": genes.symbols}, index=pd.Index(genes.names, dtype=object))
    normalization = {"method": "log1p", "target_sum": TARGET_SUM, "size_factor_genes": "kept"}
    uns = {"scvae_data": {"format_version": 1, "processing_id": "test", "normalization": normalization}}
    columns = obs_columns(obs)
    chunks: list[ChunkEntry] = []
    with CellTablesWriter(path, columns, "test") as writer:
        for chunk_id, first in enumerate(range(0, n_obs, chunk_size)):
            part = slice(first, first + chunk_size)
            writer.append(obs.iloc[part])
            chunks.append(
                write_chunk(
                    path / chunk_file_name(chunk_id),
                    ChunkContent(CompactCsr.from_scipy(x[part]), obs.iloc[part], var, uns),
                    chunking.codec,
                    block_elements=block_elements,
                    first_row=first,
                )
            )
        generation, files = writer.close(GeneSets.of([np.ones(n_vars, bool)], n_vars))
    index = DatasetIndex(
        path=path,
        n_obs=n_obs,
        n_vars=n_vars,
        nnz=sum(chunk.nnz for chunk in chunks),
        chunk_size=chunk_size,
        chunks=tuple(chunks),
        obs_columns=columns,
        codec=chunking.codec,
        block_elements=block_elements,
        order={"kind": order, "seed": seed, "group_column": group_column},
        normalization=normalization,
        processing_id="test",
        gene_list_hash=genes.hash,
        files={GENE_LIST_FILE: write_gene_list(path, genes), **files},
        generations=(generation,),
        simulated=True,
    )
    write_index(path, index)
    return path, x, obs
