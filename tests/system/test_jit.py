from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numba
import numpy as np
import pytest

from scvae_data.system import jit
from scvae_data.system.jit import compile_ahead, compiled, external, instruction


def double(values: np.ndarray) -> int:
    total = 0
    for j in range(values.size):
        total += 2 * values[j]
    return total


power = external("pow", "float64(float64, float64)")
zeros = instruction("trailing_zeros")


@compiled
def twice(x: float) -> float:
    return 2 * x


def calls_all(x: float, word: np.uint64) -> tuple[float, int]:
    return twice(power(x, 3.0)), zeros(word)


def test_compiled_functions_give_what_python_gives() -> None:
    values = np.arange(7)
    assert compiled(double)(values) == double(values) == 42


def test_without_a_place_for_the_cache_each_process_compiles_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = numba.njit

    def nowhere(**options: bool) -> object:
        if options.pop("cache", False):
            raise RuntimeError("cannot cache function 'double': no locator available for file 'double.py'")
        return whole(**options)

    monkeypatch.setattr(numba, "njit", nowhere)
    made = compiled(double)
    assert made(np.arange(7)) == 42
    assert made.dispatcher.targetoptions["nogil"]  # type: ignore[attr-defined]


DEFAULT_RUNS = """
import sys
from numba.core import event
from scvae_data import VAE, ChunkedDataModule, cli

with event.install_recorder("numba:compile") as seen:
    sys.argv = ["scvae-data", "process", "input.n_files=1", "input.cells_per_file=400", "input.n_genes=2000",
                "qc=none", "paths.processed_dir=chunks", "paths.data_dir=data"]
    cli.main()
    for x_format in ("dense", "csr"):
        data = ChunkedDataModule("chunks", num_threads=1, x_format=x_format, normalized=False, batch_size=64)
        data.setup("fit")
        for batch in data.train_dataloader():
            pass
    model = VAE(facts={"n_vars": data.n_vars, "categories": []})
    model.configure_model()
    terms = model.elbo_terms(batch)
    (terms["kl"] - terms["recon"]).sum().backward()
names = [record.data["dispatcher"].py_func.__module__ for _, record in seen.buffer]
print("compiled:", *(name for name in names if name.startswith("scvae_data.")))
"""


def test_default_runs_find_all_that_was_compiled_ahead(tmp_path: Path) -> None:
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-W", "ignore", *command],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=True,
        )  # fmt: skip

    told = run("-m", "scvae_data", "compile").stderr
    assert re.fullmatch(r"compiling kernels, once\ncompile: \d+ kernels in [\d.]+ s\n", told)

    runs = run("-c", DEFAULT_RUNS)
    assert runs.stdout.splitlines()[-1] == "compiled:"
    assert "compiling" not in runs.stderr


def test_a_program_that_compiles_nothing_does_not_load_numba() -> None:
    program = "import sys, scvae_data.processing.pipeline; print('numba' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "False\n"


READY = """
import sys
from scvae_data.system.jit import make_ready
make_ready()
print("scipy.linalg" in sys.modules)
import numba, numpy as np
print(numba.njit(lambda a: a @ a)(np.array([[1.0, 2.0], [3.0, 4.0]])).tolist())
"""


def test_what_workers_fork_from_has_no_blas_and_finds_it_where_it_is_wanted() -> None:
    told = subprocess.check_output([sys.executable, "-c", READY], text=True)
    assert told.splitlines() == ["False", "[[7.0, 10.0], [15.0, 22.0]]"]


def test_compiled_functions_call_each_other_libraries_and_instructions() -> None:
    assert compiled(calls_all)(2.0, np.uint64(40)) == (16.0, 3)


def test_compiling_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    tell = jit.teller.__wrapped__()
    ours, theirs = (SimpleNamespace(py_func=SimpleNamespace(__module__=name)) for name in ("scvae_data.x", "umap.x"))
    with caplog.at_level(logging.INFO):
        for dispatcher in (theirs, ours, ours):
            tell.on_start(SimpleNamespace(data={"dispatcher": dispatcher}))
    assert caplog.messages == ["compiling kernels, once"]
    assert tell.n_compiled == 2


def test_what_lacks_a_place_or_a_library_is_not_compiled_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    there, nowhere, lacking = (Kernel(path) for path in ("/cache", None, "/cache"))
    monkeypatch.setattr(jit, "_wanted", [])
    monkeypatch.setenv("NUMBA_CACHE_DIR", "asked")  # so that the place is asked for
    jit.ahead_of("train", "i8[::1]")(there)
    jit.ahead_of("train", "i8[::1]")(nowhere)
    jit.ahead_of("train", "i8[::1]", given=lambda: None)(lacking)
    jit.ahead_of("process", "i8[::1]", "f4[::1]")(there)
    compile_ahead("train")
    assert there.compiled == [(numba.int64[::1],)]
    assert not nowhere.compiled
    assert not lacking.compiled


def test_what_was_found_before_is_not_looked_for_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kernel, other = Kernel(str(tmp_path)), Kernel(str(tmp_path))
    monkeypatch.setattr(jit, "_wanted", [])
    monkeypatch.setenv("NUMBA_CACHE_DIR", "asked")  # so that the place is asked for
    jit.ahead_of("train", "i8[::1]")(kernel)
    for n_compiled in (1, 1):
        compile_ahead("train")
        assert len(kernel.compiled) == n_compiled
    (tmp_path / "kernel.nbi").touch()  # code that came, or went
    compile_ahead("train")
    assert len(kernel.compiled) == 2
    jit.ahead_of("train", "f4[::1]")(other)
    compile_ahead("train")
    assert (len(kernel.compiled), len(other.compiled)) == (3, 1)


class Kernel:
    """Stands for a compiled function whose code is kept at ``cache_path``."""

    def __init__(self, cache_path: str | None) -> None:
        self.stats, self.py_func = SimpleNamespace(cache_path=cache_path), double
        self.compiled: list[tuple[Any, ...]] = []

    def __call__(self) -> None: ...

    def compile(self, types: tuple[Any, ...]) -> None:
        self.compiled.append(types)
