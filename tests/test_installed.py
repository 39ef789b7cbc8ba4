"""The page on installed use, command by command, as if the package were installed: no file of a checkout is at hand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BLOCKS = re.findall(
    r"^```(bash|text)\n(.*?)^```$", (ROOT / "docs" / "installed.md").read_text(), flags=re.MULTILINE | re.DOTALL
)


def installed(folder: Path) -> dict[str, str]:
    """Lay the package out as a wheel does, and return an environment that finds it."""
    package, programs = folder / "site" / "scvae_data", folder / "bin"
    package.mkdir(parents=True)
    programs.mkdir()
    for part in (ROOT / "src" / "scvae_data").iterdir():
        (package / part.name).symlink_to(part)
    (package / "conf").symlink_to(ROOT / "conf")
    program = programs / "scvae-data"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m scvae_data "$@"\n')
    program.chmod(0o755)
    path = f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {"PATH": path, "HOME": str(folder), "PYTHONPATH": str(package.parent), "PYTHONDONTWRITEBYTECODE": "1"}


def test_the_page_on_installed_use(tmp_path: Path) -> None:
    folder = tmp_path / "anywhere"
    folder.mkdir()
    environment = installed(tmp_path)
    shown = None
    for kind, text in BLOCKS:
        if kind == "text":
            assert shown == text
            continue
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text], cwd=folder, env=environment, capture_output=True, text=True
        )
        assert (done.returncode, done.stderr) == (0, ""), text
        shown = done.stdout
    assert not (folder / "outputs").exists()
