"""Headers of every input in, facts and gene tables out: no counts are read.

The survey finds what must stop a run before hours of reading: files that
are not single-cell data, several species, one accession twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scvae_data.errors import InputError
from scvae_data.processing.facts import InputFacts
from scvae_data.processing.labels import label
from scvae_data.processing.settings.inputs import (
    ACCESSION_COLUMNS,
    InputFile,
    accession_from_path,
    check_accession,
    names_experiments,
    without_ending,
)
from scvae_data.processing.survey.matrices import survey_matrices
from scvae_data.readers.base import Reader
from scvae_data.readers.folders import is_store
from scvae_data.readers.mtx import MtxReader
from scvae_data.readers.mtx_folder import naming_matrix
from scvae_data.readers.mtx_layers import LayeredMtxReader
from scvae_data.readers.opening import DEFAULT_OPENING, Opening
from scvae_data.readers.recognise import open_reader
from scvae_data.remote.disk_cache import DiskCache
from scvae_data.remote.fetched import fetched
from scvae_data.store.files import sha256_file

__all__ = ["SPECIES_COLUMNS", "SurveyJob", "fingerprint", "survey_file"]

SAMPLE_BYTES = 65_536
SPECIES_COLUMNS = ("species", "organism")
"""Columns that say it, in small letters."""
FOLDERS = (MtxReader.format, LayeredMtxReader.format)


@dataclass(frozen=True)
class SurveyJob:
    """What the survey of any input needs.

    Parameters
    ----------
    tables
        Folder of the gene tables.
    scratch
        Where copies of remote inputs lie.
    full_hash, opening, counts
        See `Inputs`.
    reference
        Of genes, see `GeneRules`.
    """

    tables: Path
    scratch: DiskCache
    full_hash: bool = False
    opening: Opening = DEFAULT_OPENING
    counts: str | None = None
    reference: str | None = "builtin"


def survey_file(file: InputFile, source_file: str, job: SurveyJob) -> InputFacts:
    """Read the headers of one input and store its gene tables by hash.

    Raises
    ------
    InputError
        The file cannot be used.
    """
    with fetched(file.path, job.scratch, keep=True) as here:
        return read_headers(file, here, source_file, job)


def read_headers(file: InputFile, here: Path, source_file: str, job: SurveyJob) -> InputFacts:
    """Read the headers of an input that is on this machine, at ``here``."""
    with open_reader(here, job.opening) as reader:
        if reader.n_obs == 0:
            raise InputError(file.path, "empty", "holds no cell; leave it out")
        matrices = survey_matrices(reader, job.tables, job.counts, job.reference)
        if matrices.taken.n_genes == 0:
            raise InputError(file.path, "empty", f"{matrices.taken.name} has no gene; leave it out")
        columns = tuple(str(column) for column in reader.obs_columns)
        column = next(
            (name for name in (*ACCESSION_COLUMNS, *filter(names_experiments, columns)) if name in columns), None
        )
        accession = file.accession
        found: tuple[str, ...] = ()
        named_otherwise = False
        if accession is not None:
            column, found = None, (accession,)
        elif file.is_chunk:
            pass  # its experiments may be as many as its cells, and are known to be of one directory only
        elif column is not None:
            labels = reader.obs([column])[column]
            if labels.isna().any():
                row = int(np.flatnonzero(labels.isna())[0])
                raise InputError(
                    file.path, "no_accession",
                    f"obs column {column} has no value in row {row}; write one, or name the file in a manifest",
                )  # fmt: skip
            found = tuple(sorted(check_accession(label(value), file.path) for value in labels.unique()))
        else:
            naming = naming_matrix(here) if reader.format in FOLDERS else here
            accession = accession_from_path(file.path if naming == here else file.path / naming.name)
            found = (accession,)
            named_otherwise = accession != without_ending(file.path.name)
        return InputFacts(
            path=str(file.path),
            source_file=source_file,
            format=reader.format,
            n_obs=reader.n_obs,
            bytes=sum(part.stat().st_size for part in parts_of(here)),
            fingerprint=fingerprint(here),
            accession=accession,
            accession_column=column,
            accessions=found,
            slots=matrices.slots,
            obs_columns=columns,
            notes=tuple(matrices.notes),
            warnings=tuple(matrices.warnings),
            others=matrices.others,
            obs_values=file.obs_values,
            is_chunk=file.is_chunk,
            named_otherwise=named_otherwise,
            species_columns={} if file.is_chunk else species_in(reader, columns),
            sha256=full_sha256(here) if job.full_hash else None,
        )


def species_in(reader: Reader, columns: Sequence[str]) -> dict[str, list[str]]:
    """Return what the columns of obs say that name a species, each label once."""
    named = [column for column in columns if column.casefold() in SPECIES_COLUMNS]
    obs = reader.obs(named) if named else None
    return {} if obs is None else {name: sorted(map(label, obs[name].dropna().unique())) for name in named}


def parts_of(path: Path) -> list[Path]:
    """Return the files an input consists of: those of a folder, and all that lie in a Zarr store."""
    if not path.is_dir():
        return [path]
    return sorted(part for part in (path.rglob("*") if is_store(path) else path.iterdir()) if part.is_file())


def name_in(path: Path, part: Path) -> str:
    """Return where a part lies in an input; empty for a file, which may be renamed."""
    return part.relative_to(path).as_posix() if path.is_dir() else ""


def fingerprint(path: Path) -> str:
    """Hash size and three samples of each part: a whole hash would double the reading."""
    digest = hashlib.sha256()
    for part in parts_of(path):
        size = part.stat().st_size
        digest.update(f"{name_in(path, part)}\0{size}\0".encode())
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
        digest.update(f"{name_in(path, part)}\0{sha256_file(part)}\0".encode())
    return digest.hexdigest()
