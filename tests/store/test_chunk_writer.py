from __future__ import annotations

import hashlib
import itertools
import os
import subprocess
import sys
import warnings
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.datasets import positional_counts

from scvae_data.errors import StoreError
from scvae_data.store import ChunkContent, ChunkReader, CompactCsr, CsrStream, codec_of, write_chunk

UNS = {"scvae_data": {"format_version": 1, "processing_id": "p", "normalization": {"target_sum": 1e4, "on": True}}}


def tables(n_obs: int, n_vars: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    numbers = np.arange(n_obs)
    obs = pd.DataFrame(
        {
            "cell_type": pd.Categorical(np.array(["b", "a"], object)[numbers % 2], categories=["unused", "b", "a"]),
            "gaps": pd.Categorical([None if i % 3 == 0 else "x" for i in numbers], categories=["x"]),
            "name": np.array([f"ü{i}" for i in numbers], object),
            "maybe": np.array([None if i % 2 else "s" for i in numbers], object),
            "flag": numbers % 2 == 0,
            "maybe_flag": pd.array([None if i % 2 else True for i in numbers], "boolean"),
            "maybe_int": pd.array([None if i % 2 else i for i in numbers], "Int64"),
            "hash": numbers.astype(np.uint32),
            "ratio": numbers.astype(np.float32) / 3,
        },
        index=pd.Index([f"cell{i}" for i in numbers], dtype=object),
    )
    var = pd.DataFrame(
        {"gene_symbol": np.array([f"S{i}" for i in range(n_vars)], object)},
        index=pd.Index([f"G{i}" for i in range(n_vars)], dtype=object),
    )
    return obs, var


def write(path: Path, matrix: sp.csr_matrix, codec: str = "gzip", **changes):
    obs, var = tables(*matrix.shape)
    parts = {"x": CompactCsr.from_scipy(matrix), "obs": obs, "var": var, "uns": UNS}
    content = ChunkContent(**parts | {name: changes.pop(name) for name in parts.keys() & changes.keys()})
    return write_chunk(path, content, codec_of(codec), **{"block_elements": 16} | changes)


def read_back(path: Path, entry, n_vars: int, codec: str, block_elements: int = 16) -> sp.csr_matrix:
    reader = ChunkReader(path, entry, n_vars=n_vars, codec=codec_of(codec), block_elements=block_elements)
    return reader.read_rows(0, entry.n_obs).to_scipy(np.int64)


@st.composite
def matrices(draw):
    n_obs, n_vars = draw(st.integers(0, 12)), draw(st.sampled_from([1, 5, 70_000]))
    cells = st.tuples(st.integers(0, max(0, n_obs - 1)), st.integers(0, n_vars - 1))
    counts = st.one_of(st.integers(1, 300), st.integers(60_000, 70_000), st.integers(2**31 - 2, 2**33))
    entries = draw(st.dictionaries(cells, counts, max_size=40)) if n_obs else {}
    x = sp.lil_matrix((n_obs, n_vars), dtype=np.int64)
    for place, count in entries.items():
        x[place] = count
    return x.tocsr()


def stream_of(x: sp.csr_matrix, cuts: list[int]) -> CsrStream:
    """The same rows in parts that end at ``cuts`` and at the last row."""
    whole = CompactCsr.from_scipy(x)
    bounds = [0, *cuts, whole.n_obs]
    parts = (CompactCsr.from_scipy(x[low:high]) for low, high in itertools.pairwise(bounds) if high > low)
    return CsrStream(whole.indptr, parts, whole.n_vars)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), n_threads=st.sampled_from([1, 3]))
def test_rows_in_parts_give_the_same_bytes(tmp_path, data, n_threads):
    x = sp.random(9, 11, density=0.5, format="csr", random_state=data.draw(st.integers(0, 9)), dtype=np.float64)
    x.data = np.ceil(x.data * 300)
    cuts = sorted(data.draw(st.sets(st.integers(1, 8))))
    write(tmp_path / "whole.h5", x, block_elements=7)
    whole = (tmp_path / "whole.h5").read_bytes()
    entry = write(tmp_path / "parts.h5", x, x=stream_of(x, cuts), block_elements=7, n_threads=n_threads)
    assert (tmp_path / "parts.h5").read_bytes() == whole
    assert entry.max_count == x.max()


@pytest.mark.parametrize("rows", [slice(0, 3), slice(1, 5)])
def test_parts_that_are_not_as_announced_are_refused(tmp_path, rows):
    x = sp.csr_matrix(np.tril(np.arange(1, 21).reshape(4, 5)))
    announced = CompactCsr.from_scipy(x).indptr
    stream = CsrStream(announced, iter([CompactCsr.from_scipy(x[rows])]), 5)
    with pytest.raises(StoreError, match="announced"):
        write(tmp_path / "c.h5", x, x=stream)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("codec", ["gzip", "lz4", "none"])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(x=matrices(), block_elements=st.sampled_from([1, 7, 65_536]))
def test_round_trip(tmp_path, codec, x, block_elements):
    obs = pd.DataFrame(index=pd.Index([f"c{i}" for i in range(x.shape[0])], dtype=object))
    # One var column of names is all that 70,000 genes need here.
    var = pd.DataFrame(index=pd.RangeIndex(x.shape[1]).astype(str).astype(object))
    entry = write(tmp_path / "chunk_0000.h5", x, codec, obs=obs, var=var, block_elements=block_elements)
    assert (entry.n_obs, entry.nnz, entry.max_count) == (x.shape[0], x.nnz, x.max() if x.nnz else 0)
    back = read_back(tmp_path / "chunk_0000.h5", entry, x.shape[1], codec, block_elements)
    assert back.shape == x.shape
    assert (back != x).nnz == 0


@pytest.mark.parametrize("codec", ["gzip", "lz4", "none"])
def test_anndata_opens_it(tmp_path, codec):
    if codec == "lz4":
        pytest.importorskip("hdf5plugin")
    x = positional_counts(30, 12)
    write(tmp_path / "chunk_0000.h5", x, codec)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        adata = anndata.read_h5ad(tmp_path / "chunk_0000.h5")
    assert adata.X.dtype == adata.X.indices.dtype == adata.X.indptr.dtype == np.int32
    assert (x != adata.X).nnz == 0
    assert adata.X.has_canonical_format
    obs, var = tables(*x.shape)
    obs["cell_type"] = obs["cell_type"].cat.set_categories(["a", "b"])
    obs["maybe"] = obs["maybe"].astype(adata.obs["maybe"].dtype)
    pd.testing.assert_frame_equal(adata.obs, obs)
    pd.testing.assert_frame_equal(adata.var, var)
    assert adata.uns["scvae_data"] == UNS["scvae_data"]


def test_default_chunk_of_one_cell_and_of_none(tmp_path):
    for n_obs in (0, 1):
        entry = write(tmp_path / "chunk_0000.h5", positional_counts(n_obs, 4), block_elements=65_536)
        adata = anndata.read_h5ad(tmp_path / "chunk_0000.h5")
        assert adata.shape == (n_obs, 4)
        assert entry.n_obs == n_obs


@pytest.mark.parametrize("codec", ["gzip", "lz4", "none"])
def test_bytes_do_not_depend_on_threads(tmp_path, codec):
    x = positional_counts(60, 30)
    entries = [write(tmp_path / "chunk_0000.h5", x, codec, n_threads=n) for n in (1, 2, 5)]
    assert entries[0] == entries[1] == entries[2]
    content = (tmp_path / "chunk_0000.h5").read_bytes()
    assert (len(content), hashlib.sha256(content).hexdigest()) == (entries[0].bytes, entries[0].sha256)


SCRIPT = """
import sys, time
from pathlib import Path
import hashlib
if sys.argv[2] == "plugin":
    import hdf5plugin
from tests.support.datasets import make_dataset
for codec in ("gzip", "lz4", "none"):
    path, _, _ = make_dataset(Path(sys.argv[1]) / codec, n_obs=20, chunk_size=8, compression=codec)
    for file in sorted(path.iterdir()):
        print(codec, file.name, hashlib.sha256(file.read_bytes()).hexdigest())
"""


def test_bytes_do_not_depend_on_process_time_place_or_plugin(tmp_path):
    printed = []
    paths = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    for number, plugin in enumerate(["plugin", "none"]):
        environment = os.environ | {"PYTHONHASHSEED": str(number + 1), "PYTHONPATH": paths}
        command = [sys.executable, "-c", SCRIPT, str(tmp_path / f"run{number}"), plugin]
        # Started one after the other, seconds apart: a time stamp in a file would differ.
        printed.append(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)
    assert printed[0] == printed[1]
    assert len(printed[0].splitlines()) == 3 * (3 + 5)


def test_hdf5_stores_the_declared_types_and_filters(tmp_path):
    write(tmp_path / "chunk_0000.h5", positional_counts(30, 12), "lz4")
    with h5py.File(tmp_path / "chunk_0000.h5") as file:
        data = file["X/data"]
        assert (data.dtype, data.chunks) == (np.dtype("<i4"), (16,))
        assert data.id.get_create_plist().get_filter(0)[0::2] == (32001, (2, 2, 4, 64, 5, 1, 1))


def test_counts_beyond_int32_are_stored_as_int64(tmp_path):
    x = sp.csr_matrix(np.array([[0, 2**40, 1]]))
    entry = write(tmp_path / "chunk_0000.h5", x)
    assert anndata.read_h5ad(tmp_path / "chunk_0000.h5").X.dtype == np.int64
    assert read_back(tmp_path / "chunk_0000.h5", entry, 3, "gzip").toarray().tolist() == [[0, 2**40, 1]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"obs": tables(2, 4)[0]}, "obs and var have 2 and 4 rows for a 3 × 4 matrix", id="obs"),
        pytest.param(
            {"obs": tables(3, 4)[0].rename(columns={"flag": "a/b"})}, "column name 'a/b' cannot be stored", id="slash"
        ),
        pytest.param(
            {"obs": tables(3, 4)[0].assign(when=pd.Timestamp(0))}, "obs column 'when' of type datetime", id="type"
        ),
        pytest.param(
            {"x": CompactCsr(np.array([0, 1, 1, 1]), np.array([9]), np.array([1]), 4)}, "not canonical", id="x"
        ),
    ],
)
def test_refused_before_anything_is_written(tmp_path, changes, message):
    with pytest.raises(StoreError, match=message):
        write(tmp_path / "chunk_0000.h5", positional_counts(3, 4), **changes)
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_leads_elsewhere_is_refused(tmp_path):
    with pytest.raises(StoreError, match="not a plain file name"):
        write(tmp_path / "..", positional_counts(3, 4))
