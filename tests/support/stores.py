"""Zarr stores and MuData files as their writers write them."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import anndata as ad
import h5py
import pandas as pd
from anndata.io import write_elem


def write_zarr(cells: ad.AnnData, path: Path, version: int, sharded: bool = False) -> Path:
    """A store of one of Zarr's formats; chunks of format 3 may lie together in shards."""
    with ad.settings.override(auto_shard_zarr_v3=sharded, zarr_write_format=version), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Consolidated metadata")
        warnings.filterwarnings("ignore", "Writing zarr v2 data")
        cells.write_zarr(path)
    return path


def zipped(folder: Path) -> Path:
    """A zip archive in place of a folder."""
    packed = Path(shutil.make_archive(str(folder), "zip", folder))
    shutil.rmtree(folder)
    return packed


def write_mudata(path: Path, modalities: dict[str, ad.AnnData], obs: pd.DataFrame) -> Path:
    """A MuData file: modalities in order, tables of all together, and 512 bytes of its own before."""
    with h5py.File(path, "w", userblock_size=512) as file:
        write_elem(file, "obs", obs)
        write_elem(file, "var", pd.DataFrame(index=[f"{name}:g" for name in modalities]))
        for name, cells in modalities.items():
            write_elem(file, f"mod/{name}", cells)
        file.require_group("mod").attrs["mod-order"] = list(modalities)
    return path
