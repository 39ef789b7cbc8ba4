"""Gene tables of all files in, one gene order and a map from every table into it out.

A gene's key is its id without version where any file has ids, else its
symbol; which gene a row is, is told in `symbols`. All distinct keys, sorted,
are the *universe*; what the directory holds is a subset of it, so that the
order never depends on which file came first.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from scvae_data.processing.genes.identity import row_reader
from scvae_data.processing.genes.names import (
    CleanTable,
    are_ensembl,
    cleaned,
    first_word,
    gene_class_flags,
    is_ensembl,
    split_pair,
    unversioned,
    without_genome,
)
from scvae_data.processing.genes.pair_counts import PairCounts
from scvae_data.processing.genes.reference import Reference, loose
from scvae_data.processing.genes.species import judge, species_of_id
from scvae_data.processing.genes.spelling import one_spelling
from scvae_data.processing.genes.symbols import BY_ID, CROSSED, LEFT_OUT, WAYS, Evidence, Rows, UnlikePairs
from scvae_data.processing.genes.texts import NO_TEXT, Numbers, Texts, grown

__all__ = [
    "WAYS",
    "TableMatch",
    "Universe",
    "align",
    "forget_names",
    "hash_keys",
]

SPELLING, SET_APART = WAYS.index("spelling"), WAYS.index("apart")
UNTRUE = (SPELLING, WAYS.index(CROSSED))
"""Ways of rows whose symbol says nothing of what their gene is called."""
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
    load: Callable[[str], CleanTable],
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
        Reads a table, cleaned, by its hash.
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
    texts = evidence.texts
    told = PairCounts(texts)
    spelled: dict[int, int] = {}
    numbers, how, matches = {}, {}, {}
    is_id, there, apart = np.zeros((3, 1), bool)
    for table in evidence.names:
        rows = evidence.rows(table)
        genes = np.where(rows.ids == NO_TEXT, rows.names, rows.ids)
        is_id, there, apart = (grown(mask, len(texts)) for mask in (is_id, there, apart))
        is_id[rows.ids] = there[genes] = apart[genes[rows.how == SET_APART]] = True
        for row in np.flatnonzero(rows.how == SPELLING).tolist():
            spelled.setdefault(int(genes[row]), int(rows.symbols[row]))
        told.add(genes, np.where(np.isin(rows.how, UNTRUE), NO_TEXT, rows.symbols), n_files[table])
        numbers[table], how[table] = genes, rows.how
        matches[table] = match_of(rows, int(texts.among(genes).sum()))
    is_id[NO_TEXT] = there[NO_TEXT] = False
    same = one_spelling(unknown_names(evidence, there & ~apart, is_id), numbers, n_files, evidence.species, is_id)
    respell(same, numbers, how)
    is_id[[*same]] = there[[*same]] = False
    genes = np.flatnonzero(there).astype(np.int32)
    itself, known = np.arange(len(there), dtype=np.int32), np.zeros(len(there), np.int32)
    known[genes] = np.where(is_id[genes], evidence.symbols_today(genes), NO_TEXT)
    default = itself.copy()
    default[[*spelled]] = [*spelled.values()]
    default = np.where(known == NO_TEXT, default, known)
    symbols = elected(told, default, texts.names)
    called = itself if evidence.has_ids else named_by_symbol(genes, symbols, is_id)
    genes = genes[np.asarray(pc.sort_indices(pa.array(texts.named(called[genes]), pa.string())))]
    place = np.full(len(there), -1, np.int32)  # also of rows that are left out
    place[genes] = np.arange(len(genes))
    of_class = texts.named(np.where(known == NO_TEXT, symbols, known)[genes])
    if evidence.genomes:
        pairs = zip(known[genes], of_class, strict=True)
        of_class = [name if is_known else without_genome(name, evidence.genomes) for is_known, name in pairs]
    n_known = int(np.count_nonzero(known[genes]))
    names = np.array(texts.names, object)
    return Universe(
        keys=names[called[genes]],
        symbols=names[symbols[genes]],
        ids=names[np.where(is_id[genes], genes, NO_TEXT)],
        maps={table: place[found] for table, found in numbers.items()},
        matches=matches,
        synonyms=synonyms_of(told, is_id, symbols, texts, mapping),
        flags=gene_class_flags(of_class, names[genes]),
        how=how,
        retired=evidence.retired,
        species=evidence.codes,
        unlike=evidence.unlike,
        classed={"by_reference": n_known, "by_symbol": len(genes) - n_known},
    )


def unknown_names(evidence: Evidence, there: NDArray[np.bool_], is_id: NDArray[np.bool_]) -> list[str]:
    """Return what genes are called that may be another one, spelled otherwise; by number, empty for all others.

    Nothing knows their name, or their id, if they have any.
    """
    genes = np.flatnonzero(there).astype(np.int32)
    genes = genes[~is_id[genes] | evidence.is_unknown(genes)]
    names = evidence.texts.named(genes)
    found = [""] * len(there)
    for gene, name, of_ensembl in zip(genes.tolist(), names, are_ensembl(names), strict=True):
        if not (of_ensembl and is_id[gene]):
            found[gene] = name
    return found


def respell(
    same: Mapping[int, int], maps: Mapping[str, NDArray[np.int32]], how: Mapping[str, NDArray[np.int8]]
) -> None:
    """Let rows of genes that are another one, spelled otherwise, be that one."""
    others = np.fromiter(same, np.int32)
    for table, genes in maps.items() if same else ():
        rows = np.flatnonzero(np.isin(genes, others))
        genes[rows] = [same[gene] for gene in genes[rows].tolist()]
        how[table][rows] = SPELLING


def forget_names(reference: Reference) -> None:
    """Let go of what was remembered of the names in tables, and of the reference."""
    for remembered in (
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


def match_of(rows: Rows, n_genes: int) -> TableMatch:
    """Count how a table's rows found their gene; ``n_genes`` are distinct."""
    by_id, left_out = (int(np.isin(rows.how, kinds).sum()) for kinds in (BY_ID, LEFT_OUT))
    unmatched = int((rows.ids == NO_TEXT).sum()) - left_out
    n = len(rows.ids)
    return TableMatch(n, by_id, n - by_id - unmatched - left_out, unmatched, n - left_out - n_genes, left_out)


def elected(told: PairCounts, default: Numbers, names: Sequence[str]) -> Numbers:
    """Return the symbol of each gene: the one with most votes, the alphabetically last of equals.

    Parameters
    ----------
    told
        How many files have which symbol beside a gene.
    default
        The symbols of genes without votes, by the number of the gene.
    names
        All texts.
    """
    genes, symbols, votes = told.arrays()
    most, found = np.zeros(len(default), np.int64), default.copy()
    np.maximum.at(most, genes, votes)
    rows = np.flatnonzero(votes == most[genes])
    found[genes[rows]] = symbols[rows]
    _, of_gene, times = np.unique(genes[rows], return_inverse=True, return_counts=True)
    for row in rows[times[of_gene] > 1].tolist():  # few genes have several
        gene = genes[row]
        found[gene] = max(found[gene], symbols[row], key=names.__getitem__)
    return found


def named_by_symbol(genes: Numbers, symbols: Numbers, is_id: NDArray[np.bool_]) -> Numbers:
    """Return what genes are called where no file has ids: their symbol, or their id where two have the symbol."""
    found = np.arange(len(symbols), dtype=np.int32)
    of_symbol = np.where(is_id[genes], symbols[genes], genes)
    times = np.bincount(of_symbol, minlength=len(symbols))
    found[genes] = np.where(times[of_symbol] > 1, genes, of_symbol)
    return found


def synonyms_of(
    told: PairCounts, is_id: NDArray[np.bool_], symbols: Numbers, texts: Texts, mapping: Mapping[str, Sequence[str]]
) -> dict[str, str]:
    """Return the symbols of one id each that are not those of their genes, or that the mapping decided on."""
    ids, meant, _ = told.arrays()
    ids, meant = ids[is_id[ids]], meant[is_id[ids]]
    mapped = texts.numbers([*mapping])
    times = np.bincount(meant, minlength=len(symbols))
    rows = np.flatnonzero((times[meant] == 1) & ((symbols[ids] != meant) | np.isin(meant, mapped)))
    return dict(sorted(zip(texts.named(meant[rows]), texts.named(ids[rows]), strict=True)))


def hash_keys(keys: Iterable[str]) -> NDArray[np.uint64]:
    """Return two 64-bit hashes of each gene key, uint64, shape (n_genes, 2)."""
    digests = b"".join(hashlib.blake2b(key.encode(), digest_size=16).digest() for key in keys)
    return np.frombuffer(digests, "<u8").reshape(-1, 2)
