"""Gene tables of all files in, one gene order and a map from every table into it out.

A gene's key is its Ensembl id without version where a file has ids, else the
id that its symbol has in the files that carry both, else the symbol. All
distinct keys, sorted, are the *universe*; what the directory holds is a
subset of it, so that the order never depends on which file came first.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scvae_data.errors import ConfigError
from scvae_data.readers import GeneTable

__all__ = ["GeneRules", "TableMatch", "Universe", "align", "infer_species", "read_mapping", "unversioned"]

ENSEMBL = re.compile(r"^(ENS[A-Z]*G\d{11})(?:\.\d+)?(_PAR_Y)?$")
SPECIES_OF_PREFIX = {
    "ENSG": "human",
    "ENSMUSG": "mouse",
    "ENSRNOG": "rat",
    "ENSDARG": "zebrafish",
    "ENSMMUG": "macaque",
    "ENSSSCG": "pig",
    "ENSCJAG": "marmoset",
}
GENOME_PREFIX = {"hg19_": "human", "hg38_": "human", "GRCh38_": "human", "mm10_": "mouse", "mm9_": "mouse"}


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
        only; it goes before the pairs found in the files.
    allow_mixed_species
        Accept files of several species in one directory.
    """

    join: Literal["outer", "inner"] = "outer"
    min_cells: int | None = 3
    min_counts: int | None = None
    mapping: str | None = None
    allow_mixed_species: bool = False

    def __post_init__(self) -> None:
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
        kept = n_files_measuring == n_files if self.join == "inner" else n_files_measuring > 0
        if self.min_cells is not None:
            kept = kept & (n_cells >= self.min_cells)
        if self.min_counts is not None:
            kept = kept & (totals >= self.min_counts)
        return np.asarray(kept)


@dataclass(frozen=True)
class TableMatch:
    """How the columns of one gene table found their gene.

    Parameters
    ----------
    n_features
        Its columns.
    by_id, by_symbol, unmatched
        Columns that have an id; whose symbol stands for an id; and the rest, which keep their symbol.
    summed
        Columns that are added to another one because both are the same gene.
    """

    n_features: int
    by_id: int
    by_symbol: int
    unmatched: int
    summed: int


@dataclass(frozen=True)
class Universe:
    """Every gene of the inputs in one order.

    Parameters
    ----------
    keys
        Distinct gene keys, sorted; shape (n_genes,).
    symbols
        A symbol for each key; the key itself where no file has one.
    ids
        The Ensembl or other id for each key; empty where the key is a symbol.
    maps
        Per gene table (by its hash) the position of each column's gene, int32, shape (n_vars,).
    matches
        Per gene table how its columns found their gene.
    synonyms
        Symbols that stand for an id although its gene has another symbol, or that `GeneRules.mapping` decided on.
    """

    keys: NDArray[np.object_]
    symbols: NDArray[np.object_]
    ids: NDArray[np.object_]
    maps: dict[str, NDArray[np.int32]]
    matches: dict[str, TableMatch] = field(default_factory=dict)
    synonyms: dict[str, str] = field(default_factory=dict)

    def meanings(self) -> dict[str, str]:
        """Return per gene table a hash of what its columns are: their positions, and all keys and symbols."""
        common = hashlib.sha256(json.dumps([self.keys.tolist(), self.symbols.tolist()]).encode())
        found = {}
        for table, positions in self.maps.items():
            digest = common.copy()
            digest.update(positions.tobytes())
            found[table] = digest.hexdigest()
        return found


def unversioned(gene_id: str) -> str:
    """Strip the version of an Ensembl id, keeping the Y copy of a pseudo-autosomal gene apart.

    Examples
    --------
    >>> unversioned("ENSG00000210082.2"), unversioned("ENSG00000182378.14_PAR_Y"), unversioned("TP53")
    ('ENSG00000210082', 'ENSG00000182378_PAR_Y', 'TP53')
    """
    match = ENSEMBL.match(gene_id)
    return match.group(1) + (match.group(2) or "") if match else gene_id


def infer_species(table: GeneTable) -> list[str]:
    """Return the species a gene table speaks of: none, one, or several.

    Ensembl prefixes count from 1 % of the genes (so a handful of spike-ins is
    no species); without ids, genome prefixes or the case of the mitochondrial
    symbols tell.
    """
    names = [str(name) for name in (table.ids if table.ids is not None else table.names)]
    votes: Counter[str] = Counter()
    for name in names:
        match = re.match(r"^(ENS[A-Z]*G)\d{11}", name)
        if match:
            votes[SPECIES_OF_PREFIX.get(match.group(1), match.group(1))] += 1
        else:
            for prefix, species in GENOME_PREFIX.items():
                if name.startswith(prefix):
                    votes[species] += 1
    found = sorted(species for species, n in votes.items() if n > 0.01 * len(names))
    if found or table.symbols is None:
        return found
    human = any(str(symbol).startswith("MT-") for symbol in table.symbols)
    mouse = any(str(symbol).startswith("mt-") for symbol in table.symbols)
    return ["human"] * human + ["mouse"] * mouse


def read_mapping(path: str | None) -> dict[str, str]:
    """Read a table of symbol to id; an empty dict for None."""
    if path is None:
        return {}
    if not Path(path).is_file():
        raise ConfigError(f"genes.mapping: {path} does not exist")
    table = pd.read_csv(path, sep=None, engine="python", dtype=str)
    if not {"id", "symbol"} <= set(table.columns):
        raise ConfigError(f"{path}: needs columns 'id' and 'symbol', has {', '.join(map(str, table.columns))}")
    table = table.dropna(subset=["id", "symbol"])
    return {symbol: unversioned(key) for symbol, key in zip(table["symbol"], table["id"], strict=True)}


def symbol_to_id(tables: Iterable[GeneTable], mapping: Mapping[str, str]) -> dict[str, str]:
    """Return the symbols that stand for exactly one id in all tables that carry both; ``mapping`` goes first."""
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
    return {symbol: key for symbol, key in found.items() if symbol not in ambiguous} | dict(mapping)


def table_keys(table: GeneTable, pairs: Mapping[str, str]) -> tuple[list[str], set[str], int]:
    """Return the key of each column, those keys that are ids, and how many columns brought their id along."""
    symbols = table.symbols if table.symbols is not None else table.names
    ids = [""] * len(symbols) if table.ids is None else [unversioned(gene_id) for gene_id in table.ids]
    keys, known, by_id = [], set(), 0
    for gene_id, symbol, name in zip(ids, symbols, table.names, strict=True):
        # Among symbols, genes that have none are often called by their id.
        own = gene_id or (unversioned(symbol) if ENSEMBL.match(symbol) else "")
        found = own or pairs.get(symbol, "")
        if found:
            known.add(found)
        by_id += bool(own)
        keys.append(found or symbol or name)
    return keys, known, by_id


def align(n_files: Mapping[str, int], load: Callable[[str], GeneTable], mapping: Mapping[str, str]) -> Universe:
    """Bring all gene tables into one order; one table is in memory at a time.

    Parameters
    ----------
    n_files
        How many files carry each distinct table, by its hash; the symbol most files use is the gene's symbol.
    load
        Reads a table by its hash.
    mapping
        Symbol to id from `GeneRules.mapping`.
    """
    names = sorted(n_files)
    pairs = symbol_to_id((load(name) for name in names), mapping)
    votes: dict[str, dict[str, int]] = {}
    with_id: set[str] = set()
    for name in names:
        table = load(name)
        keys, known, _ = table_keys(table, pairs)
        with_id.update(known)
        symbols = table.symbols if table.symbols is not None else [""] * len(keys)
        for key, symbol in zip(keys, symbols, strict=True):
            of_key = votes.setdefault(key, {})
            if symbol:
                of_key[symbol] = of_key.get(symbol, 0) + n_files[name]
    ordered = sorted(votes)
    position = {key: number for number, key in enumerate(ordered)}
    maps, matches = {}, {}
    for name in names:
        keys, _, by_id = table_keys(load(name), pairs)
        n, unmatched = len(keys), sum(key not in with_id for key in keys)
        matches[name] = TableMatch(n, by_id, n - by_id - unmatched, unmatched, n - len(set(keys)))
        maps[name] = np.array([position[key] for key in keys], np.int32)
    chosen = {key: elected(votes[key], key) for key in ordered}
    used = {symbol: key for symbol, key in sorted(pairs.items()) if symbol in votes.get(key, ())}
    return Universe(
        keys=np.array(ordered, object),
        symbols=np.array(list(chosen.values()), object),
        ids=np.array([key if key in with_id else "" for key in ordered], object),
        maps=maps,
        matches=matches,
        synonyms={symbol: key for symbol, key in used.items() if symbol in mapping or chosen[key] != symbol},
    )


def elected(votes: Mapping[str, int], default: str) -> str:
    """Return the name with most votes, the alphabetically last of equals."""
    return max(votes, key=lambda name: (votes[name], name), default=default)
