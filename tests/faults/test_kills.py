"""A run killed at any moment and continued ends with the bytes of an uninterrupted one.

Three random moments by default; ``SCVAE_DATA_KILLS=30`` tries thirty. In a
long run two other processes load the machine, and every second one finds no
compiled kernels: it is killed while it compiles them, and the next finds what
was left.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from tests.faults.conftest import LONG

from scvae_data import open_index
from scvae_data.errors import MissingIndexError
from scvae_data.simulate import simulate_files

ROOT = Path(__file__).parents[2]
N_KILLS = int(os.environ.get("SCVAE_DATA_KILLS", "3"))
N_BURNERS = 2 if LONG else 0


def command(raw: Path, out: Path, *more: str) -> list[str]:
    return [
        sys.executable, str(ROOT / "process.py"), "input=files", f'input.paths="{raw}/*.h5ad"', "chunk_size=50",
        "engine=local", f"paths.processed_dir={out}", f"hydra.run.dir={out}-log", *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, float]:
    """Raw files, the directory of an uninterrupted run, and the seconds it took."""
    folder = tmp_path_factory.mktemp("kills")
    simulate_files(folder / "raw", n_files=3, cells_per_file=200, n_genes=500, seed=3)
    started = time.perf_counter()
    subprocess.run(command(folder / "raw", folder / "clean"), check=True, capture_output=True)
    return folder / "raw", folder / "clean", time.perf_counter() - started


@pytest.fixture(scope="module", autouse=True)
def _burners() -> Iterator[None]:
    """Load the machine."""
    with ExitStack() as stack:
        burners = [
            stack.enter_context(subprocess.Popen([sys.executable, "-c", "while True: pass"])) for _ in range(N_BURNERS)
        ]
        yield
        for burner in burners:
            burner.kill()


def environment(number: int, tmp_path: Path) -> dict[str, str]:
    """That of this process; for every second run of a long one with a folder for compiled kernels that is empty."""
    cold = {"NUMBA_CACHE_DIR": str(tmp_path / "kernels")} if LONG and number % 2 else {}
    return os.environ | cold


def content(directory: Path) -> dict[str, bytes]:
    names = [
        *directory.glob("chunk_0*.h5"),
        *(directory / name for name in ("obs.parquet", "gene_list.json", "chunk_index.json")),
    ]
    return {path.name: path.read_bytes() for path in names}


@pytest.mark.parametrize("number", range(N_KILLS))
def test_killed_and_resumed(number: int, clean: tuple[Path, Path, float], tmp_path: Path) -> None:
    raw, expected, seconds = clean
    out = tmp_path / "out"
    env = environment(number, tmp_path)
    moment = float(np.random.default_rng(number).uniform(0.2, 1.05)) * seconds * (2 if "NUMBA_CACHE_DIR" in env else 1)
    # A session of its own, so that the whole tree of processes can be killed at once.
    with subprocess.Popen(
        command(raw, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, env=env
    ) as run:
        try:
            run.wait(moment)
        except subprocess.TimeoutExpired:
            os.killpg(run.pid, signal.SIGKILL)
    if run.returncode:
        if not (out / "chunk_index.json").exists():
            with pytest.raises(MissingIndexError):
                open_index(out)
        resumed = subprocess.run(command(raw, out, "resume=true"), capture_output=True, text=True, env=env)
        assert not resumed.returncode, f"killed after {moment:.2f} s: {resumed.stderr}"
    assert content(out) == content(expected)
    assert not [path for path in out.iterdir() if path.suffix in (".tmp", ".part") or path.name == ".work"]
