"""A dataset directory and the files it was made of in; the first row of each chunk that is not its source's, out.

The rows are read again through the readers, and their genes found by the
rules of processing. Counts are compared one by one. Of what is in a store,
copies lie in the folder for those of remote files.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

from scvae_data.errors import ConfigError
from scvae_data.processing.genes.names import ENSEMBL, unversioned
from scvae_data.processing.genes.report import read_maps
from scvae_data.processing.genes.tables import hash_table
from scvae_data.progress import progress
from scvae_data.readers.base import GeneTable, Reader
from scvae_data.readers.opening import DEFAULT_OPENING, Opening, TableRows
from scvae_data.readers.recognise import open_reader
from scvae_data.remote import objects
from scvae_data.remote.fetched import fetched
from scvae_data.remote.location import Location, location
from scvae_data.store import DatasetIndex, read_json
from scvae_data.store.files import expecting, is_there
from scvae_data.store.listed_table import listed_table
from scvae_data.store.names import generation_file
from scvae_data.store.remote_files import disk_cache
from scvae_data.store.verify import CONFIG_FILE, SUMMARY_FILE

__all__ = ["Source", "compare_rows", "coverage", "find_sources"]

MAX_NAMED = 5


@dataclass(frozen=True)
class Source:
    """An input of the directory, where it lies now.

    Parameters
    ----------
    source_file
        What obs calls it.
    slot
        The matrix its counts were taken from.
    opening
        How it is opened.
    """

    path: Location
    source_file: str
    slot: str
    opening: Opening = DEFAULT_OPENING

    @contextmanager
    def opened(self, *, keep: bool = False) -> Iterator[Reader]:
        """Open it; the copy of one in a store stays for who reads it next, if it is to ``keep``."""
        with fetched(self.path, disk_cache(), keep=keep) as here, open_reader(here, self.opening) as reader:
            yield reader


def find_sources(index: DatasetIndex, given: Sequence[Location], readers: Sequence[str] = ()) -> list[Source]:
    """Find the inputs of a directory among files, and below folders, that the user names.

    Raises
    ------
    ConfigError
        Something given is none of the inputs.
    """
    slots: dict[str, str] = {}
    recorded: dict[str, Location] = {}
    for number in range(len(index.generations)):
        config, account = (index.path / generation_file(name, number) for name in (CONFIG_FILE, SUMMARY_FILE))
        summary, record = read_json(account), read_json(config)
        with expecting(account):
            attrition = summary["attrition"]
            slots |= zip(map(check_below, attrition["source_file"]), attrition["slot"], strict=True)
        with expecting(config):
            inputs = record["inputs"]
            recorded |= zip(inputs["source_file"], map(location, inputs["path"]), strict=True)
    rows = recorded_setting(index, "input", "table_rows")
    opening = Opening(own=tuple(readers), table_rows=rows if rows in get_args(TableRows) else None)
    sources: dict[str, Source] = {}
    for path in map(location, given):
        found = {name: old for name, old in recorded.items() if old == path or path in old.parents}
        found |= {name: path / name for name in those_below(path, slots)}
        if not found and is_there(path):
            found = {name: path for name in slots if str(path).endswith(f"/{name}")}
        if not found:
            known = f"{len(slots):,} inputs of {index.path}, e.g. {next(iter(slots), None)}"
            raise ConfigError(f"--against {path}: there is none of the {known}; give them, or their folder")
        sources |= {name: Source(place, name, slots[name], opening) for name, place in found.items() if name in slots}
    return [sources[name] for name in sorted(sources)]


def those_below(folder: Location, names: Collection[str]) -> list[str]:
    """Those of the names that files or folders below a folder have."""
    if isinstance(folder, Path):
        return [name for name in names if (folder / name).exists()]
    found = [path.below(folder).split("/") for path in objects.find(folder)]
    there = {"/".join(parts[:length]) for parts in found for length in range(1, len(parts) + 1)}
    return [name for name in names if name in there]


def check_below(name: str) -> str:
    """Return the name of an input below a folder; refuse one that leads out of it."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise ValueError(f"{name!r} leads out of the folder of the inputs")
    return name


def compare_rows(index: DatasetIndex, sources: Sequence[Source]) -> Iterator[tuple[int, str]]:
    """Compare every row of the directory that is of one of the sources with its counts there.

    Yields
    ------
    Chunk and what differs, one for each chunk of each source in which anything does.
    """
    maps, rows = gene_maps(index, sources), rows_of(index, {source.source_file for source in sources})
    tolerance = float(recorded_setting(index, "input", "count_tolerance") or 0)
    for source in progress(sources, total=len(sources), desc="against"):
        if source.source_file in rows:
            yield from compare_source(index, source, rows[source.source_file], maps[source.source_file], tolerance)


def rows_of(index: DatasetIndex, names: Collection[str]) -> dict[str, NDArray[np.int64]]:
    """Global rows of the cells of some inputs, ascending; int64, for each that the directory has cells of."""
    known, parts = index.categories("source_file"), [np.zeros((2, 0), np.int64)]
    wanted = np.array([*(name in names for name in known), False])
    for chunk_id, first_row in enumerate(index.first_rows[:-1].tolist()):
        codes = index.codes("source_file", chunk_id)
        here = np.flatnonzero(wanted[codes])
        parts.append(np.stack([codes[here], here + first_row]))
    codes, rows = np.concatenate(parts, axis=1)
    order = np.argsort(codes, kind="stable")
    found, first = np.unique(codes[order], return_index=True)
    return dict(zip([known[code] for code in found.tolist()], np.split(rows[order], first[1:]), strict=False))


def coverage(index: DatasetIndex, sources: Sequence[Source]) -> str:
    """Say how many rows of the directory the sources have, and which of its inputs are not among them."""
    names, given = index.obs_columns["source_file"].categories or (), {source.source_file for source in sources}
    others = [name for name in names if name not in given]
    n_compared = sum(len(rows) for rows in rows_of(index, given).values())
    text = f"{n_compared:,} of {index.n_obs:,} rows were compared with their input"
    if not others:
        return text
    more = f" and {len(others) - MAX_NAMED:,} more" if len(others) > MAX_NAMED else ""
    return f"{text}; not given: {', '.join(others[:MAX_NAMED])}{more}"


def compare_source(
    index: DatasetIndex, source: Source, rows: NDArray[np.int64], columns: NDArray[np.int32], tolerance: float
) -> Iterator[tuple[int, str]]:
    """Compare the rows of one source, block by block of the source."""
    source_rows = source_rows_of(index, rows)
    order = np.argsort(source_rows, kind="stable")
    rows, source_rows = rows[order], source_rows[order]
    wrong: dict[int, str] = {}
    n_read = 0
    with source.opened() as reader:
        for block in reader.blocks(source.slot):
            inside = slice(*np.searchsorted(source_rows, [block.first_row, block.first_row + block.n_rows]))
            n_read += inside.stop - inside.start
            data = np.rint(block.data) if tolerance and block.data.dtype.kind == "f" else block.data
            counts = sp.csr_array((data, block.indices, block.indptr), shape=(block.n_rows, block.n_vars))
            expected = project(counts[source_rows[inside] - block.first_row], columns, index.n_vars)
            stored = read_rows(index, rows[inside])
            for position in np.flatnonzero(np.diff((expected != stored).tocsr().indptr)):
                row = int(rows[inside][position])
                chunk_id, local = (int(value) for value in index.locate(row))
                there = f"row {source_rows[inside][position]} of {source.source_file}"
                wrong.setdefault(chunk_id, f"row {local} differs from {there}")
    if n_read < len(rows):
        chunk_id = int(index.locate(rows[-1])[0])
        wrong.setdefault(chunk_id, f"has rows that {source.source_file} does not have")
    yield from sorted(wrong.items())


def source_rows_of(index: DatasetIndex, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Row in its input of each of ascending global rows; int64."""
    borders, found = np.searchsorted(rows, index.first_rows), [np.zeros(0, np.int64)]
    for chunk_id in np.flatnonzero(np.diff(borders)).tolist():
        local = rows[borders[chunk_id] : borders[chunk_id + 1]] - index.first_rows[chunk_id]
        found.append(index.cells.arrays(chunk_id, ["source_row"], local)["source_row"])
    return np.concatenate(found)


def project(counts: Any, columns: NDArray[np.int32], n_vars: int) -> Any:
    """Bring the columns of a source into the directory's; those of one gene are added, those of none left out."""
    kept = np.flatnonzero(columns >= 0)
    place = sp.csr_array((np.ones(len(kept)), (kept, columns[kept])), shape=(len(columns), n_vars))
    return (counts.astype(np.float64) @ place).tocsr()


def read_rows(index: DatasetIndex, rows: NDArray[np.int64]) -> Any:
    """Read rows of the directory in the order given, chunk by chunk; float64 CSR."""
    chunk_ids, local = index.locate(rows)
    parts, places = [sp.csr_array((0, index.n_vars))], [np.zeros(0, np.int64)]
    for chunk_id in np.unique(chunk_ids):
        here = np.flatnonzero(chunk_ids == chunk_id)
        here = here[np.argsort(local[here], kind="stable")]
        with index.reader(int(chunk_id)) as reader:
            spans = [(int(row), int(row) + 1) for row in local[here]]
            parts.append(sp.csr_array(reader.read_spans(spans).to_scipy(np.float64)))
        places.append(here)
    stacked = sp.vstack(parts).tocsr()
    return stacked[np.argsort(np.concatenate(places), kind="stable")]


def gene_maps(index: DatasetIndex, sources: Sequence[Source]) -> dict[str, NDArray[np.int32]]:
    """Column in the directory of each column of each source, -1 for those it does not have; int32, (n_vars,)."""
    tables: dict[str, GeneTable] = {}
    table_of: dict[str, str] = {}
    for source in sources:
        with source.opened(keep=True) as reader:
            table = reader.genes(source.slot)
        key = table_of[source.source_file] = hash_table(table)
        tables.setdefault(key, table)
    numbers = range(len(index.generations))
    summaries = [read_json(index.path / generation_file(SUMMARY_FILE, number)) for number in numbers]
    if reports := [summary["gene_report"] for summary in summaries if summary.get("gene_report")]:
        place = {str(name): column for column, name in enumerate(index.genes.names)}
        columns: dict[str, NDArray[np.int32]] = {}
        for entry in reports:
            with listed_table(index.path, entry) as report:
                columns |= read_maps(report, place)
        unknown = [name for name, key in table_of.items() if key not in columns]
        if unknown:
            raise ConfigError(
                f"--against {unknown[0]}: its genes are not those that {reports[0]['file']} lists; give the "
                "file that the directory was made of"
            )
    else:
        columns = maps_without_report(index, tables)
    return {name: columns[key] for name, key in table_of.items()}


def maps_without_report(index: DatasetIndex, tables: Mapping[str, GeneTable]) -> dict[str, NDArray[np.int32]]:
    """Find genes as runs did that left no report: by id, else by the one id that a symbol had."""
    pairs, genes = symbol_pairs(index, tables.values()), index.genes
    column_of: dict[str, int] = {}
    for column, (name, key, symbol) in enumerate(zip(genes.names, genes.ids, genes.symbols, strict=True)):
        # A gene with an id is that id; another one may be called by the same symbol.
        for candidate in (unversioned(key),) if key else (name, symbol):
            if candidate:
                column_of.setdefault(str(candidate), column)
    return {
        name: np.array([column_of.get(key, -1) for key in table_keys(table, pairs)], np.int32)
        for name, table in tables.items()
    }


def table_keys(table: GeneTable, pairs: Mapping[str, str]) -> list[str]:
    """Return the key of each column: its id, the id of its symbol, its symbol, or its name."""
    symbols = table.symbols if table.symbols is not None else table.names
    ids = [""] * len(symbols) if table.ids is None else [unversioned(gene_id) for gene_id in table.ids]
    keys = []
    for gene_id, symbol, name in zip(ids, symbols, table.names, strict=True):
        own = gene_id or (unversioned(symbol) if ENSEMBL.match(symbol) else "")
        keys.append(own or pairs.get(symbol, "") or symbol or name)
    return keys


def symbol_to_id(tables: Iterable[GeneTable], known: Mapping[str, str]) -> dict[str, str]:
    """Return the symbols that stand for exactly one id in all tables that carry both; ``known`` goes first."""
    found: dict[str, str] = {}
    ambiguous: set[str] = set()
    for table in tables:
        if table.ids is None or table.symbols is None:
            continue
        for gene_id, symbol in zip(table.ids, table.symbols, strict=True):
            if gene_id and symbol:
                key = unversioned(gene_id)
                if found.setdefault(symbol, key) != key:
                    ambiguous.add(symbol)
    return {symbol: key for symbol, key in found.items() if symbol not in ambiguous} | dict(known)


def symbol_pairs(index: DatasetIndex, tables: Iterable[GeneTable]) -> dict[str, str]:
    """Symbols that stood for one id in the run, which saw the tables of all inputs.

    A gene has one symbol in the directory whatever its files call it, so a
    symbol may look like that of one gene and be that of two: the run then made
    a gene without id of it.
    """
    genes, summary = index.genes, read_json(index.path / SUMMARY_FILE)
    with expecting(index.path / SUMMARY_FILE):
        dropped = list(zip(summary["dropped_genes"]["symbol"], summary["dropped_genes"]["gene"], strict=True))
        synonyms = dict(summary.get("gene_synonyms", {}))
    kept = list(zip(genes.symbols, genes.ids, strict=True))
    without_id = {symbol for symbol, key in kept if not key} | {symbol for symbol, key in dropped if symbol == key}
    listed = [(str(s), unversioned(str(key))) for s, key in (*kept, *dropped) if s and key and s != key]
    named = pd.DataFrame(listed, columns=["symbol", "id"]).drop_duplicates()
    unique: dict[str, str] = dict(named.drop_duplicates("symbol", keep=False).itertuples(index=False))
    pairs = symbol_to_id(tables, unique | synonyms)
    return {symbol: key for symbol, key in pairs.items() if symbol not in without_id}


def recorded_setting(index: DatasetIndex, group: str, name: str) -> Any:
    """Return a number or text of the settings that the directory was made with; None if it was not set."""
    record = read_json(index.path / CONFIG_FILE)
    with expecting(index.path / CONFIG_FILE):
        value = record["config"].get(group, {}).get(name)
        if not isinstance(value, str | int | float | None):
            raise TypeError(f"{group}.{name} is a {type(value).__name__}")
        return value
