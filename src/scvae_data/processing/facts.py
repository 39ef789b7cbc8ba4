"""What is known of an input file: by its headers, by its scan, or by what it failed on; plain values that travel."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from scvae_data.processing.engine.task import Failure
from scvae_data.processing.settings.inputs import ObsValue
from scvae_data.remote.location import as_written

__all__ = [
    "FailedFile",
    "FileScan",
    "InputFacts",
    "SlotFacts",
    "SpooledRun",
    "facts_digest",
    "rows_digest",
]


@dataclass(frozen=True)
class SlotFacts:
    """One matrix of a file that may hold its counts.

    Parameters
    ----------
    name
        ``"X"``, ``"raw/X"``, ``"layers/counts"`` or ``"matrix"``.
    table
        Hash of its gene table.
    n_genes
        Number of its genes.
    looks_like_counts
        Whether its first rows are finite, non-negative and integral.
    storage
        Layout, dtype and number of stored elements.
    species
        What its genes speak of, once the tables of all files are read.
    """

    name: str
    table: str
    n_genes: int
    looks_like_counts: bool
    storage: dict[str, Any]
    species: tuple[str, ...] = ()


@dataclass(frozen=True)
class InputFacts:
    """What the headers of one input say.

    Parameters
    ----------
    path, source_file
        Absolute, and relative to the common parent of all inputs.
    accession
        The accession of all its cells; None where `accession_column` of its obs says.
    named_otherwise
        Whether the accession was found in a part of the file's name or in its folders.
    species_columns
        Columns of its obs that say a species, and what they say.
    fingerprint
        Hash of size and sampled content; the same wherever the file lies.
    notes, warnings
        What was noticed, to be told.
    others
        What is said of matrices that were not looked at for counts, if those that were hold none.
    sha256
        Hash of the whole content, where asked for.
    is_chunk
        Whether it is a chunk of a dataset directory.
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
    warnings: tuple[str, ...] = ()
    others: str = ""
    is_chunk: bool = False
    named_otherwise: bool = False
    species_columns: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> InputFacts:
        """Build it from what `dataclasses.asdict` made of it, and JSON of that."""
        slots = tuple(SlotFacts(**slot | {"species": tuple(slot["species"])}) for slot in plain["slots"])
        lists = {name: tuple(plain[name]) for name in ("accessions", "obs_columns", "notes", "warnings")}
        return cls(**{**plain, **lists, "slots": slots})

    @property
    def slot(self) -> SlotFacts:
        """The slot that is tried first: the first whose head looks like counts."""
        return next((slot for slot in self.slots if slot.looks_like_counts), self.slots[0])

    @property
    def folder(self) -> str:
        """Where it lies: of a chunk, the directory that it is of."""
        return str(as_written(self.path).parent)


def facts_digest(files: Sequence[InputFacts]) -> str:
    """Hash what the output may depend on in the inputs: names and content, not where they lie."""
    return rows_digest([[f.source_file, f.fingerprint, f.accession, f.accession_column, f.obs_values] for f in files])


def rows_digest(rows: Sequence[Sequence[Any]]) -> str:
    """Hash what `facts_digest` takes of each input."""
    return hashlib.sha256(json.dumps(rows, sort_keys=True, default=str).encode()).hexdigest()


class SpooledRun(NamedTuple):
    """A sorted run that a scan left.

    Parameters
    ----------
    path
        Below the work folder, without suffix.
    file
        Number of its input.
    has_copies
        Whether some of its rows may be copies of other cells that are to be dropped.
    """

    path: str
    file: int
    has_copies: bool


@dataclass(frozen=True)
class FileScan:
    """Account of one scanned file.

    Parameters
    ----------
    number
        Position of the file among the inputs.
    slot, table
        The counts slot taken and the hash of its gene table.
    evidence
        Why earlier slots were passed over.
    n_obs, n_kept
        Cells of the file, and those that are kept.
    lost
        Cells lost per rule, in the order of the rules.
    obs_kinds
        Kind of each of the file's own obs columns.
    unmatched
        Its cells that the table of cells has no row for, that table's rows of the file without a cell, and an
        example of either; empty without a table.
    written_missing
        Of columns with texts that may mean a missing value, how many of its cells have which.
    runs
        Paths of its sorted runs below the work folder, without suffix.
    bounds
        The outlier bounds used, see `OutlierBounds`.
    experiments
        What is known of each experiment of the file, in order of the accessions, see `Experiments.facts`.
    n_renamed
        Cells whose barcode another cell of the file has before them.
    n_copies
        How many of the cells that the scan kept are dropped as copies of others; not in ``n_kept``.
    """

    number: int
    source_file: str
    slot: str
    table: str
    n_obs: int
    n_kept: int
    lost: dict[str, int]
    obs_kinds: dict[str, str]
    runs: list[str] = field(default_factory=list)
    bounds: list[dict[str, Any]] = field(default_factory=list)
    experiments: list[dict[str, Any]] = field(default_factory=list)
    evidence: list[str] = field(default_factory=list)
    seconds: float = 0.0
    n_copies: int = 0
    n_renamed: int = 0
    unmatched: dict[str, Any] = field(default_factory=dict)
    written_missing: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def sorted_runs(self) -> list[SpooledRun]:
        """The sorted runs."""
        return [SpooledRun(path, self.number, self.n_copies > 0) for path in self.runs]


@dataclass(frozen=True)
class FailedFile:
    """An input that is not in the directory, and why."""

    source_file: str
    stage: str
    reason: str
    message: str
    details: str = ""
    path: str = ""

    @classmethod
    def of(cls, source_file: str, stage: str, failure: Failure, path: str = "") -> FailedFile:
        """Describe the failure of a file; the message names it, also where nobody foresaw the fault."""
        message = failure.message if path in failure.message else f"{path}: {failure.message}"
        return cls(source_file, stage, failure.reason, message, failure.details, path)
