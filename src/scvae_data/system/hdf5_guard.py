"""Open HDF5 files from anywhere in; a refusal out where one would lead out of itself or is not as large as it claims.

HDF5 follows external links, virtual data sets and external storage without a
word, and a data set of a few bytes may declare terabytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import h5py

__all__ = ["DEFAULT_LIMITS", "SMALL_BYTES", "Limits", "foreign_storage", "oversized", "too_large"]

SMALL_BYTES = 1 << 26
"""An array of this size is read whatever it takes in the file: zeros pack well."""
MODALITY = re.compile(r"mod/[^/]*/")
"""What stands before the places of an AnnData object in MuData."""
UNREAD = {
    *("obsm", "varm", "obsp", "varp", "obsmap", "varmap"),  # AnnData and MuData
    *("row_graphs", "col_graphs", "row_edges", "col_edges", "attrs"),  # loom
    *("droplet_latents", "global_latents", "metadata"),  # CellBender
}
"""Groups that processing reads nothing of, or next to nothing."""


@dataclass(frozen=True)
class Limits:
    """What one input file may ask for.

    Parameters
    ----------
    max_table_bytes
        Bytes of one array that is read whole: names, obs columns, row borders; also of a chunk of any array.
    max_inflation
        Bytes of an array for each byte that it takes in the file, from 64 MB on.
    """

    max_table_bytes: int = 1 << 30
    max_inflation: int = 2000


DEFAULT_LIMITS = Limits()


def foreign_storage(file: Any) -> str | None:
    """Say where an open file refers to data outside itself; None if nowhere. Reads no data."""
    found: list[str] = []

    def look(name: bytes, info: Any) -> int | None:
        if info.type not in (h5py.h5l.TYPE_HARD, h5py.h5l.TYPE_SOFT):
            found.append(f"{name.decode(errors='replace')} is a link to another file")
            return 1
        return None

    file.id.links.visit(look, info=True)
    return found[0] if found else next(_foreign_datasets(file), None)


def _foreign_datasets(file: Any) -> Iterator[str]:
    for dataset in datasets(file):
        if dataset.external is not None:
            yield f"{dataset.name} lies in {dataset.external[0][0]}"
        elif dataset.is_virtual:
            yield f"{dataset.name} is put together from other files"


def datasets(group: Any) -> Iterator[Any]:
    """Every data set below a group, each once: links in a circle do not matter."""
    names: list[bytes] = []
    h5py.h5o.visit(group.id, lambda name: names.append(name))
    for name in names:
        if isinstance(item := group[name], h5py.Dataset):
            yield item


def oversized(file: Any, limits: Limits) -> str | None:
    """Say which data set that processing reads declares more than it may; None if none does. Reads no data."""
    for dataset in datasets(file):
        size = int(dataset.dtype.itemsize)
        n_bytes, n_chunk = int(dataset.size or 0) * size, prod(dataset.chunks or ()) * size
        if fault := too_large(dataset.name, n_bytes, n_chunk, dataset.id.get_storage_size, limits):
            return fault
    return None


def too_large(name: str, n_bytes: int, n_chunk: int, n_stored: Callable[[], int], limits: Limits) -> str | None:
    """Say what of an array is more than it may be.

    Parameters
    ----------
    name
        Its place in the file or store.
    n_bytes, n_chunk
        What it and each of its chunks declare.
    n_stored
        Tells how many bytes it takes.
    """
    way = _way_of_reading(name)
    if way == "whole" and n_bytes > limits.max_table_bytes:
        return f"{name} declares {n_bytes:,} bytes, over input.max_table_bytes={limits.max_table_bytes}"
    if way and n_bytes > SMALL_BYTES and n_bytes > limits.max_inflation * (stored := n_stored()):
        return (
            f"{name} declares {n_bytes:,} bytes and takes {stored:,} in the file, "
            f"over input.max_inflation={limits.max_inflation}"
        )
    # A chunk is unpacked whole, whatever is asked of it.
    if way and n_chunk > limits.max_table_bytes:
        return f"{name} has chunks of {n_chunk:,} bytes, over input.max_table_bytes={limits.max_table_bytes}"
    return None


def _way_of_reading(name: str) -> Literal["whole", "pieces"] | None:
    """How processing reads an array of an input; None if it does not."""
    top, _, rest = MODALITY.sub("", name.lstrip("/")).partition("/")
    if top in UNREAD or (top == "uns" and not rest.endswith("_categories")):
        return None
    if top in ("obs", "var", "raw.var", "uns") or (top == "raw" and rest.startswith("var")):
        return "whole"
    is_matrix = rest in ("", "X") or (top == "layers" and "/" not in rest)
    return "pieces" if is_matrix or rest.endswith(("data", "indices")) else "whole"
