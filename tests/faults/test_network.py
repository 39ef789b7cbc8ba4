"""Files from S3, a directory to S3 and training from it, while the network does what networks do."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections import Counter
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
from tests.support.s3 import FAULTS, Fault, Proxy, environment, every, lead_to, s3_server

from scvae_data.remote import objects
from scvae_data.remote.location import RemotePath
from scvae_data.store import open_index

pytestmark = pytest.mark.services

N_FAULTS = 100
RAW, SET = RemotePath("s3://data/raw"), RemotePath("s3://data/set")
OF_CELLS = ("gene_list.json", "gene_sets.bin", "obs.parquet", "rows.bin", "chunk_index.json")
PROGRAM = """
from scvae_data.remote import objects
objects.BACK_OFF_SECONDS, objects.TIMEOUTS["read_timeout"] = 0.01, 1
from scvae_data.commands.{} import main
main()
"""


def run(folder: Path, port: int, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``process.py`` or ``train.py``, with no more patience than tests have."""
    command = [sys.executable, "-c", PROGRAM.format(program), f"hydra.run.dir={folder}", *arguments]
    return subprocess.run(command, cwd=folder.parent, env=environment(port, folder), capture_output=True, text=True)


def process(folder: Path, port: int, raw: object, target: object) -> subprocess.CompletedProcess[str]:
    return run(
        folder, port, "process", "input=files", f"input.paths={raw}", "qc=none", "chunk_size=10", "engine=serial",
        f"paths.processed_dir={target}", "overwrite=true",
    )  # fmt: skip


def train(folder: Path, port: int, source: object, room: int) -> subprocess.CompletedProcess[str]:
    return run(
        folder, port, "train", f"paths.processed_dir={source}", f"paths.output_dir={folder}/run",
        "trainer.max_epochs=2", "trainer.accelerator=cpu", "logger=none", "outputs.picture=none", "data.batch_size=16",
        "model.n_hidden=16", "model.n_latent=2", "data.chunk_cache_size=1", f"data.cache_dir={folder}/cache",
        f"data.cache_disk_gb={room / 1e9}",
    )  # fmt: skip


def content(place: Path | RemotePath) -> dict[str, bytes]:
    names = [*OF_CELLS, *(chunk.file for chunk in open_index(place).chunks)]
    if isinstance(place, RemotePath):
        return {name: objects.read_whole(place / name, 1 << 30) for name in names}
    return {name: (place / name).read_bytes() for name in names}


def same_latents(one: Path, other: Path) -> bool:
    mine, theirs = ad.read_h5ad(one), ad.read_h5ad(other)
    return np.array_equal(mine.obsm["X_scvae"], theirs.obsm["X_scvae"]) and mine.obs.equals(theirs.obs)


def of_objects(fault: Fault) -> Fault:
    """No byte of a listing is changed: it has no checksum, and nothing but the connection's own would tell."""

    def decide(request: bytes) -> str | None:
        kind = fault(request)
        return "reset" if kind == "flip" and b"list-type" in request.partition(b"\r\n")[0] else kind

    return decide


def test_no_fault_of_the_network_is_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: list[str]) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "raw").mkdir()
    for number in range(3):
        counts = np.random.default_rng(number).poisson(1.5, (60, 40)).astype(np.float32)
        cells = ad.AnnData(sp.csr_matrix(counts))
        cells.var_names = [f"g{n}" for n in range(40)]
        cells.obs_names = [f"c{n}" for n in range(60)]
        cells.write_h5ad(tmp_path / f"raw/SRX{number}.h5ad")
    outcomes = Counter[tuple[str, str]]()
    with s3_server() as port:
        lead_to(port, monkeypatch)
        for path in (tmp_path / "raw").iterdir():
            objects.upload(path, RAW / path.name)
        local = tmp_path / "set"
        for done in (
            process(tmp_path / "process", port, tmp_path / "raw", local),
            train(tmp_path / "train", port, local, 1),
        ):
            assert done.returncode == 0, done.stderr
        wanted, latents = content(local), tmp_path / "train/run/latents.h5ad"
        room = 5 * max(chunk.bytes for chunk in open_index(local).chunks)
        proxy = Proxy(port, of_objects(every(6, of=b"")))
        for number in itertools.count():
            for program in ("process", "train"):
                before, folder = len(proxy.injected), tmp_path / f"{program}{number}"
                if program == "process":
                    done = process(folder, proxy.port, RAW, SET)
                else:
                    done = train(folder, proxy.port, SET, room)
                if done.returncode == 0:
                    right = (
                        content(SET) == wanted
                        if program == "process"
                        else same_latents(folder / "run/latents.h5ad", latents)
                    )
                    assert right, f"{proxy.injected[before:]}: {done.stdout}"
                else:
                    assert len([line for line in done.stderr.splitlines() if "error: " in line]) == 1, done.stderr
                    assert "Traceback" not in done.stderr
                how = "retried" if done.returncode == 0 else "in a run that was refused"
                outcomes.update((kind, how) for kind in proxy.injected[before:])
            if outcomes.total() >= N_FAULTS:
                break
        proxy.close()
    assert {kind for kind, _ in outcomes} == set(FAULTS)
    refused = sum(n for (_, how), n in outcomes.items() if how != "retried")
    record.append(
        "faults of the network (reset, timeout, 503, short answer, flipped byte) at every sixth request of "
        "`process.py` from S3 to S3 and of `train.py` from it, with room for 5 of 18 chunks | "
        f"{outcomes.total()} | {outcomes.total() - refused} asked for again, {refused} in runs that were refused; 0 "
        "silent: the bytes of a local directory, the latents of local training"
    )
