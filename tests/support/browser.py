"""A page as chromium shows it: what it complained of, and the document once its scripts have run."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")


def opened(page: Path, profile: Path) -> tuple[list[str], str]:
    """Open a page without network; returns the lines of the console and the document.

    Parameters
    ----------
    profile
        A folder for the browser's own files.
    """
    assert CHROMIUM
    done = subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
            "--virtual-time-budget=30000", f"--user-data-dir={profile}", "--host-resolver-rules=MAP * ~NOTFOUND",
            "--dump-dom", f"file://{page}",
        ],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    return [line for line in done.stderr.splitlines() if "CONSOLE" in line], done.stdout
