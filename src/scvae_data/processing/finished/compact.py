"""A directory that has grown in; one of a single generation, as one run over all its inputs would make it, out.

The cells of each generation lie in the order of their keys already, so they
are merged like sorted runs: some chunks of each generation are in memory at
a time, whatever the number of cells. A chunk goes to a store as soon as it is
made; counts of those that stand are not read again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import h5py
import numpy as np
import pandas as pd
from anndata.io import read_elem
from numpy.typing import NDArray

from scvae_data.errors import ConfigError, DamagedFileError
from scvae_data.processing.finished.joined import write_records
from scvae_data.processing.finished.unfinished import Unfinished
from scvae_data.processing.run.directory import send
from scvae_data.processing.sort.key import OrderKey
from scvae_data.progress import progress
from scvae_data.store import (
    CHUNK_VERSION,
    GENE_LIST_FILE,
    SRX_COLUMN,
    STREAM_MAX_COUNT,
    CellTablesWriter,
    ChunkContent,
    ChunkEntry,
    CompactCsr,
    CsrStream,
    DatasetIndex,
    GeneSets,
    ObsColumn,
    chunk_file_name,
    write_chunk,
    write_gene_list,
    write_index,
)
from scvae_data.store.obs_writer import NAME_COLUMN
from scvae_data.store.remote_files import local_copy

__all__ = ["compact"]

# Entries of a chunk that are brought into order at a time.
PART_ENTRIES = 4_000_000


def compact(index: DatasetIndex, target: Unfinished) -> DatasetIndex:
    """Write the cells of a directory where another one is made, the index last; return the new index.

    Raises
    ------
    ConfigError
        Its cells are in no hash order.
    DamagedFileError
        A file is not what was written.
    """
    if index.order["kind"] != "hash":
        raise ConfigError(
            f"{index.path} is in {index.order['kind']} order, in which its generations cannot be merged; process all "
            "inputs anew"
        )
    sets, set_codes = sorted_sets(index.gene_sets)
    columns = {name: sorted_column(column) for name, column in index.obs_columns.items()}
    var = read_var(index)
    uns = {
        "scvae_data": {
            "format_version": CHUNK_VERSION,
            "processing_id": index.processing_id,
            "normalization": dict(index.normalization),
        }
    }
    made, entries = target.made, list[ChunkEntry]()
    accessions: Counter[str] = Counter()
    first_row = 0
    n_chunks = -(-index.n_obs // index.chunk_size)
    with CellTablesWriter(made, columns, index.processing_id) as writer:
        for cells in progress(merged(index), total=n_chunks, desc="compact", unit="chunk"):
            obs = obs_of(index, cells, set_codes)
            entry = target.standing(len(entries))
            if entry is None:
                entry = write_chunk(
                    made / chunk_file_name(len(entries)),
                    ChunkContent(counts_of(index, cells), obs, var, uns),
                    index.codec,
                    block_elements=index.block_elements,
                    first_row=first_row,
                )
                target.settle(len(entries), entry)
            entries.append(entry)
            first_row += len(obs)
            writer.append(obs)
            accessions.update(obs[SRX_COLUMN].tolist())
        generation, files = writer.close(sets)
    files[GENE_LIST_FILE] = write_gene_list(made, index.genes)
    n_bytes = sum(entry.bytes for entry in entries) + sum(facts.bytes for facts in files.values())
    write_records(index, made, entries, n_bytes, accessions)
    compacted = write_index(
        made,
        replace(
            index,
            path=made,
            chunks=tuple(entries),
            obs_columns=columns,
            files=files,
            generations=(generation,),
            upgraded_from=None,
        ),
    )
    if target.store is not None:
        send(made, target.store)
    return compacted


@dataclass(frozen=True, eq=False)
class Cells:
    """Cells of many chunks, each array in one order.

    Parameters
    ----------
    hashes
        h1 and h2, uint64, (n, 2).
    chunk_ids, rows
        Where each cell is; int64, (n,).
    """

    hashes: NDArray[np.uint64]
    chunk_ids: NDArray[np.int64]
    rows: NDArray[np.int64]

    def take(self, order: NDArray[np.int64] | slice) -> Cells:
        """Some of the cells, in an order."""
        return Cells(self.hashes[order], self.chunk_ids[order], self.rows[order])

    @classmethod
    def joined(cls, one: Cells, other: Cells) -> Cells:
        """The cells of both."""
        return cls(
            np.concatenate([one.hashes, other.hashes]),
            np.concatenate([one.chunk_ids, other.chunk_ids]),
            np.concatenate([one.rows, other.rows]),
        )

    def by_chunk(self) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Each chunk that has any of the cells, with their positions in order of its rows."""
        order = np.lexsort((self.rows, self.chunk_ids))
        found, first = np.unique(self.chunk_ids[order], return_index=True)
        yield from zip(found.tolist(), np.split(order, first[1:]), strict=True)


@dataclass
class Cursor:
    """How far a generation has been read.

    Parameters
    ----------
    chunks
        Those that are left.
    end
        Largest h1 of those that were read; all smaller ones of the generation are read as well.
    """

    chunks: list[int]
    end: int = field(default=-1)


def merged(index: DatasetIndex) -> Iterator[Cells]:
    """Yield the cells of each new chunk: ranges of h1, and within each by (h2, h1)."""
    pending = Cells(np.zeros((0, 2), np.uint64), np.zeros(0, np.int64), np.zeros(0, np.int64))
    cursors = [Cursor(list(chunks)) for chunks in index.chunks_of_generations]
    while True:
        open_ends = [cursor for cursor in cursors if cursor.chunks]
        safe = min((cursor.end for cursor in open_ends), default=None)
        n_ready = len(pending.rows) if safe is None else int(np.searchsorted(pending.hashes[:, 0], safe, side="right"))
        if safe is not None and safe < 0:
            n_ready = 0
        if n_ready >= index.chunk_size or (safe is None and n_ready):
            mine = pending.take(slice(0, min(n_ready, index.chunk_size)))
            pending = pending.take(slice(len(mine.rows), None))
            yield mine.take(np.lexsort((mine.hashes[:, 0], mine.hashes[:, 1])))
        elif safe is None:
            return
        else:
            cursor = min(open_ends, key=lambda one: one.end)
            read = cells_of(index, cursor.chunks.pop(0))
            cursor.end = int(read.hashes[:, 0].max())
            together = Cells.joined(pending, read)
            pending = together.take(np.lexsort((together.hashes[:, 1], together.hashes[:, 0])))


def cells_of(index: DatasetIndex, chunk_id: int) -> Cells:
    """Find the keys of the cells of a chunk again.

    Raises
    ------
    DamagedFileError
        They are not those that the directory was sorted by.
    """
    values = index.cells.arrays(chunk_id, [SRX_COLUMN, "source_row", NAME_COLUMN, "split_hash"])
    names = np.array(index.obs_columns[SRX_COLUMN].categories, object)
    key = OrderKey(index.order["seed"])
    hashes = key.hashes(names[values[SRX_COLUMN]], values["source_row"], values[NAME_COLUMN])
    if (hashes[:, 1] >> np.uint64(32) != values["split_hash"]).any():
        chunk = index.path / index.chunks[chunk_id].file
        raise DamagedFileError(
            f"{chunk}: its cells are not in the order that their names tell; process the inputs anew"
        )
    n_obs = len(hashes)
    return Cells(hashes, np.full(n_obs, chunk_id), np.arange(n_obs))


def obs_of(index: DatasetIndex, cells: Cells, set_codes: NDArray[np.int32]) -> pd.DataFrame:
    """Metadata of the cells in their order, with the new codes of gene sets."""
    pieces = list(cells.by_chunk())
    frame = index.cells.frame(
        [*index.obs_columns, NAME_COLUMN], ((chunk_id, cells.rows[places]) for chunk_id, places in pieces)
    )
    places = np.concatenate([where for _, where in pieces])
    frame = frame.iloc[np.argsort(places)].set_index(NAME_COLUMN).rename_axis(None)
    frame["gene_set"] = set_codes[frame["gene_set"].to_numpy()]
    return frame


def counts_of(index: DatasetIndex, cells: Cells) -> CompactCsr | CsrStream:
    """Counts of the cells in their order, part by part where their type is known ahead."""
    source = np.empty(len(cells.rows), np.int64)
    parts: list[CompactCsr] = []
    n_before = 0
    for chunk_id, places in cells.by_chunk():
        rows = cells.rows[places]
        breaks = np.flatnonzero(np.diff(rows) > 1) + 1
        spans = [(int(run[0]), int(run[-1]) + 1) for run in np.split(rows, breaks)]
        with index.reader(chunk_id) as reader:
            parts.append(reader.read_spans(spans))
        source[places] = n_before + np.arange(len(places))
        n_before += len(places)
    together = joined_rows(parts, index.n_vars)
    lengths = np.diff(together.indptr)[source]
    indptr = np.concatenate([np.zeros(1, np.int64), lengths.cumsum()])
    pieces = in_order(together, source, indptr)
    if int(together.data.max(initial=0)) <= STREAM_MAX_COUNT:
        return CsrStream(indptr, pieces, index.n_vars)
    return joined_rows(list(pieces), index.n_vars)


def in_order(rows: CompactCsr, source: NDArray[np.int64], indptr: NDArray[np.int64]) -> Iterator[CompactCsr]:
    """Yield rows number ``source``, some at a time; ``indptr`` is theirs."""
    start = 0
    while start < len(source):
        stop = int(np.searchsorted(indptr, indptr[start] + PART_ENTRIES, side="right")) - 1
        stop = min(max(stop, start + 1), len(source))
        borders = indptr[start : stop + 1] - indptr[start]
        shift = rows.indptr[source[start:stop]] - borders[:-1]
        places = np.arange(borders[-1]) + np.repeat(shift, np.diff(borders))
        yield CompactCsr(borders, rows.indices[places], rows.data[places], rows.n_vars)
        start = stop


def joined_rows(parts: list[CompactCsr], n_vars: int) -> CompactCsr:
    """Rows one below the other."""
    lengths = [np.diff(part.indptr) for part in parts]
    indptr = np.concatenate([np.zeros(1, np.int64), np.concatenate(lengths).cumsum()])
    indices, data = (np.concatenate([getattr(part, name) for part in parts]) for name in ("indices", "data"))
    return CompactCsr(indptr, indices, data, n_vars)


def sorted_sets(sets: GeneSets) -> tuple[GeneSets, NDArray[np.int32]]:
    """Distinct gene sets in the order that a run gives them, and the new code of each old one."""
    masks = [sets.masks(code).tobytes() for code in range(len(sets))]
    distinct = sorted(set(masks))
    place = {mask: code for code, mask in enumerate(distinct)}
    made = GeneSets.of([np.frombuffer(mask, bool) for mask in distinct], sets.n_vars)
    return made, np.array([place[mask] for mask in masks], np.int32)


def sorted_column(column: ObsColumn) -> ObsColumn:
    """The column with its categories in order."""
    return column if column.categories is None else replace(column, categories=tuple(sorted(column.categories)))


def read_var(index: DatasetIndex) -> pd.DataFrame:
    """The table of genes, which is the same in every chunk of a generation."""
    with h5py.File(local_copy(index.path / index.chunks[0].file, index.open_source)) as file:
        var = read_elem(file["var"])
    columns = {name: var[name].to_numpy(None if var[name].dtype == bool else object) for name in var}
    return pd.DataFrame(columns, index=pd.Index(var.index.to_numpy(object)))
