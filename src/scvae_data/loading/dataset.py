"""A dataset directory as one long array of cells: single cells, metadata, and AnnData of any rows.

>>> cells = ChunkedDataset("outputs/chunked_processed")          # doctest: +SKIP
>>> len(cells), cells[0]["x"].shape, cells.locate(12_345)        # doctest: +SKIP
>>> adata = cells.to_anndata(range(1000))                        # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scvae_data.calling import program
from scvae_data.errors import SelectionError
from scvae_data.loading.batch.fill import fill_rows
from scvae_data.loading.fetch.cache import CacheCounters, RowGroupCache
from scvae_data.loading.fetch.damage import check_totals
from scvae_data.loading.fetch.window import DecodedRowGroup
from scvae_data.loading.select.rows import ChunkRows, as_names, to_spans
from scvae_data.loading.select.values import FactsReader
from scvae_data.remote.location import Location
from scvae_data.store import SRX_COLUMN, CellIndex, CompactCsr, open_index
from scvae_data.wording import counted

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

__all__ = ["ChunkedDataset", "check_normalized", "check_served"]


class ChunkedDataset:
    """Random access to the cells of a dataset directory.

    Asking for a cell decodes its chunk and keeps it, so neighbours are cheap
    and cells scattered over many chunks are dear: for training use
    :class:`~scvae_data.ChunkedDataModule`, whose order suits the cache.

    Parameters
    ----------
    data_path
        The directory that ``process.py`` wrote.
    chunk_cache_size
        Decoded chunks kept in memory.
    normalized
        ``x`` is log1p(count / size_factor); false: counts.
    obs_keys
        obs columns delivered with a cell: categorical ones as codes, numbers as they are.
    cache_bytes
        Bound on the bytes of decoded chunks kept; None for none.
    """

    def __init__(
        self,
        data_path: str | Location,
        *,
        chunk_cache_size: int = 4,
        normalized: bool = True,
        obs_keys: str | Sequence[str] = (SRX_COLUMN,),
        cache_bytes: int | None = None,
    ) -> None:
        self.index: CellIndex = open_index(data_path)
        check_normalized(self.index, normalized)
        self.normalized = normalized
        self._obs_keys = (as_names("obs_keys", obs_keys) or ()) if obs_keys else ()
        check_served(self.index, self._obs_keys)
        self._facts = FactsReader(self.index, self._obs_keys)
        self._bounds = (chunk_cache_size, cache_bytes)
        self._cache: RowGroupCache[DecodedRowGroup] = RowGroupCache(*self._bounds)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_cache"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._cache = RowGroupCache(*self._bounds)

    def __repr__(self) -> str:
        size = f"{counted(self.index.n_obs, 'cell')} × {counted(self.index.n_vars, 'gene')}"
        return f"<{type(self).__name__} of {self.index.where}: {size}>"

    def __len__(self) -> int:
        """Number of cells."""
        return self.index.n_obs

    def __getitem__(self, row: int) -> dict[str, Any]:
        """One cell: the entries of a training batch without their first axis, as NumPy values.

        ``x`` float32 (n_vars,), ``library_size`` and ``size_factor`` float32,
        ``obs`` a dict of int64 codes and float32 numbers, ``index`` and ``gene_set`` int64.

        Raises
        ------
        IndexError
            Unless ``-len(self) <= row < len(self)``.
        """
        position = self._positive(row)
        x = np.empty((1, self.index.n_vars), np.float32)
        library_size = np.empty(1, np.float32)
        chunk_id, local = self.locate(position)
        group, slots = self._chunk(chunk_id), np.array([local])
        assert group.facts is not None
        facts = group.facts.take(slots)
        factors = facts.size_factor if self.normalized else None
        fill_rows([(0, part) for part in group.parts], slots, factors, x, library_size)
        served = facts.served()
        obs = {column: values[0] for column, values in served.pop("obs").items()}
        one = {key: values[0] for key, values in served.items()}
        return {"x": x[0], "library_size": library_size[0], "obs": obs, "index": np.int64(position), **one}

    def locate(self, row: int) -> tuple[int, int]:
        """Chunk of a cell, and its row within that chunk; negative rows count from the end."""
        chunk_id, local = self.index.locate(self._positive(row))
        return int(chunk_id), int(local)

    def obs(self, columns: Sequence[str] | None = None, rows: ArrayLike | None = None) -> pd.DataFrame:
        """Metadata of cells, indexed by their names; only the columns and chunks asked for are read.

        Parameters
        ----------
        columns
            Names; None for all.
        rows
            Global rows in any order; None for all.
        """
        return self.index.obs(columns, rows)

    def to_anndata(
        self, rows: ArrayLike | None = None, *, srx: str | Sequence[str] | None = None, n: int | None = None
    ) -> AnnData:
        """Copy cells into memory as AnnData, in the order given.

        ``X`` holds counts as float32 CSR, which every scanpy function takes;
        ``sc.pp.normalize_total(adata, target_sum=…)`` with the target in
        ``uns["scvae_data"]`` and ``sc.pp.log1p`` give the ``x`` of a training
        batch. Only the parts of the chunks that hold the rows are read, and
        nothing is added to the cache.

        Parameters
        ----------
        rows
            Global rows; None for all cells. Repeated rows have repeated names, of which anndata warns.
        srx
            Instead of ``rows``: an accession, or several, whose cells are wanted.
        n
            The first so many of these cells, or all if there are fewer. In a
            directory in hash order they are a random sample that lies in few chunks.

        Raises
        ------
        SelectionError
            If an accession is unknown, ``n`` is negative, or both ``rows`` and ``srx`` are given.
        """
        import pandas as pd
        from anndata import AnnData

        wanted = self._wanted(rows, srx, n)
        obs = self.obs(rows=wanted)
        for column in obs.select_dtypes("category"):
            obs[column] = obs[column].cat.remove_unused_categories()
        genes = self.index.genes
        var = pd.DataFrame({"gene_id": genes.ids, "gene_symbol": genes.symbols}, index=pd.Index(genes.names, dtype=str))
        uns = {"scvae_data": {"processing_id": self.index.processing_id, **dict(self.index.normalization)}}
        return AnnData(X=self._counts(wanted), obs=obs, var=var.dropna(axis="columns", how="all"), uns=uns)

    def _wanted(self, rows: ArrayLike | None, srx: str | Sequence[str] | None, n: int | None) -> NDArray[np.int64]:
        """Global rows of a selection."""
        if rows is not None and srx is not None:
            raise SelectionError("rows and srx both say which cells; give one of them")
        if n is not None and n < 0:
            raise SelectionError(f"n={n} must be 0 or more cells")
        names = as_names("srx", srx)
        if names is not None:
            return self.index.rows(names)[:n]
        return (np.arange(len(self)) if rows is None else np.atleast_1d(np.asarray(rows, dtype=np.int64)))[:n]

    def blocks(self) -> Iterator[tuple[int, CompactCsr]]:
        """Every chunk in order: global row of its first cell, and its counts; kept in the cache as they pass."""
        for chunk_id, chunk in enumerate(self.index.chunks):
            yield chunk.first_row, self._chunk(chunk_id).parts[0]

    def counters(self) -> CacheCounters:
        """Hits, misses and evictions of the chunk cache so far, and what it holds."""
        return self._cache.counters()

    def _positive(self, row: int) -> int:
        position = int(row)
        if not -len(self) <= position < len(self):
            raise IndexError(f"row {row} is not within the {len(self)} cells of {self.index.where}")
        return position + len(self) if position < 0 else position

    def _chunk(self, chunk_id: int) -> DecodedRowGroup:
        def read() -> DecodedRowGroup:
            with self.index.reader(chunk_id) as reader:
                counts = reader.read_rows(0, reader.entry.n_obs)
            facts = self._facts.of(ChunkRows(chunk_id, int(self.index.first_rows[chunk_id]), 0, counts.n_obs, None))
            return DecodedRowGroup((self._checked(counts, chunk_id, np.arange(counts.n_obs)),), facts)

        group = self._cache.acquire(chunk_id, read)
        self._cache.release(chunk_id, group)
        return group

    def _checked(self, counts: CompactCsr, chunk_id: int, local: NDArray[np.int64]) -> CompactCsr:
        """Counts of rows of a chunk, if obs.parquet knows of their sums."""
        size_factor = self.index.cells.array(chunk_id, "size_factor")[local]
        totals = counts.totals().astype(np.float32)
        check_totals(self.index, self.index.first_rows[chunk_id] + local, totals, size_factor)
        return counts

    def _counts(self, rows: NDArray[np.int64]) -> Any:
        """Counts of ``rows`` as a float32 scipy CSR matrix, reading each needed row once."""
        import scipy.sparse as sp

        ascending, place = np.unique(rows, return_inverse=True)
        chunk_ids, local = self.index.locate(ascending)
        parts = [sp.csr_matrix((0, self.index.n_vars), dtype=np.float32)]
        for chunk_id in np.unique(chunk_ids).tolist():
            mine = local[chunk_ids == chunk_id]
            with self.index.reader(chunk_id) as reader:
                counts = reader.read_spans(to_spans(mine))
            parts.append(self._checked(counts, chunk_id, mine).to_scipy(np.float32))
        stacked = sp.vstack(parts, format="csr")
        return stacked if np.array_equal(ascending, rows) else stacked[place]


def check_normalized(index: CellIndex, normalized: bool) -> None:
    """Raise unless the directory can serve what ``normalized`` asks for."""
    if normalized and index.normalization["method"] == "none":
        raise SelectionError(
            f"{index.where} was processed with normalization=none, so it cannot serve normalized=true; "
            f"set normalized=false for counts, or run {program('process')} with normalization=log1p"
        )


def check_served(index: CellIndex, columns: Sequence[str]) -> None:
    """Raise SelectionError unless each column exists, and is categorical or holds numbers."""
    for name in columns:
        known = index.obs_columns.get(name)
        if known is None:
            index.categories(name)
        elif known.dtype == "string":
            possible = [
                name for name, other in index.obs_columns.items() if other.dtype not in ("categorical", "string")
            ]
            raise SelectionError(f"obs column {name!r} is string, not numbers; numbers are {', '.join(possible)}")
