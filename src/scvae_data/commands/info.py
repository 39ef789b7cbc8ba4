"""A dataset directory in; what it holds, in a few lines, out: by its index and its tables of experiments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from scvae_data.remote.location import Location
from scvae_data.store import SRX_COLUMN, DatasetIndex, open_index, read_json
from scvae_data.store.files import is_there
from scvae_data.store.listed_table import listed_table
from scvae_data.store.names import generation_file
from scvae_data.store.verify import SUMMARY_FILE
from scvae_data.wording import counted, named

__all__ = ["describe", "info"]

MOST_NAMED = 8
EMPTY = '""'
OF_EXPERIMENTS = ("species", "chemistry")
OF_FILES = (SRX_COLUMN, "source_file")
"""Categories that are no labels of cells."""


def info(directory: Location) -> str:
    """Say what a directory holds, whatever its size: names are the first few of each kind, with how many more.

    Raises
    ------
    ScvaeDataError
        There is no dataset, or a file of it is damaged.
    """
    index = open_index(directory)
    return describe(index, of_experiments(index))


def describe(index: DatasetIndex, experiments: Mapping[str, Mapping[str, int]]) -> str:
    """Say what a dataset holds.

    Parameters
    ----------
    experiments
        What is known of the experiments: name of a column → value → number of experiments.
    """
    stored = sum(chunk.bytes for chunk in index.chunks)
    beside = sum(facts.bytes for facts in index.files.values())
    method = index.normalization["method"]
    grown = f", in {len(index.generations)} generations" if len(index.generations) > 1 else ""
    accessions = index.obs_columns[SRX_COLUMN].categories or ()
    labels = {
        name: column.categories
        for name, column in index.obs_columns.items()
        if column is not None and column.categories is not None and name not in OF_FILES
    }
    others = [name for name in index.obs_columns if name not in labels and name not in OF_FILES]
    facts = {
        "directory": f"{index.path}{' (simulated)' if index.simulated else ''}",
        "cells": f"{index.n_obs:,}",
        "experiments": f"{len(accessions):,}: {named(accessions, MOST_NAMED)}",
        **{
            name: named([f"{value} ({n:,})" for value, n in values.items()], MOST_NAMED)
            for name, values in experiments.items()
        },
        "genes": f"{index.n_vars:,}",
        "non-zeros": f"{index.nnz:,} ({index.nnz / max(index.n_obs, 1):,.0f} a cell)",
        "chunks": f"{len(index.chunks):,} of up to {index.chunk_size:,} cells{grown}",
        "size": f"{(stored + beside) / 1e6:,.1f} MB, {stored / max(index.nnz, 1):.2f} bytes a non-zero",
        "normalised": method if method == "none" else f"{method} to {index.normalization['target_sum']:,g} counts",
        "labels": counted(len(labels), "obs column") + " of categories" if labels else "none",
        **{
            f"  {name}": f"{len(values):,}: {named([value or EMPTY for value in values], MOST_NAMED)}"
            for name, values in labels.items()
        },
        "other obs": ", ".join(others),
        "format": f"version {index.format_version}, content {index.content_hash}",
    }
    width = max(12, *(len(name) for name in facts))
    return "\n".join(f"{name:<{width}} {fact}" for name, fact in facts.items())


def of_experiments(index: DatasetIndex) -> dict[str, dict[str, int]]:
    """Return how many experiments are of which species and chemistry; empty for directories that do not know.

    Those without a cell there are left out. One whose files are of two is one of each.
    """
    found: dict[str, set[tuple[str, str | None]]] = {name: set() for name in OF_EXPERIMENTS}
    for number in range(len(index.generations)):
        summary = index.path / generation_file(SUMMARY_FILE, number)
        if not is_there(summary) or not (entry := read_json(summary).get("experiments")):
            continue
        with listed_table(index.path, entry) as table:
            columns = [name for name in OF_EXPERIMENTS if name in table.schema_arrow.names]
            rows = table.read(["srx_accession", "n_kept", *columns]).to_pylist()
        for row in rows:
            if row["n_kept"]:
                for name in columns:
                    found[name].add((row["srx_accession"], row[name]))
    return {name: dict(Counter(value or "unknown" for _, value in pairs)) for name, pairs in found.items() if pairs}
