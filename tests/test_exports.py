"""What `import scvae_data` offers, and what it does not drag in."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from tests.support.datasets import make_dataset

import scvae_data

HEAVY = ("torch", "lightning", "scanpy", "anndata", "wandb", "matplotlib")


def loaded_after(statement: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after ``statement``."""
    code = f"{statement}\nimport sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    return set(output.splitlines()[-1].split())


@pytest.mark.parametrize("name", scvae_data.__all__)
def test_every_name_is_there(name: str) -> None:
    assert getattr(scvae_data, name) is not None


def test_dir_lists_the_public_names() -> None:
    assert dir(scvae_data) == sorted(scvae_data.__all__)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'ChunkedDatamodule'"):
        _ = scvae_data.ChunkedDatamodule


def test_version_is_the_installed_one() -> None:
    project = tomllib.loads((Path(__file__).resolve().parents[1] / "pyproject.toml").read_text())["project"]
    assert scvae_data.__version__ == project["version"]


def test_the_package_itself_is_light() -> None:
    assert not loaded_after("import scvae_data").intersection((*HEAVY, "numpy", "hydra"))


def test_processing_needs_no_training_stack() -> None:
    modules = [f"scvae_data.{name}" for name in ("processing.pipeline", "processing.engine", "commands.process", "cli")]
    heavy = {"torch", "lightning", "scanpy", "wandb", "matplotlib"}
    assert not loaded_after(f"import {', '.join(modules)}") & heavy


def test_training_starts_without_what_it_needs_later(tmp_path: Path) -> None:
    path, *_ = make_dataset(tmp_path / "dataset", n_obs=60)
    first_batch = (
        "import scvae_data.training.run, scvae_data.compat.vae_loader; from scvae_data import ChunkedDataModule\n"
        f"data = ChunkedDataModule({str(path)!r}, batch_size=8); data.setup(); next(iter(data.train_dataloader()))"
    )
    loaded = loaded_after(first_batch)
    assert "torch" in loaded
    assert not loaded & {"pandas", "anndata", "scanpy", "sklearn", "umap", "wandb"}
