"""A table that ``chunk_summary.json`` lists in, its rows out, after its size and checksum were found to be right."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from scvae_data.calling import mend
from scvae_data.errors import DamagedFileError
from scvae_data.remote.location import Location, RemotePath
from scvae_data.store.files import check_plain_name, expecting, open_plain
from scvae_data.store.remote_files import CachedFiles, disk_cache
from scvae_data.store.verify import SUMMARY_FILE, file_fault

__all__ = ["listed_table"]


@contextmanager
def listed_table(directory: Location, entry: Mapping[str, Any]) -> Iterator[pq.ParquetFile]:
    """Open a table for as long as the block runs.

    Parameters
    ----------
    directory
        Where it is.
    entry
        ``file``, ``bytes`` and ``sha256``, as the summary has them.

    Raises
    ------
    DamagedFileError
        The table is not what is listed, also where that is found only while it is read.
    """
    with expecting(directory / SUMMARY_FILE):
        path, facts = directory / check_plain_name(entry["file"]), (int(entry["bytes"]), str(entry["sha256"]))
    if isinstance(path, RemotePath):
        here = CachedFiles(disk_cache(), {path.name: facts}).copy(path)
    elif fault := file_fault(here := path, *facts):
        raise DamagedFileError(f"{path}: {fault}; {mend()}")
    try:
        with expecting(path), os.fdopen(open_plain(here), "rb") as file, pq.ParquetFile(file) as table:
            yield table
    except (OSError, pa.ArrowException) as error:
        text = " ".join(str(error).split())
        raise DamagedFileError(f"{path}: not such a table ({text}); {mend()}") from error
