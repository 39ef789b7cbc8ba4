"""What processing and loading made once, recorded in ``tests/data/recorded.json``, and made again to compare.

    python -m tests.support.recordings ../shared/data "why the output has changed"

records again. Files are recorded as hashes of their bytes, which hold for the library versions under ``made_with``,
and by what is in them, which holds for any.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import anndata as ad
import h5py
import hdf5plugin  # noqa: F401 - opens lz4
import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch

from scvae_data import ChunkedDataModule

ROOT = Path(__file__).resolve().parents[2]
RECORD = ROOT / "tests" / "data" / "recorded.json"
VERSION1 = ROOT / "tests" / "data" / "version1"

WHAT = "hashes of what processing and loading made; tests/support/recordings.py makes and reads them"

PACKAGES = ("anndata", "deflate", "h5py", "numcodecs", "numpy", "pandas", "pyarrow")
# The last digits of logarithms depend on the processor that numpy finds: none of its later instructions are used.
ANY_PROCESSOR = {"NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR"}
OF_THE_RUN = {"seconds", "peak_rss_bytes", "checksum"}
"""Keys in ``chunk_summary.json`` that differ from run to run."""


class Run(NamedTuple):
    """A call of ``process.py``."""

    settings: tuple[str, ...]
    sources: tuple[str, ...] = ()
    """Real files in the folder of shared data; none: simulated ones."""
    by_column: str | None = None
    """One of the real files, whose first 300 cells are an input of their own, stored column by column."""


PBMC3K = "h5ad/pbmc3k_2700.h5ad"
RUNS = {
    "demo": Run(("input.n_files=3", "input.cells_per_file=300", "input.n_genes=2000", "chunk_size=150")),
    "human": Run(
        ("chunk_size=1000", "qc=mad", "genes=hvg", "keep_duplicates=first", "chunking=fast"),
        (
            PBMC3K,  # CSR
            "10x_h5/1k_PBMCs_TotalSeq_B_3p_LT_filtered_feature_bc_matrix.h5",  # Cell Ranger 3, two modalities
            "mtx/1k_pbmc_v2_chemistry",
            "h5ad_orig/scvi_pbmc_5k_protein_v3.h5ad",  # dense
        ),
        PBMC3K,
    ),
    "mouse": Run(
        ("chunk_size=500",),
        (
            "10x_h5/heart_1k_v2_filtered_gene_bc_matrices_h5.h5",  # Cell Ranger 2
            "h5ad/mouse_bm_362.h5ad",  # CSR
            "h5ad_orig/scvelo_dentategyrus_100obs.h5ad",  # CSR with layers
        ),
    ),
}

X_FORMATS = ("dense", "csr", "compact")
BATCHES = tuple(product(("gzip", "lz4"), X_FORMATS, (False, True)))
"""Stored directory, form of x, whether x is normalised."""


def made_with() -> dict[str, str]:
    """What bytes depend on beside the code: versions, and where logarithms come from."""
    found = {name: version(name) for name in PACKAGES}
    libc = " ".join(platform.libc_ver())
    return found | {"hdf5": h5py.version.hdf5_version, "libc": libc, "machine": platform.machine()}


def other_versions(record: dict[str, Any]) -> str:
    """Say which versions are not those of the recordings; empty if all are."""
    before, now = record["made_with"], made_with()
    return ", ".join(f"{name} {now[name]} ({before[name]})" for name in now if now[name] != before[name])


def process(*settings: str, folder: Path) -> None:
    """Run ``process.py`` with its output below ``folder``."""
    done = subprocess.run(
        [sys.executable, ROOT / "process.py", *settings], cwd=folder, env=os.environ | ANY_PROCESSOR,
        capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr)


def make(run: Run, folder: Path, shared_data: Path | None) -> Path:
    """Make the directory of a run below ``folder``; return its path."""
    chosen = ["paths.processed_dir=out", "paths.data_dir=data", "report=false"]  # a page tells times and places
    if run.sources:
        chosen += ["input=files", f"input.paths=[{','.join(map(str, inputs(run, folder, shared_data)))}]"]
    process(*run.settings, *chosen, folder=folder)
    return folder / "out"


def inputs(run: Run, folder: Path, shared_data: Path | None) -> list[Path]:
    """Copy the real files of a run into one folder."""
    assert shared_data is not None
    raw = folder / "raw"
    raw.mkdir()
    for name in run.sources:
        source, target = shared_data / name, raw / Path(name).name
        shutil.copytree(source, target) if source.is_dir() else shutil.copyfile(source, target)
    if run.by_column is not None:
        cells = ad.read_h5ad(shared_data / run.by_column)[:300].copy()
        cells.X = sp.csc_matrix(cells.X)
        cells.write_h5ad(raw / "by_column.h5ad")
    return sorted(raw.iterdir())


def sha256(*parts: bytes) -> str:
    """SHA-256 of all parts one after the other."""
    return hashlib.sha256(b"".join(parts)).hexdigest()


def as_json(value: Any) -> bytes:
    """One text for equal values."""
    return json.dumps(value, sort_keys=True, default=str).encode()


def file_hashes(directory: Path) -> dict[str, str]:
    """SHA-256 of every file whose bytes do not depend on time and place; of the summary without what does."""
    names = sorted(path.name for path in directory.iterdir() if not path.name.startswith("."))
    found = {name: sha256((directory / name).read_bytes()) for name in names if name != "processing_config.json"}
    summary = json.loads((directory / "chunk_summary.json").read_text())
    found["chunk_summary.json"] = sha256(as_json(of_any_run(summary)))
    return found


def of_any_run(value: Any) -> Any:
    """Leave out, at any depth, what differs from run to run."""
    if not isinstance(value, dict):
        return value
    return {key: of_any_run(item) for key, item in value.items() if key not in OF_THE_RUN}


def content(directory: Path) -> dict[str, dict[str, Any]]:
    """What a directory holds, however it is stored: hashes of whole numbers and texts, sums of floats."""
    chunks = [ad.read_h5ad(path) for path in sorted(directory.glob("chunk_*.h5"))]
    x = sp.vstack([chunk.X for chunk in chunks]).tocsr()
    index = json.loads((directory / "chunk_index.json").read_text())
    facts = [index["obs_columns"], index["order"], index["normalization"], index["chunks"]["n_obs"]]
    hashes = {
        "x": sha256(*(array.astype("<i8").tobytes() for array in (x.indptr, x.indices, x.data))),
        "names": sha256(as_json([[list(chunk.obs_names), list(chunk.var_names)] for chunk in chunks])),
        "gene_list.json": sha256((directory / "gene_list.json").read_bytes()),
        "index": sha256(as_json(facts)),
    }
    floats: dict[str, float] = {}
    for path in sorted(directory.glob("*.parquet")):
        frame = pd.read_parquet(path)
        real = frame.select_dtypes("floating").columns
        texts = frame.drop(columns=real).astype(object)
        hashes[path.name] = sha256(as_json(texts.where(texts.notna(), None).to_dict("list")))
        floats |= {f"{path.name} {name}": weighted_sum(frame[name]) for name in real}
    return {"hashes": hashes, "floats": floats}


def weighted_sum(values: pd.Series[float]) -> float:
    """Sum of each value times its place, counted from 1; NaN counts as -1."""
    return float(np.arange(1, len(values) + 1) @ values.fillna(-1).to_numpy(np.float64))


def module(directory: str, x_format: str, normalized: bool) -> ChunkedDataModule:
    """Loaders over a stored directory."""
    data = ChunkedDataModule(
        VERSION1 / directory, batch_size=16, label_keys=["cell_type"], split={"val": 0.2}, seed=7,
        x_format=x_format, normalized=normalized, max_chunks_in_memory=2,
        range_rows=10 if directory == "lz4" else None,
    )  # fmt: skip
    data.setup()
    return data


def epoch_hashes(directory: str, x_format: str, normalized: bool) -> dict[str, str]:
    """SHA-256 of the first epoch's batches, and of the validation batches: each as handed out, then made dense."""
    data = module(directory, x_format, normalized)
    parts = {"train": data.train_dataloader(), "val": data.val_dataloader()}
    found = {
        part: sha256(
            *(batch_bytes(form) for batch in loader for form in (batch, data.on_after_batch_transfer(batch, 0)))
        )
        for part, loader in parts.items()
    }
    data.teardown()
    return found


def batch_bytes(batch: dict[str, Any]) -> bytes:
    """Names, types, shapes and values of all that a batch holds."""
    return b"".join(bytes_of(name, batch[name]) for name in sorted(batch))


def bytes_of(name: str, value: Any) -> bytes:
    """Name, type, shape and values of a tensor, of a tuple of tensors and numbers, or of a mapping of them."""
    if isinstance(value, dict):
        return b"".join(bytes_of(f"{name}.{key}", value[key]) for key in sorted(value))
    if isinstance(value, tuple):
        return b"".join(bytes_of(f"{name}.{place}", item) for place, item in enumerate(value))
    values = value.numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
    return f"{name} {values.dtype} {values.shape}".encode() + np.ascontiguousarray(values).tobytes()


def key_of(directory: str, x_format: str, normalized: bool) -> str:
    """Name of a recording of batches."""
    return f"{directory} {x_format} {'normalised' if normalized else 'counts'}"


def read_record() -> dict[str, Any]:
    """The recordings."""
    return json.loads(RECORD.read_text())  # type: ignore[no-any-return]


def record(shared_data: Path, why: str, names: Iterable[str] = RUNS) -> dict[str, Any]:
    """Make everything anew."""
    runs = {}
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            out = make(RUNS[name], Path(folder), shared_data)
            runs[name] = {"files": file_hashes(out), **content(out)}
    batches = {key_of(*setting): epoch_hashes(*setting) for setting in BATCHES}
    return {"what": WHAT, "why": why, "made_with": made_with(), "runs": runs, "batches": batches}


def main(shared_data: str, why: str) -> None:
    """Write the recordings."""
    made = record(Path(shared_data).absolute(), why)
    RECORD.write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
