"""Which genes the directory holds: all, the most variable, or those of a list."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from scvae_data.errors import ConfigError
from scvae_data.processing.settings.named_file import named_file
from scvae_data.remote.location import local_path
from scvae_data.store import GENE_LIST_FILE

__all__ = ["COMMON_NAMES", "AnyGeneRules", "GeneRules", "HvgRules", "ListRules", "common_name"]

FLAVORS = ("seurat", "cell_ranger", "seurat_v3")
COMMON_NAMES = {
    "homo_sapiens": "human",
    "mus_musculus": "mouse",
    "rattus_norvegicus": "rat",
    "danio_rerio": "zebrafish",
    "macaca_mulatta": "macaque",
    "sus_scrofa": "pig",
    "callithrix_jacchus": "marmoset",
}


def common_name(species: str) -> str:
    """Return a species in small letters with underscores, under its common name if it is one of a few.

    >>> common_name("Homo sapiens"), common_name("human"), common_name("Drosophila_melanogaster")
    ('human', 'human', 'drosophila_melanogaster')
    """
    name = "_".join(species.replace("_", " ").casefold().split())
    return COMMON_NAMES.get(name, name)


@dataclass(frozen=True)
class GeneRules:
    """Which genes the directory holds.

    Parameters
    ----------
    join
        ``"outer"``: a gene measured in any file; ``"inner"``: in every file.
    min_cells, min_counts
        A gene needs this many cells with a count, this total count, over the
        kept cells of all files; None leaves the rule out.
    mapping
        CSV with columns ``id`` and ``symbol`` for files that carry symbols
        only; it goes before the pairs found in the files. A symbol may have
        several ids.
    allow_mixed_species
        Accept files of several species in one directory.
    reference
        What names of genes stand for beside what the files say: ``"builtin"``,
        a parquet file with the same columns, or None.
    species
        Of files of several species the cells and genes of this one, by its
        common or Latin name; files of other species are left out.
    """

    join: Literal["outer", "inner"] = "outer"
    min_cells: int | None = 3
    min_counts: int | None = None
    mapping: str | None = None
    allow_mixed_species: bool = False
    reference: str | None = "builtin"
    species: str | None = None

    choice: ClassVar[str] = ""
    """What takes genes that pass the rules: nothing."""

    def __post_init__(self) -> None:
        settle_species(self)
        if self.join not in ("outer", "inner"):
            raise ConfigError(f"genes.join={self.join!r} must be outer or inner")
        for name in ("min_cells", "min_counts"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ConfigError(f"genes.{name}={value} must be 0 or more, or null to leave the rule out")

    def select(
        self, n_files_measuring: NDArray[np.int64], n_files: int, n_cells: NDArray[np.int64], totals: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Return which genes of the universe are kept.

        Parameters
        ----------
        n_files_measuring
            In how many of the ``n_files`` files each gene is a column.
        n_cells, totals
            Kept cells with a count, and total count, of each gene.
        """
        kept = n_files_measuring > 0
        for passing in self.passing(n_files_measuring, n_files, n_cells, totals).values():
            kept &= passing
        return kept

    def passing(
        self, n_files_measuring: NDArray[np.int64], n_files: int, n_cells: NDArray[np.int64], totals: NDArray[np.int64]
    ) -> dict[str, NDArray[np.bool_]]:
        """Return which genes of the universe pass each rule; the arguments are those of `select`."""
        rules = {
            "min_cells": None if self.min_cells is None else n_cells >= self.min_cells,
            "min_counts": None if self.min_counts is None else totals >= self.min_counts,
            "not_in_every_file": n_files_measuring == n_files if self.join == "inner" else None,
        }
        return {rule: passing for rule, passing in rules.items() if passing is not None}


@dataclass(frozen=True)
class ListRules:
    """The directory holds exactly the genes of a list, in its order.

    Parameters
    ----------
    path
        A text file of one id or symbol per line, a CSV or TSV with a column
        ``id`` or ``symbol`` or both, a JSON list, or the ``gene_list.json``
        of a dataset directory (or that directory).
    mapping, allow_mixed_species, reference, species
        As in `GeneRules`; a list with ids and symbols is such a mapping too.
    """

    path: str | None = None
    mapping: str | None = None
    allow_mixed_species: bool = False
    reference: str | None = "builtin"
    species: str | None = None

    choice: ClassVar[str] = "not_listed"

    def __post_init__(self) -> None:
        settle_species(self)

    def passing(self, *_sums: object) -> dict[str, NDArray[np.bool_]]:
        """Return no rule: the list alone decides."""
        return {}

    @property
    def file(self) -> Path:
        """The file.

        Raises
        ------
        ConfigError
            There is none.
        """
        if self.path is None:
            raise ConfigError("genes=list needs genes.path: a file that lists genes, or another dataset directory")
        path = local_path("genes.path", self.path).expanduser()
        path = path / GENE_LIST_FILE if path.is_dir() else path
        return named_file("genes.path", path, "give a file that lists genes, or another dataset directory")


@dataclass(frozen=True)
class HvgRules(GeneRules):
    """Keep the most variable of the genes that `GeneRules` keeps.

    Parameters
    ----------
    flavor
        ``"seurat"`` and ``"cell_ranger"`` rank dispersions of log-normalised
        values within bins of the mean; ``"seurat_v3"`` ranks the variances of
        counts against a loess of variance on mean (needs scikit-misc).
    n_top_genes
        How many genes to keep; with ``batch_key=None``, ``seurat`` and
        ``cell_ranger`` keep all that tie with the last one.
    batch_key
        Rank within each value of this obs column (``"SRX_accession"`` or a
        column of the inputs) and combine the ranks; None ranks over all cells.
    span
        Share of the genes in each local fit of ``seurat_v3``.
    n_bins
        Bins of the mean for ``seurat``.
    """

    flavor: Literal["seurat", "cell_ranger", "seurat_v3"] = "seurat"
    n_top_genes: int = 2000
    batch_key: str | None = None
    span: float = 0.3
    n_bins: int = 20

    choice: ClassVar[str] = "not_highly_variable"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.flavor not in FLAVORS:
            raise ConfigError(f"genes.flavor={self.flavor!r} must be one of {', '.join(FLAVORS)}")
        for name in ("n_top_genes", "n_bins"):
            if getattr(self, name) < 1:
                raise ConfigError(f"genes.{name}={getattr(self, name)} must be 1 or more")
        if not 0 < self.span <= 1:
            raise ConfigError(f"genes.span={self.span} must be a share above 0, up to 1")
        if self.flavor == "seurat_v3" and find_spec("skmisc") is None:
            raise ConfigError("genes.flavor=seurat_v3 needs scikit-misc: pip install 'scvae-data[hvg]'")

    @property
    def on_counts(self) -> bool:
        """Whether the flavor ranks counts, not log-normalised values."""
        return self.flavor == "seurat_v3"


AnyGeneRules = GeneRules | ListRules


def settle_species(rules: AnyGeneRules) -> None:
    """Give the species the name that it has in messages; refuse one species beside leave to mix them."""
    if rules.species is None:
        return
    if rules.allow_mixed_species:
        raise ConfigError(
            f"genes.species={rules.species} keeps one species, genes.allow_mixed_species=true all; set one of them"
        )
    object.__setattr__(rules, "species", common_name(rules.species))
