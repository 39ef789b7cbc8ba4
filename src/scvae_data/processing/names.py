"""Barcodes of a file in, names that are unique in the whole directory out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from scvae_data.processing.survey import FileFacts
from scvae_data.readers import Reader

__all__ = ["cell_names", "unique_names"]


def cell_names(reader: Reader, file: FileFacts, rank: int) -> tuple[NDArray[np.object_], Any]:
    """Return each row's accession, and a function from row numbers to names that are unique in the directory.

    A name is ``ACCESSION:barcode``; from the second file of an accession on,
    ``ACCESSION#2:barcode``. Barcodes that recur in a file get ``-1``, ``-2``, …
    """
    # Arrow holds text in a third of the memory that Python strings take.
    barcodes = pa.array(unique_names(reader.barcodes()), pa.string())
    if file.accession is not None:
        accessions = np.broadcast_to(np.array(file.accession, object), (reader.n_obs,))
    else:
        accessions = reader.obs([str(file.accession_column)])[file.accession_column].astype(str).to_numpy(object)
    tag = f"#{rank + 1}" if rank else ""

    def names(rows: NDArray[np.int64]) -> NDArray[np.object_]:
        of_rows = barcodes.take(pa.array(rows)).to_pylist()
        return np.array([f"{a}{tag}:{b}" for a, b in zip(accessions[rows], of_rows, strict=True)], object)

    return accessions, names


def unique_names(names: NDArray[np.object_]) -> NDArray[np.object_]:
    """Give repeated names a suffix ``-1``, ``-2``, … that collides with none; the first keeps its name."""
    repeated = pd.Series(names).duplicated().to_numpy()
    if not repeated.any():
        return names
    taken, counters, unique = set(names), dict.fromkeys(names[repeated], 0), names.copy()
    for row in np.flatnonzero(repeated):
        name = names[row]
        while True:
            counters[name] += 1
            candidate = f"{name}-{counters[name]}"
            if candidate not in taken:
                break
        taken.add(candidate)
        unique[row] = candidate
    return unique
