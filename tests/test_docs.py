"""The Python in the guides runs as it stands, block after block."""

from __future__ import annotations

import importlib.util
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.datasets import make_dataset

import scvae_data

DOCS = Path(__file__).resolve().parents[1] / "docs"
ABOVE = ("scvae_data", "scvae_data.processing")
HAS_SCVI = importlib.util.find_spec("scvi") is not None


@pytest.mark.parametrize(
    "guides",
    [
        ("pytorch.md", "results.md"),
        pytest.param(("scvi.md",), marks=pytest.mark.skipif(not HAS_SCVI, reason="scvi-tools is not installed")),
    ],
)
def test_python_of_guides_runs(guides: tuple[str, ...], tmp_path: Path) -> None:
    make_dataset(tmp_path / "outputs" / "chunked_processed", n_obs=1200, n_vars=30, chunk_size=400)
    found = [
        re.findall(r"^```python\n(.*?)^```$", (DOCS / guide).read_text(), re.MULTILINE | re.DOTALL) for guide in guides
    ]
    assert all(found)
    blocks = [block for of_guide in found for block in of_guide]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", "\n".join(blocks)],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_what_the_architecture_names_is_there() -> None:
    page = (DOCS / "architecture.md").read_text()
    package = Path(scvae_data.__file__).parent
    rooms = {f"{path.parent.relative_to(package)}/" for path in package.rglob("__init__.py")} - {"./"}
    told = set(re.findall(r"`([\w/]+/)`", page)) | {"processing/", "loading/", "processing/genes/hvg/"}
    assert rooms <= told
    files = (".py", ".npy", ".npz", ".json", ".feather", ".arrow", ".parquet")
    named = [name for name in re.findall(r"`([a-z_]+(?:\.\w+)+)`", page) if not name.endswith(files)]
    assert len(named) > 20
    missing = [name for name in named if not any(resolves(f"{above}.{name}") for above in ABOVE)]
    assert missing == []


def resolves(name: str) -> bool:
    """Whether a dotted name is a module of the package, or something that one holds."""
    try:
        return pkgutil.resolve_name(name) is not None
    except (ImportError, AttributeError):
        return False
