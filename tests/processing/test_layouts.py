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
from tests.support.stores import write_mudata, write_zarr, zipped

from scvae_data.errors import ScvaeDataError
from scvae_data.processing.settings.inputs import ManifestInput
from scvae_data.store import Chunking, open_index

N_OBS, N_VARS = 9, 7
COUNTS = position_counts(N_OBS, N_VARS) % 251  # fits uint8
IDS = [f"ENSG{number:011d}" for number in (5, 3, 9, 1, 2, 8, 4)]
SYMBOLS = [f"SYM{number}" for number in range(N_VARS)]
CELLS = [f"CELL{number}-1" for number in range(N_OBS)]
SOURCE_COLUMNS = ["source_file"]

Write = Callable[[Path], Path]
LAYOUTS = ("csr", "csc", "dense")


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


def zarr(version: int, packed: bool = False, layout: str = "csr") -> Write:
    def write(folder: Path) -> Path:
        path = write_zarr(ad.read_h5ad(h5ad(layout=layout)(folder)), folder / "cells.zarr", version)
        return zipped(path) if packed else path

    return write


def mudata(folder: Path) -> Path:
    rna = ad.read_h5ad(h5ad()(folder))
    proteins = ad.AnnData(np.ones((N_OBS, 1)), obs=rna.obs, var=pd.DataFrame(index=["CD3"]))
    return write_mudata(folder / "cells.h5mu", {"prot": proteins, "rna": rna}, rna.obs)


def loom(slot: str = "matrix") -> Write:
    def write(folder: Path) -> Path:
        with h5py.File(folder / "cells.loom", "w") as file:
            file["matrix"] = (COUNTS.T if slot == "matrix" else COUNTS.T / 2.5).astype(np.float32)
            file.create_group("layers")
            if slot != "matrix":
                file[slot] = COUNTS.T.astype(np.uint16)
            rows, columns = file.create_group("row_attrs"), file.create_group("col_attrs")
            rows["Gene"], rows["Accession"] = np.array(SYMBOLS, "S"), np.array(IDS, "S")
            columns["CellID"] = np.array(CELLS, "S")
        return folder / "cells.loom"

    return write


def cellbender(folder: Path) -> Path:
    path = tenx_h5(3)(folder)
    with h5py.File(path, "r+") as file:
        file["droplet_latents/cell_probability"] = np.ones(N_OBS)
        file["droplet_latents/barcode_indices_for_latents"] = np.arange(N_OBS)
        file["global_latents/ambient_expression"] = np.ones(N_VARS) / N_VARS
        file["metadata/target_false_positive_rate"] = [0.01]
        data = file["matrix/data"][()].astype(np.float64)
        del file["matrix/data"]
        file["matrix/data"] = data
    return path


def table(rows: str, separator: str = ",", packed: bool = False, columns: bool = False) -> Write:
    """``columns``: ids and symbols side by side; else both in one name."""

    def write(folder: Path) -> Path:
        names = IDS if columns else [f"{gene}_{symbol}" for gene, symbol in zip(IDS, SYMBOLS, strict=True)]
        frame = pd.DataFrame(COUNTS, index=CELLS, columns=names)
        frame = frame if rows == "cells" else frame.T
        if columns:
            frame.insert(0, "gene_name", SYMBOLS)
        path = folder / f"cells.txt{'.gz' if packed else ''}"
        frame.to_csv(path, sep=separator, index_label="gene_id" if columns else None)
        return path

    return write


def of_counter(matrix: str, barcodes: str, features: str, symbols: str | None = None, *, cells_first: bool) -> Write:
    """A folder as a counter of reads names it: ids and symbols in one file, or in two."""

    def write(folder: Path) -> Path:
        target = (folder / matrix).parent
        target.mkdir(parents=True, exist_ok=True)
        put_matrix(folder / matrix, COUNTS if cells_first else COUNTS.T)
        header = "bc_wells\n" if barcodes.endswith(".csv") else ""
        (target / barcodes).write_text(header + "".join(f"{cell}\n" for cell in CELLS))
        if symbols is not None:
            (target / features).write_text("".join(f"{gene}\n" for gene in IDS))
            (target / symbols).write_text("".join(f"{symbol}\n" for symbol in SYMBOLS))
        else:
            head, mark = ("gene_id,gene_name,genome\n", ",") if features.endswith(".csv") else ("", "\t")
            last = f"{mark}hg38" if head else ""
            lines = [f"{gene}{mark}{symbol}{last}\n" for gene, symbol in zip(IDS, SYMBOLS, strict=True)]
            (target / features).write_text(head + "".join(lines))
        return target

    return write


def put_matrix(path: Path, matrix: Any) -> None:
    scipy.io.mmwrite(path, sp.coo_matrix(matrix), field="integer")


def starsolo(folder: Path) -> Path:
    """Counts of reads that map once, and beside them those of all."""
    names = ("donor/Solo.out/Gene/filtered/matrix.mtx", "barcodes.tsv", "features.tsv")
    target = of_counter(*names, cells_first=False)(folder)
    put_matrix(target / "UniqueAndMult-EM.mtx", 2 * COUNTS.T)
    return target


def split(counts: Any) -> list[Any]:
    """Counts as molecules of three states."""
    parts = [counts // 2, counts // 3]
    return [*parts, counts - parts[0] - parts[1]]


def velocyto(folder: Path) -> Path:
    target = of_counter("Solo.out/Velocyto/raw/x.mtx", "barcodes.tsv", "features.tsv", cells_first=False)(folder)
    (target / "x.mtx").unlink()
    for name, counts in zip(("spliced", "unspliced", "ambiguous"), split(COUNTS), strict=True):
        put_matrix(target / f"{name}.mtx", counts.T)
    return target


def alevin(folder: Path) -> Path:
    put_matrix(folder / "quants_mat.mtx", np.hstack(split(COUNTS)))
    (folder / "quants_mat_rows.txt").write_text("".join(f"{cell}\n" for cell in CELLS))
    # No symbols: the name of a gene holds both.
    names = [f"{gene}_{symbol}" for gene, symbol in zip(IDS, SYMBOLS, strict=True)]
    lines = [f"{name}{state}\n" for state in ("", "-U", "-A") for name in names]
    (folder / "quants_mat_cols.txt").write_text("".join(lines))
    return folder


def mtx(packed: bool, features: str) -> Write:
    def write(folder: Path) -> Path:
        target = folder / "cells"
        target.mkdir()
        scipy.io.mmwrite(target / "matrix.mtx", sp.coo_matrix(COUNTS.T))
        (target / "barcodes.tsv").write_text("".join(f"{cell}\n" for cell in CELLS))
        kind = "\tGene Expression" if features == "features.tsv" else ""
        lines = [f"{gene}\t{symbol}{kind}\n" for gene, symbol in zip(IDS, SYMBOLS, strict=True)]
        (target / features).write_text("".join(lines))
        for path in list(target.iterdir()) if packed else []:
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
    **{f"zarr {version} {layout}": zarr(version, layout=layout) for version in (2, 3) for layout in LAYOUTS},
    **{f"zarr {version} zip": zarr(version, packed=True) for version in (2, 3)},
    "mudata": mudata,
    "loom": loom(),
    "loom layer": loom("layers/counts"),
    "CellBender": cellbender,
    **{f"table of {rows}": table(rows) for rows in ("genes", "cells")},
    **{f"table of {rows}, tabs, gzip": table(rows, "\t", packed=True) for rows in ("genes", "cells")},
    "table of genes, ids and symbols": table("genes", ";", columns=True),
    "kallisto": of_counter(
        "cells_x_genes.mtx", "cells_x_genes.barcodes.txt", "cells_x_genes.genes.txt", "cells_x_genes.genes.names.txt",
        cells_first=True,
    ),
    "alevin-fry": alevin,
    "STARsolo": starsolo,
    "STARsolo Velocyto": velocyto,
    "Parse": of_counter("DGE_filtered/DGE.mtx", "cell_metadata.csv", "all_genes.csv", cells_first=True),
    "Parse, newer": of_counter("DGE/count_matrix.mtx", "cell_metadata.csv", "all_genes.csv", cells_first=True),
    "BD": of_counter("s_RSEC_MolsPerCell_MEX/matrix.mtx", "barcodes.tsv", "features.tsv", cells_first=False),
    "GEO": of_counter("GSM1_matrix_s1.mtx", "GSM1_barcodes_s1.tsv", "GSM1_features_s1.tsv", cells_first=False),
}  # fmt: skip
ALL_STATES = "sum:spliced+unspliced+ambiguous"
COUNTS_ARE = {"alevin-fry": ALL_STATES, "STARsolo Velocyto": ALL_STATES}


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
    manifest.write_text(f"path,srx_accession\n{path.relative_to(tmp_path)},SRX1\n")
    inputs = ManifestInput(manifest=str(manifest), counts=COUNTS_ARE.get(way))
    summary = process([], input=inputs, chunking=Chunking(chunk_size=5))
    assert (summary.n_obs, summary.n_vars) == (N_OBS, N_VARS)
    hashes[way] = content_hash(tmp_path / "out")
    assert set(hashes.values()) == {next(iter(hashes.values()))}


@pytest.mark.parametrize(("prefix", "name"), [("GSM5550001_lungA_", "GSM5550001_lungA"), ("", "g1")])
def test_a_folder_and_its_matrix_are_one_experiment(
    prefix: str, name: str, tmp_path: Path, process: Callable[..., Any]
) -> None:
    folder = mtx(True, "features.tsv")(tmp_path).rename(tmp_path / "g1")
    for path in list(folder.iterdir()):
        path.rename(folder / f"{prefix}{path.name}")
    ways = [folder, folder / f"{prefix}matrix.mtx.gz"]
    for number, path in enumerate(ways):
        process([path], tmp_path / f"out{number}")
        obs = open_index(tmp_path / f"out{number}").obs(["SRX_accession"])
        assert obs["SRX_accession"].unique().tolist() == [name]
        with pytest.raises(ScvaeDataError, match="already"):
            process([ways[1 - number]], tmp_path / f"out{number}", append=True)
