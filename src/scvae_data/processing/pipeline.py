"""Configured stages in, a dataset directory out: scan every file, decide once, write the chunks, index last."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from scvae_data.processing.decide.decision import Plan, save_var
from scvae_data.processing.decide.duplicates import compare
from scvae_data.processing.decide.stage import decide
from scvae_data.processing.engine.base import Engine
from scvae_data.processing.engine.workers import peak_rss_bytes
from scvae_data.processing.finished.check import check_finished, summary_of
from scvae_data.processing.finished.rebuild import find_damage, rebuild
from scvae_data.processing.genes.wanted import read_gene_files
from scvae_data.processing.run.context import Context
from scvae_data.processing.run.directory import INDEX_FILE, clear, disk_faults, held_directory, is_complete, prepare
from scvae_data.processing.run.losses import warn_of_fractions
from scvae_data.processing.run.summary import Summary
from scvae_data.processing.scan.stage import scan_inputs
from scvae_data.processing.settings.control import ControlSubset
from scvae_data.processing.settings.genes import AnyGeneRules
from scvae_data.processing.settings.inputs import Inputs
from scvae_data.processing.settings.normalization import Normalization
from scvae_data.processing.settings.qc import QcRules
from scvae_data.processing.settings.run import check_settings
from scvae_data.processing.sort.gather import chunk_ranges
from scvae_data.processing.survey.corpus import survey_inputs
from scvae_data.processing.survey.stage import read_headers
from scvae_data.processing.write.chunks import write_chunks
from scvae_data.processing.write.dropped import write_dropped
from scvae_data.processing.write.publish import publish
from scvae_data.store import Chunking

__all__ = ["make_plan", "run"]


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
        rebuild(context, index, make_plan(context), damaged, config)
    shutil.rmtree(context.work, ignore_errors=True)
    return summary_of(directory, sorted(damaged))


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
