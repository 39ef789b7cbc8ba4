from __future__ import annotations

import gzip
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from scvae_data.errors import InputError
from scvae_data.readers.recognise import open_reader


def reason_of(path: Path) -> str:
    """Reason for which a file is refused on opening or reading."""
    with pytest.raises(InputError) as caught, open_reader(path) as reader:
        for _ in reader.blocks(reader.slots[0]):
            pass
    assert "\n" not in str(caught.value)
    assert caught.value.path == path
    return caught.value.reason


def test_the_content_decides_and_not_the_name(
    write_h5ad: Callable[..., Path], write_10x_v3: Callable[..., Path], tmp_path: Path
) -> None:
    assert open_reader(write_h5ad({"X": np.ones((2, 3))}).rename(tmp_path / "a.csv")).format == "h5ad"
    assert open_reader(write_10x_v3(np.ones((2, 3))).rename(tmp_path / "b.h5ad")).format == "10x_h5_v3"


def test_a_closed_reader_can_be_sent_to_a_worker(write_h5ad: Callable[..., Path]) -> None:
    reader = pickle.loads(pickle.dumps(open_reader(write_h5ad({"X": np.ones((2, 3))}))))
    with reader:
        assert reader.n_obs == 2


def test_hdf5_behind_a_user_block_is_recognised(write_h5ad: Callable[..., Path], tmp_path: Path) -> None:
    path = write_h5ad({"X": np.ones((2, 3))})
    shifted = tmp_path / "shifted"
    with h5py.File(shifted, "w", userblock_size=512) as target, h5py.File(path) as source:
        for name in source:
            source.copy(name, target)
    assert open_reader(shifted).format == "h5ad"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(b"", "empty", id="empty"),
        pytest.param(b"\n \n", "empty", id="blank"),
        pytest.param(gzip.compress(b""), "empty", id="gzip_of_nothing"),
        pytest.param(b"a,c1,c2\nA,1,2\n", "ambiguous", id="csv"),
        pytest.param(gzip.compress(b"a,c1,c2\nA,1,2\n"), "ambiguous", id="csv_gz"),
        pytest.param(gzip.compress(b"gene,c1,c2\nA,1,2\n" * 5000)[:-30], "truncated", id="csv_gz_cut_far_behind"),
        pytest.param(gzip.compress(b"gene,c1,c2\nA,1,2\n")[:-12], "truncated", id="gzip_cut"),
        pytest.param(b"\x1f\x8b\x08\x00" + b"\xff" * 60, "unreadable", id="gzip_garbage"),
        pytest.param(bytes(range(256)) * 4, "not_single_cell", id="binary"),
        pytest.param(b"\x89HDF\r\n\x1a\n" + b"\0" * 40, "unreadable", id="hdf5_garbage"),
        pytest.param(b"%%MatrixMarket matrix coordinate integer general\n1 1 0\n", "missing", id="lonely_mtx"),
    ],
)
def test_other_content_is_refused_with_a_reason(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "cells.h5ad"
    path.write_bytes(content)
    assert reason_of(path) in ({reason, "truncated"} if reason == "unreadable" else {reason})


def test_missing_paths_and_folders_without_a_matrix(tmp_path: Path) -> None:
    assert reason_of(tmp_path / "absent.h5ad") == "missing"
    assert reason_of(tmp_path) == "not_single_cell"
    (tmp_path / "matrix.mtx").write_text("%%MatrixMarket matrix coordinate integer general\n1 1 0\n")
    assert reason_of(tmp_path) == "missing"


def test_archives_and_stores_of_something_else_are_refused(tmp_path: Path) -> None:
    for name, member, reason in (("a.zip", "x.csv", "not_single_cell"), ("z.zip", ".zgroup", "not_single_cell")):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr(member, '{"zarr_format": 2}')
        assert reason_of(tmp_path / name) == reason
    store = tmp_path / "store.zarr"
    store.mkdir()
    (store / ".zattrs").write_text("{}")
    assert reason_of(store) == "unreadable"


@pytest.mark.parametrize("kept", [0.2, 0.5, 0.9, 0.999])
def test_truncated_hdf5(write_h5ad: Callable[..., Path], kept: float) -> None:
    path = write_h5ad({"X": np.ones((50, 300))}, layout="dense")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    assert reason_of(path) == "truncated"


def test_hdf5_without_what_is_needed(write_h5ad: Callable[..., Path], tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["X"] = np.ones((2, 2))
    assert reason_of(tmp_path / "x.h5") == "not_single_cell"
    assert reason_of(write_h5ad({})) == "no_counts"
    assert reason_of(write_h5ad({"layers/spliced": np.ones((2, 2))})) == "no_counts"


def test_a_missing_x_written_as_null_is_no_matrix(write_h5ad: Callable[..., Path]) -> None:
    path = write_h5ad({"layers/counts": np.ones((2, 2))})
    with h5py.File(path, "r+") as file:
        file["X"] = h5py.Empty("f4")
    with open_reader(path) as reader:
        assert reader.slots == ("layers/counts",)


@pytest.mark.parametrize(
    ("member", "value", "reason", "message"),
    [
        pytest.param("indices", [0, 1, 2, 0, 1, 3], "unreadable", "has 3, outside 0…2", id="column_outside"),
        pytest.param("indices", [0, 1, 2, 0, 1, -1], "unreadable", "has -1, outside 0…2", id="column_negative"),
        pytest.param("indices", [0, 1, 2], "size_mismatch", "3 indices, 6 values", id="lengths"),
        pytest.param("indptr", [0, 3, 5], "unreadable", "does not rise from 0 to 6", id="borders"),
        pytest.param("indptr", [0, 3], "size_mismatch", "2 borders", id="rows"),
        pytest.param("data", [b"a"] * 6, "no_counts", "not numbers", id="strings"),
    ],
)
@pytest.mark.parametrize("layout", ["csr", "csc"])
def test_damaged_sparse_matrices(
    write_h5ad: Callable[..., Path], layout: str, member: str, value: list[object], reason: str, message: str
) -> None:
    shape = (2, 3) if layout == "csr" else (3, 2)
    path = write_h5ad({"X": np.arange(1, 7).reshape(shape)}, layout=layout)
    with h5py.File(path, "r+") as file:
        del file["X"][member]
        file["X"][member] = np.array(value)
    with pytest.raises(InputError, match=message) as caught, open_reader(path) as reader:
        list(reader.blocks("X"))
    assert caught.value.reason == reason


def test_a_matrix_of_another_size_than_its_tables(write_h5ad: Callable[..., Path]) -> None:
    path = write_h5ad({"X": np.ones((3, 2)), "layers/counts": np.ones((2, 2))})
    assert reason_of(path) == "size_mismatch"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("csv/sc_mixology/sc_dropseq.metadata.csv.gz", "ambiguous"),
        ("dense_h5/scdcc_CITE_PBMC_counts.h5", "not_single_cell"),
        ("odd/anndata_v0.11.4.h5ad", "no_counts"),
        ("odd/scprep_test_data/test_10X.zip", "not_single_cell"),
        ("odd/scprep_test_data/test_10X_invalid.zip", "not_single_cell"),
        ("odd/scprep_test_data/gene_symbols.csv", "not_single_cell"),
        ("odd/scvi_10X_pbmc_10k_protein_v3.tar.gz", "not_single_cell"),
        ("odd", "not_single_cell"),
    ],
)
def test_real_files_that_cannot_be_used(shared_data: Path, name: str, reason: str) -> None:
    assert reason_of(shared_data / name) == reason


def test_reading_needs_neither_scanpy_nor_torch_nor_hdf5plugin(write_h5ad: Callable[..., Path]) -> None:
    import subprocess
    import sys

    path = write_h5ad({"X": np.ones((2, 3))}, compression="gzip", chunks=True)
    code = (
        "import sys; from scvae_data.readers.recognise import open_reader\n"
        f"with open_reader({str(path)!r}) as r: list(r.blocks('X')); r.obs(); r.genes('X')\n"
        "print([m for m in ('scanpy', 'torch', 'anndata', 'lightning', 'hdf5plugin') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["a.h5", "b.h5"], "2 .h5 files; give input.paths='[\"{folder}/*.h5\"]'"),
        (["s1/matrix.mtx", "s2/matrix.mtx"], "2 matrix.mtx files; give input.paths='[\"{folder}/**/*matrix.mtx*\"]'"),
        (["notes.txt"], "neither matrix.mtx nor H5AD files"),
    ],
)
def test_a_folder_without_a_matrix_says_what_it_holds(tmp_path: Path, names: list[str], said: str) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(InputError) as caught:
        open_reader(tmp_path)
    assert said.format(folder=tmp_path) in str(caught.value)


@pytest.mark.parametrize("name", ["GSM1_barcodes.tsv", "GSM1_features.tsv", "GSM1_genes.tsv"])
def test_what_goes_with_a_matrix_is_told_as_such(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("AAAC-1\nAAAG-1\n")
    (tmp_path / "GSM2_matrix.mtx").touch()
    with pytest.raises(InputError, match="no table"):
        open_reader(tmp_path / name)
    (tmp_path / "GSM1_matrix.mtx.gz").touch()
    with pytest.raises(InputError, match=r"belongs to GSM1_matrix\.mtx\.gz beside it; give the matrix only"):
        open_reader(tmp_path / name)
