"""The scans of all files in; everything that holds for the whole directory out.

Gene set, target sum, categories and the order of the cells depend on the
corpus only: not on file order, chunk size, engine or number of workers.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scvae_data.errors import ConfigError
from scvae_data.processing.decide.decision import Decision, save_var
from scvae_data.processing.decide.duplicates import Compared
from scvae_data.processing.decide.merge import merge
from scvae_data.processing.facts import FileScan
from scvae_data.processing.genes.choose import Choice, choose_genes, write_statistics
from scvae_data.processing.genes.columns import var_table
from scvae_data.processing.genes.report import count_tables, genes_apart, genes_crossed, tell_rows
from scvae_data.processing.genes.sums import GeneAccount, GeneSums, account_for_genes, gene_sets, sum_genes
from scvae_data.processing.genes.tables import load_table
from scvae_data.processing.genes.universe import Universe
from scvae_data.processing.labels import look_alike
from scvae_data.processing.run.context import Context
from scvae_data.processing.run.losses import few_cells
from scvae_data.processing.scan.stage import Scanned
from scvae_data.processing.settings.genes import ListRules
from scvae_data.processing.settings.inputs import Origin
from scvae_data.processing.sort.gather import ChunkRange, chunk_ranges
from scvae_data.processing.sort.obs_schema import (
    ObsSchema,
    choose_categories,
    decide_schema,
    fitted_categories,
    fitted_schema,
    is_ours,
    is_text,
    our_columns,
)
from scvae_data.processing.sort.totals import RunTotals, SpooledRows, median_total
from scvae_data.processing.survey.stage import Surveyed
from scvae_data.processing.work import WorkFolder
from scvae_data.store import GeneList, GeneSets, ObsColumn
from scvae_data.wording import named

__all__ = ["LATE_RULE", "Decided", "WritePlan", "decide"]

log = logging.getLogger(__name__)

LATE_RULE = "zero_counts_in_kept_genes"


@dataclass(frozen=True)
class Decided:
    """All that holds for the whole directory.

    Parameters
    ----------
    decision, digest
        What the writers of all chunks share, and the hash of its content.
    genes, gene_sets
        The genes of the directory, and the distinct masks of those that a file measures.
    ranges
        The cells of every chunk.
    choice
        How the genes were chosen, where not by the base rules alone.
    statistics
        Name, size and checksum of the table that genes were ranked by; empty without one.
    account
        What became of the inputs' genes.
    genes_apart
        Genes that may have another column too, see `genes_apart`.
    genes_crossed
        Rows with the id of one gene and the symbol of another, see `genes_crossed`.
    n_late
        Kept cells without a count in a gene of the directory: they are not in it.
    """

    decision: Decision
    digest: str
    genes: GeneList
    gene_sets: GeneSets
    ranges: Sequence[ChunkRange]
    choice: dict[str, Any]
    statistics: dict[str, Any]
    account: GeneAccount
    genes_apart: dict[str, Any]
    genes_crossed: dict[str, Any]
    n_late: int


@dataclass(frozen=True)
class WritePlan:
    """All that is known before the first chunk is written, stage by stage."""

    surveyed: Surveyed
    scanned: Scanned
    compared: Compared
    decided: Decided


def decide(context: Context, surveyed: Surveyed, compared: Compared) -> Decided:
    """Choose genes, target sum, obs columns and the cells of every chunk over all files.

    Raises
    ------
    ConfigError
        No gene or no cell is left, or genes cannot be ranked.
    """
    settings, scans, universe = context.settings, compared.scans, surveyed.universe
    origins = settings.input.origins
    files = [*(file.source_file for file in surveyed.files), *(origin.source_file for origin in origins)]
    identity = context.processing_id(surveyed.files)
    standing = context.standing
    schema = decide_schema(settings.qc.columns, [scan.obs_kinds for scan in scans])
    if standing is not None:
        schema = fitted_schema(schema, standing.columns)
    runs = [run for scan in scans for run in scan.sorted_runs]
    rows = SpooledRows(context.work, runs, schema.kinds, identity, context.collect)
    sums = sum_genes(context.work, universe, scans)
    choice = choose(context, surveyed, compared, rows, sums)
    gene_map = choice.columns.gene_map(len(universe.keys))
    account = account_for_genes(context.work, universe, sums, scans, gene_map >= 0, settings.genes)
    statistics = write_statistics(context.directory, choice.statistics)
    tables = count_tables(context.work, scans)
    tell_rows(context.work, universe, tables, context.gene_files.reference)
    np.save(context.work.genes("kept"), gene_map >= 0)
    text = text_columns(schema)
    over_all = settings.normalization.size_factor_genes == "all"
    totals = rows.totals("decide", context.work.genes("kept"), text, over_all_genes=over_all)
    check_cells_left(context, compared, totals)
    maps = measured_by(context.work, surveyed, scans, origins) if origins else maps_of(universe, scans)
    masks, codes = gene_sets(universe, choice.columns, maps, len(files))
    decision = Decision(
        gene_map=gene_map,
        gene_set=codes,
        files=files,
        schema=with_categories(schema, totals, text, files, None if standing is None else standing.columns),
        normalization=settings.normalization,
        target_sum=settings.normalization.target_sum or median_total([total.totals for total in totals]),
        max_count=max(total.max_count for total in totals),
        processing_id=identity,
        n_vars=choice.columns.n_vars,
        runs=[total.path for total in totals if total.n_staying],
    )
    decision = merge(context, decision)
    digest = decision.save(context.work)
    save_var(context.work, digest, var_table(choice.columns, universe))
    return Decided(
        decision=decision,
        digest=digest,
        genes=gene_list(choice),
        gene_sets=GeneSets.of(masks, choice.columns.n_vars),
        ranges=chunk_ranges(context.work, decision.runs, settings.chunking.chunk_size),
        choice=choice.account,
        statistics=statistics,
        account=account,
        genes_apart=genes_apart(context.work, universe, tables),
        genes_crossed=genes_crossed(context.work, universe, tables),
        n_late=sum(total.n_rows - total.n_staying for total in totals),
    )


def maps_of(universe: Universe, scans: Sequence[FileScan]) -> dict[int, NDArray[np.int32]]:
    """Return which genes of the universe each file measured."""
    return {scan.number: universe.maps[scan.table] for scan in scans}


def measured_by(
    work: WorkFolder, surveyed: Surveyed, scans: Sequence[FileScan], origins: Sequence[Origin]
) -> dict[int, NDArray[np.int32]]:
    """Return which genes of the universe the inputs of dataset directories measured, by their numbers."""
    tables = {surveyed.files[scan.number].folder: scan.table for scan in scans}
    known: dict[tuple[str, int], NDArray[np.int32]] = {}
    maps = {}
    for number, origin in enumerate(origins, start=len(surveyed.files)):
        if (table := tables.get(origin.directory)) is None:
            continue
        key = (table, id(origin.measured))
        if key not in known:
            names = load_table(work.tables, table).names
            found = surveyed.universe.maps[table]
            known[key] = found if origin.measured is None else found[[name in origin.measured for name in names]]
        maps[number] = known[key]
    return maps


def choose(context: Context, surveyed: Surveyed, compared: Compared, rows: SpooledRows, sums: GeneSums) -> Choice:
    """Choose the genes: those of a list, or by rule."""
    settings = context.settings
    if isinstance(settings.genes, ListRules):
        assert surveyed.listed is not None  # the survey has found them
        return surveyed.listed
    return choose_genes(
        settings.genes, surveyed.universe, sums, rows, settings.normalization,
        n_files=len(compared.scans), few_cells=few_cells(compared.scans, settings.qc),
    )  # fmt: skip


def check_cells_left(context: Context, compared: Compared, totals: Sequence[RunTotals]) -> None:
    """Refuse to go on where no cell has a count in a kept gene."""
    if any(total.n_staying for total in totals):
        return
    few = few_cells(compared.scans, context.settings.qc)
    cause, remedy = (f"{few}: ", "qc, ") if few else ("", "")
    raise ConfigError(f"{cause}no cell has a count in a kept gene; relax {remedy}genes.min_cells or genes.join")


def text_columns(schema: ObsSchema) -> dict[str, str]:
    """Return the kinds of the text columns of sorted runs: ours, then those of the inputs."""
    ours = {column.name: "string" for column in our_columns("scan") if column.dtype == "category"}
    return ours | {name: kind for name, kind in schema.kinds.items() if is_text(kind)}


def with_categories(
    schema: ObsSchema,
    totals: Sequence[RunTotals],
    text: Iterable[str],
    files: Sequence[str],
    columns: Mapping[str, ObsColumn] | None = None,
) -> ObsSchema:
    """Return the schema with the categories of its text columns over all rows that stay.

    Parameters
    ----------
    columns
        Of the directory that grows; None for a new one, which has categories where they are worth it.
    """
    values = {name: set().union(*(total.values[name] for total in totals)) for name in text}
    values["source_file"] = {files[number] for total in totals for number in total.files}
    n_obs = sum(total.n_staying for total in totals)
    fitted = choose_categories(values, n_obs) if columns is None else fitted_categories(values, columns)
    tell_alike({name: categories for name, categories in fitted.items() if not is_ours(name)})
    return replace(schema, categories=fitted)


def tell_alike(categories: Mapping[str, Sequence[str]]) -> None:
    """Warn of labels that may be meant to be one."""
    found = {name: pairs for name, labels in categories.items() if (pairs := look_alike(labels))}
    if found:
        words = [f"{name} has {' and '.join(map(repr, pairs[0]))}" for name, pairs in found.items()]
        log.warning(
            "labels that differ in blanks, case or encoding alone are labels of their own: %s; correct them in the "
            "inputs if they are one", named(words),
        )  # fmt: skip


def gene_list(choice: Choice) -> GeneList:
    """Return the genes of the directory."""
    names, symbols, ids = choice.columns.names, choice.columns.symbols, choice.columns.ids
    return GeneList.of(names.tolist(), [key or None for key in ids], [name or None for name in symbols])
