"""Gene tables of all files in, one gene order and a map from every table into it out.

A gene's key is its id without version where any file has ids, else its
symbol; which gene a row is, is told in `symbols`. All distinct keys, sorted,
are the *universe*; what the directory holds is a subset of it, so that the
order never depends on which file came first.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from scvae_data.processing.genes.identity import row_reader
from scvae_data.processing.genes.names import (
    clean_table,
    cleaned,
    first_word,
    gene_class_flags,
    is_ensembl,
    split_pair,
    unversioned,
    without_genome,
)
from scvae_data.processing.genes.pair_counts import NO_TEXT, PairCounts, Texts
from scvae_data.processing.genes.reference import Reference, loose
from scvae_data.processing.genes.species import judge, species_of_id
from scvae_data.processing.genes.spelling import one_spelling
from scvae_data.processing.genes.symbols import BY_ID, CROSSED, HOW, LEFT_OUT, Evidence, Rows, UnlikePairs
from scvae_data.readers.base import GeneTable

__all__ = [
    "WAYS",
    "TableMatch",
    "Universe",
    "align",
    "forget_names",
    "hash_keys",
]

WAYS = tuple(HOW)
"""How rows found their genes, by number."""
NONE_TOLD = np.zeros(0, np.uint8)


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
    left_out
        Columns whose name is none of a gene.
    """

    n_features: int
    by_id: int
    by_symbol: int
    unmatched: int
    summed: int
    left_out: int = 0


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
        Per gene table (by its hash) the position of each column's gene, -1 for one left out; int32, shape (n_vars,).
    matches
        Per gene table how its columns found their gene.
    synonyms
        Symbols that stand for an id although its gene has another symbol, or that `GeneRules.mapping` decided on.
    flags
        A bit per entry of `GENE_CLASSES` for each gene, uint32, shape (n_genes,).
    how
        Per gene table how each column found its gene, a position in `WAYS`; int8, shape (n_vars,).
    retired
        Ids of the inputs to the ids of today that they are called by.
    classed
        How many genes have their classes ``"by_reference"``, how many ``"by_symbol"``.
    species
        Per gene table of several species, of which one is kept, the code of each column, see `row_codes`.
    unlike
        The gene tables that are left out, as their ids and symbols are of different genes.
    """

    keys: NDArray[np.object_]
    symbols: NDArray[np.object_]
    ids: NDArray[np.object_]
    maps: dict[str, NDArray[np.int32]]
    matches: dict[str, TableMatch] = field(default_factory=dict)
    synonyms: dict[str, str] = field(default_factory=dict)
    flags: NDArray[np.uint32] = field(default_factory=lambda: np.zeros(0, np.uint32))
    how: dict[str, NDArray[np.int8]] = field(default_factory=dict)
    retired: dict[str, str] = field(default_factory=dict)
    classed: dict[str, int] = field(default_factory=dict)
    species: dict[str, NDArray[np.uint8]] = field(default_factory=dict)
    unlike: dict[str, UnlikePairs] = field(default_factory=dict)

    def meanings(self) -> dict[str, str]:
        """Return per gene table a hash of what its columns are: their positions, and all keys, symbols and classes."""
        common = hashlib.sha256(json.dumps([self.keys.tolist(), self.symbols.tolist()]).encode())
        common.update(self.flags.tobytes())
        found = {}
        for table, positions in self.maps.items():
            digest = common.copy()
            digest.update(positions.tobytes() + self.species.get(table, NONE_TOLD).tobytes())
            found[table] = digest.hexdigest()
        return found


def align(
    n_files: Mapping[str, int],
    load: Callable[[str], GeneTable],
    mapping: Mapping[str, Sequence[str]],
    reference: Reference | None = None,
    species: Mapping[str, Sequence[str]] | None = None,
    wanted: str = "",
) -> Universe:
    """Bring all gene tables into one order; few tables are in memory at a time.

    Parameters
    ----------
    n_files
        How many files carry each distinct table, by its hash; the symbol most files use is the gene's symbol.
    load
        Reads a table by its hash.
    mapping
        Symbol to ids from `GeneRules.mapping`.
    reference
        What else is known of names; nothing where there is none.
    species
        Those of each table, if they are known already.
    wanted
        The species of which genes are kept in tables of several; empty for all.
    """
    reference = reference or Reference()
    tables = sorted(n_files)
    evidence = Evidence(tables, load, mapping, reference, species or judge(tables, load, reference), wanted)
    texts, ids = Texts(), set[str]()
    told = PairCounts(texts)
    spelled: dict[str, str] = {}
    numbers, how, matches = {}, {}, {}
    apart: set[str] = set()
    ways = {kind: number for number, kind in enumerate(WAYS)}
    for table in evidence.names:
        rows = evidence.rows(table)
        ids.update(rows.ids)
        genes = [gene_id or name for gene_id, name in zip(rows.ids, rows.names, strict=True)]
        how[table] = np.fromiter(map(ways.__getitem__, rows.how), np.int8, len(genes))
        of_genes, of_symbols = texts.numbers(genes), texts.numbers(rows.symbols)
        for row in np.flatnonzero(how[table] == ways["spelling"]).tolist():
            spelled.setdefault(genes[row], rows.symbols[row])
            of_symbols[row] = NO_TEXT
        of_symbols[how[table] == ways[CROSSED]] = NO_TEXT
        told.add(of_genes, of_symbols, n_files[table])
        apart.update(genes[row] for row in np.flatnonzero(how[table] == ways["apart"]).tolist())
        numbers[table] = of_genes.astype(np.int32)
        matches[table] = match_of(rows, numbers[table])
    ids.discard("")
    there = np.zeros(len(texts), bool)
    for found in numbers.values():
        there[found] = True
    there[NO_TEXT] = False
    unknown = [
        gene if is_gene and gene not in apart and may_be_respelled(gene, ids, evidence.unknown) else ""
        for gene, is_gene in zip(texts, there.tolist(), strict=True)
    ]
    same = one_spelling(unknown, numbers, n_files, evidence.species, ids)
    respell(same, numbers, how)
    there[list(same)] = False
    ids.difference_update(unknown[other] for other in same)
    votes: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for gene, symbol, n in told:
        votes[gene][symbol] = n
    genes = [gene for gene, is_gene in zip(texts, there.tolist(), strict=True) if is_gene]
    known = dict(zip(genes, reference.symbols(gene if gene in ids else "" for gene in genes), strict=True))
    symbols = {gene: elected(votes[gene], known[gene] or spelled.get(gene, gene)) for gene in genes}
    names = {gene: gene for gene in genes} if evidence.has_ids else named_by_symbol(symbols, ids)
    ordered = sorted(genes, key=names.__getitem__)
    place = np.full(len(texts), -1, np.int32)  # also of rows that are left out
    place[[texts[gene] for gene in ordered]] = np.arange(len(ordered))
    of_class = [known[gene] or without_genome(symbols[gene], evidence.genomes) for gene in ordered]
    return Universe(
        keys=np.array([names[gene] for gene in ordered], object),
        symbols=np.array([symbols[gene] for gene in ordered], object),
        ids=np.array([gene if gene in ids else "" for gene in ordered], object),
        maps={table: place[found] for table, found in numbers.items()},
        matches=matches,
        synonyms=synonyms_of(votes, ids, symbols, mapping),
        flags=gene_class_flags(of_class, ordered),
        how=how,
        retired=evidence.retired,
        species=evidence.codes,
        unlike=evidence.unlike,
        classed={"by_reference": sum(map(bool, known.values())), "by_symbol": sum(not text for text in known.values())},
    )


def may_be_respelled(gene: str, ids: Container[str], unknown: Container[str]) -> bool:
    """Whether a gene may be another one, spelled otherwise: nothing knows its name, or its id, if that has any."""
    return gene in unknown and not is_ensembl(gene) if gene in ids else True


def respell(
    same: Mapping[int, int], maps: Mapping[str, NDArray[np.int32]], how: Mapping[str, NDArray[np.int8]]
) -> None:
    """Let rows of genes that are another one, spelled otherwise, be that one."""
    others = np.fromiter(same, np.int32)
    for table, genes in maps.items() if same else ():
        rows = np.flatnonzero(np.isin(genes, others))
        genes[rows] = [same[gene] for gene in genes[rows].tolist()]
        how[table][rows] = WAYS.index("spelling")


def forget_names(reference: Reference) -> None:
    """Let go of what was remembered of the names in tables, and of the reference."""
    for remembered in (
        clean_table,
        cleaned,
        first_word,
        split_pair,
        unversioned,
        is_ensembl,
        species_of_id,
        row_reader,
        loose,
    ):
        remembered.cache_clear()
    reference.forget()


def match_of(rows: Rows, genes: NDArray[np.int32]) -> TableMatch:
    """Count how a table's rows found their gene; ``genes`` has the number of each row's."""
    times = Counter(rows.how)
    by_id = sum(times[kind] for kind in BY_ID)
    left_out = sum(times[kind] for kind in LEFT_OUT)
    unmatched = rows.ids.count("") - left_out
    n = len(genes)
    summed = n - left_out - len(np.unique(genes[genes != NO_TEXT]))
    return TableMatch(n, by_id, n - by_id - unmatched - left_out, unmatched, summed, left_out)


def named_by_symbol(symbols: Mapping[str, str], ids: Collection[str]) -> dict[str, str]:
    """Return what genes are called where no file has ids: their symbol, or their id where two have the symbol."""
    times = Counter(symbols[gene] if gene in ids else gene for gene in symbols)
    return {gene: gene if gene not in ids or times[symbols[gene]] > 1 else symbols[gene] for gene in symbols}


def synonyms_of(
    votes: Mapping[str, Iterable[str]],
    ids: Iterable[str],
    symbols: Mapping[str, str],
    mapping: Mapping[str, Sequence[str]],
) -> dict[str, str]:
    """Return the symbols of one id each that are not those of their genes, or that the mapping decided on."""
    meant: defaultdict[str, list[str]] = defaultdict(list)
    for gene_id in ids:
        for symbol in votes.get(gene_id, ()):
            meant[symbol].append(gene_id)
    return {
        symbol: found[0]
        for symbol, found in sorted(meant.items())
        if len(found) == 1 and (symbol in mapping or symbols[found[0]] != symbol)
    }


def elected(votes: Mapping[str, int], default: str) -> str:
    """Return the name with most votes, the alphabetically last of equals."""
    if len(votes) < 2:  # as of most genes
        return next(iter(votes), default)
    return max(votes, key=lambda name: (votes[name], name))


def hash_keys(keys: Iterable[str]) -> NDArray[np.uint64]:
    """Return two 64-bit hashes of each gene key, uint64, shape (n_genes, 2)."""
    digests = b"".join(hashlib.blake2b(key.encode(), digest_size=16).digest() for key in keys)
    return np.frombuffer(digests, "<u8").reshape(-1, 2)
