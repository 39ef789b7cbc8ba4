"""A dataset directory in, what is wrong with each of its files out: sizes, checksums, and on request every row."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scvae_data.errors import StoreError
from scvae_data.remote import objects
from scvae_data.remote.location import Location, RemotePath
from scvae_data.store.cell_tables import Generation
from scvae_data.store.chunk_reader import ChunkReader
from scvae_data.store.chunk_writer import ChunkEntry
from scvae_data.store.csr import CompactCsr
from scvae_data.store.dataset_index import DatasetIndex, listed
from scvae_data.store.files import check_plain_name, is_there, open_plain, read_bytes, read_json, sha256_file
from scvae_data.store.gene_list import GENE_LIST_FILE
from scvae_data.store.names import INDEX_FILE, generation_file
from scvae_data.store.obs_writer import NAME_COLUMN
from scvae_data.store.remote_files import local_copy
from scvae_data.system.hdf5_guard import foreign_storage

__all__ = [
    "CONFIG_FILE",
    "SUMMARY_FILE",
    "by_generation",
    "chunk_fault",
    "file_fault",
    "listed",
    "piecewise",
    "record_faults",
    "table_faults",
]

CONFIG_FILE, SUMMARY_FILE = "processing_config.json", "chunk_summary.json"
REPORT_FILE, QUARANTINE_FILE = "failure_report.json", "quarantine.txt"
TABLES = ("dropped_cells", "experiments", "gene_statistics", "gene_report")
"""What the summary lists, each a file of this name."""
RECORDS = (CONFIG_FILE, SUMMARY_FILE, REPORT_FILE, QUARANTINE_FILE, *(f"{table}.parquet" for table in TABLES))
PIECE_ELEMENTS = 4_000_000


def file_fault(path: Location, n_bytes: int, sha256: str) -> str | None:
    """Say how a file differs from size and checksum; None if it does not.

    A symbolic link is a fault as well: what it leads to is not in the directory.
    """
    try:
        if isinstance(path, RemotePath):
            return _object_fault(path, n_bytes, sha256)
        with os.fdopen(open_plain(path), "rb") as file:
            if (size := os.fstat(file.fileno()).st_size) != n_bytes:
                return f"has {size:,} bytes instead of {n_bytes:,}"
            return None if sha256_file(file) == sha256 else "its content does not match its checksum"
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _object_fault(path: RemotePath, n_bytes: int, sha256: str) -> str | None:
    facts = objects.facts_of(path)
    if facts.size != n_bytes:
        return f"has {facts.size:,} bytes instead of {n_bytes:,}"
    for _ in range(2):  # it may have been changed on its way
        digest = hashlib.sha256()
        for piece in objects.pieces(path, facts):
            digest.update(piece)
        if digest.hexdigest() == sha256:
            return None
    return "its content does not match its checksum"


def record_faults(index: DatasetIndex) -> dict[str, str | None]:
    """Check the files that are not needed to read the data; what is wrong with each, None if nothing is.

    The two JSON files hold times and paths, so the index cannot list their
    checksums: each holds its own, and must speak of this directory.
    """
    faults: dict[str, str | None] = {}
    for number, chunks in enumerate(index.chunks_of_generations):
        faults |= _faults_of_records(index, number, [index.chunks[chunk_id] for chunk_id in chunks])
    return faults


def by_generation(index: DatasetIndex, names: Collection[str]) -> dict[int, list[str]]:
    """Files of a directory by the generation that they were written with, both in order; the genes are of the first."""
    found: dict[int, list[str]] = {}
    for number, chunks in enumerate(index.chunks_of_generations):
        known = {index.chunks[chunk_id].file for chunk_id in chunks} | {*index.generations[number].files}
        known |= {generation_file(name, number) for name in RECORDS} | ({GENE_LIST_FILE} if number == 0 else set())
        if mine := sorted(known.intersection(names)):
            found[number] = mine
    return found


def _faults_of_records(index: DatasetIndex, number: int, chunks: Sequence[ChunkEntry]) -> dict[str, str | None]:
    """Check the records of one generation."""
    directory, (config, name) = index.path, (generation_file(one, number) for one in (CONFIG_FILE, SUMMARY_FILE))
    facts = {"processing_id": index.generations[number].processing_id, "gene_list_hash": index.gene_list_hash}
    sizes = {"n_obs": sum(chunk.n_obs for chunk in chunks), "n_vars": index.n_vars}
    summary, fault = _record(directory / name, sizes | {"nnz": sum(chunk.nnz for chunk in chunks)})
    faults = {config: _record(directory / config, facts)[1], name: fault}
    try:
        for key in TABLES:
            if entry := (summary or {}).get(key):
                file = check_plain_name(entry["file"])
                faults[file] = file_fault(directory / file, int(entry["bytes"]), str(entry["sha256"]))
    except (KeyError, TypeError, ValueError, StoreError) as error:
        faults[name] = f"does not say what it should of {key} ({' '.join(str(error).split())})"
    report, quarantine = (directory / generation_file(one, number) for one in (REPORT_FILE, QUARANTINE_FILE))
    return faults | _report_faults(report, quarantine) if is_there(report) or is_there(quarantine) else faults


def _report_faults(path: Location, quarantine: Location) -> dict[str, str | None]:
    """Check a report of inputs that could not be used, and the list of their paths."""
    report, fault = _record(path, {})
    if report is None:
        return {path.name: fault}
    try:
        wanted = "".join(f"{file['path']}\n" for file in report["failed"])
    except (KeyError, TypeError):
        return {path.name: "does not list files"}
    return {path.name: None, quarantine.name: _text_fault(quarantine, wanted)}


def _record(path: Location, facts: dict[str, Any]) -> tuple[dict[str, Any] | None, str | None]:
    """Content of a JSON file if it is sound, and what is wrong with it if it is not."""
    try:
        content = read_json(path)
    except StoreError as error:
        return None, str(error).removeprefix(f"{path}: ").split(";")[0]
    if wrong := [name for name, value in facts.items() if content.get(name) != value]:
        return None, f"its {wrong[0]} is not that of {INDEX_FILE}"
    return content, None


def _text_fault(path: Location, wanted: str) -> str | None:
    try:
        return None if read_bytes(path) == wanted.encode() else f"does not list the files of {REPORT_FILE}"
    except StoreError as error:
        return str(error).removeprefix(f"{path}: ").split(";")[0]


def piecewise(reader: ChunkReader, max_elements: int = PIECE_ELEMENTS) -> Iterator[tuple[int, CompactCsr]]:
    """All rows of a chunk in order, as (first row, rows) of at most ``max_elements`` stored counts or one row."""
    indptr, start = reader.indptr, 0
    while start < reader.entry.n_obs:
        stop = int(np.searchsorted(indptr, indptr[start] + max_elements, side="right")) - 1
        stop = min(max(stop, start + 1), reader.entry.n_obs)
        yield start, reader.read_rows(start, stop)
        start = stop


def chunk_fault(index: DatasetIndex, chunk_id: int) -> str | None:
    """Read every row of a chunk and compare it with itself, the index, the genes and obs.parquet; None if all agree."""
    try:
        with index.reader(chunk_id) as reader:
            totals, largest = _row_totals(reader)
        if largest != reader.entry.max_count:
            return f"its largest count is {largest}, the index says {reader.entry.max_count}"
        rows = np.arange(*index.first_rows[chunk_id : chunk_id + 2])
        obs = index.obs(["total_counts", "size_factor", "gene_set", "split_hash"], rows)
        return _obs_disagrees(index, totals, obs) or _tables_disagree(
            index, local_copy(reader.path, index.open_source), obs, _made_by(index, chunk_id)
        )
    except StoreError as error:
        return str(error).removeprefix(f"{index.path / index.chunks[chunk_id].file}: ").split(";")[0]
    except (KeyError, OSError, ValueError, RuntimeError) as error:
        return f"HDF5 does not read it as a chunk ({' '.join(str(error).split())})"


def _row_totals(reader: ChunkReader) -> tuple[NDArray[np.int64], int]:
    """Sum of counts of each row, and the largest count; raises StoreError where rows are not canonical."""
    totals, largest = np.zeros(reader.entry.n_obs, np.int64), 0
    for start, rows in piecewise(reader):
        largest = max(largest, rows.check_canonical())
        totals[start : start + rows.n_obs] = rows.totals()
    return totals, largest


def _obs_disagrees(index: DatasetIndex, totals: NDArray[np.int64], obs: pd.DataFrame) -> str | None:
    """Compare what obs says of cells with their counts."""
    kept = index.normalization["size_factor_genes"] == "kept"
    total_counts = obs["total_counts"].to_numpy()
    expected = (totals if kept else total_counts) / index.normalization["target_sum"]
    wrong = ~np.isclose(obs["size_factor"].to_numpy(), expected, rtol=1e-9, atol=0) | (totals > total_counts)
    if wrong.any():
        row = int(np.argmax(wrong))
        return f"row {row} has {totals[row]:,} counts, which obs contradicts (cell {obs.index[row]})"
    if not 0 <= int(obs["gene_set"].min()) <= int(obs["gene_set"].max()) < len(index.gene_sets):
        return "obs names a gene set that the directory does not have"
    if index.order["kind"] == "hash" and (np.diff(obs["split_hash"].to_numpy().astype(np.int64)) < 0).any():
        return "its rows are not in the order of split_hash"
    return None


def _made_by(index: DatasetIndex, chunk_id: int) -> str:
    """What a chunk should say it was made by."""
    numbered = zip(index.generations, index.chunks_of_generations, strict=True)
    return next(generation.processing_id for generation, chunks in numbered if chunk_id in chunks)


def _tables_disagree(index: DatasetIndex, path: Path, obs: pd.DataFrame, processing_id: str) -> str | None:
    """Compare names and shape that HDF5 readers see with those of the directory."""
    with h5py.File(path, "r") as file:
        if outside := foreign_storage(file):
            return outside
        if tuple(file["X"].attrs["shape"]) != (len(obs), index.n_vars):
            return f"says that X is {tuple(file['X'].attrs['shape'])} instead of {(len(obs), index.n_vars)}"
        for table, names in (("obs", obs.index), ("var", index.genes.names)):
            if not np.array_equal(file[table]["_index"].asstr()[()], np.asarray(names, dtype=object)):
                return f"its {table} names are not those of the directory"
        if file["uns/scvae_data/processing_id"].asstr()[()] != processing_id:
            return "was made by another run"
    return None


def table_faults(index: DatasetIndex) -> dict[str, str | None]:
    """Read the tables of all cells, chunk by chunk; what is wrong with each file, None if nothing is.

    8 bytes a cell are kept to find equal names.
    """
    faults: dict[str, str | None] = {}
    names = np.empty(index.n_obs, np.uint64)
    for generation, chunks in zip(index.generations, index.chunks_of_generations, strict=True):
        faults |= dict.fromkeys(generation.tables) | _first_fault(index, generation, chunks, names)
    names.sort()
    if (names[1:] == names[:-1]).any():
        first_table = index.generations[0].obs
        faults[first_table] = faults[first_table] or "two cells have one name"
    return faults


def _first_fault(
    index: DatasetIndex, generation: Generation, chunks: range, names: NDArray[np.uint64]
) -> dict[str, str]:
    """What is wrong with the tables of a generation, by file; hashes of names go to ``names``."""
    for chunk_id in chunks:
        place = slice(*index.first_rows[chunk_id : chunk_id + 2].tolist())
        try:
            (table,) = index.cells.obs_tables(np.arange(place.start, place.stop))
            names[place] = pd.util.hash_array(table[NAME_COLUMN].to_numpy(), categorize=False)
            if not (table["size_factor"].to_numpy() > 0).all():
                return {generation.obs: f"a size_factor of row group {chunk_id - chunks.start} is not above 0"}
            for name, quick, values in index.cells.stored_twice(chunk_id):
                if not np.array_equal(quick, values, equal_nan=values.dtype.kind == "f"):
                    return {str(generation.rows): f"{name} of chunk {chunk_id} is not that of {generation.obs}"}
        except StoreError as error:
            damaged = next(name for name in generation.tables if str(error).startswith(f"{index.path / name}: "))
            return {damaged: str(error).removeprefix(f"{index.path / damaged}: ").split(";")[0]}
    return {}
