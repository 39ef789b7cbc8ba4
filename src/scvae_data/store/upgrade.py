"""A directory of an earlier version of the format in, what the present one has beside it out: the index last."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from scvae_data.remote.location import Location, RemotePath
from scvae_data.remote.objects import facts_of
from scvae_data.store.cell_tables_writer import table_names
from scvae_data.store.dataset_index import DatasetIndex
from scvae_data.store.files import sweep_temporaries
from scvae_data.store.gene_list import write_gene_sets
from scvae_data.store.grow import give_file
from scvae_data.store.index_json import open_index, write_index
from scvae_data.store.names import FORMAT_VERSION, INDEX_FILE
from scvae_data.store.row_table import RowTableWriter, stored_types

__all__ = ["upgrade"]


def upgrade(directory: Location, made: Path) -> tuple[int, DatasetIndex]:
    """Write what is missing, without touching any other file; return the version that was found, and the new index.

    Until the new index stands in place of the old one, by one rename or put,
    the directory is as it was. Only for a directory that nobody else is writing to.

    Parameters
    ----------
    made
        The directory or, of one in a store, a folder of this machine, where files are made.

    Raises
    ------
    ScvaeDataError
        As :func:`~scvae_data.open_index`, and if a table is damaged.
    """
    # Before it is read: what is newer than that is not replaced.
    old = facts_of(directory / INDEX_FILE) if isinstance(directory, RemotePath) else None
    index = open_index(directory)
    version = index.format_version
    if version == FORMAT_VERSION:
        return version, index
    sweep_temporaries(made)
    (generation,) = index.generations
    _, rows, gene_sets = table_names(0)
    files = {**index.files, gene_sets: write_gene_sets(made / gene_sets, index.gene_sets)}
    types = stored_types(index.obs_columns)
    with RowTableWriter(made / rows, types) as writer:
        for chunk_id in range(len(index.chunks)):
            values = index.cells.arrays(chunk_id, types)
            for name in types:
                if (categories := index.obs_columns[name].categories) is not None:
                    values[name] = np.where(values[name] == len(categories), -1, values[name])
            writer.append(values)
        files[rows] = writer.close()
    if made != directory:
        for name in (gene_sets, rows):
            give_file(made / name, directory / name)
            (made / name).unlink()
    n_categories = {
        name: len(known.categories) for name, known in index.obs_columns.items() if known.categories is not None
    }
    generations = (replace(generation, rows=rows, row_columns=types, gene_sets=gene_sets, n_categories=n_categories),)
    upgraded = replace(index, files=files, generations=generations, upgraded_from=version)
    return version, write_index(directory, upgraded, old)
