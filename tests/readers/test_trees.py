"""AnnData objects and their like, in whatever holds them: Zarr stores, MuData and loom files."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import zarr
from numpy.typing import NDArray
from tests.support.stores import write_mudata, write_zarr, zipped

from scvae_data.errors import InputError
from scvae_data.readers.base import LayeredReader
from scvae_data.readers.opening import Opening
from scvae_data.readers.recognise import open_reader
from scvae_data.system.hdf5_guard import Limits

N_OBS, N_VARS = 7, 11
IDS = [f"ENSG{j:011d}" for j in range(N_VARS)]
SYMBOLS = [f"SYM{j}" for j in range(N_VARS)]
CELLS = [f"AAAC{i}-1" for i in range(N_OBS)]


@pytest.fixture
def cells(counts: NDArray[np.int64]) -> ad.AnnData:
    """Counts in ``layers/counts`` and ``raw``, twice these in a layer of spliced ones, fractions in ``X``."""
    obs = pd.DataFrame(
        {
            "kind": pd.Categorical(["T", None, *"TTBBB"]),
            "donor": [f"d{i}" for i in range(N_OBS)],
            "age": pd.array([30, None, 32, 33, 34, 35, 36], dtype="Int64"),
            "score": np.arange(N_OBS) / 4,
        },
        index=CELLS,
    )
    made = ad.AnnData(sp.csr_matrix(counts / 2.5), obs=obs, var=pd.DataFrame({"gene_symbols": SYMBOLS}, index=IDS))
    made.raw = ad.AnnData(sp.csc_matrix(counts), obs=obs, var=made.var)
    made.layers["counts"] = counts.astype("float32")
    made.layers["spliced"] = sp.csr_matrix(2 * counts)
    return made


# --- Zarr -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
@pytest.mark.parametrize(("version", "sharded"), [(2, False), (3, False), (3, True)])
def test_a_store_is_read_as_an_h5ad_file_is(
    tmp_path: Path,
    cells: ad.AnnData,
    counts: NDArray[np.int64],
    read_dense: Any,
    version: int,
    sharded: bool,
    packed: bool,
) -> None:
    path = write_zarr(cells, tmp_path / "cells.zarr", version, sharded)
    cells.write_h5ad(tmp_path / "cells.h5ad")
    path = zipped(path) if packed else path
    with open_reader(path) as reader, open_reader(tmp_path / "cells.h5ad") as same:
        assert isinstance(reader, LayeredReader) and isinstance(same, LayeredReader)
        assert (reader.format, reader.n_obs) == ("zarr", N_OBS)
        assert reader.slots == same.slots == ("layers/counts", "raw/X", "X")
        assert reader.others == same.others == ("layers/spliced",)
        for slot in (*reader.slots, *reader.others):
            np.testing.assert_array_equal(read_dense(reader, slot), read_dense(same, slot))
            assert reader.storage(slot) == same.storage(slot)
            assert reader.sample(slot).n_stored == same.sample(slot).n_stored
        np.testing.assert_array_equal(read_dense(reader, "raw/X"), counts)
        assert reader.genes("X").ids.tolist() == IDS
        assert reader.genes("X").symbols.tolist() == SYMBOLS
        assert reader.barcodes().tolist() == CELLS
        pd.testing.assert_frame_equal(reader.obs(), same.obs())


@pytest.mark.parametrize("layout", ["csr", "csc", "dense"])
@pytest.mark.parametrize("version", [2, 3])
def test_every_layout_of_a_store(
    tmp_path: Path, counts: NDArray[np.int64], read_dense: Any, version: int, layout: str
) -> None:
    matrix = {"csr": sp.csr_matrix, "csc": sp.csc_matrix, "dense": np.asarray}[layout](counts.astype("float32"))
    cells = ad.AnnData(matrix, obs=pd.DataFrame(index=CELLS), var=pd.DataFrame(index=IDS))
    with open_reader(write_zarr(cells, tmp_path / "cells.zarr", version)) as reader:
        np.testing.assert_array_equal(read_dense(reader, "X"), counts)


@pytest.mark.parametrize("version", ["0.7.0", "0.7.8"])
def test_real_old_stores_equal_the_h5ad_files_written_with_them(
    shared_data: Path, read_dense: Any, version: str
) -> None:
    paths = [shared_data / "odd" / f"anndata_v{version}.{end}" for end in ("zarr.zip", "h5ad")]
    with open_reader(paths[0]) as reader, open_reader(paths[1]) as same:
        assert reader.slots == same.slots
        for slot in reader.slots:
            np.testing.assert_array_equal(read_dense(reader, slot), read_dense(same, slot))
            assert reader.genes(slot).names.tolist() == same.genes(slot).names.tolist()
        assert reader.barcodes().tolist() == same.barcodes().tolist()
        pd.testing.assert_frame_equal(reader.obs(), same.obs())


def test_a_reader_of_a_store_crosses_process_borders(tmp_path: Path, cells: ad.AnnData, read_dense: Any) -> None:
    path = write_zarr(cells, tmp_path / "cells.zarr", 3)
    with pickle.loads(pickle.dumps(open_reader(path))) as reader:
        assert read_dense(reader, "X").shape == (N_OBS, N_VARS)


@pytest.mark.parametrize("version", [2, 3])
def test_an_absent_chunk_of_counts_is_not_read_as_zeros(tmp_path: Path, cells: ad.AnnData, version: int) -> None:
    path = write_zarr(cells, tmp_path / "cells.zarr", version)
    (path / "raw/X/data" / ("0" if version == 2 else "c/0")).unlink()
    with pytest.raises(InputError, match=r"raw/X/data lacks 1 of its 1 chunks; copy the store again") as caught:
        open_reader(path).__enter__()
    assert caught.value.reason == "truncated"


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (
            Limits(max_table_bytes=100, max_inflation=10**12),
            "X has chunks of 800 bytes, over input.max_table_bytes=100",
        ),
        (Limits(max_inflation=1), "X declares 80,000,000,000 bytes and takes"),
    ],
)
def test_a_store_that_declares_too_much_is_not_read(tmp_path: Path, limits: Limits, message: str) -> None:
    path = write_zarr(ad.AnnData(obs=pd.DataFrame(index=CELLS), var=pd.DataFrame(index=IDS)), tmp_path / "c.zarr", 2)
    zarr.open_group(path, use_consolidated=False).create_array("X", shape=(10**5, 10**5), chunks=(10, 10), dtype="f8")
    with pytest.raises(InputError, match=message) as caught:
        open_reader(path, Opening(limits)).__enter__()
    assert caught.value.reason == "unsafe"


def test_a_store_of_something_else_is_named(tmp_path: Path) -> None:
    zarr.open_group(tmp_path / "image.zarr", mode="w").create_array("0", shape=(2, 2), dtype="u1")
    with pytest.raises(InputError, match="no AnnData object: no obs, it holds 0") as caught:
        open_reader(tmp_path / "image.zarr").__enter__()
    assert caught.value.reason == "not_single_cell"


# --- MuData ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rna", "gex", "RNA", "Gene Expression"])
def test_the_rna_of_a_mudata_file_is_read(tmp_path: Path, cells: ad.AnnData, read_dense: Any, name: str) -> None:
    obs = pd.DataFrame({f"{name}:kind": 1, "leiden": 2}, index=CELLS)
    path = write_mudata(tmp_path / "cells.h5mu", {"prot": cells[:, :2].copy(), name: cells}, obs)
    cells.write_h5ad(tmp_path / "cells.h5ad")
    with open_reader(path) as reader, open_reader(tmp_path / "cells.h5ad") as same:
        assert reader.format == "h5mu"
        assert reader.notes == (
            "modality prot is left out", "1 obs column of all modalities together (leiden) left out",
        )  # fmt: skip
        assert reader.slots == same.slots
        np.testing.assert_array_equal(read_dense(reader, "raw/X"), read_dense(same, "raw/X"))
        assert reader.genes("X").ids.tolist() == IDS
        pd.testing.assert_frame_equal(reader.obs(), same.obs())


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["atac", "prot"], r"no modality of RNA \(modalities: atac, prot\); write the one meant as H5AD"),
        (["gex", "rna"], r"2 modalities of RNA \(modalities: gex, rna\)"),
        ([], r"no modality of RNA \(modalities: none\)"),
    ],
)
def test_a_mudata_file_without_one_rna_names_what_it_has(
    tmp_path: Path, cells: ad.AnnData, names: list[str], message: str
) -> None:
    path = write_mudata(tmp_path / "cells.h5mu", {name: cells[:, :2].copy() for name in names}, cells.obs)
    with pytest.raises(InputError, match=message) as caught:
        open_reader(path).__enter__()
    assert caught.value.reason == "no_counts"


# --- loom -----------------------------------------------------------------------------------------------------------

Attributes = dict[str, Any]
WRITERS: dict[str, tuple[Attributes, Attributes]] = {
    "loompy": ({"Gene": SYMBOLS, "Accession": IDS}, {"CellID": CELLS}),
    "anndata": ({"var_names": IDS, "gene_symbols": SYMBOLS}, {"obs_names": CELLS}),
    "anndata with names": ({"gene_symbols": SYMBOLS, "ensembl": IDS}, {"donor": ["d"] * N_OBS, "name": CELLS}),
    "loomR": ({"gene_names": SYMBOLS, "gene_id": IDS}, {"cell_names": CELLS}),
    "Optimus": ({"Gene": SYMBOLS, "ensembl_ids": IDS}, {"CellID": CELLS}),
    "numbered": ({"rownames": [str(j) for j in range(N_VARS)], "Accession": IDS, "Gene": SYMBOLS}, {"CellID": CELLS}),
}


@pytest.fixture
def write_loom(tmp_path: Path, counts: NDArray[np.int64]) -> Callable[..., Path]:
    """Genes × cells, in chunks; ``layers`` are given as cells × genes."""

    def write(row: Attributes, col: Attributes, layers: dict[str, NDArray[Any]] | None = None, **storage: Any) -> Path:
        path = tmp_path / "cells.loom"
        how: dict[str, Any] = {"chunks": (4, 3), "compression": "gzip"} | storage
        with h5py.File(path, "w") as file:
            file.create_dataset("matrix", data=counts.T.astype("float32"), **how)
            for name, layer in (layers or {}).items():
                file.create_dataset(f"layers/{name}", data=layer.T, **how)
            for group, attributes in (("row_attrs", row), ("col_attrs", col)):
                file.create_group(group)
                for name, values in attributes.items():
                    values = np.asarray(values)
                    file[group][name] = values.astype("S") if values.dtype.kind == "U" else values
            for group in ("row_graphs", "col_graphs"):
                file.create_group(group)
        return path

    return write


@pytest.mark.parametrize("chunks", [(4, 3), (11, 1), (1, 7), None])
@pytest.mark.parametrize("max_elements", [1, 10, 30, 10**6])
def test_cells_of_a_loom_file_are_its_columns(
    write_loom: Callable[..., Path], counts: NDArray[np.int64], read_dense: Any, chunks: Any, max_elements: int
) -> None:
    path = write_loom(*WRITERS["loompy"], chunks=chunks, compression=chunks and "gzip")
    with open_reader(path) as reader:
        assert (reader.format, reader.slots, reader.n_obs) == ("loom", ("X",), N_OBS)
        dense = read_dense(reader, "X", max(max_elements, N_VARS))
        np.testing.assert_array_equal(dense, counts)


@pytest.mark.parametrize("writer", WRITERS)
def test_names_are_found_whatever_wrote_the_loom_file(write_loom: Callable[..., Path], writer: str) -> None:
    with open_reader(write_loom(*WRITERS[writer])) as reader:
        genes = reader.genes("X")
        assert genes.ids is not None and genes.ids.tolist() == IDS
        assert genes.symbols is not None and genes.symbols.tolist() == SYMBOLS
        assert reader.barcodes().tolist() == CELLS


def test_attributes_of_one_value_are_obs_and_others_are_named(write_loom: Callable[..., Path]) -> None:
    col = {"CellID": CELLS, "Age": ["p20"] * N_OBS, "Total": np.arange(N_OBS), "pca": np.zeros((N_OBS, 2))}
    with open_reader(write_loom({"Gene": SYMBOLS}, col)) as reader:
        assert reader.obs_columns == ("Age", "Total")
        assert reader.obs()["Total"].tolist() == list(range(N_OBS))
        assert reader.obs(["Age"])["Age"].tolist() == ["p20"] * N_OBS
        assert reader.notes == ("not one value each, left out: col_attrs/pca",)


def test_a_loom_file_without_names_of_cells_numbers_them(write_loom: Callable[..., Path]) -> None:
    with open_reader(write_loom({"Gene": SYMBOLS}, {"Total": np.arange(N_OBS)})) as reader:
        assert reader.barcodes().tolist() == [str(i) for i in range(N_OBS)]


def test_layers_of_a_loom_file(write_loom: Callable[..., Path], counts: NDArray[np.int64], read_dense: Any) -> None:
    layers = {"spliced": counts // 2, "unspliced": counts - counts // 2}
    with open_reader(write_loom(*WRITERS["loompy"], layers=layers | {"counts": 3 * counts})) as reader:
        assert isinstance(reader, LayeredReader)
        assert reader.slots == ("layers/counts", "X")
        assert reader.others == ("layers/spliced", "layers/unspliced")
        assert reader.find_slot("X") == "X"
        np.testing.assert_array_equal(read_dense(reader, "layers/counts"), 3 * counts)
        np.testing.assert_array_equal(read_dense(reader, reader.find_slot("layers/spliced"), 22), counts // 2)
        np.testing.assert_array_equal(read_dense(reader, reader.find_slot("sum:spliced+unspliced"), 22), counts)


@pytest.mark.parametrize("name", ["scenic_expr_mat.loom", "loomexp_L1_DRG_20_example.loom"])
def test_real_loom_files_equal_what_is_stored(shared_data: Path, read_dense: Any, name: str) -> None:
    path = shared_data / "loom" / name
    with h5py.File(path) as file, open_reader(path) as reader:
        np.testing.assert_array_equal(read_dense(reader, "X", 10**6), file["matrix"][()].T)
        assert reader.barcodes().tolist() == file["col_attrs/CellID"].asstr()[()].tolist()
        assert reader.genes("X").symbols.tolist() == file["row_attrs/Gene"].asstr()[()].tolist()
        if "Accession" in file["row_attrs"]:
            assert reader.genes("X").ids.tolist() == file["row_attrs/Accession"].asstr()[()].tolist()
