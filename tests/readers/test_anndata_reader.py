from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import h5py
import hdf5plugin
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import sparse

from scvae_data.errors import InputError
from scvae_data.readers.recognise import open_reader

DTYPES = ["uint8", "int16", "uint16", "int32", "uint32", "int64", "float32", "float64"]
COMPRESSIONS = {
    "none": {},
    "gzip": {"compression": "gzip", "chunks": True},
    "gzip_shuffle": {"compression": "gzip", "shuffle": True, "chunks": True},
    "lzf": {"compression": "lzf"},
    "blosc_lz4": dict(hdf5plugin.Blosc(cname="lz4")),
    "zstd": dict(hdf5plugin.Zstd()),
}


@pytest.mark.parametrize(("layout", "dtype"), list(itertools.product(["csr", "csc", "dense"], DTYPES)))
def test_every_layout_and_dtype_gives_the_same_rows(
    write_h5ad: Callable[..., Path], counts: NDArray[np.int64], read_dense: Any, layout: str, dtype: str
) -> None:
    with open_reader(write_h5ad({"X": counts}, layout=layout, dtype=dtype)) as reader:
        assert reader.format == "h5ad"
        assert reader.storage("X")["layout"] == layout
        assert reader.storage("X")["dtype"] == dtype
        assert reader.storage("X")["nnz"] == (None if layout == "dense" else np.count_nonzero(counts))
        np.testing.assert_array_equal(read_dense(reader, "X"), counts)


@pytest.mark.parametrize(
    ("layout", "index"), list(itertools.product(["csr", "csc"], ["int32", "int64", "uint16", "uint8"]))
)
def test_every_index_dtype_gives_the_same_rows(
    write_h5ad: Callable[..., Path], counts: NDArray[np.int64], read_dense: Any, layout: str, index: str
) -> None:
    with open_reader(write_h5ad({"X": counts}, layout=layout, index=index)) as reader:
        np.testing.assert_array_equal(read_dense(reader, "X"), counts)


@pytest.mark.parametrize(("layout", "codec"), list(itertools.product(["csr", "csc", "dense"], COMPRESSIONS)))
def test_every_compression_gives_the_same_rows(
    write_h5ad: Callable[..., Path], counts: NDArray[np.int64], read_dense: Any, layout: str, codec: str
) -> None:
    with open_reader(write_h5ad({"X": counts}, layout=layout, **COMPRESSIONS[codec])) as reader:
        np.testing.assert_array_equal(read_dense(reader, "X"), counts)


@pytest.mark.parametrize("dtype", [">f4", ">i4", "float16", "bool"])
def test_foreign_dtypes_are_read_without_loss(
    write_h5ad: Callable[..., Path], counts: NDArray[np.int64], read_dense: Any, dtype: str
) -> None:
    for layout in ("csr", "csc", "dense"):
        with open_reader(write_h5ad({"X": counts}, layout=layout, dtype=dtype)) as reader:
            np.testing.assert_array_equal(read_dense(reader, "X"), counts.astype(dtype))


@pytest.mark.parametrize("max_elements", [1, 2, 5, 11, 22, 30, 10_000])
@pytest.mark.parametrize("layout", ["csr", "csc", "dense"])
def test_any_block_size_gives_the_same_rows(
    write_h5ad: Callable[..., Path], counts: NDArray[np.int64], read_dense: Any, layout: str, max_elements: int
) -> None:
    with open_reader(write_h5ad({"X": counts}, layout=layout)) as reader:
        np.testing.assert_array_equal(read_dense(reader, "X", max_elements), counts)


@pytest.mark.parametrize("value", [70_000, -3, 0.5, np.nan, np.inf], ids=str)
def test_csc_keeps_values_that_are_not_small_counts(
    write_h5ad: Callable[..., Path], read_dense: Any, value: float
) -> None:
    matrix = np.array([[1.0, 2.0], [0.0, value], [300.0, 4.0]])
    with open_reader(write_h5ad({"X": matrix}, layout="csc", dtype="float64")) as reader:
        np.testing.assert_array_equal(read_dense(reader, "X", 2), matrix)


def test_dense_chunks_of_whole_columns_are_read_once_and_right(
    write_h5ad: Callable[..., Path], counts: NDArray[np.int64], read_dense: Any
) -> None:
    path = write_h5ad({"X": counts}, layout="dense", chunks=(7, 2), compression="gzip")
    with open_reader(path) as reader:
        np.testing.assert_array_equal(read_dense(reader, "X", 11), counts)


def test_slots_come_in_order_of_preference_with_their_own_genes(
    write_h5ad: Callable[..., Path], read_dense: Any
) -> None:
    x = np.arange(1.0, 7).reshape(2, 3)
    raw = np.arange(11.0, 19).reshape(2, 4)
    matrices = {"X": x, "raw/X": raw, "layers/count": x + 20, "layers/raw_counts": x + 30, "layers/counts": x + 40}
    with open_reader(write_h5ad(matrices | {"layers/spliced": x})) as reader:
        assert reader.slots == ("layers/counts", "layers/raw_counts", "layers/count", "raw/X", "X")
        for slot, matrix in matrices.items():
            np.testing.assert_array_equal(read_dense(reader, slot), matrix)
        assert list(reader.genes("raw/X").names) == ["raw_gene0", "raw_gene1", "raw_gene2", "raw_gene3"]
        assert list(reader.genes("layers/counts").names) == ["gene0", "gene1", "gene2"]


def test_unsorted_columns_and_explicit_zeros_pass_through(write_h5ad: Callable[..., Path]) -> None:
    path = write_h5ad({"X": np.array([[1, 2, 3]])})
    with h5py.File(path, "r+") as file:
        file["X/indices"][:] = [2, 0, 1]
        file["X/data"][:] = [9, 0, 8]
    with open_reader(path) as reader:
        block = next(reader.blocks("X"))
        assert block.indices.tolist() == [2, 0, 1]
        assert block.data.tolist() == [9, 0, 8]


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0), (3, 3)], ids=str)
@pytest.mark.parametrize("layout", ["csr", "csc", "dense"])
def test_empty_matrices_do_not_crash(
    write_h5ad: Callable[..., Path], read_dense: Any, layout: str, shape: tuple[int, int]
) -> None:
    with open_reader(write_h5ad({"X": np.zeros(shape)}, layout=layout)) as reader:
        assert reader.n_obs == shape[0]
        assert read_dense(reader, "X").shape == shape


def test_a_slot_can_be_read_again(write_h5ad: Callable[..., Path], counts: NDArray[np.int64], read_dense: Any) -> None:
    with open_reader(write_h5ad({"X": counts}, layout="csc")) as reader:
        for _ in range(2):
            np.testing.assert_array_equal(read_dense(reader, "X"), counts)


def test_obs_keeps_dtypes_and_decodes_strings(write_h5ad: Callable[..., Path]) -> None:
    obs = pd.DataFrame(
        {
            "kind": pd.Categorical(["b", None, "a"], categories=["b", "a"], ordered=True),
            "text": np.array(["x", "ü", ""], dtype=object),
            "maybe": pd.array(["p", None, "q"], dtype="string"),
            "count": pd.array([1, None, 3], dtype="Int64"),
            "flag": pd.array([True, None, False], dtype="boolean"),
            "plain": [True, False, True],
            "depth": np.array([1.5, np.nan, 3.0], dtype="float32"),
        },
        index=pd.Index(["c0", "c1", "c1"], dtype=object),
    )
    anndata.settings.allow_write_nullable_strings = True
    path = write_h5ad({"X": np.ones((3, 2))}, obs=obs)
    with open_reader(path) as reader:
        assert reader.obs_columns == tuple(obs.columns)
        assert reader.barcodes().tolist() == ["c0", "c1", "c1"]
        pd.testing.assert_frame_equal(reader.obs(), obs.reset_index(drop=True))
        assert list(reader.obs(["depth", "kind"]).columns) == ["depth", "kind"]
        with pytest.raises(InputError, match="no column 'absent'; it has kind, text") as caught:
            reader.obs(["absent"])
    assert caught.value.reason == "missing_column"


def test_bytes_are_decoded(write_h5ad: Callable[..., Path]) -> None:
    path = write_h5ad({"X": np.ones((2, 2))})
    with h5py.File(path, "r+") as file:
        for group, values in (("obs", [b"c\xc3\xbc", b"d"]), ("var", [b"g1", b"g\xfc"])):  # UTF-8, Latin-1
            del file[group]["_index"]
            file[group]["_index"] = np.array(values, dtype="S4")
        file["obs"]["tissue"] = np.array([b"lung", b"ear"])
        file["obs"].attrs["column-order"] = ["tissue"]
    with open_reader(path) as reader:
        assert reader.barcodes().tolist() == ["cü", "d"]
        assert reader.genes("X").names.tolist() == ["g1", "gü"]
        assert reader.obs()["tissue"].tolist() == ["lung", "ear"]


def test_categories_that_pandas_refuses_become_plain_values(write_h5ad: Callable[..., Path]) -> None:
    obs = pd.DataFrame({"k": pd.Categorical(["a", "b", None])}, index=pd.Index(["0", "1", "2"], dtype=object))
    path = write_h5ad({"X": np.ones((3, 2))}, obs=obs)
    with h5py.File(path, "r+") as file:
        file["obs/k/categories"][:] = ["a", "a"]
    with open_reader(path) as reader:
        assert reader.obs()["k"].tolist() == ["a", "a", None]


@pytest.mark.parametrize("layout", ["group", "compound", "nullable"])
def test_enumerations_are_what_their_numbers_are_called(write_h5ad: Callable[..., Path], layout: str) -> None:
    path = write_h5ad({"X": np.ones((4, 2))})
    names = {"treated": {"FALSE": 0, "TRUE": 1, "NA": 2}, "tissue": {"lung": 1, "liver": 2}}
    numbers = {"treated": [1, 0, 2, 1], "tissue": [2, 1, -(2**31), 2]}  # of the missing factor, R's integer NA
    dtypes = {name: h5py.enum_dtype(names[name], basetype=np.int32) for name in names}
    with h5py.File(path, "r+") as file:
        if layout == "group":
            for name, dtype in dtypes.items():
                file["obs"].create_dataset(name, data=np.array(numbers[name], np.int32), dtype=dtype)
            file["obs"].attrs["column-order"] = list(names)
        elif layout == "nullable":
            for name, dtype in dtypes.items():
                column = file["obs"].create_group(name)
                column.create_dataset("values", data=np.array(numbers[name], np.int32), dtype=dtype)
                column.create_dataset("mask", data=np.array([0, 0, 1, 0], np.int32), dtype=dtypes["treated"])
            file["obs"].attrs["column-order"] = list(names)
        else:
            table = np.zeros(4, np.dtype([("index", "S2"), *dtypes.items()]))
            table["index"] = [b"c0", b"c1", b"c2", b"c3"]
            for name in names:
                table[name] = numbers[name]
            del file["obs"]
            file["obs"] = table
    with open_reader(path) as reader:
        obs = reader.obs()
        assert obs["treated"].dtype == "boolean"
        assert obs["treated"].to_list() == [True, False, pd.NA, True]
        assert obs["tissue"].astype("string").to_list() == ["liver", "lung", pd.NA, "liver"]


@pytest.mark.parametrize(
    ("index", "columns", "ids", "symbols"),
    [
        pytest.param("ENSG{:011d}", {"gene_symbols": "S{}"}, "ENSG{:011d}", "S{}", id="ensembl_index"),
        pytest.param("ENSMUSG{:011d}.4", {"feature_name": "S{}"}, "ENSMUSG{:011d}.4", "S{}", id="versioned_index"),
        pytest.param("S{}", {"gene_ids": "ENSG{:011d}"}, "ENSG{:011d}", "S{}", id="symbol_index"),
        pytest.param("S{}", {"gene_id": "x{}", "ids": "ENSG{:011d}"}, "ENSG{:011d}", "S{}", id="first_that_is_ensembl"),
        pytest.param("S{}", {"gene_id": "x{}"}, None, "S{}", id="ids_of_no_use"),
        pytest.param("row{}", {"symbol": "S{}"}, None, "S{}", id="symbols_beside"),
        pytest.param("S{}", {"ENSEMBL": "ENSG{:011d}"}, "ENSG{:011d}", "S{}", id="scater"),
        pytest.param("S{}", {"Gene stable ID": "ENSG{:011d}.1"}, "ENSG{:011d}.1", "S{}", id="biomart"),
        pytest.param("S{}", {"gene_ids-0-0": "ENSG{:011d}"}, "ENSG{:011d}", "S{}", id="joined_files"),
        pytest.param("FBgn{:07d}", {"gene_symbols": "S{}"}, "FBgn{:07d}", "S{}", id="flybase"),
        pytest.param("S{}", {"gene_ids": "WBGene{:08d}"}, "WBGene{:08d}", "S{}", id="wormbase"),
        pytest.param("AT1G{:05d}", {"symbol": "S{}"}, "AT1G{:05d}", "S{}", id="tair"),
        pytest.param("S{}", {"gene_ids": "YAL{:03d}W-A"}, "YAL{:03d}W-A", "S{}", id="yeast"),
        pytest.param("ENSG{:011d}", {}, "ENSG{:011d}", None, id="ids_only"),
    ],
)
def test_ids_and_symbols_are_found(
    write_h5ad: Callable[..., Path], index: str, columns: dict[str, str], ids: str | None, symbols: str | None
) -> None:
    def fill(pattern: str) -> list[str]:
        return [pattern.format(j) for j in range(3)]

    var = pd.DataFrame(
        {name: np.array(fill(pattern), dtype=object) for name, pattern in columns.items()},
        index=pd.Index(fill(index), dtype=object),
    )
    with open_reader(write_h5ad({"X": np.ones((2, 3))}, var=var)) as reader:
        genes = reader.genes("X")
    assert genes.names.tolist() == fill(index)
    assert (None if genes.ids is None else genes.ids.tolist()) == (ids and fill(ids))
    assert (None if genes.symbols is None else genes.symbols.tolist()) == (symbols and fill(symbols))


REAL = [
    "h5ad/glioblastoma_zhao_5000.h5ad",
    "h5ad/papalexi_lowmoi_20729.h5ad",
    "h5ad_orig/cxg_example_invalid_CL.h5ad",
    "h5ad_orig/scvelo_dentategyrus_100obs.h5ad",
    "h5ad_orig/scvi_pbmc_5k_protein_v3.h5ad",
    "h5ad_orig/zellkonverter_example_anndata.h5ad",
    "odd/anndata_v0.5.0.h5ad",
    "odd/anndata_v0.7.0.h5ad",
    "odd/anndata_v0.7.8.h5ad",
    "odd/scframework_adata.h5ad",
]


@pytest.mark.filterwarnings("ignore")  # anndata warns about its own old encodings
@pytest.mark.parametrize("name", REAL)
def test_real_files_equal_what_anndata_reads(shared_data: Path, read_dense: Any, name: str) -> None:
    expected = anndata.read_h5ad(shared_data / name)
    with open_reader(shared_data / name) as reader:
        for slot in reader.slots:
            source, var_names = expected.X, expected.var_names
            if slot.startswith("layers/"):
                source = expected.layers[slot.removeprefix("layers/")]
            elif slot == "raw/X":
                source, var_names = expected.raw.X, expected.raw.var_names
            dense = source.toarray() if sparse.issparse(source) else np.asarray(source)
            np.testing.assert_array_equal(read_dense(reader, slot, 100_000), dense)
            assert reader.genes(slot).names.tolist() == var_names.tolist()
        assert reader.barcodes().tolist() == expected.obs_names.tolist()
        pd.testing.assert_frame_equal(
            reader.obs(), expected.obs.reset_index(drop=True), check_dtype=True, check_column_type=False
        )
