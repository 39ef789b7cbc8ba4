"""Configured stages in, a dataset directory out: scan every file, decide once, write the chunks, index last."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scvae_data.errors import ConfigError, ScvaeDataError
from scvae_data.processing.control import ControlSubset
from scvae_data.processing.decide import (
    Decision,
    choose_categories,
    chunk_bounds,
    dropped_genes,
    gene_sets,
    median_total,
    select_genes,
    sum_genes,
    total_run,
)
from scvae_data.processing.directory import held_directory, prepare
from scvae_data.processing.engine import Engine, Failure, Task
from scvae_data.processing.genes import GeneRules, Universe, align, read_mapping
from scvae_data.processing.inputs import Inputs, source_names
from scvae_data.processing.merge import merge_groups, merge_runs
from scvae_data.processing.normalize import Normalization
from scvae_data.processing.obs import decide_schema
from scvae_data.processing.order import OrderKey
from scvae_data.processing.publish import publish
from scvae_data.processing.qc import GENE_CLASSES, QcRules, gene_class_flags
from scvae_data.processing.report import FailedFile, Summary, failure_table, peak_rss_bytes, total_lost
from scvae_data.processing.scan import ScanJob, ScanResult, scan_file, scan_key
from scvae_data.processing.survey import FileFacts, check_corpus, facts_digest, load_table, survey_file
from scvae_data.processing.write import WriteJob, save_var, write_one
from scvae_data.progress import progress
from scvae_data.store import ChunkEntry, Chunking, GeneList
from scvae_data.store.files import write_json

__all__ = ["run"]

log = logging.getLogger(__name__)


def run(
    *,
    input: Inputs,
    qc: QcRules,
    genes: GeneRules,
    normalization: Normalization,
    chunking: Chunking,
    control: ControlSubset,
    engine: Engine,
    seed: int,
    overwrite: bool,
    resume: bool,
    max_failed_fraction: float,
    subset_to_control_cells: bool,
    processed_dir: Path,
    config: Mapping[str, Any],
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
    processed_dir
        The directory.
    config
        The whole resolved config, for the record.

    Raises
    ------
    ScvaeDataError
        What stopped the run, in one line.
    """
    if not 0 <= max_failed_fraction <= 1:
        raise ConfigError(f"max_failed_fraction={max_failed_fraction} must be a share from 0 to 1")
    with held_directory(processed_dir):
        work = prepare(processed_dir, overwrite=overwrite, resume=resume)
        pipeline = Pipeline(
            input, qc, genes, normalization, chunking, control if subset_to_control_cells else None, engine, seed,
            max_failed_fraction, processed_dir, work,
        )  # fmt: skip
        try:
            return pipeline.run(config)
        finally:
            engine.close()


class Pipeline:
    """One run: the settings of its stages, and what they have found so far."""

    def __init__(
        self,
        inputs: Inputs,
        qc: QcRules,
        genes: GeneRules,
        normalization: Normalization,
        chunking: Chunking,
        control: ControlSubset | None,
        engine: Engine,
        seed: int,
        max_failed_fraction: float,
        processed_dir: Path,
        work: Path,
    ) -> None:
        self.inputs, self.qc, self.genes, self.normalization = inputs, qc, genes, normalization
        self.chunking, self.control, self.engine, self.seed = chunking, control, engine, seed
        self.max_failed_fraction = max_failed_fraction
        self.directory, self.work = processed_dir, work
        self.summary = Summary(processed_dir, chunk_size=chunking.chunk_size, simulated=inputs.simulated)
        self.failed = self.summary.failed

    def run(self, config: Mapping[str, Any]) -> Summary:
        """Run all stages."""
        with self.timed("scan"):
            files = self.survey()
            universe = self.align(files)
            results = self.scan(files, universe)
        with self.timed("decide"):
            decision, genes, var = self.decide(files, universe, results)
            digest = decision.save(self.work)
            save_var(self.work, digest, var)
            bounds = chunk_bounds(self.work, decision.runs, self.chunking.chunk_size)
        with self.timed("write"):
            entries = self.write(decision, digest, bounds)
        self.summary.peak_rss = peak_rss_bytes()
        publish(
            self.directory, self.work, self.summary, decision=decision, genes=genes, entries=entries, results=results,
            files=files, chunking=self.chunking, seed=self.seed, config=config,
        )  # fmt: skip
        shutil.rmtree(self.work)
        return self.summary

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Record a stage's wall time."""
        started = time.perf_counter()
        yield
        self.summary.seconds[stage] = time.perf_counter() - started

    def survey(self) -> list[FileFacts]:
        """Read all headers; refuse what the inputs must not be together. Files come back in order of their names."""
        given = self.inputs.files()
        names = source_names([file.path for file in given])
        order = sorted(range(len(given)), key=lambda number: names[number])
        tasks = [Task(survey_file, (given[number], names[number], self.work / "tables")) for number in order]
        self.summary.n_files = len(tasks)
        found: dict[int, FileFacts] = {}
        for position, outcome in progress(self.engine.run(tasks), total=len(tasks), desc="survey"):
            if isinstance(outcome, Failure):
                self.failed.append(FailedFile.of(names[order[position]], "survey", outcome))
            else:
                found[position] = outcome
        files = [found[position] for position in sorted(found)]
        if files:
            check_corpus(files, self.inputs, allow_mixed_species=self.genes.allow_mixed_species)
        for file in files:
            for note in file.notes:
                log.info("%s: %s", file.source_file, note)
        self.check_failures()
        return files

    def check_failures(self) -> None:
        """Stop the run where more files have failed than may; the report stays for the next try."""
        failed = sorted(self.failed, key=lambda file: file.source_file)
        self.failed[:] = failed
        n_files = self.summary.n_files
        if not failed:
            return
        report = self.directory / "failure_report.json"
        write_json(
            report,
            {"format": "scvae-data failure report", "n_files": n_files, "failed": [vars(file) for file in failed]},
        )
        if len(failed) <= self.max_failed_fraction * n_files and len(failed) < n_files:
            log.warning("%d of %d files failed and are left out:\n%s", len(failed), n_files, failure_table(failed))
            return
        if n_files == 1:
            raise ScvaeDataError(failed[0].message)
        log.error("failed files:\n%s", failure_table(failed))
        raise ScvaeDataError(
            f"{len(failed)} of {n_files} files failed, more than max_failed_fraction={self.max_failed_fraction:g} "
            f"allows; first: {failed[0].message}; all in {report}; leave them out or raise max_failed_fraction, "
            "then resume=true"
        )

    def align(self, files: Sequence[FileFacts]) -> Universe:
        """Bring the genes of all files into one order, and store each table's map for the workers."""
        n_files = Counter(slot.table for file in files for slot in file.slots)
        universe = align(n_files, partial(load_table, self.work / "tables"), read_mapping(self.genes.mapping))
        for key, positions in universe.maps.items():
            np.save(self.work / "maps" / f"{key}.npy", positions)
        np.save(self.work / "universe_keys.npy", universe.keys.astype(str))
        np.save(self.work / "universe_symbols.npy", universe.symbols.astype(str))
        return universe

    def scan(self, files: Sequence[FileFacts], universe: Universe) -> list[ScanResult]:
        """Scan every file; the results come back in order of the files' names."""
        order = OrderKey(self.seed, self.chunking.order, self.chunking.group_column)
        job = ScanJob(self.work, len(universe.keys), self.qc, self.control, order, self.inputs.obs_columns)
        digest = hashlib.sha256(json.dumps([universe.keys.tolist(), universe.symbols.tolist()]).encode()).hexdigest()
        seen: Counter[str] = Counter()
        tasks = []
        for number, file in enumerate(files):
            rank = max((seen[accession] for accession in file.accessions), default=0)
            seen.update(file.accessions)
            tasks.append(Task(scan_file, (job, file, number, rank, scan_key(file, job, digest, rank))))
        results: dict[int, ScanResult] = {}
        dropped: list[str] = []
        for number, outcome in progress(self.engine.run(tasks), total=len(tasks), desc="scan"):
            if not isinstance(outcome, Failure):
                results[number] = outcome
            elif outcome.reason == "no_control_column" and self.control and self.control.missing == "drop_file":
                dropped.append(files[number].source_file)
            else:
                self.failed.append(FailedFile.of(files[number].source_file, "scan", outcome))
        if dropped:
            log.warning("%d files without a control column are left out, e.g. %s", len(dropped), min(dropped))
        self.check_failures()
        ordered = [results[number] for number in sorted(results)]
        self.summary.n_obs_in = sum(result.n_obs for result in ordered)
        self.summary.lost = total_lost(ordered)
        if not any(result.n_kept for result in ordered):
            raise ConfigError(
                f"no cell of {self.summary.n_obs_in:,} is left ({lost_text(self.summary.lost)}); relax qc, e.g. qc=none"
            )
        return ordered

    def decide(
        self, files: Sequence[FileFacts], universe: Universe, results: Sequence[ScanResult]
    ) -> tuple[Decision, GeneList, pd.DataFrame]:
        """Choose genes, target sum and columns over all files."""
        sums = sum_genes(self.work, universe, results)
        kept = select_genes(self.genes, sums, len(results))
        self.summary.dropped_genes = dropped_genes(universe, sums, kept)
        np.save(self.work / "kept.npy", kept)
        schema = decide_schema(metric_columns(self.work, results), [result.obs_kinds for result in results])
        text = ["SRX_accession", *(name for name, kind in schema.kinds.items() if kind.startswith("string"))]
        over_all = self.normalization.size_factor_genes == "all"
        runs = [path for result in results for path in result.runs]
        tasks = [Task(total_run, (self.work, path, "kept.npy", text, over_all)) for path in runs]
        totals = self.collect("decide", tasks, unit="run")
        n_obs = sum(total.n_rows - sum(total.n_dropped.values()) for total in totals)
        if not n_obs:
            raise ConfigError("no cell has a count in a kept gene; relax genes.min_cells or genes.join")
        empty = sum(sum(total.n_dropped.values()) for total in totals)
        self.summary.lost["zero_counts_in_kept_genes"] = empty
        values = {name: set().union(*(total.values[name] for total in totals)) for name in text}
        values["source_file"] = {files[number].source_file for total in totals for number in total.files}
        masks, codes = gene_sets(universe, kept, results, len(files))
        schema = replace(schema, categories=choose_categories(values, n_obs))
        gene_map = np.full(len(kept), -1, np.int32)
        gene_map[kept] = np.arange(int(kept.sum()), dtype=np.int32)
        decision = Decision(
            gene_map=gene_map,
            gene_set=codes,
            files=[file.source_file for file in files],
            schema=schema,
            normalization=self.normalization,
            target_sum=self.normalization.target_sum or median_total([total.totals for total in totals]),
            max_count=max(total.max_count for total in totals),
            processing_id=self.processing_id(files),
            runs=[total.path for total in totals if sum(total.n_dropped.values()) < total.n_rows],
        )
        decision = self.merge(decision)
        names, symbols, ids = (column[kept] for column in (universe.keys, universe.symbols, universe.ids))
        genes = GeneList.of(names.tolist(), [key or None for key in ids], symbols.tolist(), masks)
        self.summary.n_genes_in, self.summary.n_vars = len(kept), int(kept.sum())
        return decision, genes, var_table(names, symbols, ids)

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

    def write(self, decision: Decision, digest: str, bounds: Sequence[int]) -> list[ChunkEntry]:
        """Write all chunks; their entries come back in order."""
        # Threads help where processes leave cores idle; the bytes do not depend on them.
        n_threads = 2 if self.engine.n_workers == 1 else 1
        job = WriteJob(
            self.work, self.directory, digest, self.chunking.codec, self.chunking.block_elements,
            "hash" if self.chunking.order == "hash" else "key", n_threads, f"{digest}:{self.chunking}",
        )  # fmt: skip
        ranges = zip(bounds, [*bounds[1:], None], strict=True)
        tasks = [
            Task(write_one, (job, number, low, high, number * self.chunking.chunk_size))
            for number, (low, high) in enumerate(ranges)
        ]
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
        parts = [self.qc, self.genes, self.normalization, self.chunking, self.control, self.inputs.obs_columns]
        rules = json.dumps([self.seed, *(None if part is None else vars_of(part) for part in parts)], default=str)
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


def lost_text(lost: Mapping[str, int]) -> str:
    """Return the rules that lost cells, e.g. ``"12 min_genes, 3 max_pct_counts_mt"``."""
    return ", ".join(f"{count:,} {rule}" for rule, count in lost.items() if count)
