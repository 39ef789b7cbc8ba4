"""Headers of every input in, facts and gene tables out: no counts are read.

The survey finds what must stop a run before hours of reading: files that
are not single-cell data, several species, one accession twice.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather

from scvae_data.errors import ConfigError, InputError
from scvae_data.hdf5_guard import DEFAULT_LIMITS, Limits
from scvae_data.processing.genes import infer_species
from scvae_data.processing.inputs import InputFile, Inputs, ObsValue, accession_from_path, check_accession
from scvae_data.processing.kernels import FAULTS, first_fault
from scvae_data.readers import GeneTable, Reader, open_reader
from scvae_data.store.files import sha256_file, write_atomic
from scvae_data.wording import counted

__all__ = [
    "ACCESSION_COLUMNS",
    "FileFacts",
    "SlotFacts",
    "check_corpus",
    "check_group_column",
    "fingerprint",
    "load_table",
    "survey_file",
]

ACCESSION_COLUMNS = ("SRX_accession", "srx_accession")
MAX_OBS_COLUMNS = 50
SAMPLE_BYTES = 65_536


@dataclass(frozen=True)
class SlotFacts:
    """One matrix of a file that may hold its counts.

    Parameters
    ----------
    name
        ``"X"``, ``"raw/X"``, ``"layers/counts"`` or ``"matrix"``.
    table
        Hash of its gene table.
    species
        What its genes speak of.
    looks_like_counts
        Whether its first rows are finite, non-negative and integral.
    storage
        Layout, dtype and number of stored elements.
    """

    name: str
    table: str
    species: tuple[str, ...]
    looks_like_counts: bool
    storage: dict[str, Any]


@dataclass(frozen=True)
class FileFacts:
    """What the headers of one input say.

    Parameters
    ----------
    path, source_file
        Absolute, and relative to the common parent of all inputs.
    accession
        The accession of all its cells; None where `accession_column` of its obs says.
    fingerprint
        Hash of size and sampled content; the same wherever the file lies.
    sha256
        Hash of the whole content, where asked for.
    """

    path: str
    source_file: str
    format: str
    n_obs: int
    bytes: int
    fingerprint: str
    accession: str | None
    accession_column: str | None
    accessions: tuple[str, ...]
    slots: tuple[SlotFacts, ...]
    obs_columns: tuple[str, ...]
    notes: tuple[str, ...]
    obs_values: dict[str, ObsValue] = field(default_factory=dict)
    sha256: str | None = None

    @property
    def slot(self) -> SlotFacts:
        """The slot that is tried first: the first whose head looks like counts."""
        return next((slot for slot in self.slots if slot.looks_like_counts), self.slots[0])

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def survey_file(
    file: InputFile, source_file: str, tables: Path, full_hash: bool = False, limits: Limits = DEFAULT_LIMITS
) -> FileFacts:
    """Read the headers of one input and store its gene tables under ``tables`` by hash.

    Raises
    ------
    InputError
        The file cannot be used.
    """
    with open_reader(file.path, limits) as reader:
        if reader.n_obs == 0:
            raise InputError(file.path, "empty", "holds no cell; leave it out")
        slots = tuple(survey_slot(reader, name, tables) for name in reader.slots)
        columns = tuple(str(column) for column in reader.obs_columns)
        column = next((name for name in ACCESSION_COLUMNS if name in columns), None)
        accession = file.accession
        found: tuple[str, ...] = ()
        if accession is not None:
            column, found = None, (accession,)
        elif column is not None:
            labels = reader.obs([column])[column]
            if labels.isna().any():
                row = int(np.flatnonzero(labels.isna())[0])
                raise InputError(file.path, "no_accession", f"obs column {column} has no value in row {row}")
            found = tuple(sorted(check_accession(str(label), file.path) for label in labels.unique()))
        else:
            accession = accession_from_path(file.path)
            found = (accession,)
        return FileFacts(
            path=str(file.path),
            source_file=source_file,
            format=reader.format,
            n_obs=reader.n_obs,
            bytes=sum(part.stat().st_size for part in parts_of(file.path)),
            fingerprint=fingerprint(file.path),
            accession=accession,
            accession_column=column,
            accessions=found,
            slots=slots,
            obs_columns=columns,
            notes=tuple(reader.notes),
            obs_values=file.obs_values,
            sha256=full_sha256(file.path) if full_hash else None,
        )


def survey_slot(reader: Reader, name: str, tables: Path) -> SlotFacts:
    """Read one slot's gene table and look at its first rows."""
    key = store_table(reader.genes(name), tables)
    head = next(iter(reader.blocks(name, max_elements=50_000)), None)
    faultless = head is None or head.data.dtype.kind in "ub" or looks_integral(head.data)
    return SlotFacts(
        name=name,
        table=key,
        species=species_of(tables, key),
        looks_like_counts=faultless,
        storage=dict(reader.storage(name)),
    )


@lru_cache(maxsize=64)
def species_of(tables: Path, key: str) -> tuple[str, ...]:
    """Return the species of a stored gene table; most files of a corpus share a few tables."""
    return tuple(infer_species(load_table(tables, key)))


def looks_integral(data: Any) -> bool:
    """Whether values are finite, non-negative and whole."""
    if data.dtype.kind == "i":
        return bool((data >= 0).all())
    return bool(first_fault(data.astype(np.float64))[1] not in FAULTS)


def store_table(table: GeneTable, folder: Path) -> str:
    """Write a gene table under the hash of its content, once; return the hash."""
    columns = {"names": table.names, "ids": table.ids, "symbols": table.symbols}
    arrow = pa.table(
        {name: pa.array(values.astype(str), pa.string()) for name, values in columns.items() if values is not None}
    )
    digest = hashlib.sha256()
    for name in arrow.column_names:
        digest.update(name.encode())
        digest.update("\0".join(arrow.column(name).to_pylist()).encode())
    key = digest.hexdigest()[:32]
    target = folder / f"{key}.feather"
    if not target.exists():
        sink = pa.BufferOutputStream()
        feather.write_feather(arrow, sink, compression="lz4")
        write_atomic(target, sink.getvalue().to_pybytes())
    return key


def load_table(folder: Path, key: str) -> GeneTable:
    """Read a gene table back."""
    arrow = feather.read_table(folder / f"{key}.feather")
    columns = {name: arrow.column(name).to_numpy(zero_copy_only=False).astype(object) for name in arrow.column_names}
    return GeneTable(columns["names"], columns.get("ids"), columns.get("symbols"))


def parts_of(path: Path) -> list[Path]:
    """Return the files an input consists of."""
    return sorted(part for part in path.iterdir() if part.is_file()) if path.is_dir() else [path]


def fingerprint(path: Path) -> str:
    """Hash size and three samples of each part: a whole hash would double the reading."""
    digest = hashlib.sha256()
    for part in parts_of(path):
        size = part.stat().st_size
        digest.update(f"{part.name if path.is_dir() else ''}\0{size}\0".encode())
        with part.open("rb") as stream:
            for offset in sorted({0, max(0, size // 2 - SAMPLE_BYTES // 2), max(0, size - SAMPLE_BYTES)}):
                stream.seek(offset)
                digest.update(stream.read(SAMPLE_BYTES))
    return digest.hexdigest()


def full_sha256(path: Path) -> str:
    """Hash the whole content of a file, or of all files of a folder with their names."""
    if not path.is_dir():
        return sha256_file(path)
    digest = hashlib.sha256()
    for part in parts_of(path):
        digest.update(f"{part.name}\0{sha256_file(part)}\0".encode())
    return digest.hexdigest()


def check_corpus(files: Sequence[FileFacts], inputs: Inputs, *, allow_mixed_species: bool) -> None:
    """Refuse what the inputs must not be together.

    Raises
    ------
    ConfigError
        Several species, one accession in several files, or too many obs
        columns; the message names them and the key that allows it.
    """
    if not allow_mixed_species:
        check_species(files)
    if not inputs.merge_same_accession:
        check_accessions(files)
    if inputs.obs_columns is None:
        columns = sorted({column for file in files for column in file.obs_columns})
        if len(columns) > MAX_OBS_COLUMNS:
            raise ConfigError(
                f"the inputs have {len(columns)} obs columns together, more than {MAX_OBS_COLUMNS}; choose with "
                f"input.obs_columns='[{columns[0]},{columns[1]},…]' ([] keeps none); there are: {', '.join(columns)}"
            )
    else:
        known = {column for file in files for column in (*file.obs_columns, *file.obs_values)}
        unknown = sorted(set(inputs.obs_columns) - known)
        if unknown:
            raise ConfigError(
                f"input.obs_columns: no file has {', '.join(unknown)}; there are: {', '.join(sorted(known))}"
            )


def check_species(files: Sequence[FileFacts]) -> None:
    """Refuse several species."""
    example: dict[str, str] = {}
    count: Counter[str] = Counter()
    for file in files:
        for species in file.slot.species:
            example.setdefault(species, file.source_file)
            count[species] += 1
    if len(example) > 1:
        named = ", ".join(
            f"{species} ({counted(count[species], 'file')}, e.g. {example[species]})" for species in sorted(example)
        )
        raise ConfigError(
            f"mixed species: {named}; process each species by itself, or allow it with genes.allow_mixed_species=true"
        )


def check_accessions(files: Sequence[FileFacts]) -> None:
    """Refuse one accession in several files."""
    owners: defaultdict[str, list[str]] = defaultdict(list)
    for file in files:
        for accession in file.accessions:
            owners[accession].append(file.source_file)
    shared: Mapping[str, list[str]] = {name: paths for name, paths in owners.items() if len(paths) > 1}
    if shared:
        name, paths = min(shared.items())
        more = f" (and {counted(len(shared) - 1, 'more accession')})" if len(shared) > 1 else ""
        raise ConfigError(
            f"accession {name} belongs to {len(paths)} files: {paths[0]}, {paths[1]}{more}; name each in a manifest "
            "(input=manifest), or join them with input.merge_same_accession=true"
        )


def check_group_column(files: Sequence[FileFacts], inputs: Inputs, column: str | None) -> None:
    """Refuse a column to group by that no file has; one that some lack makes those a group."""
    if column is None or column in ACCESSION_COLUMNS:
        return
    wanted = inputs.obs_columns
    known = {name for file in files for name in (*file.obs_columns, *file.obs_values)}
    known = {name for name in known if wanted is None or name in wanted}
    if column not in known:
        raise ConfigError(
            f"chunking.group_column={column}: no input has this obs column, or input.obs_columns leaves it out; "
            f"there are: {', '.join(sorted({'SRX_accession', *known}))}"
        )


def facts_digest(files: Sequence[FileFacts]) -> str:
    """Hash what the output may depend on in the inputs: names and content, not where they lie."""
    rows = [[f.source_file, f.fingerprint, f.accession, f.accession_column, f.obs_values] for f in files]
    return hashlib.sha256(json.dumps(rows, sort_keys=True, default=str).encode()).hexdigest()
