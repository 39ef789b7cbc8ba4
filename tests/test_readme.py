"""Every command and line of Python in the README and the pages after it runs as it stands, in order, in one folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = "".join((ROOT / name).read_text() for name in ("README.md", "docs/processing.md", "docs/training.md"))
# What stands on several pages runs once.
BLOCKS = list(dict.fromkeys(re.findall(r"^```(bash|python)\n(.*?)^```$", PAGES, flags=re.MULTILINE | re.DOTALL)))


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a user sees after cloning, with the environment that `make setup` has made already."""
    folder = tmp_path_factory.mktemp("readme")
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "process.py", "train.py"):
        shutil.copy2(ROOT / name, folder)
    environment = folder / ".venv"
    environment.mkdir()
    for part in Path(sys.prefix).iterdir():
        if part.name != ".setup-done":
            (environment / part.name).symlink_to(part)
    (environment / ".setup-done").touch()  # newer than the copies, so that nothing is ever installed from here
    return folder


def run(language: str, text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    program = ["bash", "-euo", "pipefail", "-c", text] if language == "bash" else [sys.executable, "-c", text]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {
        "PATH": path,
        # The same commands on a quarter of the cells and a twentieth of the genes.
        "SCVAE_DATA_DEMO_CELLS": "500",
        "SCVAE_DATA_DEMO_GENES": "1000",
        "WANDB_MODE": "offline",
    }
    return subprocess.run(
        program, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600
    )


@pytest.mark.parametrize(
    ("language", "text"),
    BLOCKS,
    ids=[f"{number}-{text.splitlines()[0][:40]}" for number, (_, text) in enumerate(BLOCKS)],
)
def test_readme_block_runs(language: str, text: str, checkout: Path) -> None:
    result = run(language, text, checkout)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-4000:]


def test_readme_names_every_group() -> None:
    configuration = (ROOT / "README.md").read_text().partition("## Configuration")[2].partition("\n## ")[0]
    groups = {path.name for path in (ROOT / "conf").iterdir() if path.is_dir()} - {"hydra", "__pycache__"}
    assert groups - set(re.findall(r"`(\w+)`", configuration)) == set()
