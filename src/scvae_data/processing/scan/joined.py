"""The cells of a file and its rows of the table of cells in; the table's columns for every cell out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from scvae_data.errors import InputError

__all__ = ["Joined", "join"]

WHOLE = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
# With these a gap makes no float of whole numbers.
NULLABLE: dict[pa.DataType, Any] = {
    pa.from_numpy_dtype(name): pd.api.types.pandas_dtype(name.replace("i", "I").replace("u", "U")) for name in WHOLE
} | {pa.bool_(): pd.BooleanDtype()}


@dataclass(frozen=True)
class Joined:
    """What a table of cells says of a file.

    Parameters
    ----------
    frame
        One row per cell of the file, in its order; missing where the table has no row.
    unmatched
        Number of ``cells`` without a row and of ``rows`` without a cell, and the barcode of the first of each.
    """

    frame: pd.DataFrame = field(default_factory=pd.DataFrame)
    unmatched: dict[str, Any] = field(default_factory=dict)


def join(path: str, table: pa.Table, accessions: NDArray[np.object_] | None, barcodes: NDArray[np.object_]) -> Joined:
    """Find the row of every cell.

    Parameters
    ----------
    path
        The file, for errors.
    table
        Its rows of the table.
    accessions
        Of its cells; None where all have one.

    Raises
    ------
    InputError
        Several cells of the file have a barcode that the table has a row for.
    """
    of_rows, of_cells = table.column("barcode").to_numpy(zero_copy_only=False), barcodes
    if accessions is not None and "key" in table.column_names:
        of_rows = paired(table.column("key").to_numpy(zero_copy_only=False), of_rows)
        of_cells = paired(accessions, barcodes)
    places = pd.Index(of_rows, dtype=object).get_indexer(pd.Index(of_cells, dtype=object))
    refuse_shared(path, places, barcodes)
    columns = [name for name in table.column_names if name not in ("key", "barcode")]
    taken = table.select(columns).take(pa.array(places, mask=places < 0))
    idle = np.setdiff1d(np.arange(len(table)), places)
    without = np.flatnonzero(places < 0)
    unmatched = {
        "cells": len(without),
        "rows": len(idle),
        "cell": str(barcodes[without[0]]) if len(without) else None,
        "row": table.column("barcode")[int(idle[0])].as_py() if len(idle) else None,
    }
    return Joined(taken.to_pandas(types_mapper=NULLABLE.get), unmatched)


def paired(accessions: NDArray[np.object_], barcodes: NDArray[np.object_]) -> NDArray[np.object_]:
    """Return accession and barcode as one text; an accession has no line end."""
    return np.array([f"{one}\n{other}" for one, other in zip(accessions, barcodes, strict=True)], object)


def refuse_shared(path: str, places: NDArray[np.intp], barcodes: NDArray[np.object_]) -> None:
    """Refuse a row of the table that several cells could mean."""
    found = np.flatnonzero(places >= 0)
    again = found[pd.Series(places[found]).duplicated().to_numpy()]
    if len(again):
        cell = int(again[0])
        first = int(np.flatnonzero(places == places[cell])[0])
        raise InputError(
            path, "ambiguous_barcode",
            f"rows {first} and {cell} have one barcode, {barcodes[cell]}, and input.obs_table a row for it; make the "
            "barcodes of the file unique",
        )  # fmt: skip
