"""Rules of quality control that look at classes of genes, and files without a gene of the class; words on them out."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scvae_data.errors import ConfigError
from scvae_data.processing.genes.tables import load_table
from scvae_data.processing.genes.universe import Universe
from scvae_data.processing.settings.gene_classes import GENE_CLASSES, GeneClass
from scvae_data.processing.settings.qc import QcRules
from scvae_data.wording import counted

__all__ = ["Unapplied", "tell_unapplied", "unapplied_rules"]

log = logging.getLogger(__name__)

MOST_FILES, MOST_NAMES = 5, 4


@dataclass(frozen=True)
class Unapplied:
    """A rule that says nothing of some files, because no gene of its class is recognised in them.

    Parameters
    ----------
    rule
        Its key.
    gene_class
        The class it looks at.
    files
        The files, in order of their names.
    table
        The gene table of the first one.
    """

    rule: str
    gene_class: GeneClass
    files: list[str]
    table: str

    def text(self, tables: Path) -> str:
        """Say it in one line, with names of genes of the first file."""
        table = load_table(tables, self.table)
        names = (table.names if table.symbols is None else table.symbols)[:MOST_NAMES]
        more = f" and {counted(len(self.files) - MOST_FILES, 'more file')}" if len(self.files) > MOST_FILES else ""
        return (
            f"{self.rule} could not be applied to {', '.join(self.files[:MOST_FILES])}{more}: no "
            f"{self.gene_class.called or self.gene_class.name} gene was recognised among names such as "
            f"{', '.join(repr(str(name)) for name in names)}"
        )


def unapplied_rules(qc: QcRules, universe: Universe, tables: Mapping[str, str]) -> list[Unapplied]:
    """Return the rules that cannot be applied to some files.

    Parameters
    ----------
    tables
        The gene table of each file.
    """
    rules = [(f"qc.{rule.name}", rule.metric) for rule in qc.fixed_rules]
    rules += [(f"qc.nmads.{metric}", metric) for metric in qc.outlier_metrics]
    found = []
    for rule, metric in rules:
        for bit, gene_class in enumerate(GENE_CLASSES):
            if metric != f"pct_counts_{gene_class.name}":
                continue
            lacking = {table for table in set(tables.values()) if not has_class(universe, table, bit)}
            files = sorted(file for file, table in tables.items() if table in lacking)
            if files:
                found.append(Unapplied(rule, gene_class, files, tables[files[0]]))
    return found


def has_class(universe: Universe, table: str, bit: int) -> bool:
    """Whether a gene table has a gene of a class."""
    genes = universe.maps[table]
    return bool((universe.flags[genes[genes >= 0]] & np.uint32(1 << bit)).any())


def tell_unapplied(qc: QcRules, found: list[Unapplied], tables: Path, *, warn: bool = True) -> None:
    """Warn of rules that cannot be applied to some files.

    Parameters
    ----------
    tables
        Folder of the gene tables.
    warn
        Whether to; an error is raised in any case.

    Raises
    ------
    ConfigError
        There are some, and ``qc.require_rules`` is set.
    """
    for unapplied in found:
        text = unapplied.text(tables)
        if qc.require_rules:
            raise ConfigError(
                f"{text}; name its genes by id or symbol, set {unapplied.rule}=null, or qc.require_rules=false"
            )
        if warn:
            log.warning("%s; qc.require_rules=true makes this an error", text)
