"""What the rows of all gene tables are and count in; ``gene_report.parquet`` out, and words on rows that are no gene.

A row of the report is a row of a distinct gene table: what the file calls it,
which gene it is, and how that was found.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from scvae_data.processing.engine.task import Task
from scvae_data.processing.facts import FileScan
from scvae_data.processing.genes.identity import OTHER_SPECIES
from scvae_data.processing.genes.reference import Reference
from scvae_data.processing.genes.symbols import APART, CROSSED, NO_GENE
from scvae_data.processing.genes.tables import load_table
from scvae_data.processing.genes.universe import WAYS, Universe
from scvae_data.processing.sort.gene_sums import load_sums
from scvae_data.processing.work import WorkFolder
from scvae_data.readers.base import GeneTable
from scvae_data.store.files import atomic_file, sha256_file
from scvae_data.wording import counted

__all__ = [
    "REPORT_FILE",
    "TableCounts",
    "count_tables",
    "genes_apart",
    "genes_crossed",
    "read_maps",
    "report_task",
    "tell_rows",
]

log = logging.getLogger(__name__)

REPORT_FILE = "gene_report.parquet"
SCHEMA = pa.schema(
    [
        ("table", pa.dictionary(pa.int32(), pa.string())),
        ("position", pa.int32()),
        ("name", pa.string()),
        ("symbol", pa.string()),
        ("id", pa.string()),
        ("gene", pa.string()),
        ("how", pa.dictionary(pa.int8(), pa.string())),
        ("counts", pa.int64()),
    ]
)
MOST_TABLES, MOST_NAMES, MOST_PAIRS = 5, 8, 2
MARKER = "marker"


@dataclass(frozen=True)
class TableCounts:
    """A gene table that files have.

    Parameters
    ----------
    table
        Its hash.
    example
        The first file that has it, and how many have it.
    counts
        Counts of each row over all cells of these files, int64, shape (n_vars,).
    """

    table: str
    example: str
    n_files: int
    counts: NDArray[np.int64]

    def __str__(self) -> str:
        """Name its files."""
        return self.example if self.n_files == 1 else f"{self.example} and {counted(self.n_files - 1, 'more file')}"


def by_table(scans: Iterable[FileScan]) -> dict[str, list[FileScan]]:
    """Return the scans of each gene table, in order of the tables' hashes."""
    files: dict[str, list[FileScan]] = {}
    for scan in scans:
        files.setdefault(scan.table, []).append(scan)
    return dict(sorted(files.items()))


def count_tables(work: WorkFolder, scans: Sequence[FileScan]) -> list[TableCounts]:
    """Add up the counts of each row of each gene table, in order of the tables' hashes."""
    return [
        TableCounts(table, files[0].source_file, len(files), counts_of(work, [scan.number for scan in files]))
        for table, files in by_table(scans).items()
    ]


def counts_of(work: WorkFolder, files: Sequence[int]) -> NDArray[np.int64]:
    """Add up the counts of each column of files that have one gene table, by their numbers."""
    return np.asarray(sum(load_sums(work.scan(number).column_totals, "counts")[0] for number in files))


class TableRows(NamedTuple):
    """A gene table whose rows are reported: its hash, how each was found, and the numbers of the files that have it."""

    table: str
    how: NDArray[np.int8]
    files: list[int]


def report_task(
    directory: Path, work: WorkFolder, universe: Universe, names: Sequence[str | None], scans: Sequence[FileScan]
) -> Task:
    """Return the writing of the report as a task; ``names`` are the columns of the universe's genes, or None."""
    tables = [
        TableRows(table, universe.how[table], [scan.number for scan in files])
        for table, files in by_table(scans).items()
    ]
    return Task(write_report, (directory, work, names, universe.ids, tables))


def write_report(
    directory: Path,
    work: WorkFolder,
    names: Sequence[str | None],
    ids: Sequence[str],
    tables: Iterable[TableRows],
) -> dict[str, Any]:
    """Write which gene each row is, not synced; return the file's name, size and checksum.

    Parameters
    ----------
    names, ids
        The column of each gene of the universe, None for those that are not in the directory; and its id.
    """
    # A row that is left out has place -1, and reads the last entry of both.
    genes, ids_of = np.array([*names, None], object), np.array([*ids, ""], object)
    with atomic_file(directory / REPORT_FILE, synced=False) as file:
        with pq.ParquetWriter(file, SCHEMA, compression="zstd") as writer:
            for one in tables:
                writer.write_table(table_report(work, one, genes, ids_of))
        file.flush()
        size, digest = file.seek(0, 2), sha256_file(file)
    return {"file": REPORT_FILE, "bytes": size, "sha256": digest}


def table_report(work: WorkFolder, one: TableRows, genes: NDArray[np.object_], ids: NDArray[np.object_]) -> pa.Table:
    """Return the rows of one table; ``genes`` and ``ids`` are those of the universe, and of -1."""
    table, place = load_table(work.tables, one.table), np.load(work.gene_map(one.table))
    n = len(place)
    codes, how = np.unique(one.how, return_inverse=True)
    ways = np.array(WAYS, object)[codes]  # none that no row has
    values = {
        "table": pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int32)), pa.array([one.table])),
        "position": np.arange(n, dtype=np.int32),
        "name": table.names.tolist(),
        "symbol": [None] * n if table.symbols is None else table.symbols.tolist(),
        "id": [gene_id or None for gene_id in ids[place]],
        "gene": genes[place].tolist(),
        "how": pa.DictionaryArray.from_arrays(pa.array(how.astype(np.int8)), pa.array(ways, pa.string())),
        "counts": counts_of(work, one.files),
    }
    return pa.table(values, SCHEMA)


def tell_rows(
    work: WorkFolder, universe: Universe, counted_tables: Sequence[TableCounts], reference: Reference
) -> None:
    """Warn of rows that are left out or crossed, and of genes that may have two columns; tell which are added up."""
    ways = np.array(WAYS, object)
    crossed = partial(warning_crossed, universe=universe, reference=reference)
    kinds = (warning_left_out, crossed, warning_apart, warning_markers, note_summed, note_other_species)
    found: dict[Callable[..., str], list[tuple[int, str]]] = {what: [] for what in kinds}
    for one in counted_tables:
        how, table = ways[universe.how[one.table]], load_table(work.tables, one.table)
        for what, lines in found.items():
            if text := what(one, table, how, universe.maps[one.table]):
                lines.append((int(one.counts.sum()), text))
    for what, lines in found.items():
        level = logging.INFO if what in (note_summed, note_other_species) else logging.WARNING
        for _, text in sorted(lines, key=lambda line: (-line[0], line[1]))[:MOST_TABLES]:
            log.log(level, "%s", text)
        if len(lines) > MOST_TABLES:
            log.log(
                level, "so it is in %s more; %s has all", counted(len(lines) - MOST_TABLES, "gene table"), REPORT_FILE
            )


def warning_left_out(one: TableCounts, table: GeneTable, how: NDArray[np.object_], _place: NDArray[np.int32]) -> str:
    """Say which rows are left out, and what they count; empty if none is."""
    out = np.isin(how, NO_GENE)
    if not out.any():
        return ""
    kinds = {
        "a date": "dates made of gene symbols by a spreadsheet",
        "no name": "no names",
        "deprecated": "those of probes that 10x leaves out of analyses",
    }
    there = {*how[out]}
    what = " or ".join(text for kind, text in kinds.items() if kind in there)
    remedy = "" if there == {"deprecated"} else "; write the file with ids or the right symbols"
    return (
        f"{one}: {counted(int(out.sum()), 'row')} of the gene table {'is' if out.sum() == 1 else 'are'} left out "
        f"({umis(one, out)}), whose names are {what}: {named(table, out)}{remedy}"
    )


def warning_crossed(
    one: TableCounts,
    table: GeneTable,
    how: NDArray[np.object_],
    place: NDArray[np.int32],
    *,
    universe: Universe,
    reference: Reference,
) -> str:
    """Say which rows have the id of one gene and the symbol of another, and what they count; empty if none has."""
    out = how == CROSSED
    if not out.any():
        return ""
    symbols = (table.names if table.symbols is None else table.symbols)[out][:MOST_PAIRS].tolist()
    ids = universe.ids[place[out]][:MOST_PAIRS].tolist()
    pairs = [
        f"{gene_id} is called {symbol}, in genes.reference {today or 'nothing'}"
        for gene_id, symbol, today in zip(ids, symbols, reference.symbols(ids), strict=True)
    ]
    return (
        f"{one}: at least {counted(int(out.sum()), 'row')} of {len(out):,} of the gene table ({umis(one, out)}) have "
        f"the id of one gene and the symbol of another, and count as that of the id: {'; '.join(pairs)}; "
        "correct the column that is wrong, or leave it out"
    )


def warning_apart(one: TableCounts, table: GeneTable, how: NDArray[np.object_], _place: NDArray[np.int32]) -> str:
    """Say which rows may be genes that have another column, and what they count; empty if none is."""
    out = np.isin(how, APART) & (how != MARKER)
    if not out.any():
        return ""
    return (
        f"{one}: {counted(int(out.sum()), 'gene')} ({umis(one, out)}) may have another column too, because what "
        f"they are called stands for several genes or rows: {named(table, out)}; "
        "genes.mapping=FILE.csv (columns id, symbol) names ids"
    )


def warning_markers(one: TableCounts, table: GeneTable, how: NDArray[np.object_], _place: NDArray[np.int32]) -> str:
    """Say which rows are called as antibodies are, and what they count; empty if none is."""
    out = how == MARKER
    if not out.any():
        return ""
    return (
        f"{one}: {counted(int(out.sum()), 'row')} of the gene table ({umis(one, out)}) are called as antibodies are, "
        f"and count as genes of their own: {named(table, out)}; a column feature_types of var, or of features.tsv, "
        "drops those that are none; genes.mapping=FILE.csv (columns id, symbol) says which genes they are"
    )


def genes_apart(work: WorkFolder, universe: Universe, counted_tables: Iterable[TableCounts]) -> dict[str, Any]:
    """Return the genes of all tables that may have another column too: those with most counts first.

    Returns
    -------
    Their number, ``umis`` and the ``share`` of all, and the first of their ``names``; empty if there is none.
    """
    umis: Counter[int] = Counter()
    total = 0
    apart = [WAYS.index(kind) for kind in APART]
    for one in counted_tables:
        total += int(one.counts.sum())
        rows = np.flatnonzero(np.isin(universe.how[one.table], apart))
        umis.update(dict(zip(universe.maps[one.table][rows].tolist(), one.counts[rows].tolist(), strict=True)))
    if not umis:
        return {}
    ranked = sorted(umis, key=lambda gene: (-umis[gene], gene))
    names = [str(universe.keys[gene]) for gene in ranked[:MOST_NAMES]]
    n_umis = sum(umis.values())
    return {"n_genes": len(umis), "umis": n_umis, "share": n_umis / max(total, 1), "names": names}


def genes_crossed(work: WorkFolder, universe: Universe, counted_tables: Sequence[TableCounts]) -> dict[str, Any]:
    """Return the rows of all tables that have the id of one gene and the symbol of another.

    Returns
    -------
    How many there are, in how many files; their ``umis`` and the ``share`` of all; the first ``pairs`` of id and
    symbol, of the table with most counts; empty if there is none.
    """
    total = sum(int(one.counts.sum()) for one in counted_tables)
    rows = {one.table: np.flatnonzero(universe.how[one.table] == WAYS.index(CROSSED)) for one in counted_tables}
    found = [one for one in counted_tables if len(rows[one.table])]
    if not found:
        return {}
    most = max(found, key=lambda one: int(one.counts[rows[one.table]].sum()))
    table, first = load_table(work.tables, most.table), rows[most.table][:MOST_PAIRS]
    symbols = (table.names if table.symbols is None else table.symbols)[first].tolist()
    n_umis = sum(int(one.counts[rows[one.table]].sum()) for one in found)
    return {
        "n_rows": sum(len(rows[one.table]) for one in found),
        "n_files": sum(one.n_files for one in found),
        "umis": n_umis,
        "share": n_umis / max(total, 1),
        "pairs": list(zip(universe.ids[universe.maps[most.table][first]].tolist(), symbols, strict=True)),
    }


def note_summed(one: TableCounts, table: GeneTable, _how: NDArray[np.object_], place: NDArray[np.int32]) -> str:
    """Say which rows are added up because they have one id; empty if none is."""
    genes, times = np.unique(place[place >= 0], return_counts=True)
    shared = np.isin(place, genes[times > 1])
    if not shared.any():
        return ""
    return (
        f"{one}: {counted(int(shared.sum()), 'row')} of the gene table ({umis(one, shared)}) are "
        f"{counted(int((times > 1).sum()), 'gene')}, and are added up: {named(table, shared)}"
    )


def note_other_species(one: TableCounts, _table: GeneTable, how: NDArray[np.object_], _place: NDArray[np.int32]) -> str:
    """Say how many rows are genes of another species than the one that is kept; empty if none is."""
    out = how == OTHER_SPECIES
    if not out.any():
        return ""
    return f"{one}: {counted(int(out.sum()), 'gene')} of other species are left out ({umis(one, out)})"


def umis(one: TableCounts, rows: NDArray[np.bool_]) -> str:
    """Say what rows count, and which share of all that is."""
    total = int(one.counts[rows].sum())
    return f"{total:,} UMIs, {100 * total / max(int(one.counts.sum()), 1):.1f} %"


def named(table: GeneTable, rows: NDArray[np.bool_]) -> str:
    """Return the names of some rows, the first few."""
    names = (table.names if table.symbols is None else table.symbols)[rows]
    shown = [str(name) or "''" for name in dict.fromkeys(names)]
    return ", ".join(shown[:MOST_NAMES]) + (", …" if len(shown) > MOST_NAMES else "")


def read_maps(report: pq.ParquetFile, names: Mapping[str, int]) -> dict[str, NDArray[np.int32]]:
    """Return per gene table the column of each row, -1 for those without; ``names`` are the columns' places."""
    rows = report.read(["table", "position", "gene"]).to_pandas()
    found = {}
    for table, of_table in rows.groupby("table", observed=True, sort=False):
        columns = of_table.sort_values("position")["gene"].map(names).fillna(-1)
        found[str(table)] = columns.to_numpy(np.int32)
    return found
