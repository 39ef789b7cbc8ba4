"""The accounts of all scans in, everything that holds for the whole directory out.

Gene set, target sum, categories and the order of the cells depend on the
corpus only: not on file order, chunk size, engine or number of workers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scvae_data.errors import ConfigError
from scvae_data.processing.decide.decision import Decision
from scvae_data.processing.decide.merge import merge
from scvae_data.processing.engine.task import Task
from scvae_data.processing.facts import ScanResult
from scvae_data.processing.genes.choose import Choice, choose_genes, save_statistics
from scvae_data.processing.genes.columns import var_table
from scvae_data.processing.genes.sums import (
    GeneSums,
    dropped_genes,
    gene_sets,
    mapping_report,
    sum_genes,
    tell_unmatched,
    warn_of_foreign_genes,
)
from scvae_data.processing.genes.universe import Universe
from scvae_data.processing.run.context import Context
from scvae_data.processing.run.losses import few_cells
from scvae_data.processing.settings.genes import ListRules
from scvae_data.processing.sort.obs_schema import ObsSchema, choose_categories, decide_schema
from scvae_data.processing.sort.sorted_run import Run
from scvae_data.processing.sort.totals import RunTotals, median_total, total_run
from scvae_data.processing.survey.stage import Headers
from scvae_data.store import GeneList

__all__ = ["decide"]


def decide(
    context: Context, headers: Headers, results: Sequence[ScanResult]
) -> tuple[Decision, GeneList, pd.DataFrame]:
    """Choose genes, target sum and columns over all files.

    Returns
    -------
    The decision, with runs that are few enough to write chunks from; the
    genes of the directory; the var of every chunk.

    Raises
    ------
    ConfigError
        No gene or no cell is left, or genes cannot be ranked.
    """
    universe = headers.universe
    sums = sum_genes(context.work, universe, results)
    schema = decide_schema(metric_columns(context.work, results), [result.obs_kinds for result in results])
    runs = [path for result in results for path in result.runs]
    choice = choose(context, headers, sums, len(results), runs, schema.kinds)
    columns, gene_map = choice.columns, choice.columns.gene_map(len(universe.keys))
    kept = gene_map >= 0
    account_for_genes(context, universe, sums, results, choice, kept)
    text = ["SRX_accession", *(name for name, kind in schema.kinds.items() if kind.startswith("string"))]
    totals = total_runs(context, kept, runs, text)
    masks, codes = gene_sets(universe, columns, results, len(headers.files))
    files = [file.source_file for file in headers.files]
    decision = Decision(
        gene_map=gene_map,
        gene_set=codes,
        files=files,
        schema=with_categories(schema, totals, text, files),
        normalization=context.normalization,
        target_sum=context.normalization.target_sum or median_total([total.totals for total in totals]),
        max_count=max(total.max_count for total in totals),
        processing_id=context.processing_id(headers.files),
        n_vars=columns.n_vars,
        runs=[total.path for total in totals if total.n_staying],
    )
    decision = merge(context, decision)
    names, symbols, ids = columns.names, columns.symbols, columns.ids
    genes = GeneList.of(names.tolist(), [key or None for key in ids], [name or None for name in symbols], masks)
    context.summary.n_genes_in, context.summary.n_vars = len(kept), columns.n_vars
    return decision, genes, var_table(columns)


def metric_columns(work: Path, results: Sequence[ScanResult]) -> list[str]:
    """Return the names of the measured columns, as the first run has them."""
    path = next(path for result in results for path in result.runs)
    with Run(work / path) as run:
        names: list[str] = run.obs().column_names
    return names[names.index("total_counts") : names.index("split_hash")]


def choose(
    context: Context, headers: Headers, sums: GeneSums, n_files: int, runs: Sequence[str], kinds: Mapping[str, str]
) -> Choice:
    """Choose the genes: those of a list, or by rule."""
    if isinstance(context.genes, ListRules):
        assert headers.listed is not None  # `read_headers` has found them
        return headers.listed
    return choose_genes(
        context.genes, headers.universe, sums, n_files=n_files, few_cells=why_few(context), work=context.work,
        runs=runs, kinds=kinds, normalization=context.normalization,
        identity=context.processing_id(headers.files), collect=context.collect,
    )  # fmt: skip


def why_few(context: Context) -> str:
    """Say why hardly a cell is kept; empty where many are."""
    return few_cells(context.summary.lost, context.summary.n_obs_in, context.qc)


def account_for_genes(
    context: Context,
    universe: Universe,
    sums: GeneSums,
    results: Sequence[ScanResult],
    choice: Choice,
    kept: NDArray[np.bool_],
) -> None:
    """Record what became of the inputs' genes."""
    summary = context.summary
    summary.dropped_genes = dropped_genes(universe, sums, kept)
    summary.gene_choice = choice.account
    summary.gene_mapping = mapping_report(context.work, universe, results, sums.n_files, kept)
    summary.gene_synonyms = universe.synonyms
    tell_unmatched(summary.gene_mapping)
    warn_of_foreign_genes(summary.gene_mapping)
    summary.gene_statistics = save_statistics(context.directory, choice.statistics)


def total_runs(
    context: Context, kept: NDArray[np.bool_], runs: Sequence[str], text_columns: Sequence[str]
) -> list[RunTotals]:
    """Compute the totals of all rows over the kept genes; no row with a count in one is an error."""
    np.save(context.work / "kept.npy", kept)
    over_all = context.normalization.size_factor_genes == "all"
    tasks = [Task(total_run, (context.work, path, "kept.npy", text_columns, over_all)) for path in runs]
    totals: list[RunTotals] = context.collect("decide", tasks, unit="run")
    if not any(total.n_staying for total in totals):
        few = why_few(context)
        cause, remedy = (f"{few}: ", "qc, ") if few else ("", "")
        raise ConfigError(f"{cause}no cell has a count in a kept gene; relax {remedy}genes.min_cells or genes.join")
    context.summary.lost["zero_counts_in_kept_genes"] = sum(total.n_rows - total.n_staying for total in totals)
    return totals


def with_categories(
    schema: ObsSchema, totals: Sequence[RunTotals], text_columns: Sequence[str], files: Sequence[str]
) -> ObsSchema:
    """Return the schema with the categories of its text columns over all rows that stay."""
    values = {name: set().union(*(total.values[name] for total in totals)) for name in text_columns}
    values["source_file"] = {files[number] for total in totals for number in total.files}
    n_obs = sum(total.n_staying for total in totals)
    return replace(schema, categories=choose_categories(values, n_obs))
