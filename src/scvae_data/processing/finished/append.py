"""A finished directory in; what new cells must fit, and once they are made, the directory with them, out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from scvae_data.errors import ConfigError, DamagedFileError
from scvae_data.processing.facts import rows_digest
from scvae_data.processing.run.context import Again, Context, Standing
from scvae_data.processing.settings.genes import ListRules
from scvae_data.processing.settings.run import Settings
from scvae_data.remote.location import Location, RemotePath
from scvae_data.remote.objects import ObjectFacts, facts_of
from scvae_data.store import DatasetIndex, open_index
from scvae_data.store.files import expecting, read_json, read_sealed, write_atomic, write_json
from scvae_data.store.gene_list import GENE_LIST_FILE
from scvae_data.store.grow import adopt, give_file
from scvae_data.store.names import FORMAT_VERSION, INDEX_FILE, chunk_file_name, generation_file
from scvae_data.store.pages import remove_pages
from scvae_data.store.source import damaged
from scvae_data.store.verify import CONFIG_FILE, SUMMARY_FILE, TABLES

__all__ = ["add_part", "frozen_settings", "inputs_again", "open_growing", "recorded_inputs", "renamed", "standing_of"]

OF_INPUT = ("source_file", "sampled_sha256", "accession", "accession_column", "obs_values")


def open_growing(directory: Location) -> DatasetIndex:
    """Open a directory that is to grow.

    Raises
    ------
    ConfigError
        It is of an earlier version of the format.
    ScvaeDataError
        It cannot be opened.
    """
    index = open_index(directory)
    if index.format_version < FORMAT_VERSION:
        raise ConfigError(
            f"{directory} has format version {index.format_version}; scvae-data upgrade {directory} brings it to "
            f"{FORMAT_VERSION}, which can grow"
        )
    return index


def standing_of(index: DatasetIndex) -> Standing:
    """Say what a directory has.

    Raises
    ------
    DamagedFileError
        One of its records is not what was written.
    """
    return Standing(index, {str(name): str(fingerprint) for name, fingerprint, *_ in recorded_inputs(index)})


def frozen_settings(settings: Settings, index: DatasetIndex, folder: Path) -> Settings:
    """Return the settings with the genes, the target sum and the chunks of a directory.

    Parameters
    ----------
    folder
        Where a copy of the list of genes goes, if the directory is in a store.

    Raises
    ------
    ConfigError
        Normalisation, order or chunks are not those of the directory; names them.
    """
    normal, order = index.normalization, index.order
    now = {
        "normalization.method": (settings.normalization.method, normal["method"]),
        "normalization.size_factor_genes": (settings.normalization.size_factor_genes, normal["size_factor_genes"]),
        "chunking.compression": (settings.chunking.codec.name, index.codec.name),
        "chunking.block_elements": (settings.chunking.block_elements, index.block_elements),
        "chunking.order": (settings.chunking.order, order["kind"]),
        "chunking.group_column": (settings.chunking.group_column, order["group_column"]),
        "seed": (settings.seed, order["seed"]),
    }
    if different := [f"{key}={was} (now {given})" for key, (given, was) in now.items() if given != was]:
        raise ConfigError(f"append=true: {index.path} was made with {', '.join(different)}, which cannot change")
    rules = settings.genes
    genes = ListRules(
        path=str(genes_here(index, folder)), mapping=rules.mapping, allow_mixed_species=rules.allow_mixed_species,
        reference=rules.reference, species=rules.species,
    )  # fmt: skip
    normalization = replace(settings.normalization, target_sum=float(normal["target_sum"]))
    return replace(settings, genes=genes, normalization=normalization)


def genes_here(index: DatasetIndex, folder: Path) -> Path:
    """Return the list of genes of a directory as a file of this machine.

    Raises
    ------
    DamagedFileError
        It is not what was written.
    """
    path = index.path / GENE_LIST_FILE
    if isinstance(path, Path):
        return path
    encoded = read_sealed(path)
    if hashlib.sha256(encoded).hexdigest() != index.files[GENE_LIST_FILE].sha256:
        raise damaged(path, "is not the one of this dataset")
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / GENE_LIST_FILE, encoded)
    return folder / GENE_LIST_FILE


def recorded_inputs(index: DatasetIndex) -> list[tuple[Any, ...]]:
    """Return what each input of a directory is known by, in order of their names; None where a record lacks it."""
    rows = [row for number in range(len(index.generations)) for row in inputs_of(index, number)]
    return sorted(rows, key=lambda row: str(row[0]))


def inputs_of(index: DatasetIndex, number: int) -> list[tuple[Any, ...]]:
    """Return what each input of a generation is known by."""
    path = index.path / generation_file(CONFIG_FILE, number)
    record = read_json(path)
    with expecting(path):
        inputs = record["inputs"]
        blank = [None] * len(inputs["source_file"])
        return list(zip(*(inputs.get(name, blank) for name in OF_INPUT), strict=True))


def inputs_again(index: DatasetIndex, number: int) -> Again:
    """Say which inputs a generation was made of, as far as records that are not damaged tell."""
    known: dict[int, dict[str, str]] = {}
    for other in range(len(index.generations)):
        with suppress(DamagedFileError):
            known[other] = {str(name): str(fingerprint) for name, fingerprint, *_ in inputs_of(index, other)}
    mine = known.pop(number, None)
    return Again(index.path, mine, {name for inputs in known.values() for name in inputs})


def add_part(context: Context, index: DatasetIndex) -> DatasetIndex:
    """Add the directory of the new cells, which is finished, to the one that grows; return its new index.

    Raises
    ------
    ConfigError
        Another machine has changed the directory meanwhile.
    """
    directory, number, part = index.path, len(index.generations), open_index(context.directory)
    old = unchanged(index)
    rows = sorted([*recorded_inputs(index), *recorded_inputs(part)], key=lambda row: str(row[0]))
    if any(row[-1] is None for row in rows):
        together = hashlib.sha256(f"{index.processing_id}{part.processing_id}".encode()).hexdigest()[:32]
    else:
        together = context.settings.processing_id(context.gene_files.settings, rows_digest(rows))
    for path in records_of(part, context.directory):
        name = generation_file(path.name, number)
        if path.name == SUMMARY_FILE:
            path = context.directory / f".{name}"
            chunks = [chunk_file_name(len(index.chunks) + place) for place in range(len(part.chunks))]
            write_json(path, renamed(read_json(context.directory / SUMMARY_FILE), number, chunks))
        give_file(path, directory / name)
    remove_pages(directory)
    return adopt(index, part, together, old)


def unchanged(index: DatasetIndex) -> ObjectFacts | None:
    """Return what a store says of an index, which is still what it was; one of this machine is held by a lock.

    Raises
    ------
    ConfigError
        It is another one.
    """
    if not isinstance(index.path, RemotePath):
        return None
    old = facts_of(index.path / INDEX_FILE)  # before it is read: what is newer than that is not replaced
    if open_index(index.path).content_hash != index.content_hash:
        raise ConfigError(
            f"{index.path} was changed by another machine while new cells were made; nothing was added, the same "
            "command adds them to what it is now"
        )
    return old


def records_of(part: DatasetIndex, directory: Path) -> Iterator[Path]:
    """Yield the files of a directory that are not needed to read it."""
    known = {INDEX_FILE, *part.files, *(chunk.file for chunk in part.chunks)}
    for path in sorted(directory.iterdir()):
        if path.is_file() and path.name not in known and not path.name.startswith("."):
            yield path


def renamed(summary: dict[str, Any], number: int, chunks: Sequence[str]) -> dict[str, Any]:
    """Return a summary that calls its files by what they are called in a later generation.

    Parameters
    ----------
    number
        Of the generation.
    chunks
        Names of its chunks.
    """
    tables = {
        key: {**summary[key], "file": generation_file(summary[key]["file"], number)}
        for key in TABLES
        if summary.get(key)
    }
    return summary | tables | {"chunks": {**summary["chunks"], "file": list(chunks)}}
