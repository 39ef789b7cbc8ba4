"""A dataset directory and settings in, loaders for training, validation, test and prediction out."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning import LightningDataModule
from numpy.typing import ArrayLike, NDArray
from torch import distributed

from scvae_data.errors import ConfigError
from scvae_data.filter import Filter, check_filter
from scvae_data.loading.batch.assemble import Form
from scvae_data.loading.batch.sparse import make_dense
from scvae_data.loading.dataset import check_normalized, check_served
from scvae_data.loading.fetch.damage import check_sizes
from scvae_data.loading.loader import BatchLoader, check_not_grown, check_order, shift_progress
from scvae_data.loading.memory import DEFAULT_CHUNKS, MemoryNeed, need_of
from scvae_data.loading.plan.epoch import Plan
from scvae_data.loading.plan.mixing import Mixing, mix, tell_of_mixing
from scvae_data.loading.plan.sampler import MakeSampler, Sampler, TrainingCells, as_make_sampler, make_sampler, name_of
from scvae_data.loading.plan.sampling import DEFAULT_SAMPLING, parse_sampling, weighted
from scvae_data.loading.select.accessions import digest_of, listed_accessions
from scvae_data.loading.select.covariates import check_covariates, covariate_facts
from scvae_data.loading.select.genes import GeneColumns, as_genes, find_genes
from scvae_data.loading.select.parts import (
    LoaderPart,
    RowGroups,
    check_parts,
    group_counts,
    leakage,
    parts_of,
    select_parts,
)
from scvae_data.loading.select.rows import RowGroup, as_names, sampled
from scvae_data.loading.select.sizes import decoded_bytes
from scvae_data.loading.select.split import parse_split
from scvae_data.loading.settings import OnBadChunk, StartMethod, XFormat, check_settings
from scvae_data.loading.stream import StreamSpec, batches_together
from scvae_data.remote.location import Location, as_written, is_remote
from scvae_data.store import SRX_COLUMN, CellIndex, open_dataset
from scvae_data.store.remote_files import DEFAULT_DISK_GB, disk_cache
from scvae_data.wording import counted

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ChunkedDataModule"]

DEFAULT_SPLIT: Mapping[str, Any] = MappingProxyType({"val": 0.1, "test": 0.0, "by": None, "column": None})

log = logging.getLogger(__name__)


class ChunkedDataModule(LightningDataModule):
    """Serves a dataset directory to a model, chunk by chunk.

    The constructor stores and checks its arguments; nothing is opened before
    :meth:`setup`. A batch is a dict: ``x`` float32 (n, n_vars), dense once it
    is on the device (see ``x_format``); ``counts`` likewise on request;
    ``library_size`` float32 (n,), the sum of counts over all genes of the
    directory; ``size_factor`` float32 (n,); ``obs``, by column: int64 (n,)
    category codes, ``len(categories[column])`` where unknown, or float32 (n,)
    numbers, NaN where missing; ``index`` int64 (n,), global rows; ``gene_set``
    int64 (n,).

    Memory for decoded chunks (see ``memory_gb``): the larger of ``chunk_cache_size`` and
    ``2 * max_chunks_in_memory`` chunks for training (the window in use and the
    next are always held), and a fraction of that for validation.

    Parameters
    ----------
    data_path
        The directory that ``process.py`` wrote, here or in a remote store (``s3://…``), or a list of them,
        which are read as one; see :class:`~scvae_data.store.joined_index.JoinedIndex`.
    batch_size
        Cells per batch and device. Batches of an epoch differ by at most one cell.
    chunk_cache_size
        Decoded chunks kept in memory. None: 4, or as many as ``memory_gb`` has room for.
    max_chunks_in_memory
        Chunks whose cells are mixed. None: 1 where cells were stored in hash
        order, else 2, but at least 64 MB.
    include_srx_accessions, exclude_srx_accessions
        An accession or a sequence of them; None for no filter. ``@FILE`` stands for those that a file lists: a
        parquet file such as ``experiment_scores.parquet``, of which flagged rows count, or text, one a line.
    batch_key
        Categorical obs column the model corrects for; delivered in ``obs``.
    categorical_covariates, continuous_covariates
        obs columns of categories and of numbers that the model is given beside ``batch_key``; delivered in ``obs``.
    label_keys
        Further obs columns to deliver: categorical ones as codes, numbers and booleans as float32.
    split
        Fractions ``val`` and ``test`` of cells, chosen by a hash of each cell;
        with ``by``, an obs column, of whole groups of cells; or ``column`` with
        the values that ``val`` and ``test`` get, or the share of the cells of
        other values. None to train on all.
    train_fraction
        Share of the training cells that are trained on, those with the lowest
        hashes: a smaller share is part of any larger one, and held-out cells stay.
    matched_epochs
        Whether an epoch goes through a ``train_fraction`` so many times that it has about as many
        steps as one of all training cells: so that models of different shares are trained alike.
    normalized
        ``x`` is log1p(count / size_factor), the same as scanpy's
        ``normalize_total`` and ``log1p``; false: counts.
    counts
        Deliver ``counts`` beside ``x`` (the very same tensor if ``normalized`` is false).
    num_workers
        Processes that make batches; 0 for threads of this process, which is
        usually fastest. A chunk is decoded by one of them; the cache is divided.
    num_threads
        Threads that decode ahead, in each process that makes batches.
    seed
        Decides the order of training cells, together with the epoch.
    x_format
        How ``x`` and ``counts`` leave the loader: ``"dense"``; ``"csr"``,
        :class:`~scvae_data.loading.batch.sparse.SparseRows` of int32 columns and
        float32 values; ``"compact"``, the same with counts and columns as
        stored, mostly uint16: the fewest bytes to copy to a device. A trainer
        gets dense tensors in each case, made on its device; but on a CPU a model
        with ``takes_sparse_rows``, as ``VAE`` has, gets the rows of ``"csr"`` as they are.
    genes
        Names or column numbers of the genes that ``x`` and ``counts`` have, in
        this order; None for all. ``library_size`` stays the sum over all genes.
    filter
        Cells to keep beside the accessions: a mapping of obs columns to values,
        or a text such as ``cell_type == "T cell" and total_counts > 1000``.
    cache_bytes
        Bound on the bytes of decoded chunks kept; None for none.
    range_rows
        Training cells that are read together. None: the cells of a chunk where
        they were stored in hash order, else as many as still give batches 99 %
        of the diversity of a random order (by ``batch_key`` and ``label_keys``).
    generations
        The first so many generations of a directory that has grown, to go on with
        a run that began before it did; of several directories a number for each. None for all cells.
    sampling
        How often training cells of each value of an obs column are drawn:
        ``{column: cell_type, alpha: 0.5}`` or ``{column: cell_type, weights:
        {B cell: 1, T cell: 2}}``, with ``replacement`` and ``n_obs``; see
        :class:`~scvae_data.loading.plan.sampling.Sampling`. None, or no column, for each cell once an epoch.
    multiprocessing_context
        How workers are started; None for torch's default.
    sampler
        What makes the order of training cells, or its import path: a class or function that is called with
        :class:`~scvae_data.loading.plan.sampler.TrainingCells` and gives a
        :class:`~scvae_data.loading.plan.sampler.Sampler`. None: shuffled, every cell once an epoch or as
        ``sampling`` says. Not beside ``sampling``, ``max_chunks_in_memory`` and ``range_rows``, which it decides.
    on_bad_chunk
        What is done in training, validation and test with a chunk that is missing or damaged: ``"raise"``
        :class:`~scvae_data.errors.DamagedFileError`, or ``"skip"``: batches go on without its cells,
        with a warning, and :meth:`counters` count them. Prediction always raises.
    memory_gb
        What all processes on this machine, ranks and their workers, may take
        for loading together, in GB (10**9 bytes): libraries, decoded chunks and
        batches, but not the model. More than that is refused by :meth:`setup`.
        None for no limit.
    cache_dir, cache_disk_gb
        Of a directory in a remote store: the folder of this machine for copies of its files, None for that
        of the user, and the bound on their size. Processes and runs share it; a file is copied before the
        plan needs it, and given up for others when it is needed last.
    """

    def __init__(
        self,
        data_path: str | Location | Sequence[str | Location],
        batch_size: int = 256,
        chunk_cache_size: int | None = None,
        max_chunks_in_memory: int | None = None,
        include_srx_accessions: str | Sequence[str] | None = None,
        exclude_srx_accessions: str | Sequence[str] | None = None,
        batch_key: str | None = SRX_COLUMN,
        label_keys: str | Sequence[str] = (),
        split: Mapping[str, Any] | None = DEFAULT_SPLIT,
        normalized: bool = True,
        counts: bool = False,
        num_workers: int = 0,
        num_threads: int = 2,
        seed: int = 0,
        cache_bytes: int | None = None,
        multiprocessing_context: StartMethod | None = None,
        x_format: XFormat = "dense",
        genes: Sequence[str] | Sequence[int] | None = None,
        filter: Filter | None = None,
        range_rows: int | None = None,
        generations: int | Sequence[int] | None = None,
        sampling: Mapping[str, Any] | None = DEFAULT_SAMPLING,
        memory_gb: float | None = None,
        on_bad_chunk: OnBadChunk = "raise",
        sampler: str | MakeSampler | None = None,
        cache_dir: str | None = None,
        cache_disk_gb: float = DEFAULT_DISK_GB,
        train_fraction: float = 1.0,
        matched_epochs: bool = False,
        categorical_covariates: str | Sequence[str] = (),
        continuous_covariates: str | Sequence[str] = (),
    ) -> None:
        super().__init__()
        check_settings(locals())
        self.data_path = _as_written(data_path)
        self.batch_size = batch_size
        self.chunk_cache_size = chunk_cache_size
        self.max_chunks_in_memory = max_chunks_in_memory
        self.include_srx_accessions = as_names("include_srx_accessions", include_srx_accessions)
        self.exclude_srx_accessions = as_names("exclude_srx_accessions", exclude_srx_accessions)
        self.batch_key = batch_key
        self.categorical_covariates = _names("categorical_covariates", categorical_covariates)
        self.continuous_covariates = _names("continuous_covariates", continuous_covariates)
        corrected = (*(() if batch_key is None else (batch_key,)), *self.categorical_covariates)
        labels = _names("label_keys", label_keys)
        self.obs_keys = tuple(dict.fromkeys((*corrected, *self.continuous_covariates, *labels)))
        self.split = parse_split(split)
        self.normalized = bool(normalized)
        self.counts = bool(counts)
        self.num_workers = num_workers
        self.num_threads = num_threads
        self.seed = seed
        self.cache_bytes = cache_bytes
        self.multiprocessing_context = multiprocessing_context
        self.x_format = x_format
        self.genes = as_genes(genes)
        self.filter = check_filter(filter)
        self.range_rows = range_rows
        self.generations = generations
        self.sampling = parse_sampling(sampling)
        self.memory_gb = memory_gb
        self.on_bad_chunk = on_bad_chunk
        self.sampler = as_make_sampler(sampler)
        self.disk_cache = disk_cache(cache_dir, cache_disk_gb)
        self.train_fraction = train_fraction
        self.matched_epochs = matched_epochs
        self._start_closed()

    def _start_closed(self) -> None:
        # What setup finds, and what loaders leave.
        self._columns: GeneColumns | None = None
        self._index: CellIndex | None = None
        self._row_groups: RowGroups = {}
        self._mixing: Mixing | None = None
        self._samplers: dict[tuple[int, int], Sampler] = {}
        self._chunks = DEFAULT_CHUNKS
        self._digests: dict[str, str | None] = {}
        self._loaders: dict[LoaderPart, tuple[tuple[int, ...], BatchLoader]] = {}
        self._state_to_load: dict[str, Any] | None = None

    @property
    def index(self) -> CellIndex:
        """The directory's index; there after :meth:`setup`."""
        if self._index is None:
            raise ConfigError("the data module has opened nothing yet; call setup() first")
        return self._index

    @property
    def n_vars(self) -> int:
        """Number of genes in ``x``."""
        return self.index.n_vars if self._columns is None else self._columns.chosen.size

    @property
    def n_obs(self) -> int:
        """Number of selected cells, over all parts of the split."""
        return self.n_cells("predict")

    @property
    def var_names(self) -> list[str]:
        """Names of the genes in ``x``, in the order of the columns."""
        names = self.index.genes.names
        return [str(name) for name in (names if self._columns is None else names[self._columns.chosen])]

    @property
    def categories(self) -> dict[str, list[str]]:
        """Categories of every delivered obs column that has some: code i is ``categories[column][i]``."""
        known = ((column, self.index.obs_columns[column].categories) for column in self.obs_keys)
        return {column: list(names) for column, names in known if names is not None}

    def n_cells(self, part: LoaderPart) -> int:
        """Cells of one part; ``predict`` is all that are selected."""
        return sum(group.n_rows for group in self._row_groups.get(part, ()))

    def group_counts(self, column: str, part: LoaderPart) -> NDArray[np.int64]:
        """Cells of a part by category of an obs column, and last those of none; (n_categories + 1,)."""
        return group_counts(self.index, column, self._row_groups.get(part, ()))

    def gene_mask(self, codes: ArrayLike) -> NDArray[np.bool_]:
        """Which genes were measured, by gene-set code: shape (len(codes), n_vars)."""
        masks = self.index.gene_sets.masks(codes)
        return masks if self._columns is None else masks[:, self._columns.chosen]

    def setup(self, stage: str | None = None) -> None:
        """Open the directory and find the cells of every part; a second call does nothing.

        Raises
        ------
        MissingIndexError, FormatVersionError, DamagedFileError
            If there is no directory that can be read.
        SelectionError
            If an accession or column is unknown, or a part is empty or smaller than a batch.
        ConfigError
            If ``memory_gb`` does not suffice.
        """
        if self._index is not None:
            return
        index = open_dataset(self.data_path, self.disk_cache, self.generations)
        index.tell()
        if any(is_remote(path) for path in index.paths):
            self.disk_cache.tell_room(sum(chunk.bytes for chunk in index.chunks))
        self._check_served(index)
        columns = None if self.genes is None else find_genes(index, self.genes)
        row_groups = select_parts(index, *self._accessions(), self.split, self.filter, self.train_fraction)
        drawn = None
        if self.sampling is not None:
            row_groups, rates = weighted(index, row_groups, self.sampling, self.batch_size)
            drawn = self.sampling.column, rates
        times = self._passes(row_groups)
        check_parts(row_groups, self.split, self.batch_size, times)
        if self.on_bad_chunk == "raise":
            check_sizes(index, [group.chunk_id for group in row_groups["predict"]])
        if self.sampler is None:
            self._mixing = mix(
                index,
                row_groups["train"],
                [key for key in self.obs_keys if index.obs_columns[key].categories is not None] or [SRX_COLUMN],
                batch_size=self.batch_size,
                seed=self.seed,
                window=self.max_chunks_in_memory,
                range_rows=self.range_rows,
                drawn=drawn,
            ).repeated(times)
        self._index, self._row_groups, self._columns = index, row_groups, columns
        try:
            self._share_memory()
        except ConfigError:
            self._index = None
            raise
        if self._mixing is not None:
            tell_of_mixing(self._mixing, index.order["kind"], self.chunk_cache_size)

    def _check_served(self, index: CellIndex) -> None:
        """Refuse what a directory cannot serve."""
        check_normalized(index, self.normalized)
        batch = () if self.batch_key is None else (self.batch_key,)
        check_covariates(index, (*batch, *self.categorical_covariates), self.continuous_covariates)
        check_served(index, self.obs_keys)

    def covariate_facts(self) -> dict[str, Any]:
        """Categories, or mean and standard deviation, of the covariates over the training cells, as plain values.

        Raises
        ------
        SelectionError
            For numbers that are infinite, or the same in all cells.
        """
        kinds = self.categorical_covariates, self.continuous_covariates
        return covariate_facts(self.index, self._row_groups["train"], *kinds)

    def leakage(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """How far validation and test share groups with training, by categorical obs column; all of them if None."""
        return leakage(self.index, self._row_groups, columns)

    def parts_of(self, rows: NDArray[np.int64]) -> NDArray[np.int8]:
        """Part of ascending global rows: 0 for training, 1 for validation, 2 for test, -1 for none of them."""
        return parts_of(self.index, self._row_groups, rows)

    def train_dataloader(self) -> BatchLoader:
        """Shuffled batches of training cells; every iteration is a new epoch in a new order."""
        loader = self._loader("train")
        if self._state_to_load:
            state, self._state_to_load = self._state_to_load, None
            check_not_grown(self.index, str(state.get("content_hash")))
            check_order(state, self._order_facts())
            loader.load_state_dict(state)
            if self.trainer is not None and loader.next_batch != state["next_batch"]:
                # Of another number of ranks, whose batches the trainer has counted.
                shift_progress(self.trainer, loader.next_batch - state["next_batch"])
        return loader

    def val_dataloader(self) -> BatchLoader | list[Any]:
        """Validation cells in a fixed order; an empty list without a validation part."""
        return self._loader("val") if self.n_cells("val") else []

    def test_dataloader(self) -> BatchLoader | list[Any]:
        """Test cells in a fixed order; an empty list without a test part."""
        return self._loader("test") if self.n_cells("test") else []

    def predict_dataloader(self) -> BatchLoader:
        """Every selected cell, in the order of global rows."""
        return self._loader("predict")

    def sample_dataloader(self, n: int, seed: int) -> BatchLoader:
        """At most ``n`` selected cells, chosen by ``seed``, in the order of global rows."""
        groups = sampled(self._row_groups["predict"], n, np.random.default_rng(seed))
        rows = tuple(group.n_rows for group in groups)
        world_size, rank = self._ranks()
        order = Plan(rows, self.batch_size, self.seed, shuffle=False, world_size=world_size, rank=rank)
        return BatchLoader(
            replace(self._spec("predict"), row_groups=groups, sampler=order),
            self.num_workers,
            self.multiprocessing_context,
        )

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Make sparse rows dense where the batch is now, unless the model takes them; called by the trainer."""
        model = None if self.trainer is None else self.trainer.lightning_module
        keep = bool(getattr(model, "takes_sparse_rows", False))
        return make_dense(batch, self.normalized, keep) if isinstance(batch, dict) else batch

    def counters(self) -> dict[str, dict[str, float]]:
        """What loading did so far, by part; cheap enough for every step.

        ``hits`` and ``misses`` of the chunk cache with ``hit_rate`` and what
        the plan predicts, ``evictions``, ``bytes_read`` from disk,
        ``wait_seconds`` that the consumer waited for batches, ``batches``,
        ``cells``, ``cached_blocks`` and ``cached_bytes``, ``bad_chunks`` and
        ``skipped_cells`` (see ``on_bad_chunk``).
        """
        counters: dict[str, dict[str, float]] = {}
        for part, (_, loader) in self._loaders.items():
            now = loader.counters()
            requests = max(1, now.hits + now.misses)
            values: dict[str, float] = {**vars(now), "wait_seconds": loader.wait_seconds}
            values["hit_rate"] = now.hits / requests
            values["predicted_hit_rate"] = values.pop("predicted_hits") / requests
            counters[part] = values
        return counters

    def facts(self) -> dict[str, Any]:
        """Plain values worth logging: what is loaded, and how."""
        index = self.index
        sampler = self._sampler("train")
        n_groups = len(self._groups("train"))
        capacity = max(1, self._chunks // max(1, self.num_workers))
        decoded = decoded_bytes(index, self._row_groups["train"])
        return {
            **index.facts(),
            "processing_id": index.processing_id,
            "gene_list_hash": index.gene_list_hash,
            "format_version": index.format_version,
            "simulated": index.simulated,
            "n_obs_directory": index.n_obs,
            "n_experiments": len(index.obs_columns[SRX_COLUMN].categories or ()),
            "n_obs": self.n_obs,
            "n_vars": index.n_vars,
            "n_train": self.n_cells("train"),
            "cells_per_epoch": sampler.n_rows,
            "n_val": self.n_cells("val"),
            "n_test": self.n_cells("test"),
            "n_chunks": len(index.chunks),
            "n_train_blocks": n_groups,
            "batches_per_epoch": sampler.n_batches,
            "decoded_bytes_train": decoded,
            "predicted_hit_rate_per_epoch": sampler.expected_hit_rate(capacity) if isinstance(sampler, Plan) else None,
            "holds_everything": capacity >= n_groups and decoded <= (self.cache_bytes or decoded),
            "normalization": dict(index.normalization),
        }

    def state_dict(self) -> dict[str, Any]:
        """Position in training after the last batch handed out; empty before training."""
        if "train" not in self._loaders:
            return {}
        return {**self._loaders["train"][1].state_dict(), **self._order_facts()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue training at a position; checked when training cells are next asked for."""
        self._state_to_load = dict(state_dict)

    def teardown(self, stage: str | None = None) -> None:
        """End worker processes and free decoded chunks; counters and position stay."""
        for _, loader in self._loaders.values():
            loader.close()

    def memory_need(self) -> MemoryNeed:
        """What loading takes, for any number of chunks; after :meth:`setup`."""
        return need_of(
            self._spec("train"),
            self._row_groups["val"],
            n_workers=self.num_workers,
            start_method=self.multiprocessing_context,
            n_ranks=self._ranks_here(),
        )

    def _accessions(self) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None]:
        """Accessions to include and to exclude, those in files among them."""
        given = {"include": self.include_srx_accessions, "exclude": self.exclude_srx_accessions}
        listed = {way: listed_accessions(f"{way}_srx_accessions", names) for way, names in given.items()}
        self._digests = {way: digest_of(given[way], listed[way]) for way in given}
        for way, digest in self._digests.items():
            if digest is not None:
                log.info("%s_srx_accessions: %s", way, counted(len(listed[way] or ()), "accession"))
        return listed["include"], listed["exclude"] or None

    def _passes(self, row_groups: RowGroups) -> int:
        """How often an epoch goes through its cells."""
        if not self.matched_epochs:
            return 1
        cells = {part: sum(group.n_rows for group in groups) for part, groups in row_groups.items()}
        n_whole = cells["predict"] - cells["val"] - cells["test"]
        return max(1, round(n_whole / max(1, cells["train"])))

    def _share_memory(self) -> None:
        """Decide how many chunks are kept, say what loading will take, and refuse more than the budget."""
        need, window = self.memory_need(), self._sampler("train").window
        room = DEFAULT_CHUNKS if self.memory_gb is None else max(1, need.room(self.memory_gb, window))
        self._chunks = self.chunk_cache_size or room
        if self.memory_gb is not None:
            need.check(self.memory_gb, self._chunks, window)
        log.info("%s", need.describe(self._chunks, window))

    def _ranks(self) -> tuple[int, int]:
        """Number of ranks and ours: the trainer's, or else those of torch.distributed if it is in use."""
        if self.trainer is not None:
            return self.trainer.world_size, self.trainer.global_rank
        if distributed.is_available() and distributed.is_initialized():
            return distributed.get_world_size(), distributed.get_rank()
        return 1, 0

    def _ranks_here(self) -> int:
        """Number of ranks on this machine."""
        if self.trainer is not None:
            return max(1, self.trainer.world_size // self.trainer.num_nodes)
        return min(self._ranks()[0], int(os.environ.get("LOCAL_WORLD_SIZE", self._ranks()[0])))

    def _groups(self, part: LoaderPart) -> tuple[RowGroup, ...]:
        """What is read together."""
        return self._row_groups[part] if part != "train" or self._mixing is None else self._mixing.row_groups

    def _sampler(self, part: LoaderPart) -> Sampler:
        """The order of a part's cells."""
        ranks = world_size, rank = self._ranks()
        if part != "train":
            rows = tuple(group.n_rows for group in self._row_groups[part])
            return Plan(rows, self.batch_size, self.seed, shuffle=False, world_size=world_size, rank=rank)
        if self._mixing is not None:
            return replace(self._mixing.plan, world_size=world_size, rank=rank)
        assert self.sampler is not None
        if ranks not in self._samplers:
            cells = TrainingCells(self.index, self._groups("train"), self.batch_size, self.seed, world_size, rank)
            self._samplers[ranks] = make_sampler(self.sampler, cells)
        return self._samplers[ranks]

    def _loader(self, part: LoaderPart) -> BatchLoader:
        made_for = (*self._ranks(), self.batch_size)
        if part not in self._loaders or self._loaders[part][0] != made_for:
            loader = BatchLoader(self._spec(part), self.num_workers, self.multiprocessing_context)
            self._loaders[part] = made_for, loader
        return self._loaders[part][1]

    def _spec(self, part: LoaderPart) -> StreamSpec:
        form = Form(
            index=self.index,
            obs_keys=self.obs_keys,
            normalized=self.normalized,
            counts=self.counts,
            x_format=self.x_format,
            genes=None if self._columns is None else self._columns.place,
            n_columns=None if self._columns is None else self._columns.chosen.size,
            pin_memory=torch.cuda.is_available(),
        )
        return StreamSpec(
            form=form,
            row_groups=self._groups(part),
            sampler=self._sampler(part),
            # Prediction passes over the cells once: keeping chunks would only cost memory.
            cache_groups=1 if part == "predict" else self._chunks,
            cache_bytes=self.cache_bytes,
            n_threads=self.num_threads,
            # Who predicts wants every cell.
            on_bad_chunk="raise" if part == "predict" else self.on_bad_chunk,
            together=batches_together(form, self.batch_size),
        )

    def _order_facts(self) -> dict[str, Any]:
        """What the order of training cells depends on, beside the position."""
        return {
            "content_hash": self.index.content_hash,
            "seed": self.seed,
            "max_chunks_in_memory": self._sampler("train").window,
            "range_rows": None if self._mixing is None else self._mixing.range_rows,
            "sampling": None if self.sampling is None else str(self.sampling),
            "sampler": None if self.sampler is None else name_of(self.sampler),
            "train_fraction": None if self.train_fraction == 1 else self.train_fraction,
            "matched_epochs": self.matched_epochs or None,
            **{f"{way}_srx_accessions": digest for way, digest in self._digests.items()},
        }


def _as_written(data_path: str | Location | Sequence[str | Location]) -> Location | list[Location]:
    """The directory, or each of several."""
    return [as_written(path) for path in data_path] if isinstance(data_path, list | tuple) else as_written(data_path)  # type: ignore[arg-type]


def _names(key: str, given: str | Sequence[str]) -> tuple[str, ...]:
    """One name or several; none for nothing."""
    return (as_names(key, given) or ()) if given else ()
