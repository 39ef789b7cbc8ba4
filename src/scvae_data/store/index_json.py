"""``chunk_index.json`` to a checked :class:`DatasetIndex` and back."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from scvae_data.calling import command, mend, override, program
from scvae_data.errors import DamagedFileError, FormatVersionError, MissingIndexError, ScvaeDataError, StoreError
from scvae_data.remote import objects
from scvae_data.remote.disk_cache import DiskCache
from scvae_data.remote.location import Location, RemotePath, as_written
from scvae_data.remote.objects import ObjectFacts
from scvae_data.store.cell_tables import Generation
from scvae_data.store.chunk_writer import ChunkEntry
from scvae_data.store.codec import CODECS, codec_of
from scvae_data.store.dataset_index import DatasetIndex, content_hash_of, listed
from scvae_data.store.files import (
    FileFacts,
    check_plain_name,
    is_there,
    parse_json,
    read_sealed,
    verify_checksum,
    write_json,
)
from scvae_data.store.gene_list import GENE_LIST_FILE
from scvae_data.store.names import FORMAT_VERSION, INDEX_FILE, RUN_FILE, SRX_COLUMN, UNFINISHED, WORK_FOLDER
from scvae_data.store.obs_writer import OBS_FILE, ObsColumn
from scvae_data.store.remote_files import CachedFiles, disk_cache
from scvae_data.store.row_table import CODE_TYPES, n_bytes_of, stored_types, tail_bytes_of
from scvae_data.store.source import LocalFile, OpenSource

__all__ = ["open_index", "write_index"]

FORMAT = "scvae-data"
CHUNK_COLUMNS = tuple(item.name for item in fields(ChunkEntry) if item.name != "stored_bytes")
TEXT_COLUMNS = ("file", "sha256")
SHA256 = re.compile(r"[0-9a-f]{64}")
OBS_NEEDED = (SRX_COLUMN, "source_file", "source_row", "total_counts", "size_factor", "gene_set", "split_hash")
ORDERS = ("hash", "source", "group")
# Deflate packs 1,032 bytes into one at most, lz4 fewer: a chunk cannot hold more than that of what it stores.
MAX_INFLATION = 1032
# A name, an id and a symbol, each of at least a letter or null, with quotes and commas.
LEAST_GENE_BYTES = 9
T = TypeVar("T")


def write_index(directory: Location, index: DatasetIndex, old: ObjectFacts | None = None) -> DatasetIndex:
    """Write ``chunk_index.json``, the file that makes a directory complete; write it last.

    What stands there is replaced in one step: by a rename, in a store by one put.

    Parameters
    ----------
    old
        What stands there in a store; None: nothing. If it is another one, it stays.

    Returns
    -------
    The index as :func:`open_index` will return it, content hash included.

    Raises
    ------
    Changed
        There is another one in the store.
    """
    index = replace(index, path=directory, format_version=FORMAT_VERSION, content_hash=content_hash_of(index))
    _check(index)
    if isinstance(directory, RemotePath):
        with TemporaryDirectory() as folder:
            write_json(Path(folder, INDEX_FILE), _to_json(index))
            objects.swap(Path(folder, INDEX_FILE), directory / INDEX_FILE, old)
        return replace(index, open_source=_opener(index, None))
    write_json(directory / INDEX_FILE, _to_json(index))
    return index


def open_index(
    path: Location | str, open_source: OpenSource | None = None, cache: DiskCache | None = None
) -> DatasetIndex:
    """Open a dataset directory; reads its index only.

    Parameters
    ----------
    path
        The directory, here or in a remote store; its JSON files are read from there.
    open_source
        Opens its chunk files and the tables of cells, by their locations. None: as what they are, files of
        this machine or, of a remote store, copies of them in ``cache``.
    cache
        Where copies of remote files lie; None for the folder of the user.

    Raises
    ------
    MissingIndexError
        If there is no finished dataset.
    FormatVersionError
        If it was written by a newer version.
    DamagedFileError
        If the index is not what was written.
    StoreError
        If the chunks are compressed by a :class:`~scvae_data.store.codec.Codec` that this process has not imported.
    """
    directory = as_written(path)
    file = directory / INDEX_FILE
    if isinstance(file, Path) and not file.is_file():
        raise MissingIndexError(_missing(directory))
    try:
        encoded = read_sealed(file)
    except DamagedFileError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            if isinstance(file, RemotePath):
                objects.check_bucket(file)
            raise MissingIndexError(_missing(directory)) from None
        raise
    content = parse_json(file, encoded)
    version = content.get("format_version")
    # Before the checksum: a newer version may compute it in another way.
    if content.get("format") == FORMAT and isinstance(version, int) and version > FORMAT_VERSION:
        raise FormatVersionError(
            f"{file}: has format version {version}, this scvae-data reads up to {FORMAT_VERSION}; upgrade scvae-data"
        )
    verify_checksum(file, encoded)
    _check_codec(file, content.get("codec"))
    try:
        index = _from_json(directory, content)
        index = replace(index, open_source=open_source or _opener(index, cache))
        _check(index)
        if index.content_hash != content_hash_of(index):
            raise ValueError("content_hash is not that of the files listed")
    except (KeyError, TypeError, ValueError, OverflowError, ScvaeDataError) as error:
        fault = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
        raise DamagedFileError(f"{file}: malformed, {fault}; {mend()}") from None
    return index


def _check_codec(file: Location, codec: object) -> None:
    """Refuse a codec that somebody wrote and nobody imported: an index is data, and must not choose what code runs."""
    name = codec.get("name") if isinstance(codec, dict) else None
    if isinstance(name, str) and "." in name and name not in CODECS:
        raise StoreError(
            f"{file}: its chunks are compressed by {name}, which is not imported just because a file says so; if you "
            f"trust it, import {name.rpartition('.')[0]} first, or give {program('train')} chunking.compression={name}"
        )


def _opener(index: DatasetIndex, cache: DiskCache | None) -> OpenSource:
    """What opens the files of a directory where it lies."""
    if isinstance(index.path, Path):
        return LocalFile
    return CachedFiles(cache or disk_cache(), listed(index))


def _missing(directory: Location) -> str:
    if isinstance(directory, Path) and (directory / RUN_FILE).is_file():
        return f"{directory} is the directory of a training run; give the dataset directory that it was trained on"
    make = command("process", "input=files", "input.paths=…", override("paths.processed_dir", directory))
    if isinstance(directory, Path) and directory.is_file():
        return f"{directory} is a file; give the directory that {program('process')} made of such"
    if is_there(directory / (UNFINISHED if isinstance(directory, RemotePath) else WORK_FOLDER)):
        return (
            f"{directory} is unfinished, it has no {INDEX_FILE} yet; "
            f"give the command that began it again, with resume=true: {make} resume=true"
        )
    if isinstance(directory, RemotePath) or not directory.is_dir():
        return f"no dataset at {directory}; make one with: {make}"
    if next(directory.glob("chunk_*.h5"), None) is not None:
        make = command("process", "input=files", "input.paths=…", "paths.processed_dir=…")
        return (
            f"{directory} has chunks, but neither {INDEX_FILE} nor {WORK_FOLDER}; make a dataset elsewhere with: {make}"
        )
    if next(directory.glob("[!.]*"), None) is not None:  # perhaps the raw files, which no dataset should lie among
        make = command("process", "input=files", override("input.paths", directory), "paths.processed_dir=…")
    return f"{directory} holds no {INDEX_FILE}; make a dataset with: {make}"


def _to_json(index: DatasetIndex) -> dict[str, Any]:
    earlier = {} if index.upgraded_from is None else {"upgraded_from": index.upgraded_from}
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        **earlier,
        "n_obs": index.n_obs,
        "n_vars": index.n_vars,
        "nnz": index.nnz,
        "chunk_size": index.chunk_size,
        "block_elements": index.block_elements,
        "codec": {"name": index.codec.name, "level": index.codec.level},
        "order": dict(index.order),
        "normalization": dict(index.normalization),
        "processing_id": index.processing_id,
        "simulated": index.simulated,
        "gene_list_hash": index.gene_list_hash,
        "content_hash": index.content_hash,
        "files": {name: _facts_to_json(facts) for name, facts in sorted(index.files.items())},
        "generations": [dict(vars(generation)) for generation in index.generations],
        "obs_columns": {name: _column_to_json(column) for name, column in index.obs_columns.items()},
        "chunks": {name: [getattr(chunk, name) for chunk in index.chunks] for name in CHUNK_COLUMNS},
    }


def _facts_to_json(facts: FileFacts) -> dict[str, Any]:
    return {name: value for name, value in vars(facts).items() if value is not None}


def _column_to_json(column: ObsColumn) -> dict[str, Any]:
    if column.categories is None:
        return {"dtype": column.dtype}
    return {"dtype": column.dtype, "categories": list(column.categories)}


def _get(content: Mapping[str, Any], key: str, kind: type[T]) -> T:
    value = content[key]
    if not isinstance(value, kind) or (kind is int and (isinstance(value, bool) or not 0 <= int(value) < 1 << 62)):  # type: ignore[call-overload]
        raise TypeError(f"{key} is no {kind.__name__}" if kind is not int else f"{key} is no number of 0 or more")
    return value


def _from_json(directory: Location, content: Mapping[str, Any]) -> DatasetIndex:
    version = _get(content, "format_version", int)
    if content["format"] != FORMAT or version not in PARSERS:
        raise ValueError(f"format is {content['format']!r} {content['format_version']!r}")
    codec = _get(content, "codec", dict)
    chunks = _chunks(_get(content, "chunks", dict))
    return DatasetIndex(
        path=directory,
        n_obs=_get(content, "n_obs", int),
        n_vars=_get(content, "n_vars", int),
        nnz=_get(content, "nnz", int),
        chunk_size=_get(content, "chunk_size", int),
        chunks=chunks,
        obs_columns={name: _column(value) for name, value in _get(content, "obs_columns", dict).items()},
        codec=codec_of(codec["name"], codec["level"]),
        block_elements=_get(content, "block_elements", int),
        order=_get(content, "order", dict),
        normalization=_get(content, "normalization", dict),
        processing_id=_get(content, "processing_id", str),
        gene_list_hash=_get(content, "gene_list_hash", str),
        files={check_plain_name(name): _facts(value) for name, value in _get(content, "files", dict).items()},
        generations=PARSERS[version](content, len(chunks)),
        simulated=_get(content, "simulated", bool),
        content_hash=_get(content, "content_hash", str),
        format_version=version,
        upgraded_from=_get(content, "upgraded_from", int) if "upgraded_from" in content else None,
    )


def _one_generation(content: Mapping[str, Any], n_chunks: int) -> tuple[Generation, ...]:
    """Version 1: one obs table, and nothing that is quicker to read."""
    return (Generation(n_chunks, OBS_FILE, processing_id=_get(content, "processing_id", str)),)


def _generations(content: Mapping[str, Any], n_chunks: int) -> tuple[Generation, ...]:
    """Version 2: a list of them."""
    found = []
    for item in _get(content, "generations", list):
        names = (check_plain_name(item[key]) for key in ("obs", "rows", "gene_sets"))
        obs, rows, gene_sets = names
        types, n_categories = _get(item, "row_columns", dict), _get(item, "n_categories", dict)
        for name in n_categories:
            _get(n_categories, name, int)
        made_by = _get(item, "processing_id", str)
        found.append(Generation(_get(item, "n_chunks", int), obs, rows, types, gene_sets, n_categories, made_by))
    return tuple(found)


PARSERS = {1: _one_generation, FORMAT_VERSION: _generations}
"""What each version of the format says of generations; all else is the same."""


def _facts(value: Mapping[str, Any]) -> FileFacts:
    tail = [_get(value, name, int) if name in value else None for name in ("tail_bytes", "tail_crc32")]
    return FileFacts(_get(value, "bytes", int), _get(value, "sha256", str), *tail)


def _column(value: Mapping[str, Any]) -> ObsColumn:
    if "categories" not in value:
        return ObsColumn(_get(value, "dtype", str))
    categories = _get(value, "categories", list)
    if not all(isinstance(item, str) for item in categories):
        raise TypeError("categories are not strings")
    return ObsColumn(_get(value, "dtype", str), tuple(categories))


def _chunks(columns: Mapping[str, Any]) -> tuple[ChunkEntry, ...]:
    lists = {name: _get(columns, name, list) for name in CHUNK_COLUMNS}
    n_chunks = len(lists["file"])
    for name, values in lists.items():
        kind: type[Any] = str if name in TEXT_COLUMNS else int
        if len(values) != n_chunks:
            raise ValueError(f"chunks.{name} has {len(values)} entries for {n_chunks} chunks")
        for value in values:
            _get({f"chunks.{name}": value}, f"chunks.{name}", kind)
    return tuple(ChunkEntry(*row) for row in zip(*lists.values(), strict=True))


def _check(index: DatasetIndex) -> None:
    """Raise ValueError or StoreError unless the parts of an index agree."""
    first_row = 0
    for chunk in index.chunks:
        check_plain_name(chunk.file)
        if chunk.first_row != first_row:
            raise ValueError(f"{chunk.file} starts at row {chunk.first_row} instead of {first_row}")
        if not chunk.n_obs:
            raise ValueError(f"{chunk.file} holds no cells")
        inside = chunk.blocks_offset + chunk.blocks_size <= chunk.bytes
        holds = 4 * (chunk.n_obs + 2 * chunk.nnz) <= MAX_INFLATION * chunk.bytes
        if not SHA256.fullmatch(chunk.sha256) or chunk.blocks_crc32 >= 1 << 32 or not inside or not holds:
            raise ValueError(f"the entry of {chunk.file} is impossible")
        first_row += chunk.n_obs
    _require(index.n_obs == first_row, f"n_obs is {index.n_obs}, the chunks hold {first_row}")
    nnz = sum(chunk.nnz for chunk in index.chunks)
    _require(index.nnz == nnz, f"nnz is {index.nnz}, the chunks hold {nnz}")
    _require(len({chunk.file for chunk in index.chunks}) == len(index.chunks), "two chunks share a file")
    _require(index.block_elements > 0 and index.chunk_size > 0, "chunk_size and block_elements must be above 0")
    method, target_sum = index.normalization["method"], index.normalization["target_sum"]
    _require(method in ("log1p", "none") and 0 < target_sum < math.inf, f"normalization is {method} to {target_sum}")
    genes = index.normalization["size_factor_genes"]
    _require(genes in ("kept", "all"), f"normalization.size_factor_genes is {genes!r}")
    _require(index.order["kind"] in ORDERS, f"order.kind is {index.order['kind']!r}")
    if missing := [name for name in OBS_NEEDED if name not in index.obs_columns]:
        raise ValueError(f"obs has no column {missing[0]}")
    _require(index.obs_columns[SRX_COLUMN].categories is not None, "SRX_accession is not categorical")
    room = index.files[GENE_LIST_FILE].bytes // LEAST_GENE_BYTES
    _require(index.n_vars <= room, f"n_vars is {index.n_vars}, {GENE_LIST_FILE} has room for {room}")
    _require(all(SHA256.fullmatch(facts.sha256) is not None for facts in index.files.values()), "a sha256 is none")
    _check_generations(index)


def _check_generations(index: DatasetIndex) -> None:
    """Raise ValueError unless the tables of cells can be those of the chunks."""
    needed = [GENE_LIST_FILE, *(name for generation in index.generations for name in generation.files)]
    if missing := [name for name in needed if name not in index.files]:
        raise ValueError(f"files lacks {missing[0]}")
    _require(len(set(needed)) == len(needed), "two generations share a file")
    n_chunks = sum(generation.n_chunks for generation in index.generations)
    _require(n_chunks == len(index.chunks), f"the generations have {n_chunks} chunks of {len(index.chunks)}")
    known, first = stored_types(index.obs_columns), 0
    for generation in index.generations:
        chunks = index.chunks[first : first + generation.n_chunks]
        first += generation.n_chunks
        if generation.rows is None or generation.gene_sets is None:
            continue
        types, facts = generation.row_columns, index.files[generation.rows]
        for name, kind in known.items():
            # Codes were stored in less where there were fewer categories.
            fits = kind in CODE_TYPES and types.get(name) in CODE_TYPES
            _require(types.get(name) == kind or fits, f"{generation.rows} holds {name} as {types.get(name)}")
        _require(list(types) == list(known), f"{generation.rows} has other columns than obs")
        n_bytes = n_bytes_of(types, sum(chunk.n_obs for chunk in chunks), len(chunks))
        _require(facts.bytes == n_bytes, f"{generation.rows} has {facts.bytes} bytes instead of {n_bytes}")
        _require(facts.tail_bytes == tail_bytes_of(types, len(chunks)), f"{generation.rows} has another tail")
        for name, column in index.obs_columns.items():
            had, has = generation.n_categories.get(name, 0), len(column.categories or ())
            holds = had == has if generation is index.generations[-1] else had <= has
            _require(holds, f"{name} has {has} categories, {generation.obs} was written with {had}")
        mask_bytes = index.files[generation.gene_sets].bytes
        _require(mask_bytes % max(1, (index.n_vars + 7) // 8) == 0, f"{generation.gene_sets} holds a part of a mask")


def _require(holds: bool, fault: str) -> None:
    if not holds:
        raise ValueError(fault)
