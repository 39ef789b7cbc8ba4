"""``src/data_processor.py`` is ``process.py``: the same bytes from JSON as from Hydra, also under uv."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from tests.compat.conftest import ROOT
from tests.support.warm import run_python

UV = shutil.which("uv")
CONFIG = """{
  "input_path": "%s", // a folder
  "output_path": "from_json", "chunk_size": 70, "compression_level": 2,
  "subset_to_control_cells": true, "control_column": "perturbation", "control_values": ["Non-targeting"],
  "quality_control": {"min_genes": 20, "min_counts": null, "max_mt_percent": 60.0},
  "gene_processing": {"min_cells": 2, "target_sum": 5000.0}
}"""
HYDRA = (
    "chunk_size=70", "chunking.compression_level=2", "subset_to_control_cells=true", "control.column=perturbation",
    "control.values=[Non-targeting]", "qc.min_genes=20", "qc.min_counts=null", "qc.max_pct_counts_mt=60",
    "genes.min_cells=2", "normalization.target_sum=5000", "input=files", "paths.processed_dir=from_hydra",
)  # fmt: skip


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def run_warm(folder: Path, *command: str | Path) -> str:
    done = run_python(*command, cwd=folder)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def content(directory: Path) -> dict[str, bytes]:
    """The files that hold data; the others say when and how they were made."""
    files = [*directory.glob("chunk_*.h5"), *(directory / name for name in ("obs.parquet", "gene_list.json"))]
    return {file.name: file.read_bytes() for file in [*files, directory / "chunk_index.json"]}


def test_json_and_hydra_give_the_same_bytes(raw: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(CONFIG % raw)
    printed = run_warm(tmp_path, ROOT / "src" / "data_processor.py", "--config", "config.json")
    run_warm(tmp_path, ROOT / "process.py", *HYDRA, f"input.paths={raw}/*.h5ad")
    from_json = content(tmp_path / "from_json")
    assert len(from_json) > 3
    assert from_json == content(tmp_path / "from_hydra")
    # The command that was printed is the same run: it finds nothing to do.
    same = shlex.split(printed.splitlines()[0].partition("the same run: ")[2])
    assert same[:2] == ["python", "process.py"]
    again = run_warm(tmp_path, ROOT / "process.py", *same[2:])
    assert "is finished, with these settings and inputs" in again


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config", "c.json"], "c.json: chunk_sise is not a known key; did you mean chunk_size?"),
        (["--config", "absent.json"], "absent.json: cannot be read"),
        ([], "the following arguments are required: --config"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], message: str, tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(json.dumps({"chunk_sise": 5}))
    done = run_python(ROOT / "src" / "data_processor.py", *arguments, cwd=tmp_path)
    assert done.returncode != 0
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(UV is None, reason="uv is not installed")
def test_uv_run_uses_the_environment_as_it_is() -> None:
    assert UV is not None
    if Path(sys.prefix) != ROOT / ".venv":
        pytest.skip(f"the tests run in {sys.prefix}, not in .venv of the checkout")
    packages = next((ROOT / ".venv" / "lib").iterdir()) / "site-packages"
    before = packages.stat().st_mtime_ns
    offline = [UV, "run", "--offline"]
    assert run([*offline, "python", "-c", "import sys; print(sys.prefix)"], ROOT) == f"{ROOT / '.venv'}\n"
    shown = run(
        [*offline, "src/data_processor.py", "--config", "config/chunked_data_config.json", "--cfg", "job"], ROOT
    )
    assert re.search(r"^chunk_size: 25000$", shown, flags=re.MULTILINE)
    assert not (ROOT / "uv.lock").exists()
    assert packages.stat().st_mtime_ns == before


def test_the_older_entry_points_are_not_installed() -> None:
    targets = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]
    assert targets["wheel"]["packages"] == ["src/scvae_data", "src/hydra_plugins"]
    assert targets["wheel"]["force-include"] == {"conf": "scvae_data/conf"}
