"""Few descriptors, a full disk, failing and short reads, media that cannot be written, two writers at once."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tests.support.datasets import make_dataset
from tests.support.fault_points import CLEAN_ERROR, Points, in_child

from scvae_data import ChunkedDataModule, open_index
from scvae_data.commands.verify import verify
from scvae_data.errors import DamagedFileError, ScvaeDataError
from scvae_data.store import ChunkContent, ChunkReader, CompactCsr, codec_of, write_chunk

from .conftest import LONG, content, make, many

ROOT = Path(__file__).parents[2]
N_CHUNKS, N_DESCRIPTORS = many(2000, 120), many(256, 64)


# --- descriptors ------------------------------------------------------------------------------------------------------


def epoch(directory: Path, settings: dict[str, Any]) -> None:
    """Train for an epoch with few descriptors; every cell must come."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (N_DESCRIPTORS, N_DESCRIPTORS))
    data = ChunkedDataModule(directory, batch_size=16, normalized=False, split=None, **settings)
    data.setup()
    # A copy: a tensor that a worker made keeps a descriptor open as long as it lives.
    rows = np.concatenate([batch["index"].numpy().copy() for batch in data.train_dataloader()])
    assert np.array_equal(np.sort(rows), np.arange(data.n_obs))


@pytest.mark.parametrize("order", ["hash", "source"])
def test_an_epoch_with_fewer_descriptors_than_chunks(order: str, tmp_path: Path, record: list[str]) -> None:
    directory = make_dataset(tmp_path / "data", n_obs=2 * N_CHUNKS, chunk_size=2, n_vars=5, order=order)[0]
    wide = {"max_chunks_in_memory": N_CHUNKS // 2, "chunk_cache_size": N_CHUNKS // 2}
    for how in ({}, wide, {"num_workers": 2}):
        status = in_child(partial(epoch, directory, how), report=tmp_path / "report", seconds=300)
        assert status == 0, (tmp_path / "report").read_text() if (tmp_path / "report").exists() else status
    record.append(
        f"{N_DESCRIPTORS} descriptors and {N_CHUNKS:,} chunks in {order} order, threads and workers | 3 epochs | every "
        "cell comes"
    )


# --- disks ------------------------------------------------------------------------------------------------------------


def test_a_full_disk_ends_the_program_with_one_line(raw: list[Path], tmp_path: Path) -> None:
    """The system refuses bytes beyond a size of files: what HDF5 does not survive when it writes by itself."""
    out = tmp_path / "out"
    command = [
        sys.executable, ROOT / "process.py", "input=files", f"input.paths={raw[0].parent}/*.h5ad", "qc=none",
        f"paths.processed_dir={out}", f"hydra.run.dir={tmp_path}/log", "hydra.output_subdir=null",
    ]  # fmt: skip
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (6000, 6000))
    result = subprocess.run(command, cwd=tmp_path, preexec_fn=limit, capture_output=True, text=True, check=False)
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert os.strerror(errno.EFBIG) in last
    assert "resume=true continues" in last
    assert not (out / "chunk_index.json").exists()
    assert not list(out.glob("**/*.tmp"))


def test_a_full_disk_is_no_fault_of_an_input(
    raw: list[Path], clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many inputs may fail, none is left out because there was no room for its cells."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "spool")

    with monkeypatch.context() as patch, pytest.raises(ScvaeDataError, match="make room, then resume=true continues"):
        patch.setattr("scvae_data.processing.scan.rows.SortedRunWriter", full)
        make(raw, tmp_path / "out", max_failed_fraction=0.9)
    assert not (tmp_path / "out" / "quarantine.txt").exists()
    make(raw, tmp_path / "out", max_failed_fraction=0.9, resume=True)
    assert content(tmp_path / "out") == content(clean)


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (lambda real: lambda fd, n_bytes, offset: real(fd, min(7, n_bytes), offset), None),
        (lambda real: lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "gone")), "cannot be read"),
        (lambda real: lambda *_: b"", "ends at byte"),
    ],
    ids=["short", "failing", "empty"],
)
def test_reads_that_are_short_or_fail(
    read: Callable[..., Any], message: str | None, clean: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = open_index(clean).reader(0)
    expected = open_index(clean).reader(0).read_rows(0, 8).to_scipy()
    monkeypatch.setattr(os, "pread", read(os.pread))
    if message is None:
        assert (reader.read_rows(0, 8).to_scipy() != expected).nnz == 0
    else:
        with pytest.raises(DamagedFileError, match=rf"chunk_0000\.h5: {message}"):
            reader.read_rows(0, 8)


def test_reading_writes_nothing(clean: Path, tmp_path: Path) -> None:
    """Not a file, not even a lock: media that cannot be written will do."""

    def read() -> None:
        assert not any(verify(clean, deep=True).values())
        data = ChunkedDataModule(clean, batch_size=5, split=None)
        data.setup()
        assert sum(len(batch["index"]) for batch in data.train_dataloader()) == data.n_obs

    assert in_child(read, Points(str(clean), 0), tmp_path / "report") == 0
    assert (tmp_path / "report").read_text() == "0"


# --- two at once ------------------------------------------------------------------------------------------------------


def test_a_second_writer_is_refused_and_harms_nothing(raw: list[Path], clean: Path, tmp_path: Path) -> None:
    from scvae_data.processing.run.directory import held_directory

    with held_directory(tmp_path / "out"):
        for more in ({}, {"resume": True}, {"overwrite": True}):
            assert in_child(partial(make, raw, tmp_path / "out", **more)) == CLEAN_ERROR
        assert [path.name for path in (tmp_path / "out").iterdir()] == [".lock"]
    make(raw, tmp_path / "out")
    assert content(tmp_path / "out") == content(clean)


def test_training_while_the_directory_is_made_again(raw: list[Path], clean: Path, tmp_path: Path) -> None:
    """What was open goes on with the same cells, because they come out with the same bytes."""
    make(raw, tmp_path / "out")
    data = ChunkedDataModule(tmp_path / "out", batch_size=3, normalized=False, split=None, chunk_cache_size=1)
    data.setup()
    x = np.concatenate([open_index(clean).reader(k).read_rows(0, c.n_obs).to_scipy().toarray()
                        for k, c in enumerate(open_index(clean).chunks)])  # fmt: skip
    for number, batch in enumerate(data.train_dataloader()):
        np.testing.assert_array_equal(batch["x"].numpy(), x[batch["index"]])
        if number == 1:
            assert in_child(partial(make, raw, tmp_path / "out", overwrite=True)) == 0


# --- round trips ------------------------------------------------------------------------------------------------------

SHAPES = st.tuples(st.integers(1, 12), st.integers(1, 9))
COUNTS = st.one_of(st.just(0), st.integers(1, 3), st.sampled_from([255, 256, 65_535, 65_536, 2**31 - 1, 2**31, 2**40]))


@settings(max_examples=300 if LONG else 40, deadline=None)
@given(
    x=SHAPES.flatmap(lambda shape: hnp.arrays(np.int64, shape, elements=COUNTS)),
    codec=st.sampled_from(["gzip", "lz4", "none"]),
    block_elements=st.integers(1, 40),
)
def test_what_is_written_is_read(
    x: np.ndarray, codec: Any, block_elements: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    import anndata as ad
    import hdf5plugin  # noqa: F401
    import pandas as pd

    path = tmp_path_factory.mktemp("round") / "chunk_0000.h5"
    obs, var = (pd.DataFrame(index=pd.Index([f"{name}{k}" for k in range(n)], dtype=object))
                for name, n in zip("cg", x.shape, strict=True))  # fmt: skip
    form = codec_of(codec)
    entry = write_chunk(
        path, ChunkContent(CompactCsr.from_scipy(sp.csr_matrix(x)), obs, var, {}), form, block_elements=block_elements
    )
    reader = ChunkReader(path, entry, n_vars=x.shape[1], codec=form, block_elements=block_elements)
    np.testing.assert_array_equal(reader.read_rows(0, len(x)).to_scipy(np.int64).toarray(), x)
    half = len(x) // 2
    np.testing.assert_array_equal(reader.read_rows(half, len(x)).to_scipy(np.int64).toarray(), x[half:])
    np.testing.assert_array_equal(ad.read_h5ad(path).X.toarray(), x)
