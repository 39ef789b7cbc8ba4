"""The records of all generations of a directory in; those of one directory of all their cells, as a run's own, out.

What cannot be told of all together, such as how the genes of each were found,
stands by generation under ``generations``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from scvae_data.calling import override
from scvae_data.processing.evidence.table import EXPERIMENTS_FILE, account_of
from scvae_data.processing.genes.report import REPORT_FILE
from scvae_data.processing.write.account import size_statistics, summed_labels
from scvae_data.processing.write.dropped import DROPPED_FILE, ROW_GROUP, regrouped
from scvae_data.remote.location import is_remote
from scvae_data.report.qc_facts import genes_once
from scvae_data.store import ChunkEntry, DatasetIndex
from scvae_data.store.files import atomic_file, expecting, read_json, sha256_file, write_atomic, write_json
from scvae_data.store.listed_table import listed_table
from scvae_data.store.names import generation_file
from scvae_data.store.verify import CONFIG_FILE, SUMMARY_FILE, TABLES

__all__ = ["write_records"]

Columns = Mapping[str, list[Any]]
OF_FILES = ("gene_mapping", "obs_table", "outlier_bounds")
"""What the summary has a row of for each file, or several."""
OF_EACH = (
    "n_obs", "columns_alike", "gene_choice", "genes_classed", "genes_lost", "genes_apart", "genes_crossed", "seconds",
    "peak_rss_bytes",
)  # fmt: skip
"""What is told of each generation alone."""
OF_GENERATION = ("input.paths=", "genes=", "genes.", "normalization.target_sum=", "append=")
"""Settings of a command that are not those of all generations together."""


def write_records(
    index: DatasetIndex, target: Path, entries: Sequence[ChunkEntry], n_bytes: int, accessions: Mapping[str, int]
) -> None:
    """Write the records of all generations as those of one.

    Parameters
    ----------
    target
        The directory of one generation.
    entries, n_bytes
        Its chunks, and the size of all that the index lists.
    accessions
        Cells per accession.
    """
    numbers = range(len(index.generations))
    configs, summaries = (
        [read_json(index.path / generation_file(name, number)) for number in numbers]
        for name in (CONFIG_FILE, SUMMARY_FILE)
    )
    with expecting(index.path / CONFIG_FILE):
        inputs = by_file(joined_columns([config["inputs"] for config in configs]))
        record = {**configs[0], "processing_id": index.processing_id, "inputs": inputs}
        record |= {"command": joined_command(configs), "target_sum": index.normalization["target_sum"]}
    write_json(target / CONFIG_FILE, record)
    with expecting(index.path / SUMMARY_FILE):
        together = joined_summary(summaries)
        together |= {"n_obs": index.n_obs, "n_vars": index.n_vars, "nnz": index.nnz}
        together |= size_statistics(entries, n_bytes)
        together["cells_per_accession"] = dict(sorted(accessions.items()))
        min_counts = configs[0].get("config", {}).get("qc", {}).get("min_counts")
        for key in TABLES:
            if entries_of := [summary[key] for summary in summaries if summary.get(key)]:
                with ExitStack() as opened:
                    tables = [opened.enter_context(listed_table(index.path, entry)) for entry in entries_of]
                    facts = write_joined(tables, target / f"{key}.parquet", min_counts)
                together[key] = {**summaries[0].get(key, {}), **facts}
    write_json(target / SUMMARY_FILE, together)


def joined_summary(summaries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Bring together what the summaries of all generations tell, but for chunks and tables."""
    together = dict(summaries[0])
    together["attrition"] = joined_attrition([summary["attrition"] for summary in summaries])
    for key in OF_FILES:
        if tables := [summary[key] for summary in summaries if summary.get(key)]:
            together[key] = by_file(joined_columns(tables))
    if accounts := [summary["duplicates"] for summary in summaries if summary.get("duplicates")]:
        together["duplicates"] = joined_copies(accounts)
    if accounts := [summary["species"] for summary in summaries if summary.get("species")]:
        left_out = sorted({file for account in accounts for file in account["files_left_out"]})
        together["species"] = {**accounts[0], "files_left_out": left_out}
    if written := summed_labels(summary.get("written_missing") or {} for summary in summaries):
        together["written_missing"] = written
    together["dropped_genes"] = genes_once(joined_columns([summary["dropped_genes"] for summary in summaries]))
    # Of a symbol that stood for two genes, that of the first files; the report of genes has what each table's did.
    synonyms = [dict(summary.get("gene_synonyms", {})) for summary in reversed(summaries)]
    together["gene_synonyms"] = {symbol: gene for found in synonyms for symbol, gene in found.items()}
    together["unapplied_rules"] = joined_columns([summary.get("unapplied_rules") or {} for summary in summaries], ())
    failed = [file for summary in summaries for file in summary.get("failed_files", [])]
    together["failed_files"] = sorted(failed, key=lambda file: str(file["source_file"]))
    alone = [{key: summary[key] for key in OF_EACH if key in summary} for summary in summaries]
    earlier = dict(summaries[0]).get("generations")  # of a directory that was made of several, and has grown again
    together["generations"] = [*earlier, *alone[1:]] if earlier else alone
    return together


def joined_command(configs: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return what the command lines of all generations set together; None if one of them is not known.

    Genes are not among it: they are those that the directory has. Paths are joined where all name files by
    ``input.paths``, and left open where they do not.
    """
    commands = [config["command"] for config in configs if config.get("command")]
    inputs = [dict(config["config"].get("input") or {}) for config in configs]
    if len(commands) < len(configs):
        return None
    paths = [one.pop("paths", None) for one in inputs]
    overrides = [text for text in commands[0]["overrides"] if not text.lstrip("+~").startswith(OF_GENERATION)]
    if all(paths) and all(one == inputs[0] for one in inputs):
        folders = [Path(command["directory"]) for command in commands]
        found = [
            text if folder == folders[0] or is_remote(text) else str(folder / text)
            for folder, given in zip(folders, paths, strict=True)
            for text in ([given] if isinstance(given, str) else given)
        ]
        overrides.append(override("input.paths", list(dict.fromkeys(found))))
    else:
        overrides.append("input.paths=…")
    return {**commands[0], "overrides": overrides}


def joined_attrition(accounts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What became of the cells of the files of all generations; a rule that one of them lacks took none there."""
    rules = dict.fromkeys(rule for account in accounts for rule in account["lost"])
    flat = []
    for account in accounts:
        none = [0] * len(account["source_file"])
        lost = {f"lost {rule}": account["lost"].get(rule, none) for rule in rules}
        flat.append({name: values for name, values in account.items() if name != "lost"} | lost)
    joined = by_file(joined_columns(flat))
    return joined | {"lost": {rule: joined.pop(f"lost {rule}") for rule in rules}}


def joined_copies(accounts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Cells with the counts of another one of their generation and, under ``of_directory``, of an earlier one."""
    numbers = ("n_cells_with_copies", "n_copies", "n_pairs_of_files")
    sums = {name: sum(account.get(name, 0) for account in accounts) for name in numbers}
    joined = {**accounts[0], **sums, "pairs": joined_columns([account["pairs"] for account in accounts])}
    if later := [dict(account["of_directory"]) for account in accounts if account.get("of_directory")]:
        n_copies = sum(account.pop("n_copies") for account in later)
        joined["of_directory"] = {"n_copies": n_copies, **joined_columns(later)}
    return joined


def joined_columns(tables: Sequence[Columns], missing: Any = None) -> dict[str, list[Any]]:
    """Columns one below the other, with ``missing`` where a table lacks one; an empty tuple adds nothing there."""
    names = dict.fromkeys(name for table in tables for name in table)
    lengths = [len(next(iter(table.values()), [])) for table in tables]
    return {
        name: [
            item
            for table, n in zip(tables, lengths, strict=True)
            for item in table.get(name, missing if missing == () else [missing] * n)
        ]
        for name in names
    }


def by_file(table: Columns) -> dict[str, list[Any]]:
    """Columns with their rows in order of the names of files, as one run has them."""
    files = table["source_file"]
    order = sorted(range(len(files)), key=lambda row: str(files[row]))
    return {name: [values[row] for row in order] for name, values in table.items()}


def write_joined(tables: Sequence[pq.ParquetFile], target: Path, min_counts: float | None) -> dict[str, Any]:
    """Write the rows of the tables of all generations as one; return name, size and checksum, and what it counts.

    Parameters
    ----------
    min_counts
        The limit of the runs, which remedies of flags speak of.
    """
    if target.name == DROPPED_FILE:
        return write_dropped(tables, target)
    table = pa.concat_tables([one.read() for one in tables], promote_options="default")
    facts: dict[str, Any] = {}
    if target.name == REPORT_FILE:
        # A gene table that several generations have is one: its counts are added up.
        genes = table.to_pandas()
        counts = genes.groupby(["table", "position"], sort=False, observed=True)["counts"].transform("sum")
        genes = genes.assign(counts=counts).drop_duplicates(["table", "position"])
        table = pa.Table.from_pandas(genes, table.schema, preserve_index=False)
    elif target.name == EXPERIMENTS_FILE:
        table = table.take(pa.array(np.argsort(table["source_file"].to_numpy(zero_copy_only=False), kind="stable")))
        facts = account_of(table.to_pandas(), table["flags"].to_pylist(), min_counts)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    content = sink.getvalue().to_pybytes()
    write_atomic(target, content)
    return {"file": target.name, "bytes": len(content), "sha256": sha256_file(target)} | facts


def write_dropped(tables: Sequence[pq.ParquetFile], target: Path) -> dict[str, Any]:
    """Write the dropped cells of all generations, file by file in order of the names; some row groups are in memory."""
    schema = pa.unify_schemas([table.schema_arrow.remove_metadata() for table in tables])
    with atomic_file(target) as file:
        with pq.ParquetWriter(file, schema, compression="zstd") as writer:
            for group in regrouped(in_order(tables, schema)):
                writer.write_table(group, row_group_size=ROW_GROUP)
        file.flush()
        size, digest = file.seek(0, 2), sha256_file(file)
    n_obs = sum(table.metadata.num_rows for table in tables)
    return {"file": target.name, "n_obs": n_obs, "bytes": size, "sha256": digest}


def in_order(tables: Sequence[pq.ParquetFile], schema: pa.Schema) -> Iterator[pa.Table]:
    """Yield the rows of tables that are in order of their files each, in order of the files of all."""
    spans = sorted(
        (name, number, group, first, n)
        for number, table in enumerate(tables)
        for group in range(table.num_row_groups)
        for name, first, n in runs_of(table.read_row_group(group, ["source_file"])["source_file"].to_pylist())
    )
    read: dict[int, tuple[int, pa.Table]] = {}
    for _, number, group, first, n in spans:
        if number not in read or read[number][0] != group:
            read[number] = group, tables[number].read_row_group(group)
        rows = read[number][1].slice(first, n)
        yield pa.concat_tables([schema.empty_table(), rows], promote_options="default").cast(schema)


def runs_of(names: Sequence[str]) -> Iterator[tuple[str, int, int]]:
    """Yield name, first position and length of each stretch of equal names."""
    first = 0
    for position in range(1, len(names) + 1):
        if position == len(names) or names[position] != names[first]:
            yield names[first], first, position - first
            first = position
