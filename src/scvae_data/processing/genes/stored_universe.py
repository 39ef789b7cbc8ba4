"""A universe of genes in, plain arrays that hold it out; and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scvae_data.processing.genes.symbols import UnlikePairs
from scvae_data.processing.genes.universe import TableMatch, Universe

__all__ = ["arrays_of", "universe_of"]

TEXTS = ("keys", "symbols", "ids")
OF_TABLES = ("maps", "how", "species")
PLAIN = ("synonyms", "retired", "classed")
RECORDS = {"matches": TableMatch, "unlike": UnlikePairs}


def arrays_of(universe: Universe) -> dict[str, NDArray[Any]]:
    """Return arrays of numbers and fixed-width text that hold a universe."""
    plain: dict[str, Any] = {name: getattr(universe, name) for name in PLAIN}
    for name in RECORDS:
        plain[name] = {table: asdict(record) for table, record in getattr(universe, name).items()}
    arrays: dict[str, NDArray[Any]] = {name: getattr(universe, name).astype(str) for name in TEXTS}
    for name in OF_TABLES:
        of_tables: Mapping[str, NDArray[Any]] = getattr(universe, name)
        plain[name] = {table: len(values) for table, values in of_tables.items()}
        arrays[name] = np.concatenate([*of_tables.values()]) if of_tables else np.empty(0, np.uint8)
    return arrays | {"flags": universe.flags, "plain": np.frombuffer(json.dumps(plain).encode(), np.uint8)}


def universe_of(arrays: Mapping[str, NDArray[Any]]) -> Universe:
    """Return the universe that arrays hold."""
    plain = json.loads(arrays["plain"].tobytes())
    fields: dict[str, Any] = {name: arrays[name].astype(object) for name in TEXTS}
    fields |= {name: split(arrays[name], plain[name]) for name in OF_TABLES}
    fields |= {name: plain[name] for name in PLAIN}
    for name, kind in RECORDS.items():
        fields[name] = {table: kind(**record) for table, record in plain[name].items()}
    return Universe(**fields, flags=arrays["flags"])


def split(joined: NDArray[Any], lengths: Mapping[str, int]) -> dict[str, NDArray[Any]]:
    """Cut what was joined into the values of each table."""
    ends = np.cumsum([*lengths.values()])
    return dict(zip(lengths, np.split(joined, ends)[: len(lengths)], strict=True))
