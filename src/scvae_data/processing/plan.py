"""Configured stages in; all that must be known before the first chunk is written out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scvae_data.processing.compare import compare
from scvae_data.processing.context import Context
from scvae_data.processing.decide import decide
from scvae_data.processing.decision import Decision
from scvae_data.processing.headers import read_headers
from scvae_data.processing.ranges import ChunkRange, chunk_ranges
from scvae_data.processing.scan_inputs import scan_inputs
from scvae_data.processing.scan_result import ScanResult
from scvae_data.processing.survey import FileFacts
from scvae_data.processing.write import save_var
from scvae_data.store import GeneList

__all__ = ["Plan", "make_plan"]


@dataclass(frozen=True)
class Plan:
    """All that is known before the first chunk is written.

    Parameters
    ----------
    files
        The inputs that can be read, in order of their names.
    results
        The scans of those whose counts can be read.
    decision, digest
        What the writers of all chunks share, and the hash of its content.
    genes
        The genes of the directory.
    ranges
        The cells of every chunk.
    """

    files: list[FileFacts]
    results: list[ScanResult]
    decision: Decision
    digest: str
    genes: GeneList
    ranges: Sequence[ChunkRange]


def make_plan(context: Context) -> Plan:
    """Run the stages before the first chunk is written."""
    with context.timed("scan"):
        headers = read_headers(context)
        results = scan_inputs(context, headers)
    with context.timed("compare"):
        results = compare(context, headers.files, results)
    with context.timed("decide"):
        decision, genes, var = decide(context, headers, results)
        digest = decision.save(context.work)
        save_var(context.work, digest, var)
        ranges = chunk_ranges(context.work, decision.runs, context.chunking.chunk_size)
    return Plan(headers.files, results, decision, digest, genes, ranges)
