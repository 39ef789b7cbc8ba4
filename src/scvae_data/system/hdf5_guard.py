"""Open HDF5 files from anywhere in; a refusal out where one would lead out of itself or is not as large as it claims.

HDF5 follows external links, virtual data sets and external storage without a
word, and a data set of a few bytes may declare terabytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import h5py

__all__ = ["DEFAULT_LIMITS", "SMALL_BYTES", "Limits", "foreign_storage", "oversized"]

SMALL_BYTES = 1 << 26
"""An array of this size is read whatever it takes in the file: zeros pack well."""


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
        n_bytes, stored = int(dataset.size or 0) * int(dataset.dtype.itemsize), dataset.id.get_storage_size()
        way = _way_of_reading(dataset.name)
        if way == "whole" and n_bytes > limits.max_table_bytes:
            return f"{dataset.name} declares {n_bytes:,} bytes, over input.max_table_bytes={limits.max_table_bytes}"
        if way and n_bytes > max(SMALL_BYTES, limits.max_inflation * stored):
            return (
                f"{dataset.name} declares {n_bytes:,} bytes and takes {stored:,} in the file, "
                f"over input.max_inflation={limits.max_inflation}"
            )
        # HDF5 unpacks a chunk whole, whatever is asked of it.
        n_chunk, most = prod(dataset.chunks or ()) * int(dataset.dtype.itemsize), limits.max_table_bytes
        if way and n_chunk > most:
            return f"{dataset.name} has chunks of {n_chunk:,} bytes, over input.max_table_bytes={most}"
    return None


def _way_of_reading(name: str) -> Literal["whole", "pieces"] | None:
    """How processing reads a data set of an H5AD or 10x file; None if it does not."""
    top, _, rest = name.lstrip("/").partition("/")
    if top in ("obsm", "varm", "obsp", "varp") or (top == "uns" and not rest.endswith("_categories")):
        return None
    if top in ("obs", "var", "raw.var", "uns") or (top == "raw" and rest.startswith("var")):
        return "whole"
    is_matrix = rest in ("", "X") or (top == "layers" and "/" not in rest)
    return "pieces" if is_matrix or rest.endswith(("data", "indices")) else "whole"
