"""Configured stages in, a dataset directory out: scan every file, decide once, write the chunks, index last."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from scvae_data.processing.attrition import warn_of_fractions
from scvae_data.processing.checks import check_settings
from scvae_data.processing.choose import AnyGeneRules, read_gene_files
from scvae_data.processing.chunks import write_chunks
from scvae_data.processing.context import Context
from scvae_data.processing.control import ControlSubset
from scvae_data.processing.corpus import survey_inputs
from scvae_data.processing.directory import INDEX_FILE, clear, disk_faults, held_directory, is_complete, prepare
from scvae_data.processing.dropped import write_dropped
from scvae_data.processing.engine import Engine
from scvae_data.processing.finished import check_finished, summary_of
from scvae_data.processing.inputs import Inputs
from scvae_data.processing.memory import peak_rss_bytes
from scvae_data.processing.normalize import Normalization
from scvae_data.processing.plan import make_plan
from scvae_data.processing.publish import publish
from scvae_data.processing.qc import QcRules
from scvae_data.processing.rebuild import find_damage, rebuild
from scvae_data.processing.report import Summary
from scvae_data.store import Chunking

__all__ = ["run"]


def run(
    *,
    input: Inputs,
    qc: QcRules,
    genes: AnyGeneRules,
    normalization: Normalization,
    chunking: Chunking,
    control: ControlSubset,
    engine: Engine,
    seed: int,
    overwrite: bool,
    resume: bool,
    max_failed_fraction: float,
    subset_to_control_cells: bool,
    keep_duplicates: str = "all",
    processed_dir: Path,
    config: Mapping[str, Any],
    overrides: Sequence[str] | None = None,
) -> Summary:
    """Process raw files into a dataset directory.

    Parameters
    ----------
    input, qc, genes, normalization, chunking, control, engine
        The stages' settings.
    seed
        Key of the shuffle.
    overwrite, resume
        Replace a dataset, or continue an unfinished run.
    max_failed_fraction
        Share of files that may fail; above it nothing is written.
    subset_to_control_cells
        Keep only the cells that ``control`` describes.
    keep_duplicates
        Of cells with equal counts keep ``"all"``, the ``"first"`` or ``"none"``.
    processed_dir
        The directory.
    config
        The whole resolved config, for the record.
    overrides
        What the command line set, as ``key=value``, for the record.

    Raises
    ------
    ScvaeDataError
        What stopped the run, in one line.
    """
    wanted = control if subset_to_control_cells else None
    check_settings(max_failed_fraction, keep_duplicates, wanted)
    warn_of_fractions(qc)
    gene_files = read_gene_files(genes)  # one of them may lie in the directory that is overwritten
    with held_directory(processed_dir), disk_faults(processed_dir):
        work = prepare(processed_dir, overwrite=overwrite, resume=resume)
        context = Context(
            input, qc, genes, normalization, chunking, wanted, engine, seed, max_failed_fraction, keep_duplicates,
            processed_dir, work, gene_files, overrides,
        )  # fmt: skip
        try:
            if is_complete(processed_dir) and not overwrite:
                return finish(context, config)
            return make(context, config)
        finally:
            engine.close()


def make(context: Context, config: Mapping[str, Any]) -> Summary:
    """Run all stages."""
    plan, summary = make_plan(context), context.summary
    if is_complete(context.directory):
        clear(context.directory)
    with context.timed("write"):
        entries = write_chunks(context, plan)
    summary.dropped_cells = write_dropped(context.directory, context.work, plan.results, context.qc.metrics)
    context.engine.close()
    summary.peak_rss = max(peak_rss_bytes(), context.engine.peak_rss)
    publish(
        context.directory, context.work, summary, decision=plan.decision, genes=plan.genes, entries=entries,
        results=plan.results, files=plan.files, chunking=context.chunking, seed=context.seed, config=config,
        overrides=context.overrides,
    )  # fmt: skip
    shutil.rmtree(context.work)
    return summary


def finish(context: Context, config: Mapping[str, Any]) -> Summary:
    """Check that a finished directory is what this run would make; build again only files that are damaged."""
    directory = context.directory
    with tempfile.TemporaryDirectory(prefix="scvae-data-") as scratch:
        files = survey_inputs(context.inputs, context.engine, Path(scratch)).files
    index = check_finished(directory, files, context.processing_id(files), config)
    if index is None:
        (directory / INDEX_FILE).unlink()
        return make(context, config)
    damaged = find_damage(index, partial(context.collect, "verify", unit="file"))
    if damaged:
        rebuild(context, index, damaged, config)
    shutil.rmtree(context.work, ignore_errors=True)
    return summary_of(directory, sorted(damaged))
