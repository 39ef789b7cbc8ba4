"""The settings of a run in; what all its stages share out: engine, work folder and the account of what they find."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from scvae_data.errors import ScvaeDataError
from scvae_data.processing.engine.base import Engine
from scvae_data.processing.engine.task import Failure, Task
from scvae_data.processing.facts import FileFacts, facts_digest
from scvae_data.processing.genes.wanted import GeneFiles
from scvae_data.processing.run.summary import Summary
from scvae_data.processing.settings.control import ControlSubset
from scvae_data.processing.settings.genes import AnyGeneRules
from scvae_data.processing.settings.inputs import Inputs
from scvae_data.processing.settings.normalization import Normalization
from scvae_data.processing.settings.qc import QcRules
from scvae_data.progress import progress
from scvae_data.store import Chunking

__all__ = ["Context"]

log = logging.getLogger(__name__)


@dataclass
class Context:
    """One run: the settings of its stages, and what they have found so far.

    Parameters
    ----------
    inputs, qc, genes, normalization, chunking, engine, seed, max_failed_fraction, keep_duplicates, overrides
        As of :func:`~scvae_data.processing.pipeline.run`.
    control
        None where all cells are wanted.
    directory, work
        The dataset directory, and the folder of the run's intermediate files.
    gene_files
        What the files say that ``genes`` names.
    summary
        The account of the run; each stage adds its part.
    """

    inputs: Inputs
    qc: QcRules
    genes: AnyGeneRules
    normalization: Normalization
    chunking: Chunking
    control: ControlSubset | None
    engine: Engine
    seed: int
    max_failed_fraction: float
    keep_duplicates: str
    directory: Path
    work: Path
    gene_files: GeneFiles
    overrides: Sequence[str] | None = None
    summary: Summary = field(init=False)

    def __post_init__(self) -> None:
        self.summary = Summary(self.directory, chunk_size=self.chunking.chunk_size, simulated=self.inputs.simulated)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Record a stage's wall time."""
        started = time.perf_counter()
        yield
        self.summary.seconds[stage] = time.perf_counter() - started

    def collect(self, desc: str, tasks: Sequence[Task], unit: str) -> list[Any]:
        """Run tasks that must all succeed; return their results in order.

        Raises
        ------
        ScvaeDataError
            What the first task that failed says.
        """
        results: list[Any] = [None] * len(tasks)
        for number, outcome in progress(self.engine.run(tasks), total=len(tasks), desc=desc, unit=unit):
            if isinstance(outcome, Failure):
                log.debug("%s", outcome.details)
                raise outcome.error or ScvaeDataError(
                    f"{desc} failed: {outcome.message}; nothing is lost, resume=true continues"
                )
            results[number] = outcome
        return results

    def processing_id(self, files: Sequence[FileFacts]) -> str:
        """Hash what the chunks depend on: settings and input content, not where, when or on how many cores."""
        stages = [self.normalization, self.chunking, self.control]
        parts = [self.qc, self.gene_files.settings, *stages, self.inputs.obs_columns, self.inputs.count_tolerance]
        rules = json.dumps(
            [self.seed, self.keep_duplicates, *(None if part is None else vars_of(part) for part in parts)], default=str
        )
        return hashlib.sha256((rules + facts_digest(files)).encode()).hexdigest()[:32]


def vars_of(part: Any) -> Any:
    """Return the plain values of a settings object."""
    return asdict(part) if hasattr(part, "__dataclass_fields__") else part
