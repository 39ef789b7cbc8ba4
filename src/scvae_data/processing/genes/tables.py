"""Gene tables in, one file for each distinct one out: most files of a corpus share a few."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from scvae_data.processing.genes.names import HELD_TABLES
from scvae_data.readers.base import GeneTable
from scvae_data.store.files import write_atomic

__all__ = ["hash_table", "held_table", "load_table", "names_of_columns", "store_table", "table_file"]


def as_arrow(table: GeneTable) -> Any:
    """Return a gene table as an arrow table."""
    columns = {"names": table.names, "ids": table.ids, "symbols": table.symbols}
    return pa.table({name: pa.array(values, pa.string()) for name, values in columns.items() if values is not None})


def hash_table(table: GeneTable) -> str:
    """Hash the content of a gene table."""
    arrow = as_arrow(table)
    digest = hashlib.sha256()
    for name in arrow.column_names:
        digest.update(name.encode())
        digest.update("\0".join(arrow.column(name).to_pylist()).encode())
    return digest.hexdigest()[:32]


def store_table(table: GeneTable, folder: Path) -> str:
    """Write a gene table under the hash of its content, once; return the hash."""
    key = hash_table(table)
    target = table_file(folder, key)
    if not target.exists():
        sink = pa.BufferOutputStream()
        pq.write_table(as_arrow(table), sink, compression="lz4", use_dictionary=False, write_page_checksum=True)
        write_atomic(target, sink.getvalue().to_pybytes())
    return key


def table_file(folder: Path, key: str) -> Path:
    """Return where a gene table is."""
    return folder / f"{key}.parquet"


def names_of_columns(folder: Path, key: str) -> list[str]:
    """Return which of ``names``, ``ids`` and ``symbols`` a gene table has."""
    return list(pq.read_schema(table_file(folder, key)).names)


@lru_cache(maxsize=HELD_TABLES)
def held_table(folder: Path, key: str) -> GeneTable:
    """Read a gene table back, or give one of the last few again."""
    return load_table(folder, key)


def load_table(folder: Path, key: str) -> GeneTable:
    """Read a gene table back."""
    arrow = pq.ParquetFile(table_file(folder, key), page_checksum_verification=True).read(use_threads=False)
    columns = {name: arrow.column(name).to_numpy(zero_copy_only=False) for name in arrow.column_names}
    return GeneTable(columns["names"], columns.get("ids"), columns.get("symbols"))
