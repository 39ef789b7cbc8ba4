"""Directories of format version 1 that lie in tests/data open, verify, train, and are mended to the same bytes."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata as ad
import hdf5plugin  # noqa: F401 - opens lz4
import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import open_dict
from tests.support import recordings

from scvae_data import ChunkedDataset, cli, open_index
from scvae_data.config import conf_dir
from scvae_data.store import INDEX_FILE
from scvae_data.store.dataset_index import content_hash_of
from scvae_data.store.files import read_json, write_json
from scvae_data.store.upgrade import upgrade
from scvae_data.training.run import train

VERSION1 = recordings.VERSION1
GZIP = {
    "content_hash": "1423dba0171b17ddb3fea6b574bef71ca161e70b1180a0cf1a5eb7ace093ebc9",
    "order": "hash",
    "n_vars": 288,
    "nnz": 21775,
    "cell": "SRX9000002:TAACCTTAATACGGCC-1",
    "cell_type": "megakaryocyte",
    "genes": ["ENSG90000000000", "ENSG90000000007", "ENSG90000000014"],
    "columns": [0, 1, 2, 3, 4, 5],
    "counts": [10, 62, 4, 3, 1, 2],
    "total_counts": [9653, 8109, 5938],
}
LZ4 = {
    "content_hash": "4f80a03cb11dae39889335371d6c930f159c0f5b5a544a03fc184c9200b90e4a",
    "order": "group",
    "n_vars": 100,
    "nnz": 6908,
    "cell": "SRX9000002:AACGGTTACCATAACA-1",
    "cell_type": "dendritic cell",
    "genes": ["ENSG90000000021", "ENSG90000000035", "ENSG90000000063"],
    "columns": [0, 1, 3, 6, 7, 8],
    "counts": [2, 4, 4, 3, 7, 2],
    "total_counts": [4427, 8371, 12869],
}
DIRECTORIES = pytest.mark.parametrize("name", ["gzip", "lz4"])


@pytest.mark.parametrize(("name", "expected"), [("gzip", GZIP), ("lz4", LZ4)])
def test_it_opens_with_its_values(name: str, expected: dict[str, Any]) -> None:
    index = open_index(VERSION1 / name)
    adata = ad.read_h5ad(VERSION1 / name / "chunk_0000.h5")
    assert (index.n_obs, [chunk.n_obs for chunk in index.chunks]) == (116, [40, 40, 36])
    assert {
        "content_hash": index.content_hash,
        "order": index.order["kind"],
        "n_vars": index.n_vars,
        "nnz": index.nnz,
        "cell": adata.obs_names[0],
        "cell_type": adata.obs["cell_type"].iloc[0],
        "genes": adata.var_names[:3].tolist(),
        "columns": adata.X.indices[:6].tolist(),
        "counts": adata.X.data[:6].tolist(),
        "total_counts": adata.obs["total_counts"][:3].tolist(),
    } == expected
    together = ChunkedDataset(VERSION1 / name).to_anndata(range(index.n_obs))
    assert (together.X[:40] != adata.X).nnz == 0
    assert together.obs_names[:40].tolist() == adata.obs_names.tolist()


@DIRECTORIES
def test_it_verifies(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["scvae-data", "verify", str(VERSION1 / name), "--deep"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    printed = capsys.readouterr().out
    assert end.value.code == 0, printed
    assert "PASS  3 chunks" in printed


@pytest.mark.filterwarnings("ignore:.*LeafSpec.*")
@DIRECTORIES
def test_it_trains(name: str, tmp_path: Path) -> None:
    settings = [
        f"paths.processed_dir={VERSION1 / name}", f"paths.output_dir={tmp_path}", "trainer.max_epochs=1",
        "trainer.accelerator=cpu", "data.batch_size=16", "model.n_latent=2", "model.n_hidden=8", "logger=none",
        "outputs=none",
    ]  # fmt: skip
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("train", overrides=settings)
    with open_dict(cfg):
        cfg.pop("hydra", None)
    assert np.isfinite(train(cfg)["val/loss"])


@pytest.mark.parametrize("upgraded", [False, True])
def test_damaged_files_are_made_again_with_the_same_bytes(upgraded: bool, tmp_path: Path) -> None:
    if others := recordings.other_versions(recordings.read_record()):
        pytest.skip(f"other versions (recorded) make other bytes: {others}")
    copy = shutil.copytree(VERSION1 / "lz4", tmp_path / "lz4")
    command = json.loads((copy / "processing_config.json").read_text())["command"]["overrides"]
    assert {"paths.processed_dir=lz4", "paths.data_dir=data"} <= set(command)
    (tmp_path / "now").mkdir()
    recordings.process(*command, folder=tmp_path / "now")
    take_chunks(tmp_path / "now" / "lz4", copy)
    if upgraded:
        upgrade(copy, copy)
    whole = {path.name: path.read_bytes() for path in copy.iterdir()}
    for name in ("chunk_0001.h5", "obs.parquet", *(("rows.bin", "gene_sets.bin") if upgraded else ())):
        (copy / name).unlink()
    recordings.process(*command, "resume=true", folder=tmp_path)
    for name, content in whole.items():
        assert (copy / name).read_bytes() == content, name


def take_chunks(now: Path, directory: Path) -> None:
    """Put chunk files of the same cells, coded as they are now, in place of those of a directory."""
    index, theirs = (read_json(folder / INDEX_FILE) for folder in (directory, now))
    for name in index["chunks"]["file"]:
        ours, coded_now = (ad.read_h5ad(folder / name) for folder in (directory, now))
        np.testing.assert_array_equal(ours.X.toarray(), coded_now.X.toarray())
        assert ours.obs.equals(coded_now.obs)
        shutil.copy(now / name, directory / name)
    index["chunks"] = {key: theirs["chunks"][key] for key in index["chunks"]}
    listed = zip(open_index(directory).chunks, index["chunks"]["sha256"], strict=True)
    entries = [replace(chunk, sha256=sha256) for chunk, sha256 in listed]
    index["content_hash"] = content_hash_of(replace(open_index(directory), chunks=entries))
    write_json(directory / INDEX_FILE, index)
