"""What a scan says about a file: plain values, so that it is stored and sent between processes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["ScanResult"]


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
