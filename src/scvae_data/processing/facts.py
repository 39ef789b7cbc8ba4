"""TODO scvae_data.processing.facts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from scvae_data.processing.settings.inputs import ObsValue

__all__ = ["ACCESSION_COLUMNS", "FileFacts", "ScanResult", "SlotFacts", "facts_digest"]

ACCESSION_COLUMNS = ("SRX_accession", "srx_accession")


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


def facts_digest(files: Sequence[FileFacts]) -> str:
    """Hash what the output may depend on in the inputs: names and content, not where they lie."""
    rows = [[f.source_file, f.fingerprint, f.accession, f.accession_column, f.obs_values] for f in files]
    return hashlib.sha256(json.dumps(rows, sort_keys=True, default=str).encode()).hexdigest()


@dataclass
class ScanResult:
    """Account of one scanned file.

    Parameters
    ----------
    slot, table
        The counts slot taken and the hash of its gene table.
    evidence
        Why earlier slots were passed over.
    runs
        Paths of its runs without suffix, relative to the work folder.
    lost
        Cells lost per rule, in the order of the rules.
    bounds
        The outlier bounds used, see `OutlierBounds`.
    """

    number: int
    source_file: str
    slot: str
    table: str
    species: list[str]
    evidence: list[str]
    n_obs: int
    n_kept: int
    nnz: int
    lost: dict[str, int]
    obs_kinds: dict[str, str]
    runs: list[str] = field(default_factory=list)
    bounds: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
