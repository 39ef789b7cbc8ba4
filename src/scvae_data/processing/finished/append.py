"""A finished directory in; what new cells must fit, and once they are made, the directory with them, out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from scvae_data.errors import ConfigError
from scvae_data.processing.facts import rows_digest
from scvae_data.processing.run.context import Context, Standing
from scvae_data.processing.settings.genes import ListRules
from scvae_data.processing.settings.run import Settings
from scvae_data.remote.location import Location, RemotePath
from scvae_data.store import DatasetIndex, open_index
from scvae_data.store.files import expecting, read_bytes, read_json, write_atomic, write_json
from scvae_data.store.gene_list import GENE_LIST_FILE
from scvae_data.store.grow import adopt, give_file
from scvae_data.store.names import FORMAT_VERSION, INDEX_FILE, generation_file
from scvae_data.store.pages import remove_pages
from scvae_data.store.verify import CONFIG_FILE, SUMMARY_FILE

__all__ = ["add_part", "frozen_settings", "open_standing", "recorded_inputs"]

TABLES_OF_SUMMARY = ("dropped_cells", "experiments", "gene_statistics", "gene_report")
OF_INPUT = ("source_file", "sampled_sha256", "accession", "accession_column", "obs_values")


def open_standing(directory: Location) -> tuple[DatasetIndex, Standing]:
    """Open a directory that is to grow, and say what it has.

    Raises
    ------
    ConfigError
        It is of an earlier version of the format.
    ScvaeDataError
        It cannot be opened, or its records are damaged.
    """
    index = open_index(directory)
    if index.format_version < FORMAT_VERSION:
        raise ConfigError(
            f"{directory} has format version {index.format_version}; scvae-data upgrade {directory} brings it to "
            f"{FORMAT_VERSION}, which can grow"
        )
    inputs = {str(source_file): str(fingerprint) for source_file, fingerprint, *_ in recorded_inputs(index)}
    return index, Standing(directory, index.obs_columns, inputs)


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
    """Return the list of genes of a directory as a file of this machine."""
    path = index.path / GENE_LIST_FILE
    if isinstance(path, Path):
        return path
    read_json(path, sha256=index.files[GENE_LIST_FILE].sha256)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / GENE_LIST_FILE, read_bytes(path))
    return folder / GENE_LIST_FILE


def recorded_inputs(index: DatasetIndex) -> list[tuple[Any, ...]]:
    """Return what each input of a directory is known by, in order of their names; None where a record lacks it."""
    found: list[tuple[Any, ...]] = []
    for number in range(len(index.generations)):
        path = index.path / generation_file(CONFIG_FILE, number)
        record = read_json(path)
        with expecting(path):
            inputs = record["inputs"]
            blank = [None] * len(inputs["source_file"])
            found += zip(*(inputs.get(name, blank) for name in OF_INPUT), strict=True)
    return sorted(found, key=lambda row: str(row[0]))


def add_part(context: Context, index: DatasetIndex) -> DatasetIndex:
    """Add the directory of the new cells, which is finished, to the one that grows; return its new index.

    Raises
    ------
    ConfigError
        Another machine has changed the directory meanwhile.
    """
    directory, number, part = index.path, len(index.generations), open_index(context.directory)
    check_unchanged(index)
    rows = sorted([*recorded_inputs(index), *recorded_inputs(part)], key=lambda row: str(row[0]))
    if any(row[-1] is None for row in rows):
        together = hashlib.sha256(f"{index.processing_id}{part.processing_id}".encode()).hexdigest()[:32]
    else:
        together = context.settings.processing_id(context.gene_files.settings, rows_digest(rows))
    for path in records_of(part, context.directory):
        name = generation_file(path.name, number)
        if path.name == SUMMARY_FILE:
            path = context.directory / f".{name}"
            write_json(path, renamed_tables(read_json(context.directory / SUMMARY_FILE), number))
        give_file(path, directory / name)
    remove_pages(directory)
    return adopt(index, part, together)


def check_unchanged(index: DatasetIndex) -> None:
    """Refuse a directory in a store that is no more what it was; one of this machine is held by a lock.

    Raises
    ------
    ConfigError
        With its address.
    """
    if isinstance(index.path, RemotePath) and open_index(index.path).content_hash != index.content_hash:
        raise ConfigError(
            f"{index.path} was changed by another machine while new cells were made; nothing was added, the same "
            "command adds them to what it is now"
        )


def records_of(part: DatasetIndex, directory: Path) -> Iterator[Path]:
    """Yield the files of a directory that are not needed to read it."""
    known = {INDEX_FILE, *part.files, *(chunk.file for chunk in part.chunks)}
    for path in sorted(directory.iterdir()):
        if path.is_file() and path.name not in known and not path.name.startswith("."):
            yield path


def renamed_tables(summary: dict[str, Any], number: int) -> dict[str, Any]:
    """Return a summary that calls its tables by what they are called in a later generation."""
    renamed = {
        key: {**summary[key], "file": generation_file(summary[key]["file"], number)}
        for key in TABLES_OF_SUMMARY
        if summary.get(key)
    }
    return summary | renamed
