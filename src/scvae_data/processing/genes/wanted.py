"""A file that names genes in, the columns of a directory out.

A model reads column j as the gene it saw there in training. So a
``gene_list.json`` gives its names, ids, symbols and order to the new
directory unchanged; genes that no file has become columns of zeros that
count as not measured.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scvae_data.errors import ConfigError
from scvae_data.processing.genes.columns import Columns
from scvae_data.processing.genes.names import ENSEMBL, unversioned
from scvae_data.processing.genes.reference import Reference, load_reference, loose
from scvae_data.processing.genes.universe import Universe
from scvae_data.processing.settings.genes import AnyGeneRules, ListRules
from scvae_data.processing.settings.named_file import named_file
from scvae_data.processing.settings.text_table import read_text_table
from scvae_data.remote.location import Location, local_path
from scvae_data.store import GENE_LIST_FILE, GeneList, read_gene_list
from scvae_data.wording import counted

__all__ = ["GeneFiles", "WantedGenes", "read_gene_files", "read_mapping", "read_wanted", "resolve"]

log = logging.getLogger(__name__)
ID_COLUMNS = ("id", "gene_id", "gene_ids", "ensembl_id", "feature_id")
SYMBOL_COLUMNS = ("symbol", "gene_symbol", "gene_name", "feature_name", "gene", "name")


@dataclass(frozen=True)
class GeneFiles:
    """What the files say that the rules for genes name; read before anything is overwritten.

    Parameters
    ----------
    wanted
        The list of genes, None without one.
    pairs
        Symbol to ids as the mapping says, then as the list does.
    settings
        The rules as plain values; a file stands for its content, not for where it lies.
    reference
        What is known of names of genes beside the inputs.
    """

    wanted: WantedGenes | None
    pairs: dict[str, tuple[str, ...]]
    settings: dict[str, Any]
    reference: Reference

    def of_directory(self, directory: Location) -> GeneFiles:
        """Return the same with the list called by the directory that it is of, of which the file may be a copy."""
        return (
            self
            if self.wanted is None
            else replace(self, wanted=replace(self.wanted, source=str(directory / GENE_LIST_FILE)))
        )


def read_gene_files(rules: AnyGeneRules) -> GeneFiles:
    """Read the files that the rules name.

    Raises
    ------
    ConfigError
        One is missing or is not what it should be.
    """
    wanted = read_wanted(rules) if isinstance(rules, ListRules) else None
    reference = load_reference(rules.reference)
    pairs = {symbol: (key,) for symbol, key in (wanted.pairs if wanted else {}).items()} | read_mapping(rules.mapping)
    settings = asdict(rules)
    # The built-in reference is part of the program, as the classes of genes are.
    del settings["reference"]
    if rules.reference != "builtin":
        settings["reference"] = reference.digest
    if rules.species is None:
        del settings["species"]
    if rules.mapping is not None:
        settings["mapping"] = hashlib.sha256(Path(rules.mapping).read_bytes()).hexdigest()
    if isinstance(rules, ListRules):
        settings["path"] = hashlib.sha256(rules.file.read_bytes()).hexdigest()
    return GeneFiles(wanted, pairs, settings, reference)


@dataclass(frozen=True)
class WantedGenes:
    """Genes as a list names them, in its order.

    Parameters
    ----------
    names
        What the list calls each gene; unique.
    ids, symbols
        Where the list tells them apart, else empty.
    verbatim
        Whether the columns of the directory take names, ids and symbols as
        they stand here: those of another directory's ``gene_list.json``.
    """

    source: str
    names: list[str]
    ids: list[str]
    symbols: list[str]
    verbatim: bool = False

    @property
    def pairs(self) -> dict[str, str]:
        """Symbol to id, for symbols that have one."""
        times = Counter(self.symbols)
        found = zip(self.symbols, self.ids, strict=True)
        return {symbol: unversioned(key) for symbol, key in found if symbol and key and times[symbol] == 1}


def read_wanted(rules: ListRules) -> WantedGenes:
    """Read the list; what it is shows in its content and suffix.

    Raises
    ------
    ConfigError
        It cannot be read as a list of genes, or names none.
    """
    path = rules.file
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"genes.path: {path} cannot be read as text: {error}") from error
    if text.lstrip()[:1] in ("{", "["):
        wanted = from_json(path, text)
    elif path.suffix.lower() in (".csv", ".tsv") or any(mark in text.partition("\n")[0] for mark in ",\t"):
        wanted = from_table(path, text.partition("\n")[0])
    else:
        lines = [line.strip() for line in text.splitlines()]
        wanted = of_names(path, [line for line in lines if line and not line.startswith("#")])
    if not wanted.names:
        raise ConfigError(f"genes.path: {path} names no gene")
    return wanted


def from_json(path: Path, text: str) -> WantedGenes:
    """Read a list of strings, or a ``gene_list.json``."""
    try:
        content = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"genes.path: {path} is not valid JSON: {error}") from error
    if isinstance(content, list) and all(isinstance(item, str) for item in content):
        return of_names(path, content)
    if not isinstance(content, dict) or content.get("format") != "scvae-data gene list":
        raise ConfigError(f"genes.path: {path} is neither a JSON list of names nor a {GENE_LIST_FILE}")
    genes: GeneList = read_gene_list(path.parent) if path.name == GENE_LIST_FILE else copied_list(path, content)
    return WantedGenes(
        str(path),
        genes.names.tolist(),
        [item or "" for item in genes.ids],
        [item or "" for item in genes.symbols],
        verbatim=True,
    )


def copied_list(path: Path, content: Mapping[str, Any]) -> GeneList:
    """Take over a ``gene_list.json`` under another name."""
    try:
        genes = GeneList.of(*(content["genes"][name] for name in ("name", "id", "symbol")))
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"genes.path: {path} is not a whole {GENE_LIST_FILE}: {error}") from error
    if genes.hash != content.get("hash"):
        raise ConfigError(f"genes.path: the genes of {path} are not those its hash was made of; copy it again")
    return genes


def from_table(path: Path, header: str) -> WantedGenes:
    """Read a CSV or TSV by the names of its columns; a gene may be called NA."""
    separator = next((mark for mark in "\t,;" if mark in header), ",")
    table = pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    named = {str(column).strip().lower(): column for column in table.columns}
    id_column, symbol_column = (
        next((named[name] for name in known if name in named), None) for known in (ID_COLUMNS, SYMBOL_COLUMNS)
    )
    if id_column is None and symbol_column is None:
        raise ConfigError(f"{path}: needs a column 'id' or 'symbol', has {', '.join(map(str, table.columns))}")
    blank = [""] * len(table)
    ids = blank if id_column is None else [value.strip() for value in table[id_column]]
    symbols = blank if symbol_column is None else [value.strip() for value in table[symbol_column]]
    rows = [(key, symbol) for key, symbol in zip(ids, symbols, strict=True) if key or symbol]
    return of_names(path, [key or symbol for key, symbol in rows], rows)


def of_names(path: Path, names: list[str], rows: list[tuple[str, str]] | None = None) -> WantedGenes:
    """Return a list of ids and symbols; a name that comes again is left out, with a warning."""
    unique = list(dict.fromkeys(names))
    if len(unique) < len(names):
        log.warning("%s names %s more than once", path, counted(len(names) - len(unique), "gene"))
    by_name: dict[str, tuple[str, str]] = {}
    for name, row in zip(names, rows or [("", "")] * len(names), strict=True):
        by_name.setdefault(name, row)
    return WantedGenes(str(path), unique, [by_name[name][0] for name in unique], [by_name[name][1] for name in unique])


def resolve(wanted: WantedGenes, universe: Universe) -> Columns:
    """Find every wanted gene among the genes of the inputs.

    A gene is found by its id (without version), else by its symbol where
    exactly one gene of the inputs has it.

    Raises
    ------
    ConfigError
        A symbol that stands for several genes, two names of one gene, or no gene found.
    """
    place = {name: number for names in (universe.keys, universe.ids) for number, name in enumerate(names) if name}
    of_symbol: defaultdict[str, list[int]] = defaultdict(list)
    for number, symbol in enumerate(universe.symbols):
        of_symbol[symbol].append(number)
    spelled: defaultdict[str, list[int]] = defaultdict(list)
    for number in np.flatnonzero(universe.ids == "").tolist() if wanted.verbatim else ():
        spelled[loose(universe.keys[number])].append(number)
    positions = np.full(len(wanted.names), -1, np.int64)
    columns_of: defaultdict[str, list[int]] = defaultdict(list)
    unclear: list[int] = []
    for column, (name, key, symbol) in enumerate(zip(wanted.names, wanted.ids, wanted.symbols, strict=True)):
        gene_id = unversioned(key or name)
        found = place.get(universe.retired.get(gene_id, gene_id), place.get(name, -1))
        if found < 0 and not (key or ENSEMBL.match(name)):
            candidates = of_symbol[symbol or name]
            if len(candidates) > 1 and wanted.verbatim:
                unclear.append(column)
                candidates = []
            if len(candidates) > 1:
                genes = ", ".join(universe.keys[candidates[:3]])
                raise ConfigError(f"{wanted.source}: {symbol or name} stands for several genes ({genes}); give the id")
            elif not candidates and len(others := spelled.get(loose(name), [])) == 1:
                candidates = others
            found = candidates[0] if candidates else -1
        columns_of[universe.keys[found] if found >= 0 else gene_id].append(column)
        positions[column] = found
    unclear += shared_columns(wanted, universe, positions, columns_of)
    positions[unclear] = -1
    if unclear:
        log.warning(
            "%s: what %s called stands for several genes of the inputs, or for one that another column stands for; "
            "not measured in them: %s",
            wanted.source, "a column is" if len(unclear) == 1 else f"{len(unclear):,} columns are",
            ", ".join(wanted.names[column] for column in sorted(unclear)[:10]),
        )  # fmt: skip
    if (positions < 0).all():
        raise ConfigError(
            f"none of the {len(wanted.names):,} genes of {wanted.source} is in the inputs, e.g. {wanted.names[0]} "
            f"against {universe.keys[0]}; inputs of another species cannot have them, other names of one species are "
            "brought together by genes.mapping"
        )
    return named_columns(wanted, universe, positions)


def shared_columns(
    wanted: WantedGenes, universe: Universe, positions: NDArray[np.int64], columns_of: Mapping[str, Sequence[int]]
) -> list[int]:
    """Refuse a list with two names of one gene; of that of a directory, which stays, return columns to do without.

    The column that has the gene's id has it, else the one that has its name,
    else the only one that is called as the inputs call the gene.
    """
    without: list[int] = []
    for gene, columns in columns_of.items():
        if len(columns) == 1:
            continue
        if not wanted.verbatim:
            first, second = (wanted.names[column] for column in columns[:2])
            raise ConfigError(f"{wanted.source}: {first} and {second} are the same gene {gene}; leave one out")
        found = int(positions[columns[0]])
        gene_id, called = (universe.ids[found], {gene, universe.symbols[found]}) if found >= 0 else ("", set())
        likely = (
            [column for column in columns if gene_id and unversioned(wanted.ids[column]) == gene_id],
            [column for column in columns if wanted.names[column] == gene],
            [column for column in columns if {wanted.names[column], wanted.symbols[column]} & called],
        )
        kept = next((some[0] for some in likely if len(some) == 1), None)
        without += [column for column in columns if column != kept]
    return without


def named_columns(wanted: WantedGenes, universe: Universe, positions: NDArray[np.int64]) -> Columns:
    """Return the columns under the list's names if they stand verbatim, else under those of the inputs."""
    if wanted.verbatim:
        names, symbols, ids = wanted.names, wanted.symbols, wanted.ids
    else:
        names, symbols, ids = [], [], []
        for name, key, symbol, found in zip(wanted.names, wanted.ids, wanted.symbols, positions, strict=True):
            if found >= 0:
                names.append(universe.keys[found])
                symbols.append(universe.symbols[found])
                ids.append(universe.ids[found])
            else:
                names.append(unversioned(key or name))
                symbols.append(symbol or name)
                ids.append(unversioned(key or name) if key or ENSEMBL.match(name) else "")
    return Columns(positions, *(np.array(column, object) for column in (names, symbols, ids)))


def read_mapping(path: str | None) -> dict[str, tuple[str, ...]]:
    """Read a table of symbol to ids, in its order; an empty dict for None.

    Raises
    ------
    ConfigError
        It does not exist, or lacks a column.
    """
    if path is None:
        return {}
    file = named_file("genes.mapping", local_path("genes.mapping", path), "give a table with the columns id and symbol")
    table = read_text_table(file, ["id", "symbol"])
    found: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for symbol, key in zip(table.column("symbol"), table.column("id"), strict=True):
        if symbol and key:
            found[symbol][unversioned(key)] = None
    return {symbol: tuple(keys) for symbol, keys in found.items()}
