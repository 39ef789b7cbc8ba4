"""What the files and columns of a dataset directory are called, and the version of their format."""

from __future__ import annotations

import re

__all__ = [
    "CHUNK_FILE",
    "CHUNK_VERSION",
    "CLAIM",
    "FORMAT_VERSION",
    "INDEX_FILE",
    "SRX_COLUMN",
    "UNFINISHED",
    "WORK_FOLDER",
    "chunk_file_name",
    "generation_file",
]

FORMAT_VERSION = 2
CHUNK_VERSION = 1
"""What chunk files call themselves: they are as in the first version of the format."""
RUN_FILE = "run.json"
"""What a directory of a training run has, and none of a dataset."""
INDEX_FILE = "chunk_index.json"
WORK_FOLDER = ".work"
"""What a directory has until it is finished."""
UNFINISHED = ".unfinished"
"""What a directory in a store has from its first chunk on until it is finished: who began it."""
CLAIM = ".writing"
"""What a directory in a store has while a machine writes there: who it is."""
SRX_COLUMN = "SRX_accession"
"""The obs column that holds each cell's experiment."""
CHUNK_FILE = re.compile(r"chunk_\d{4,}\.h5")
"""What :func:`chunk_file_name` gives."""


def chunk_file_name(chunk_id: int) -> str:
    """Name of a chunk file: ``chunk_0000.h5``, with more digits from 10,000 on."""
    return f"chunk_{chunk_id:04d}.h5"


def generation_file(name: str, number: int) -> str:
    """Name of a file that each generation has: as it is for the first, else with the number, from 1 on.

    >>> generation_file("obs.parquet", 0), generation_file("obs.parquet", 1)
    ('obs.parquet', 'obs_0001.parquet')
    """
    stem, _, suffix = name.rpartition(".")
    return f"{stem}_{number:04d}.{suffix}" if number else name
