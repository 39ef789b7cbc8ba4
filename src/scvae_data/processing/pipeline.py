"""Configured stages in, a dataset directory out: scan every file, decide once, write the chunks, index last."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scvae_data.errors import ConfigError, ScvaeDataError
from scvae_data.processing.checks import check_failures, check_settings
from scvae_data.processing.choose import (
    AnyGeneRules,
    Choice,
    GeneFiles,
    choose_genes,
    list_choice,
    read_gene_files,
    save_statistics,
)
from scvae_data.processing.control import ControlSubset
from scvae_data.processing.corpus import survey_inputs
from scvae_data.processing.decide import (
    ChunkRange,
    Decision,
    GeneSums,
    choose_categories,
    chunk_ranges,
    dropped_genes,
    gene_sets,
    median_total,
    sum_genes,
    total_run,
)
from scvae_data.processing.directory import INDEX_FILE, clear, disk_faults, held_directory, is_complete, prepare
from scvae_data.processing.dropped import write_dropped
from scvae_data.processing.duplicates import find_copies, n_parts, remove_copies, report_copies, restore_scan
from scvae_data.processing.engine import Engine, Failure, Task, stop_without_room
from scvae_data.processing.finished import check_finished, summary_of
from scvae_data.processing.gene_list import ListRules, resolve
from scvae_data.processing.genes import Universe, align
from scvae_data.processing.inputs import Inputs
from scvae_data.processing.mapping import mapping_report, tell_unmatched, warn_of_foreign_genes
from scvae_data.processing.memory import peak_rss_bytes
from scvae_data.processing.merge import merge_groups, merge_runs
from scvae_data.processing.normalize import Normalization
from scvae_data.processing.obs import decide_schema
from scvae_data.processing.order import OrderKey
from scvae_data.processing.publish import publish
from scvae_data.processing.qc import GENE_CLASSES, QcRules, gene_class_flags
from scvae_data.processing.rebuild import find_damage, rebuild
from scvae_data.processing.report import FailedFile, Summary, failure_table, total_lost
from scvae_data.processing.row_hash import hash_keys
from scvae_data.processing.scan import ScanJob, ScanResult, scan_file
from scvae_data.processing.survey import FileFacts, check_corpus, check_group_column, facts_digest, load_table
from scvae_data.processing.write import WriteJob, save_var, write_obs_of, write_one
from scvae_data.progress import progress
from scvae_data.store import ChunkEntry, Chunking, GeneList
from scvae_data.store.files import write_atomic, write_json
from scvae_data.wording import counted

__all__ = ["run"]

log = logging.getLogger(__name__)


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
    gene_files = read_gene_files(genes)  # one of them may lie in the directory that is overwritten
    with held_directory(processed_dir), disk_faults(processed_dir):
        work = prepare(processed_dir, overwrite=overwrite, resume=resume)
        pipeline = Pipeline(
            input, qc, genes, normalization, chunking, wanted, engine, seed, max_failed_fraction, keep_duplicates,
            processed_dir, work, gene_files, overrides,
        )  # fmt: skip
        try:
            if is_complete(processed_dir) and not overwrite:
                return pipeline.finish(config)
            return pipeline.run(config)
        finally:
            engine.close()


@dataclass(frozen=True)
class Plan:
    """All that is known before the first chunk is written."""

    files: list[FileFacts]
    results: list[ScanResult]
    decision: Decision
    digest: str
    genes: GeneList
    ranges: Sequence[ChunkRange]


class Pipeline:
    """One run: the settings of its stages, and what they have found so far."""

    def __init__(
        self,
        inputs: Inputs,
        qc: QcRules,
        genes: AnyGeneRules,
        normalization: Normalization,
        chunking: Chunking,
        control: ControlSubset | None,
        engine: Engine,
        seed: int,
        max_failed_fraction: float,
        keep_duplicates: str,
        processed_dir: Path,
        work: Path,
        gene_files: GeneFiles,
        overrides: Sequence[str] | None = None,
    ) -> None:
        self.inputs, self.qc, self.genes, self.normalization = inputs, qc, genes, normalization
        self.chunking, self.control, self.engine, self.seed = chunking, control, engine, seed
        self.max_failed_fraction = max_failed_fraction
        self.keep_duplicates = keep_duplicates
        self.directory, self.work = processed_dir, work
        self.summary = Summary(processed_dir, chunk_size=chunking.chunk_size, simulated=inputs.simulated)
        self.failed = self.summary.failed
        self.gene_files = gene_files
        self.overrides = overrides
        self.listed: Choice | None = None

    def run(self, config: Mapping[str, Any]) -> Summary:
        """Run all stages."""
        plan = self.plan()
        if is_complete(self.directory):
            clear(self.directory)
        with self.timed("write"):
            entries = self.write(plan)
        self.summary.dropped_cells = write_dropped(self.directory, self.work, plan.results, self.qc.metrics)
        self.engine.close()
        self.summary.peak_rss = max(peak_rss_bytes(), self.engine.peak_rss)
        publish(
            self.directory, self.work, self.summary, decision=plan.decision, genes=plan.genes, entries=entries,
            results=plan.results, files=plan.files, chunking=self.chunking, seed=self.seed, config=config,
            overrides=self.overrides,
        )  # fmt: skip
        shutil.rmtree(self.work)
        return self.summary

    def plan(self) -> Plan:
        """Run the stages before the first chunk is written."""
        with self.timed("scan"):
            files = self.survey()
            universe = self.align(files)
            results = self.scan(files, universe)
        with self.timed("compare"):
            results = self.compare(files, results)
        with self.timed("decide"):
            decision, genes, var = self.decide(files, universe, results)
            digest = decision.save(self.work)
            save_var(self.work, digest, var)
            ranges = chunk_ranges(self.work, decision.runs, self.chunking.chunk_size)
        return Plan(files, results, decision, digest, genes, ranges)

    def finish(self, config: Mapping[str, Any]) -> Summary:
        """Check that a finished directory is what this run would make; build again only files that are damaged."""
        with tempfile.TemporaryDirectory(prefix="scvae-data-") as scratch:
            files = survey_inputs(self.inputs, self.engine, Path(scratch)).files
        index = check_finished(self.directory, files, self.processing_id(files), config)
        if index is None:
            (self.directory / INDEX_FILE).unlink()
            return self.run(config)
        damaged = find_damage(index, partial(self.collect, "verify", unit="file"))
        if damaged:
            rebuild(self, index, damaged, config)
        shutil.rmtree(self.work, ignore_errors=True)
        return summary_of(self.directory, sorted(damaged))

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Record a stage's wall time."""
        started = time.perf_counter()
        yield
        self.summary.seconds[stage] = time.perf_counter() - started

    def survey(self) -> list[FileFacts]:
        """Read all headers; refuse what the inputs must not be together. Files come back in order of their names."""
        corpus = survey_inputs(self.inputs, self.engine, self.work / "tables")
        files, self.summary.n_files = corpus.files, corpus.n_files
        self.tell_failures(corpus.failed)
        if files:
            check_corpus(files, self.inputs, allow_mixed_species=self.genes.allow_mixed_species)
            check_group_column(files, self.inputs, self.chunking.group_column)
        for file in files:
            for note in file.notes:
                log.info("%s: %s", file.source_file, note)
        return files

    def tell_failures(self, found: Sequence[FailedFile]) -> None:
        """Tell of files that a stage has failed on; stop where too many have. The report stays for the next try."""
        failed = sorted([*self.failed, *found], key=lambda file: file.source_file)
        self.failed[:] = failed
        n_files = self.summary.n_files
        report, quarantine = self.directory / "failure_report.json", self.directory / "quarantine.txt"
        if not failed:
            for earlier in (report, quarantine):
                earlier.unlink(missing_ok=True)
            return
        write_atomic(quarantine, "".join(f"{file.path}\n" for file in failed).encode())
        write_json(
            report,
            {"format": "scvae-data failure report", "n_files": n_files, "failed": [vars(file) for file in failed]},
        )
        if found and n_files > 1:
            log.warning("%d of %s failed:\n%s", len(found), counted(n_files, "file"), failure_table(found))
        check_failures(failed, n_files, self.max_failed_fraction, report)

    def align(self, files: Sequence[FileFacts]) -> Universe:
        """Bring the genes of all files into one order, and store each table's map for the workers."""
        n_files = Counter(slot.table for file in files for slot in file.slots)
        universe = align(n_files, partial(load_table, self.work / "tables"), self.gene_files.pairs)
        if wanted := self.gene_files.wanted:
            self.listed = list_choice(resolve(wanted, universe), wanted)
        for key, positions in universe.maps.items():
            np.save(self.work / "maps" / f"{key}.npy", positions)
        np.save(self.work / "universe_keys.npy", universe.keys.astype(str))
        np.save(self.work / "universe_symbols.npy", universe.symbols.astype(str))
        np.save(self.work / "universe_hashes.npy", hash_keys(universe.keys))
        return universe

    def scan(self, files: Sequence[FileFacts], universe: Universe) -> list[ScanResult]:
        """Scan every file; the results come back in order of the files' names."""
        order = OrderKey(self.seed, self.chunking.order, self.chunking.group_column)
        job = ScanJob(
            self.work, len(universe.keys), self.qc, self.control, order, self.inputs.obs_columns,
            self.inputs.count_tolerance, self.inputs.limits,
        )  # fmt: skip
        meanings = universe.meanings()
        seen: Counter[str] = Counter()
        tasks = []
        for number, file in enumerate(files):
            rank = max((seen[accession] for accession in file.accessions), default=0)
            seen.update(file.accessions)
            tasks.append(Task(scan_file, (job, file, number, rank, [meanings[slot.table] for slot in file.slots])))
        results: dict[int, ScanResult] = {}
        dropped: list[str] = []
        failed: list[FailedFile] = []
        for number, outcome in progress(self.engine.run(tasks), total=len(tasks), desc="scan"):
            stop_without_room(outcome)
            if not isinstance(outcome, Failure):
                results[number] = outcome
            elif outcome.reason == "no_control_column" and self.control and self.control.missing == "drop_file":
                dropped.append(files[number].source_file)
            else:
                file = files[number]
                failed.append(FailedFile.of(file.source_file, "scan", outcome, file.path))
        if dropped:
            log.warning("left out, without a control column: %s, e.g. %s", counted(len(dropped), "file"), min(dropped))
        self.tell_failures(failed)
        ordered = [results[number] for number in sorted(results)]
        self.summary.n_obs_in = sum(result.n_obs for result in ordered)
        self.summary.lost = total_lost(ordered)
        if not any(result.n_kept for result in ordered):
            remedy = "relax qc, e.g. qc=none"
            if self.summary.lost.get("not_control") == self.summary.n_obs_in:
                remedy = "set control.values to values that the control column has"
            raise ConfigError(
                f"no cell of {self.summary.n_obs_in:,} is left ({lost_text(self.summary.lost)}); {remedy}"
            )
        warn_of_empty_files(ordered)
        return ordered

    def compare(self, files: Sequence[FileFacts], results: Sequence[ScanResult]) -> list[ScanResult]:
        """Find cells that equal another one, and drop those that shall not be kept."""
        keep = self.keep_duplicates
        names = {number: file.source_file for number, file in enumerate(files)}
        np.save(self.work / "source_files.npy", np.array(list(names.values()), str))
        numbers, parts = [result.number for result in results], n_parts(sum(result.n_kept for result in results))
        tasks = [Task(find_copies, (self.work, numbers, part, parts, keep)) for part in range(parts)]
        self.summary.duplicates = report_copies(self.collect("compare", tasks, unit="part"), names, keep)
        if keep == "all" or not self.summary.duplicates["n_copies"]:
            for number in numbers:
                restore_scan(self.work, number)
            return list(results)
        tasks = [Task(remove_copies, (self.work, result, parts, self.qc.metrics)) for result in results]
        kept: list[ScanResult] = self.collect("drop copies", tasks, unit="file")
        self.summary.lost = total_lost(kept)
        if not any(result.n_kept for result in kept):
            raise ConfigError(f"keep_duplicates={keep} leaves no cell: every cell equals another one")
        return kept

    def decide(
        self, files: Sequence[FileFacts], universe: Universe, results: Sequence[ScanResult]
    ) -> tuple[Decision, GeneList, pd.DataFrame]:
        """Choose genes, target sum and columns over all files."""
        sums = sum_genes(self.work, universe, results)
        schema = decide_schema(metric_columns(self.work, results), [result.obs_kinds for result in results])
        text = ["SRX_accession", *(name for name, kind in schema.kinds.items() if kind.startswith("string"))]
        over_all = self.normalization.size_factor_genes == "all"
        runs = [path for result in results for path in result.runs]
        choice = self.choose(files, universe, sums, len(results), runs, schema.kinds)
        columns, gene_map = choice.columns, choice.columns.gene_map(len(universe.keys))
        kept = gene_map >= 0
        self.account_for_genes(universe, sums, results, choice, kept)
        np.save(self.work / "kept.npy", kept)
        tasks = [Task(total_run, (self.work, path, "kept.npy", text, over_all)) for path in runs]
        totals = self.collect("decide", tasks, unit="run")
        n_obs = sum(total.n_rows - sum(total.n_dropped.values()) for total in totals)
        if not n_obs:
            raise ConfigError("no cell has a count in a kept gene; relax genes.min_cells or genes.join")
        empty = sum(sum(total.n_dropped.values()) for total in totals)
        self.summary.lost["zero_counts_in_kept_genes"] = empty
        values = {name: set().union(*(total.values[name] for total in totals)) for name in text}
        values["source_file"] = {files[number].source_file for total in totals for number in total.files}
        masks, codes = gene_sets(universe, columns, results, len(files))
        schema = replace(schema, categories=choose_categories(values, n_obs))
        decision = Decision(
            gene_map=gene_map,
            gene_set=codes,
            files=[file.source_file for file in files],
            schema=schema,
            normalization=self.normalization,
            target_sum=self.normalization.target_sum or median_total([total.totals for total in totals]),
            max_count=max(total.max_count for total in totals),
            processing_id=self.processing_id(files),
            n_vars=columns.n_vars,
            runs=[total.path for total in totals if sum(total.n_dropped.values()) < total.n_rows],
        )
        decision = self.merge(decision)
        names, symbols, ids = columns.names, columns.symbols, columns.ids
        genes = GeneList.of(names.tolist(), [key or None for key in ids], [name or None for name in symbols], masks)
        self.summary.n_genes_in, self.summary.n_vars = len(kept), columns.n_vars
        return decision, genes, var_table(names, symbols, ids)

    def choose(
        self,
        files: Sequence[FileFacts],
        universe: Universe,
        sums: GeneSums,
        n_files: int,
        runs: Sequence[str],
        kinds: Mapping[str, str],
    ) -> Choice:
        """Choose the genes: those of a list, or by rule."""
        if isinstance(self.genes, ListRules):
            assert self.listed is not None  # `align` has found them
            return self.listed
        return choose_genes(
            self.genes, universe, sums, n_files=n_files, work=self.work, runs=runs, kinds=kinds,
            normalization=self.normalization, identity=self.processing_id(files), collect=self.collect,
        )  # fmt: skip

    def account_for_genes(
        self, universe: Universe, sums: GeneSums, results: Sequence[ScanResult], choice: Choice, kept: np.ndarray
    ) -> None:
        """Record what became of the inputs' genes."""
        self.summary.dropped_genes = dropped_genes(universe, sums, kept)
        self.summary.gene_choice = choice.account
        self.summary.gene_mapping = mapping_report(self.work, universe, results, sums.n_files, kept)
        tell_unmatched(self.summary.gene_mapping)
        warn_of_foreign_genes(self.summary.gene_mapping)
        self.summary.gene_statistics = save_statistics(self.directory, choice.statistics)

    def merge(self, decision: Decision) -> Decision:
        """Merge runs until a chunk touches few enough of them."""
        level = 0
        while groups := merge_groups(decision.runs):
            digest = decision.save(self.work)
            tasks = [
                Task(merge_runs, (self.work, digest, group, f"merge/{digest}/{level}_{number:05d}"))
                for number, group in enumerate(groups)
            ]
            decision = replace(decision, runs=self.collect("merge", tasks, unit="run"))
            level += 1
        return decision

    def write(self, plan: Plan, numbers: Sequence[int] | None = None, *, only_obs: bool = False) -> list[ChunkEntry]:
        """Write all chunks, or those of some numbers; their entries come back in order.

        With ``only_obs`` nothing is written but their obs, for the table of all cells.
        """
        # Threads help where processes leave cores idle; the bytes do not depend on them.
        n_threads = 2 if self.engine.n_workers == 1 else 1
        job = WriteJob(
            self.work, self.directory, plan.digest, self.chunking.codec, self.chunking.block_elements,
            "hash" if self.chunking.order == "hash" else "key", n_threads, f"{plan.digest}:{self.chunking}",
        )  # fmt: skip
        chosen = range(len(plan.ranges)) if numbers is None else numbers
        function = write_obs_of if only_obs else write_one
        tasks = [Task(function, (job, number, plan.ranges[number])) for number in chosen]
        if only_obs:
            self.collect("obs", tasks, unit="chunk")
            return []
        return [ChunkEntry(**plain) for plain in self.collect("write", tasks, unit="chunk")]

    def collect(self, desc: str, tasks: Sequence[Task], unit: str) -> list[Any]:
        """Run tasks that must all succeed; return their results in order."""
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


def metric_columns(work: Path, results: Sequence[ScanResult]) -> list[str]:
    """Return the names of the measured columns, as the first run has them."""
    from scvae_data.processing.spool import Run

    path = next(path for result in results for path in result.runs)
    with Run(work / path) as run:
        names: list[str] = run.obs().column_names
    return names[names.index("total_counts") : names.index("split_hash")]


def var_table(names: np.ndarray, symbols: np.ndarray, ids: np.ndarray) -> pd.DataFrame:
    """Return the var of every chunk: id, symbol and gene classes by column."""
    flags = gene_class_flags(symbols, names)
    columns: dict[str, Any] = {"gene_id": ids, "gene_symbol": symbols}
    for bit, name in enumerate(GENE_CLASSES):
        columns[name] = (flags & (1 << bit)) > 0
    return pd.DataFrame(columns, index=pd.Index(names, dtype=object))


def warn_of_empty_files(results: Sequence[ScanResult], most: int = 5) -> None:
    """Warn of files that have cells and lose all of them."""
    empty = [result for result in results if result.n_obs and not result.n_kept]
    if empty:
        named = ", ".join(f"{result.source_file} ({lost_text(result.lost)})" for result in empty[:most])
        log.warning("no cell is kept of %s: %s", counted(len(empty), "file"), named)


def lost_text(lost: Mapping[str, int]) -> str:
    """Return the rules that lost cells, e.g. ``"12 min_genes, 3 max_pct_counts_mt"``."""
    return ", ".join(f"{count:,} {rule}" for rule, count in lost.items() if count)
