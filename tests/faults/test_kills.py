"""A program killed with all its workers at any moment, and started again, ends with the bytes of an undisturbed one.

Three random moments by default; ``SCVAE_DATA_KILLS=30`` tries thirty, and
``SCVAE_DATA_KILLS_RAW`` names a folder of files to take in place of simulated
ones. In a long run two other processes load the machine, and every second
program finds no compiled kernels: it is killed while it compiles them, and the
next finds what was left.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from tests.faults.conftest import LONG
from tests.faults.test_grown import RECORDS, bytes_of

from scvae_data import open_index
from scvae_data.commands.verify import verify
from scvae_data.errors import MissingIndexError
from scvae_data.simulate import simulate_files

ROOT = Path(__file__).parents[2]
N_KILLS = int(os.environ.get("SCVAE_DATA_KILLS", "3"))
N_BURNERS = 2 if LONG else 0
SLOWER = 5
"""So many times as long does a program take that has to compile its kernels, about."""
WITH_TIMES = RECORDS | {"processing_config.json", "chunk_summary.json"}


@dataclass(frozen=True)
class Program:
    """What is killed.

    Parameters
    ----------
    start, again
        Its command, and the one that goes on, by where it writes.
    begun
        A directory that is there before; None where it makes one.
    out
        What it ends with where nothing disturbs it.
    """

    start: Callable[[Path], list[str]]
    again: Callable[[Path], list[str]]
    begun: Path | None
    out: Path

    def begin(self, out: Path) -> None:
        """Leave what it finds where it writes."""
        shutil.rmtree(out, ignore_errors=True)
        if self.begun is not None:
            shutil.copytree(self.begun, out)


def process(raw: Path, out: Path, more: str = "resume=false") -> list[str]:
    return [
        sys.executable, str(ROOT / "process.py"), "input=files", f'input.paths="{raw}/*.h5*"', "chunk_size=50",
        "qc=none", "engine=local", f"paths.processed_dir={out}", f"hydra.run.dir={out}-log", more,
    ]  # fmt: skip


def compact(grown: Path, out: Path) -> list[str]:
    return [sys.executable, "-m", "scvae_data", "compact", str(grown), str(out)]


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory, record: list[str]) -> Iterator[list[tuple[Program, float]]]:
    """Over three files: all at once, the last of them appended, and what has grown so compacted; seconds of each."""
    folder = tmp_path_factory.mktemp("kills")
    raw, first, begun = folder / "raw", folder / "first", folder / "begun"
    if (given := os.environ.get("SCVAE_DATA_KILLS_RAW")) is None:
        simulate_files(raw, n_files=3, cells_per_file=200, n_genes=500, seed=3)
    else:
        shutil.copytree(given, raw)
    shutil.copytree(raw, first)
    max(first.iterdir()).unlink()
    subprocess.run(process(first, begun), check=True, capture_output=True)
    make, grow, join = partial(process, raw), partial(process, raw, more="append=true"), partial(compact, folder / "1")
    chosen = [(make, partial(make, more="resume=true"), None), (grow, grow, begun), (join, join, None)]
    timed = []
    for number, commands in enumerate(chosen):
        program = Program(*commands, folder / str(number))
        program.begin(program.out)
        started = time.perf_counter()
        subprocess.run(program.start(program.out), check=True, capture_output=True)
        timed.append((program, time.perf_counter() - started))
    yield timed
    record.append(
        "SIGKILL of a program and all its workers at a random moment: `process.py`, `append=true` and `scvae-data "
        "compact` in turn, two other processes loading the machine, every second one without compiled kernels | "
        f"{N_KILLS} | all went on to the same bytes"
    )


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


@pytest.mark.parametrize("number", range(N_KILLS))
def test_killed_and_started_again(number: int, programs: list[tuple[Program, float]], tmp_path: Path) -> None:
    (program, seconds), cold = programs[number % 3], LONG and number % 2 == 1
    moment = float(np.random.default_rng(number).uniform(0, seconds * (SLOWER if cold else 1)))
    out, env = tmp_path / "out", os.environ | ({"NUMBA_CACHE_DIR": str(tmp_path / "kernels")} if cold else {})
    program.begin(out)
    while ends_before(moment, program.start(out), env):
        program.begin(out)
        moment /= 2
    if not is_finished(out) or program.begun is not None:
        done = subprocess.run(program.again(out), capture_output=True, text=True, env=env)
        assert not done.returncode, f"{program.again(out)} killed after {moment:.2f} s: {done.stderr}"
    # Pages for people are made once the directory is whole: a kill leaves it without them, or with half of one.
    found, wanted = (
        {name: content for name, content in bytes_of(one).items() if not name.removeprefix(".").startswith("qc_")}
        for one in (out, program.out)
    )
    assert set(found) == set(wanted)
    assert {name for name in wanted if found[name] != wanted[name]} <= WITH_TIMES
    assert not [path for path in out.iterdir() if path.suffix in (".tmp", ".part") or path.name == ".work"]


def ends_before(moment: float, command: list[str], env: dict[str, str]) -> bool:
    """Start a program and kill it, with all its workers, at a moment; return whether it has ended before."""
    # A session of its own, so that the whole tree of processes can be killed at once.
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True, env=env
    ) as run:
        try:
            told = run.communicate(timeout=moment)[1]
        except subprocess.TimeoutExpired:
            os.killpg(run.pid, signal.SIGKILL)
            return False
    assert not run.returncode, told
    return True


def is_finished(out: Path) -> bool:
    """Whether nothing is left to do; whatever reads as a directory is whole."""
    try:
        open_index(out)
    except MissingIndexError:
        return False
    assert not any(verify(out).values())
    return not (out / ".work").exists() and not (out / ".compacting/of").exists()
