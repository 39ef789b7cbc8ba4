"""What a survey found in, kept beside the chunks; found again by the next one where the files are unchanged.

A file is unchanged while size, times of its last change and number in the
file system are what they were; for a folder, those of every file in it; for
an object in a store, its size and version.
docs/inputs.md has this in words.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
import zipfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from scvae_data.errors import InputError
from scvae_data.processing.facts import InputFacts
from scvae_data.processing.genes.tables import table_file
from scvae_data.processing.settings.inputs import InputFile, Inputs
from scvae_data.processing.survey.file import parts_of
from scvae_data.processing.work import WorkFolder
from scvae_data.readers.folders import is_matrix
from scvae_data.remote.fetched import objects_of
from scvae_data.remote.location import Location, RemotePath
from scvae_data.store.files import atomic_file, write_atomic

__all__ = ["digest", "keep_arrays", "keep_facts", "kept_arrays", "kept_facts", "stamp_all"]

log = logging.getLogger(__name__)

# Raised where what a survey finds changes: what another version found is not used.
SURVEY_VERSION = 4
SETTLED_SECONDS = 2.0
"""A file system may give two changes within this time the same time."""
N_THREADS = 16  # each waits for a file system, which may be far away

Stamped = tuple[InputFile, str]
"""A file, and a hash of all that its facts depend on; empty where a change of that might not be seen."""


def stamp_all(files: Sequence[InputFile], inputs: Inputs, reference: str) -> list[Stamped]:
    """Look at the state of each file in the file system.

    Parameters
    ----------
    reference
        Hash of what is known of genes.
    """
    if inputs.full_hash or inputs.readers:  # every byte is wanted; code of the user's own may change unseen
        return [(file, "") for file in files]
    settings = [SURVEY_VERSION, asdict(inputs.opening.limits), inputs.table_rows, inputs.counts, reference]
    settled = time.time_ns() - int(SETTLED_SECONDS * 1e9)
    with ThreadPoolExecutor(N_THREADS) as pool:
        states = pool.map(lambda file: state_of(file.path, settled), files)
        return [
            (file, digest([state, file.accession, file.obs_values, settings]) if state else "")
            for file, state in zip(files, states, strict=True)
        ]


def state_of(path: Location, settled: int) -> list[Any]:
    """Return name, size, times and number of each part of an input; nothing where a change might not be seen.

    Parameters
    ----------
    settled
        Nothing may have changed since; nanoseconds.
    """
    if isinstance(path, RemotePath):
        return state_in_store(path)
    if is_matrix(path.name):  # what else belongs to it lies beside it
        return []
    try:
        found = [(str(part), part.stat()) for part in parts_of(path)]
    except OSError:
        return []
    if any(max(stat.st_mtime_ns, stat.st_ctime_ns) > settled for _, stat in found):
        return []
    return [[name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino] for name, stat in found]


def state_in_store(path: RemotePath) -> list[Any]:
    """Return name, size and version of each object of an input; nothing where the store tells no version of one."""
    try:
        found = objects_of(path)
    except InputError:
        return []  # whoever reads it says what is wrong
    versioned = all(facts.version for facts in found.values())
    return [[str(part), facts.size, facts.version] for part, facts in found.items()] if versioned else []


def digest(value: Any) -> str:
    """Hash plain values."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def kept_facts(work: WorkFolder, stamped: Sequence[Stamped]) -> dict[int, InputFacts]:
    """Return the facts that still hold, by position; they name the file as it was named when they were kept."""
    try:
        with pq.ParquetFile(work.surveyed_files, page_checksum_verification=True) as file:
            table = file.read()
        known = dict(zip(table["stamp"].to_pylist(), table["facts"].to_pylist(), strict=True))
        names = [stamp for _, stamp in stamped]
        found = {
            at: InputFacts.from_plain(json.loads(known[name]))
            for at, name in enumerate(names)
            if name and name in known
        }
    except FileNotFoundError:
        return {}
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        log.info("%s cannot be read (%s): all files are surveyed anew", work.surveyed_files, error)
        return {}
    tables = {slot.table for facts in found.values() for slot in facts.slots}
    there = {table for table in tables if table_file(work.tables, table).exists()}
    return {at: facts for at, facts in found.items() if all(slot.table in there for slot in facts.slots)}


def keep_facts(work: WorkFolder, stamped: Sequence[Stamped], found: Mapping[int, InputFacts]) -> None:
    """Keep the facts of the files whose next change will be seen."""
    rows = [(stamped[at][1], json.dumps(asdict(facts))) for at, facts in sorted(found.items()) if stamped[at][1]]
    columns = {name: pa.array([row[at] for row in rows], pa.string()) for at, name in enumerate(("stamp", "facts"))}
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink, compression="zstd", use_dictionary=False, write_page_checksum=True)
    write_atomic(work.surveyed_files, sink.getvalue().to_pybytes())


def kept_arrays(path: Path, key: str) -> dict[str, NDArray[Any]]:
    """Return what `keep_arrays` kept under a key; nothing where it is of another key, absent or damaged."""
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            return {name: arrays[name] for name in arrays.files} if str(arrays["key"]) == key else {}
    except FileNotFoundError:
        return {}
    except (OSError, EOFError, KeyError, ValueError, RuntimeError, zipfile.BadZipFile) as error:
        log.info("%s cannot be read (%s): it is made anew", path, error)
        return {}


def keep_arrays(path: Path, key: str, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Keep arrays, with a checksum each, in place of those of another key."""
    with atomic_file(path) as file:
        named: dict[str, Any] = {"key": np.array(key), **arrays}
        np.savez(file, **named)
