"""Gene tables in, one file for each distinct one out: most files of a corpus share a few.

Beside its columns as files have them a table keeps what cleaning made of
them, and what is told by all names of a column: whoever stores a table finds
that out, many at a time, and whoever compares all tables has it at hand.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from scvae_data.errors import DamagedFileError
from scvae_data.processing.genes.names import CleanColumn, CleanTable, clean_table
from scvae_data.readers.base import GeneTable
from scvae_data.store.files import write_atomic

__all__ = [
    "hash_table",
    "held_clean_table",
    "load_clean_table",
    "load_table",
    "names_of_columns",
    "store_table",
    "table_file",
]

COLUMNS = ("names", "ids", "symbols")
HELD_TABLES = 8
"""Tables that are held once they are read: small corpora have no more."""
# Raised where names are cleaned otherwise: what an earlier version made of them is not used.
CLEANED = 1
CLEAN = b"clean"


def columns_of(table: GeneTable | CleanTable) -> dict[str, Any]:
    """Return the columns that a table has, by name."""
    columns = {name: getattr(table, name) for name in COLUMNS}
    return {name: column for name, column in columns.items() if column is not None}


def hash_table(table: GeneTable) -> str:
    """Hash the content of a gene table."""
    digest = hashlib.sha256()
    for name, column in columns_of(table).items():
        digest.update(name.encode())
        digest.update("\0".join(column).encode())
    return digest.hexdigest()[:32]


def store_table(table: GeneTable, folder: Path) -> str:
    """Write a gene table under the hash of its content, once; return the hash."""
    key = hash_table(table)
    target = table_file(folder, key)
    if not target.exists():
        sink = pa.BufferOutputStream()
        pq.write_table(with_clean(table), sink, compression="lz4", use_dictionary=False, write_page_checksum=True)
        write_atomic(target, sink.getvalue().to_pybytes())
    return key


def with_clean(table: GeneTable) -> Any:
    """Return a gene table as an arrow table, with its clean columns where they are others, and what these tell."""
    stored = {name: pa.array(column, pa.string()) for name, column in columns_of(table).items()}
    clean = columns_of(clean_table(table))
    first = {name: next(other for other in clean if clean[other] is column) for name, column in clean.items()}
    told = {}
    for name in dict.fromkeys(first.values()):
        column = clean[name]
        place = name if stored[name].equals(column.values) else f"clean_{name}"
        stored[place], told[name] = column.values, (place, column.letters, column.genomes)
    facts = json.dumps([CLEANED, first, told]).encode()
    # Parquet has checksums of its pages alone.
    return pa.table(stored).replace_schema_metadata({CLEAN: b"%d %s" % (zlib.crc32(facts), facts)})


def table_file(folder: Path, key: str) -> Path:
    """Return where a gene table is."""
    return folder / f"{key}.parquet"


def names_of_columns(folder: Path, key: str) -> list[str]:
    """Return which of ``names``, ``ids`` and ``symbols`` a gene table has."""
    with opened(folder, key) as parquet:
        return [name for name in parquet.schema_arrow.names if name in COLUMNS]


def load_table(folder: Path, key: str) -> GeneTable:
    """Read a gene table back."""
    with opened(folder, key) as parquet:
        there = [name for name in COLUMNS if name in parquet.schema_arrow.names]
        arrow = parquet.read(there, use_threads=False)
    columns = {name: arrow.column(name).to_numpy(zero_copy_only=False) for name in there}
    return GeneTable(columns["names"], columns.get("ids"), columns.get("symbols"))


@lru_cache(maxsize=HELD_TABLES)
def held_clean_table(folder: Path, key: str) -> CleanTable:
    """Read what is clean of a gene table back, or give one of the last few again."""
    return load_clean_table(folder, key)


def load_clean_table(folder: Path, key: str) -> CleanTable:
    """Read what is clean of a gene table back; it is cleaned anew if another version stored it."""
    with opened(folder, key) as parquet:
        checksum, _, facts = (parquet.schema_arrow.metadata or {}).get(CLEAN, b"").partition(b" ")
        version, first, told = json.loads(facts) if checksum == b"%d" % zlib.crc32(facts) else (None, {}, {})
        if version != CLEANED:
            return clean_table(load_table(folder, key))
        arrow = parquet.read([place for place, *_ in told.values()], use_threads=False)
    distinct = {
        name: CleanColumn(arrow.column(place).combine_chunks(), letters, tuple(genomes))
        for name, (place, letters, genomes) in told.items()
    }
    columns = {name: distinct[other] for name, other in first.items()}
    return CleanTable(columns["names"], columns.get("ids"), columns.get("symbols"))


@contextmanager
def opened(folder: Path, key: str) -> Iterator[pq.ParquetFile]:
    """Open the file of a gene table for the time of a block; raise DamagedFileError where it cannot be read."""
    path = table_file(folder, key)
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as parquet:
            yield parquet
    except (OSError, pa.ArrowException) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        fault = " ".join(str(error).split())
        raise DamagedFileError(f"{path}: is damaged ({fault}); delete it, then resume=true reads the inputs") from error
