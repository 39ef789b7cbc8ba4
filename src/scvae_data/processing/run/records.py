"""A run and its inputs in; the record that is enough to repeat it, ``processing_config.json``, out."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from scvae_data.processing.facts import InputFacts
from scvae_data.processing.run.context import Context

__all__ = ["provenance"]

PACKAGES = (
    "scvae-data",
    "anndata",
    "h5py",
    "hdf5plugin",
    "deflate",
    "numba",
    "numcodecs",
    "numpy",
    "pandas",
    "pyarrow",
    "scipy",
)


def provenance(
    context: Context, files: Sequence[InputFacts], gene_list_hash: str, processing_id: str
) -> dict[str, Any]:
    """Return the content of ``processing_config.json``: enough to repeat the run."""
    overrides = context.record.overrides
    return {
        "format": "scvae-data processing config",
        "format_version": 1,
        "processing_id": processing_id,
        "config": dict(context.record.config),
        "command": None if overrides is None else {"overrides": list(overrides), "directory": str(Path.cwd())},
        "gene_list_hash": gene_list_hash,
        "versions": versions(),
        "git": git_revision(),
        "inputs": {
            "path": [file.path for file in files],
            "source_file": [file.source_file for file in files],
            "format": [file.format for file in files],
            "n_obs": [file.n_obs for file in files],
            "accession": [file.accession for file in files],
            "accession_column": [file.accession_column for file in files],
            "obs_values": [file.obs_values for file in files],
            "bytes": [file.bytes for file in files],
            "sampled_sha256": [file.fingerprint for file in files],
            "sha256": [file.sha256 for file in files],
        },
    }


@cache
def versions() -> dict[str, str]:
    """Return the versions that this process runs with."""
    return {name: version(name) for name in PACKAGES} | {"python": platform.python_version()}


@cache
def git_revision() -> str | None:
    """Return the commit this code is checked out at, or None outside a checkout."""
    here = Path(__file__).resolve().parent
    try:
        answer = subprocess.run(  # noqa: S603 - a fixed command
            ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=40"],  # noqa: S607
            capture_output=True, text=True, timeout=10, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None
