"""Input files made to harm: refused with a reason, before anything outside them is read or much memory is taken."""

from __future__ import annotations

import gzip
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from tests.support.pipeline import run_pipeline

from scvae_data.errors import ConfigError, InputError, ScvaeDataError
from scvae_data.processing.settings.inputs import FileInput
from scvae_data.readers.opening import Opening
from scvae_data.readers.recognise import open_reader
from scvae_data.system.hdf5_guard import Limits

COUNTS = np.arange(20, dtype=np.float32).reshape(5, 4)
SMALL = Limits(max_table_bytes=1 << 20, max_inflation=100)
CASES: list[Any] = []


def hostile(reason: str, words: str) -> Callable[..., Any]:
    """Add a change of an H5AD file to the table, with the reason and words of its refusal."""

    def add(change: Callable[[h5py.File, Path], None]) -> Callable[[h5py.File, Path], None]:
        CASES.append(pytest.param(change, reason, words, id=change.__name__))
        return change

    return add


def write(path: Path, x: Any = None) -> Path:
    obs = pd.DataFrame({"kind": pd.Categorical(list("aabba"))}, index=[f"c{n}" for n in range(5)])
    adata = ad.AnnData(sp.csr_matrix(COUNTS) if x is None else x, obs=obs, var=pd.DataFrame(index=list("ABCD")))
    adata.write_h5ad(path)
    return path


def read_all(path: Path, limits: Limits = SMALL) -> np.ndarray:
    """Read everything that processing reads of the first slot; the counts."""
    with open_reader(path, Opening(limits)) as reader:
        reader.genes(reader.slots[0])
        reader.barcodes()
        reader.obs(list(reader.obs_columns))
        parts = [
            sp.csr_matrix((block.data, block.indices, block.indptr), shape=(block.n_rows, block.n_vars)).toarray()
            for block in reader.blocks(reader.slots[0])
        ]
    return np.concatenate(parts)


def replace(file: h5py.File, name: str, **how: Any) -> None:
    attributes = dict(file[name].attrs)
    del file[name]
    file.create_dataset(name, **how).attrs.update(attributes)


@hostile("unsafe", "X/data is a link to another file")
def an_external_link(file: h5py.File, secret: Path) -> None:
    del file["X/data"]
    file["X/data"] = h5py.ExternalLink(str(secret), "data")


@hostile("unsafe", "obs/kind is a link to another file")
def an_external_link_to_a_column(file: h5py.File, secret: Path) -> None:
    del file["obs/kind"]
    file["obs/kind"] = h5py.ExternalLink(str(secret), "data")


@hostile("unsafe", "/obs/_index lies in")
def external_storage(file: h5py.File, secret: Path) -> None:
    replace(file, "obs/_index", shape=(5,), dtype="S8", external=[(str(secret), 0, 40)])


@hostile("unsafe", "is put together from other files")
def a_virtual_data_set(file: h5py.File, secret: Path) -> None:
    n = file["X/data"].shape[0]
    layout = h5py.VirtualLayout((n,), "f4")
    layout[:] = h5py.VirtualSource(str(secret), "data", (n,))
    del file["X/data"]
    file.create_virtual_dataset("X/data", layout)


@hostile("unreadable", "HDF5 cannot read it")
def soft_links_in_a_circle(file: h5py.File, secret: Path) -> None:
    del file["X"]
    file["X"], file["Y"] = h5py.SoftLink("/Y"), h5py.SoftLink("/X")


@hostile("unsafe", "/obs/_index declares 8,796,093,022,208 bytes, over input.max_table_bytes=1048576")
def more_names_than_bytes(file: h5py.File, secret: Path) -> None:
    replace(file, "obs/_index", shape=(2**40,), dtype="S8", chunks=(1024,))


@hostile("unsafe", "/obs/kind/categories declares")
def a_bomb_of_categories(file: h5py.File, secret: Path) -> None:
    replace(file, "obs/kind/categories", data=np.zeros(1 << 21, "S1"), compression="gzip", chunks=True)


@hostile("unsafe", "/X/data declares 134,217,728 bytes and takes")
def an_inflated_matrix(file: h5py.File, secret: Path) -> None:
    replace(file, "X/data", data=np.zeros(1 << 25, "f4"), compression="gzip", chunks=(1 << 22,))


@hostile("unsafe", "/obs/_index holds more text than the file has bytes")
def names_that_share_their_bytes(file: h5py.File, secret: Path) -> None:
    replace(file, "obs/_index", data=["x" * 200_000, *"bcde"], dtype=h5py.string_dtype())
    file.flush()
    with Path(file.filename).open("r+b") as raw:
        raw.seek(file["obs/_index"].id.get_offset())
        reference = raw.read(16)
        raw.seek(-16, os.SEEK_CUR)
        raw.write(5 * reference)


@hostile("unreadable", "/obs/_index has 2 axes")
def names_in_a_square(file: h5py.File, secret: Path) -> None:
    replace(file, "obs/_index", data=[["a", "b"]] * 5, dtype=h5py.string_dtype())


@hostile("unsafe", "/X/data has chunks of 67,108,864 bytes, over input.max_table_bytes=1048576")
def one_chunk_of_everything(file: h5py.File, secret: Path) -> None:
    replace(file, "X/data", shape=(19,), dtype="f4", chunks=(1 << 24,), maxshape=(None,), compression="gzip")


@hostile("size_mismatch", "6 borders, 19 indices")
def fewer_indices_than_values(file: h5py.File, secret: Path) -> None:
    replace(file, "X/data", data=np.ones(30, "f4"))


@hostile("unreadable", "does not rise from 0")
def row_borders_that_fall(file: h5py.File, secret: Path) -> None:
    file["X/indptr"][2] = 15


@hostile("unreadable", "outside 0…3")
def a_column_beyond_the_genes(file: h5py.File, secret: Path) -> None:
    file["X/indices"][7] = 4


@hostile("unreadable", "outside 0…3")
def a_negative_column(file: h5py.File, secret: Path) -> None:
    file["X/indices"][7] = -1


@hostile("unreadable", "float64 indices")
def columns_that_are_fractions(file: h5py.File, secret: Path) -> None:
    replace(file, "X/indices", data=np.full(19, 0.5))


@hostile("unreadable", "not laid out as such a file is")
def a_shape_of_words(file: h5py.File, secret: Path) -> None:
    file["X"].attrs["shape"] = "many"


@hostile("size_mismatch", "X is 9,223,372,036,854,775,807 × 4")
def a_shape_beyond_everything(file: h5py.File, secret: Path) -> None:
    file["X"].attrs["shape"] = np.array([2**63 - 1, 4])
    file["X"].attrs["encoding-type"] = "csc_matrix"
    replace(file, "X/indptr", data=np.array([0, 4, 9, 14, 19]))


@hostile("unreadable", "column /obs/kind is damaged")
def a_code_beyond_the_categories(file: h5py.File, secret: Path) -> None:
    file["obs/kind/codes"][3] = 77


@hostile("no_counts", "not numbers")
def values_that_are_words(file: h5py.File, secret: Path) -> None:
    replace(file, "X/data", data=np.full(19, b"x"))


@hostile("unreadable", "has no index column")
def a_table_that_is_its_own_column(file: h5py.File, secret: Path) -> None:
    del file["obs"]
    group = file.create_group("obs")
    group["self"] = group


@pytest.mark.parametrize(("change", "reason", "words"), CASES)
def test_refused(change: Callable[[h5py.File, Path], None], reason: str, words: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["data"] = np.arange(19, dtype=np.float32)
    path = write(tmp_path / "SRX1.h5ad")
    with h5py.File(path, "r+") as file:
        change(file, secret)
    tracemalloc.start()
    with pytest.raises(InputError) as caught:
        read_all(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (caught.value.reason, words in str(caught.value)) == (reason, True), str(caught.value)
    assert "\n" not in str(caught.value)
    assert peak < 1 << 24


@pytest.mark.parametrize("name", ["SRX1.h5ad", "matrix.mtx", "SRX1"])
def test_a_pipe_is_not_waited_for(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(InputError, match="a pipe or a device, not a file"):
        read_all(tmp_path / name)


def test_texts_of_any_length_are_read_in_pieces(tmp_path: Path) -> None:
    from scvae_data.readers.hdf5 import read_strings

    texts = ["", "é", "x" * 100_000, *(f"name {n}" for n in range(3000))]
    with h5py.File(tmp_path / "file.h5", "w") as file:
        file["filler"] = np.zeros(1 << 19, np.uint8)
        file.create_dataset("texts", data=texts, dtype=h5py.string_dtype())
        file.create_dataset("one", data="name", dtype=h5py.string_dtype())
    with h5py.File(tmp_path / "file.h5") as file:
        assert read_strings(tmp_path / "file.h5", file["texts"]).tolist() == texts
        assert read_strings(tmp_path / "file.h5", file["one"]).tolist() == ["name"]


def test_unsorted_and_repeated_columns_and_links_inside_a_file_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "SRX1.h5ad")
    with h5py.File(path, "r+") as file:
        first, last = file["X/indptr"][1:3]
        for name in ("X/indices", "X/data"):
            file[name][first:last] = file[name][first:last][::-1]
        file["obs/again"] = h5py.SoftLink("/obs/kind")
    np.testing.assert_array_equal(read_all(path), COUNTS)


def test_values_that_are_no_number_are_no_counts(tmp_path: Path) -> None:
    x = COUNTS.copy()
    x[2, 1] = np.nan
    with pytest.raises(ScvaeDataError, match="not finite value nan in row 2, column 1"):
        run_pipeline([write(tmp_path / "SRX1.h5ad", sp.csr_matrix(x))], tmp_path / "out")


def test_limits_are_settings(tmp_path: Path) -> None:
    path = str(write(tmp_path / "SRX1.h5ad"))
    with pytest.raises(ScvaeDataError, match=r"over input\.max_table_bytes=10; it is not read"):
        run_pipeline([], tmp_path / "out", input=FileInput(paths=[path], max_table_bytes=10))
    with pytest.raises(ConfigError, match=r"input\.max_inflation=0 must be"):
        FileInput(paths=[path], max_inflation=0)


def write_mtx(folder: Path, size_line: str = "4 5 1", barcodes: bytes = b"a\nb\nc\nd\ne\n") -> Path:
    folder.mkdir()
    (folder / "matrix.mtx").write_text(f"%%MatrixMarket matrix coordinate integer general\n{size_line}\n1 1 3\n")
    (folder / "features.tsv").write_text("A\nB\nC\nD\n")
    (folder / "barcodes.tsv.gz").write_bytes(gzip.compress(barcodes))
    return folder


@pytest.mark.parametrize(
    ("how", "reason", "words"),
    [
        ({"barcodes": b"\n" * (2 << 20)}, "unsafe", "more text than input.max_table_bytes=1048576"),
        ({"size_line": "9" * 5000 + " 5 1"}, "truncated", "the size line"),
        ({"size_line": f"4 5 {10**17}"}, "truncated", "only 1 of"),
        ({"size_line": f"{10**17} 5 1"}, "size_mismatch", "barcodes"),
    ],
    ids=["bomb", "digits", "entries", "rows"],
)
def test_text_that_claims_too_much(how: dict[str, Any], reason: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read_all(write_mtx(tmp_path / "SRX1", **how))
    assert (caught.value.reason, words in str(caught.value)) == (reason, True), str(caught.value)
