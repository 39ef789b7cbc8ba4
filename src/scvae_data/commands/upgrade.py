"""A directory of an earlier version of the format in, one of the present version and a word on it out."""

from __future__ import annotations

from pathlib import Path

from scvae_data.processing.run.directory import SCRATCH, claimed, disk_faults, held_directory, made_in
from scvae_data.remote.location import Location
from scvae_data.store import open_index
from scvae_data.store.names import FORMAT_VERSION
from scvae_data.store.upgrade import upgrade
from scvae_data.system.stopping import going_on

__all__ = ["upgrade_directory"]


def upgrade_directory(directory: Location, scratch: Path = SCRATCH) -> str:
    """Upgrade a directory that no run of ``process.py`` is writing; return what was done.

    Parameters
    ----------
    scratch
        Where files are made that go to a store.

    Raises
    ------
    ScvaeDataError
        There is no dataset, or what it is made of is damaged.
    """
    open_index(directory)  # before anything is made in a folder that holds no dataset
    made = made_in(directory, scratch)
    with going_on(), held_directory(made), disk_faults(made, "the same command"), claimed(directory, made):
        version, index = upgrade(directory, made)
    if version == FORMAT_VERSION:
        return f"{directory} has format version {version} already; nothing to do"
    return (
        f"{directory}: format version {version} → {index.format_version}; chunks, genes and obs.parquet are untouched"
    )
