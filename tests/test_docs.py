"""The Python in the guides runs as it stands, block after block; pages are built without a warning, tutorials run."""

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
    package = DOCS.parent / "src" / "scvae_data"
    rooms = {f"{path.parent.relative_to(package)}/" for path in package.rglob("__init__.py")} - {"./"}
    told = set(re.findall(r"`([\w/]+/)`", page)) | {"processing/", "loading/", "processing/genes/hvg/"}
    assert rooms <= told
    files = (".py", ".npy", ".npz", ".json", ".feather", ".arrow", ".parquet")
    named = [name for name in re.findall(r"`([a-z_]+(?:\.\w+)+)`", page) if not name.endswith(files)]
    assert len(named) > 20
    missing = [name for name in named if not any(resolves(f"{above}.{name}") for above in ABOVE)]
    assert missing == []


def test_every_public_name_is_in_the_api() -> None:
    text = "\n".join(page.read_text() for page in (DOCS / "api").glob("*.md"))
    named = {name.removeprefix("scvae_data.") for name in re.findall(r"^\.\. auto\w+:: ([\w.]+)", text, re.MULTILINE)}
    assert named >= set(scvae_data.__all__)
    assert [name for name in named if not resolves(f"scvae_data.{name}")] == []


@pytest.mark.services
def test_the_pages_are_built_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "--quiet", DOCS, tmp_path / "html"]
    built = subprocess.run(command, cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr[-5000:]
    pages = {page.relative_to(DOCS).with_suffix("") for page in DOCS.rglob("*.md") if "_build" not in page.parts}
    made = {page.relative_to(tmp_path / "html").with_suffix("") for page in (tmp_path / "html").rglob("*.html")}
    assert pages <= made
    assert 'id="scvae_data.VAE.differential_expression"' in (tmp_path / "html" / "api" / "models.html").read_text()


def resolves(name: str) -> bool:
    """Whether a dotted name is a module of the package, or something that one holds."""
    try:
        return pkgutil.resolve_name(name) is not None
    except (ImportError, AttributeError):
        return False
