"""What a run has decided before its scans, and a gene table, in; what every scan needs of them out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from scvae_data.processing.genes.tables import load_table
from scvae_data.processing.settings.control import ControlSubset
from scvae_data.processing.settings.gene_classes import GENE_CLASSES
from scvae_data.processing.settings.qc import QcRules
from scvae_data.processing.sort.key import OrderKey
from scvae_data.processing.sort.sorted_run import RUN_ENTRIES
from scvae_data.processing.work import WorkFolder
from scvae_data.readers.features import FeatureFilter
from scvae_data.readers.opening import DEFAULT_OPENING, Opening
from scvae_data.remote.disk_cache import DiskCache

__all__ = ["MappedGenes", "ScanJob", "table_genes"]


@dataclass(frozen=True)
class ScanJob:
    """What a scan needs besides the file.

    Parameters
    ----------
    work
        Holds gene tables and their maps, and gets what the scan leaves.
    n_genes
        Size of the universe.
    obs_columns
        Input obs columns to keep; None keeps all.
    count_tolerance
        How far a value may be from a whole number and still be rounded to it.
    numeric_columns
        Columns of text that are wanted as numbers.
    missing_labels
        Texts of obs that mean a missing value.
    obs_table
        Hash of the table of cells, whose rows of each file lie in the work folder; empty without one.
    cell_metadata
        Hash of the tables of cells beside the files, see `rows_beside`; empty without such.
    obs_names
        What columns of the files' obs are called, where not by their own name.
    where
        Which cells of chunks are wanted.
    origins
        Per dataset directory that is an input the number of its first own input, counted on from those of this run.
    opening
        How files are opened.
    scratch
        Where copies of remote files lie; None where there are no such.
    run_entries
        A run is flushed at this many entries: what a scan holds in memory.
    block_entries
        A file is read in blocks of at most this many entries.
    """

    work: WorkFolder
    n_genes: int
    qc: QcRules
    control: ControlSubset | None
    order: OrderKey
    obs_columns: Sequence[str] | None
    count_tolerance: float = 0.0
    numeric_columns: tuple[str, ...] = ()
    missing_labels: tuple[str, ...] = ()
    obs_table: str = ""
    cell_metadata: str = ""
    obs_names: tuple[tuple[str, str], ...] = ()
    where: str | None = None
    origins: tuple[tuple[str, int], ...] = ()
    opening: Opening = DEFAULT_OPENING
    scratch: DiskCache | None = None
    run_entries: int = RUN_ENTRIES
    block_entries: int = 1_500_000


@dataclass(frozen=True)
class MappedGenes:
    """What a scan knows about the columns of one gene table.

    Parameters
    ----------
    names
        Their names, str, shape (n_vars,).
    gene_map
        Positions in the universe of those that are genes, int32, shape (n_kept,).
    flags
        The gene classes of these, one bit each, uint32, shape (n_kept,).
    kept
        Which columns these are.
    species
        Of a table of several species, of which one is kept, the code of each column, see `row_codes`, uint8,
        shape (n_vars,); else None.
    """

    names: NDArray[np.object_]
    gene_map: NDArray[np.int32]
    flags: NDArray[np.uint32]
    kept: FeatureFilter
    species: NDArray[np.uint8] | None = None

    @cached_property
    def measured(self) -> list[bool]:
        """For each gene class whether the table has a gene of it."""
        return [bool((self.flags & (1 << bit)).any()) for bit in range(len(GENE_CLASSES))]


@lru_cache(maxsize=8)
def table_genes(work: WorkFolder, key: str, _meaning: str) -> MappedGenes:
    """Load what is known about a gene table, once per process: most files of a corpus share a few tables."""
    gene_map, flags = np.load(work.gene_map(key)), np.load(work.universe("flags"))
    kept = FeatureFilter(gene_map >= 0, ())
    genes = gene_map[kept.keep]
    species = np.load(work.gene_species(key)) if work.gene_species(key).exists() else None
    return MappedGenes(load_table(work.tables, key).names, genes, flags[genes], kept, species)
