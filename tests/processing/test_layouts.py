"""One matrix, stored in every way: the same counts, genes and QC columns come out, to the last bit."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.io
import scipy.sparse as sp
from tests.support.pipeline import position_counts

from scvae_data.processing.settings.inputs import ManifestInput
from scvae_data.store import Chunking

N_OBS, N_VARS = 9, 7
COUNTS = position_counts(N_OBS, N_VARS) % 251  # fits uint8
IDS = [f"ENSG{number:011d}" for number in (5, 3, 9, 1, 2, 8, 4)]
SYMBOLS = [f"SYM{number}" for number in range(N_VARS)]
CELLS = [f"CELL{number}-1" for number in range(N_OBS)]
SOURCE_COLUMNS = ["source_file"]

Write = Callable[[Path], Path]


def h5ad(slot: str = "X", layout: str = "csr", dtype: str = "float32", compression: str | None = None) -> Write:
    def write(folder: Path) -> Path:
        matrix: Any = COUNTS.astype(dtype)
        matrix = matrix if layout == "dense" else {"csr": sp.csr_matrix, "csc": sp.csc_matrix}[layout](matrix)
        var = pd.DataFrame({"gene_symbols": SYMBOLS}, index=IDS)
        obs = pd.DataFrame(index=CELLS)
        adata = ad.AnnData(matrix if slot == "X" else COUNTS / 2.5, obs=obs, var=var)
        if slot == "raw":
            adata.raw = ad.AnnData(matrix, obs=obs, var=var)
        elif slot != "X":
            adata.layers[slot] = matrix
        adata.write_h5ad(folder / "cells.h5ad", compression=compression)
        return folder / "cells.h5ad"

    return write


def tenx_h5(version: int) -> Write:
    def write(folder: Path) -> Path:
        rows = sp.csr_matrix(COUNTS)
        with h5py.File(folder / "cells.h5", "w") as file:
            group = file.create_group("matrix" if version == 3 else "GRCh38")
            names = group.create_group("features") if version == 3 else group
            names["id" if version == 3 else "genes"] = np.array(IDS, "S")
            names["name" if version == 3 else "gene_names"] = np.array(SYMBOLS, "S")
            if version == 3:
                names["feature_type"] = np.array(["Gene Expression"] * N_VARS, "S")
            group["barcodes"] = np.array(CELLS, "S")
            group["data"] = rows.data.astype(np.int32)
            group["indices"] = rows.indices.astype(np.int64)
            group["indptr"] = rows.indptr.astype(np.int64)
            group["shape"] = np.array([N_VARS, N_OBS], np.int32)
        return folder / "cells.h5"

    return write


def mtx(zipped: bool, features: str) -> Write:
    def write(folder: Path) -> Path:
        target = folder / "cells"
        target.mkdir()
        scipy.io.mmwrite(target / "matrix.mtx", sp.coo_matrix(COUNTS.T))
        (target / "barcodes.tsv").write_text("".join(f"{cell}\n" for cell in CELLS))
        kind = "\tGene Expression" if features == "features.tsv" else ""
        lines = [f"{gene}\t{symbol}{kind}\n" for gene, symbol in zip(IDS, SYMBOLS, strict=True)]
        (target / features).write_text("".join(lines))
        for path in list(target.iterdir()) if zipped else []:
            path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
        return target

    return write


WAYS: dict[str, Write] = {
    **{f"X {layout}": h5ad(layout=layout) for layout in ("csr", "csc", "dense")},
    **{f"X csr {codec}": h5ad(compression=codec) for codec in ("gzip", "lzf")},
    "X dense gzip": h5ad(layout="dense", compression="gzip"),
    **{f"X {dtype}": h5ad(dtype=dtype) for dtype in ("uint8", "uint16", "int32", "int64", "float64")},
    "X csc uint8": h5ad(layout="csc", dtype="uint8"),
    "raw": h5ad("raw"),
    "layer": h5ad("counts"),
    "layer raw_counts csc": h5ad("raw_counts", "csc"),
    "10x v2": tenx_h5(2),
    "10x v3": tenx_h5(3),
    "mtx": mtx(False, "features.tsv"),
    "mtx gz": mtx(True, "features.tsv"),
    "mtx genes.tsv": mtx(False, "genes.tsv"),
}


def content_hash(directory: Path) -> str:
    """Hash counts, var and obs of all chunks but for the columns that name the source."""
    digest = hashlib.sha256()
    for path in sorted(directory.glob("chunk_*.h5")):
        chunk = ad.read_h5ad(path)
        for array in (chunk.X.indptr, chunk.X.indices, chunk.X.data):
            digest.update(array.tobytes())
        obs = chunk.obs.drop(columns=SOURCE_COLUMNS)
        digest.update(chunk.var.to_csv().encode() + obs.to_csv().encode())
    return digest.hexdigest()


@pytest.fixture(scope="module")
def hashes() -> dict[str, str]:
    """Content hashes seen so far, by way."""
    return {}


@pytest.mark.parametrize("way", WAYS)
def test_the_way_a_matrix_is_stored_does_not_matter(
    way: str, tmp_path: Path, process: Callable[..., Any], hashes: dict[str, str]
) -> None:
    path = WAYS[way](tmp_path)
    manifest = tmp_path / "manifest.csv"
    manifest.write_text(f"path,srx_accession\n{path.name},SRX1\n")
    summary = process([], input=ManifestInput(manifest=str(manifest)), chunking=Chunking(chunk_size=5))
    assert (summary.n_obs, summary.n_vars) == (N_OBS, N_VARS)
    hashes[way] = content_hash(tmp_path / "out")
    assert set(hashes.values()) == {next(iter(hashes.values()))}
