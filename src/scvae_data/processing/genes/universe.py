"""Gene tables of all files in, one gene order and a map from every table into it out.

A gene's key is its Ensembl id without version where a file has ids, else the
id that its symbol has in the files that carry both, else the symbol. All
distinct keys, sorted, are the *universe*; what the directory holds is a
subset of it, so that the order never depends on which file came first.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from scvae_data.processing.genes.names import ENSEMBL, unversioned
from scvae_data.readers.base import GeneTable

__all__ = [
    "TableMatch",
    "Universe",
    "align",
    "hash_keys",
    "symbol_to_id",
    "table_keys",
]


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


def hash_keys(keys: Iterable[str]) -> NDArray[np.uint64]:
    """Return two 64-bit hashes of each gene key, uint64, shape (n_genes, 2)."""
    digests = b"".join(hashlib.blake2b(key.encode(), digest_size=16).digest() for key in keys)
    return np.frombuffer(digests, "<u8").reshape(-1, 2)
