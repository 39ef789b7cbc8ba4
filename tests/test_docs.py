"""The Python in the guides runs as it stands, block after block."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.datasets import make_dataset

DOCS = Path(__file__).resolve().parents[1] / "docs"
HAS_SCVI = importlib.util.find_spec("scvi") is not None


@pytest.mark.parametrize(
    "guide",
    [
        "pytorch.md",
        pytest.param("scvi.md", marks=pytest.mark.skipif(not HAS_SCVI, reason="scvi-tools is not installed")),
    ],
)
def test_python_of_a_guide_runs(guide: str, tmp_path: Path) -> None:
    make_dataset(tmp_path / "outputs" / "chunked_processed", n_obs=1200, n_vars=30, chunk_size=400)
    blocks = re.findall(r"^```python\n(.*?)^```$", (DOCS / guide).read_text(), flags=re.MULTILINE | re.DOTALL)
    assert blocks
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", "\n".join(blocks)],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
