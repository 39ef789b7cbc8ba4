"""Configured inputs in; the headers of all files, and their genes in one order, out."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from scvae_data.processing.facts import FileFacts
from scvae_data.processing.genes.choose import Choice, list_choice
from scvae_data.processing.genes.universe import Universe, align, hash_keys, load_table
from scvae_data.processing.genes.wanted import resolve
from scvae_data.processing.run.context import Context
from scvae_data.processing.run.losses import tell_failures
from scvae_data.processing.survey.corpus import check_corpus, check_group_column, survey_inputs

__all__ = ["Headers", "read_headers"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Headers:
    """All that is known before the first count is read.

    Parameters
    ----------
    files
        Those that can be read, in order of their names.
    universe
        The genes of all of them.
    listed
        The columns where a list names them, else None.
    """

    files: list[FileFacts]
    universe: Universe
    listed: Choice | None


def read_headers(context: Context) -> Headers:
    """Read all headers, and bring the genes of all files into one order.

    Raises
    ------
    ScvaeDataError
        More files failed than may, or the inputs are what they must not be together.
    """
    files = survey(context)
    n_files = Counter(slot.table for file in files for slot in file.slots)
    universe = align(n_files, partial(load_table, context.work / "tables"), context.gene_files.pairs)
    wanted = context.gene_files.wanted
    listed = list_choice(resolve(wanted, universe), wanted) if wanted else None
    save_universe(context, universe)
    return Headers(files, universe, listed)


def survey(context: Context) -> list[FileFacts]:
    """Read all headers; refuse what the inputs must not be together. Files come back in order of their names."""
    corpus = survey_inputs(context.inputs, context.engine, context.work / "tables")
    files, context.summary.n_files = corpus.files, corpus.n_files
    tell_failures(context, corpus.failed)
    if files:
        check_corpus(files, context.inputs, allow_mixed_species=context.genes.allow_mixed_species)
        check_group_column(files, context.inputs, context.chunking.group_column)
    tell_notes(files)
    return files


def tell_notes(files: Sequence[FileFacts]) -> None:
    """Tell what was noticed in each file."""
    for file in files:
        for note in file.notes:
            log.info("%s: %s", file.source_file, note)


def save_universe(context: Context, universe: Universe) -> None:
    """Store the genes, and each table's map to them, for the workers."""
    for key, positions in universe.maps.items():
        np.save(context.work / "maps" / f"{key}.npy", positions)
    np.save(context.work / "universe_keys.npy", universe.keys.astype(str))
    np.save(context.work / "universe_symbols.npy", universe.symbols.astype(str))
    np.save(context.work / "universe_hashes.npy", hash_keys(universe.keys))
