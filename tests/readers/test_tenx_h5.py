from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scanpy as sc
from numpy.typing import NDArray
from scipy import sparse

from scvae_data.errors import InputError
from scvae_data.readers.recognise import open_reader


def test_v3_is_read_by_cell(write_10x_v3: Callable[..., Path], counts: NDArray[np.int64], read_dense: Any) -> None:
    with open_reader(write_10x_v3(counts)) as reader:
        assert (reader.format, reader.slots, reader.notes) == ("10x_h5_v3", ("matrix",), ())
        np.testing.assert_array_equal(read_dense(reader, "matrix"), counts)
        genes = reader.genes("matrix")
        assert genes.ids is not None and genes.symbols is not None
        assert (genes.ids[3], genes.symbols[3]) == ("ENSG00000000003", "SYM3")
        assert reader.barcodes()[6] == "AAAC6-1"
        assert reader.obs().shape == (7, 0)
        assert reader.storage("matrix") == {"layout": "csr", "dtype": "int32", "nnz": np.count_nonzero(counts)}


def test_other_modalities_are_dropped_and_counted(
    write_10x_v3: Callable[..., Path], counts: NDArray[np.int64], read_dense: Any
) -> None:
    types = ["Gene Expression"] * 11
    types[0] = types[5] = types[10] = "Antibody Capture"
    types[7] = "CRISPR Guide Capture"
    kept = [1, 2, 3, 4, 6, 8, 9]
    with open_reader(write_10x_v3(counts, types)) as reader:
        np.testing.assert_array_equal(read_dense(reader, "matrix"), counts[:, kept])
        assert reader.genes("matrix").names.tolist() == [f"ENSG{j:011d}" for j in kept]
        assert reader.notes == (
            "dropped 3 features of type Antibody Capture",
            "dropped 1 feature of type CRISPR Guide Capture",
        )


def test_a_file_without_gene_expression_has_no_counts(write_10x_v3: Callable[..., Path]) -> None:
    path = write_10x_v3(np.ones((3, 2)), ["Peaks"] * 2)
    message = r"no feature of type Gene Expression, found Peaks \(2\)"
    with pytest.raises(InputError, match=message) as caught, open_reader(path):
        pass
    assert caught.value.reason == "no_counts"


def test_too_few_barcodes_are_reported(write_10x_v3: Callable[..., Path], counts: NDArray[np.int64]) -> None:
    path = write_10x_v3(counts, barcodes=np.array([b"A", b"B"]))
    with pytest.raises(InputError, match="11 features and 2 barcodes") as caught, open_reader(path):
        pass
    assert caught.value.reason == "size_mismatch"


def write_v2(path: Path, genomes: dict[str, tuple[NDArray[np.int64], list[str]]]) -> Path:
    with h5py.File(path, "w") as file:
        for name, (matrix, barcodes) in genomes.items():
            rows = sparse.csr_matrix(matrix)
            group = file.create_group(name)
            group["data"], group["indices"], group["indptr"] = rows.data, rows.indices, rows.indptr
            group["shape"] = np.array(matrix.shape[::-1])
            group["barcodes"] = np.array(barcodes, dtype="S")
            group["genes"] = np.array([f"{name}_id{j}" for j in range(matrix.shape[1])], dtype="S")
            group["gene_names"] = np.array([f"{name}_{j}" for j in range(matrix.shape[1])], dtype="S")
    return path


def test_v2_is_one_group_per_genome(tmp_path: Path, counts: NDArray[np.int64], read_dense: Any) -> None:
    path = write_v2(tmp_path / "v2.h5", {"hg19": (counts, [f"c{i}" for i in range(7)])})
    with open_reader(path) as reader:
        assert (reader.format, reader.notes) == ("10x_h5_v2", ())
        np.testing.assert_array_equal(read_dense(reader, "matrix"), counts)


def test_genomes_are_joined_by_barcode(tmp_path: Path, read_dense: Any) -> None:
    human = np.array([[1, 2], [3, 4]])
    mouse = np.array([[5, 0, 6], [7, 8, 9]])
    path = write_v2(tmp_path / "two.h5", {"hg19": (human, ["a", "b"]), "mm10": (mouse, ["b", "c"])})
    with open_reader(path) as reader:
        assert reader.notes == ("joined 2 genomes as columns: hg19, mm10",)
        assert reader.barcodes().tolist() == ["a", "b", "c"]
        assert reader.genes("matrix").names.tolist() == ["hg19_id0", "hg19_id1", "mm10_id0", "mm10_id1", "mm10_id2"]
        expected = [[1, 2, 0, 0, 0], [3, 4, 5, 0, 6], [0, 0, 7, 8, 9]]
        np.testing.assert_array_equal(read_dense(reader, "matrix"), expected)


@pytest.mark.parametrize(
    "name",
    [
        "1k_PBMCs_TotalSeq_B_3p_LT_filtered_feature_bc_matrix.h5",
        "heart_1k_v2_filtered_gene_bc_matrices_h5.h5",
        "scanpy_cr3_filtered_feature_bc_matrix.h5",
        "scanpy_cr1.2_filtered_gene_bc_matrices_h5.h5",
        "scprep_test_10X.h5",
        "seurat_visium_filtered_feature_bc_matrix.h5",
    ],
)
def test_real_files_equal_what_scanpy_reads(shared_data: Path, name: str) -> None:
    path = shared_data / "10x_h5" / name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # duplicate symbols
        expected = sc.read_10x_h5(path)
    with open_reader(path) as reader:
        blocks = list(reader.blocks("matrix", max_elements=100_000))
        read = sparse.vstack(
            [sparse.csr_matrix((b.data, b.indices, b.indptr), shape=(b.n_rows, b.n_vars)) for b in blocks]
        )
        assert (read != expected.X).nnz == 0
        assert reader.barcodes().tolist() == expected.obs_names.tolist()
        assert reader.genes("matrix").names.tolist() == expected.var["gene_ids"].tolist()
        symbols = reader.genes("matrix").symbols
        assert symbols is not None and symbols.tolist() == expected.var_names.tolist()


@pytest.mark.parametrize("place", ["droplet_latents/cell_probability", "matrix/latent_cell_probability"])
@pytest.mark.parametrize("n_cells", [7, 3])
def test_counts_of_cellbender_are_read_and_told(
    write_10x_v3: Callable[..., Path], counts: NDArray[np.int64], read_dense: Any, place: str, n_cells: int
) -> None:
    path = write_10x_v3(counts)
    with h5py.File(path, "r+") as file:
        file[place] = np.array([0.9] * n_cells + [0.2, np.nan])
        data = file["matrix/data"][()].astype("float64")
        del file["matrix/data"]
        file["matrix/data"] = data
    told = "counts are those that CellBender left of the background"
    more = "; of 7 barcodes it calls 3 cells, which its file …_filtered.h5 has alone" if n_cells == 3 else ""
    with open_reader(path) as reader:
        np.testing.assert_array_equal(read_dense(reader, "matrix"), counts)
        assert reader.notes == (told + more,)


def test_counts_of_the_first_cellbender_are_read(
    write_10x_v3: Callable[..., Path], counts: NDArray[np.int64], read_dense: Any
) -> None:
    path = write_10x_v3(counts)
    with h5py.File(path, "r+") as file:
        file.move("matrix", "background_removed")
        for old, new in (("id", "genes"), ("name", "gene_names")):
            file.move(f"background_removed/features/{old}", f"background_removed/{new}")
        del file["background_removed/features"]
        file["background_removed/ambient_expression"] = np.ones(11)
    with open_reader(path) as reader:
        assert (reader.format, reader.notes) == (
            "10x_h5_v2", ("counts are those that CellBender left of the background",),
        )  # fmt: skip
        np.testing.assert_array_equal(read_dense(reader, "matrix"), counts)
