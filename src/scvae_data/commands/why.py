"""A dataset directory and the name of a cell in; whether it is kept and where, or which rule dropped it, out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from difflib import get_close_matches
from typing import Any

import numpy as np
import pyarrow.compute as pc

from scvae_data.errors import SelectionError
from scvae_data.processing.decide.duplicates import DUPLICATE_RULE
from scvae_data.processing.decide.stage import LATE_RULE
from scvae_data.processing.settings.qc import DOUBLET_RULE, SPECIES_METRIC, QcRules
from scvae_data.remote.location import Location
from scvae_data.store import SRX_COLUMN, DatasetIndex, open_index, read_json
from scvae_data.store.files import expecting
from scvae_data.store.listed_table import listed_table
from scvae_data.store.names import generation_file
from scvae_data.store.verify import SUMMARY_FILE

__all__ = ["why"]

Found = tuple[str, int, str]
"""Source file and row of a cell, and what became of it."""

MAX_COMPARED = 20_000
WORDS = {
    "zero_counts": "it has no count at all",
    LATE_RULE: "it has no count in a gene that the directory holds",
    "not_where": "input.where is not true of it",
    "not_control": "it is not a control cell (subset_to_control_cells=true)",
}
METRICS = {limit.name: limit.metadata["metric"] for limit in fields(QcRules) if "metric" in limit.metadata} | {
    "other_species": SPECIES_METRIC,
    "species_doublet": SPECIES_METRIC,
}


def why(directory: Location, accession: str, barcode: str) -> str:
    """Say what became of a cell; a line for each cell of that name, where files share an accession.

    Parameters
    ----------
    directory
        A finished dataset directory.
    accession
        The experiment.
    barcode
        The cell's name in its file, or its whole name in the directory.

    Raises
    ------
    SelectionError
        There is no such cell; names what is like it.
    """
    index = open_index(directory)
    name = barcode.split(":", 1)[1] if barcode.startswith((f"{accession}:", f"{accession}#")) else barcode
    known: set[str] = set()
    found = [*kept(index, accession, name, known), *dropped(index, accession, name, known)]
    if found:
        return "\n".join(f"{what}; row {row} of {file}" for file, row, what in sorted(found))
    if known:
        close = close_names(name, known)
        hint = f"did you mean {', '.join(close)}?" if close else f"it has {len(known):,}, e.g. {min(known)}"
        raise SelectionError(f"{accession} has no cell {name}, kept or dropped; {hint}")
    raise SelectionError(unknown_accession(index, directory, accession))


def kept(index: DatasetIndex, accession: str, barcode: str, known: set[str]) -> Iterator[Found]:
    """Yield each kept cell of the name; ``known`` gets the barcodes of the accession."""
    if accession not in (index.obs_columns[SRX_COLUMN].categories or ()):
        return
    rows = index.rows([accession])
    for chunk_id in np.unique(index.locate(rows)[0]):
        first, stop = index.first_rows[chunk_id : chunk_id + 2]
        here = rows[(rows >= first) & (rows < stop)]
        obs = index.obs(["source_file", "source_row"], here)
        for row, name, file, source_row in zip(here, obs.index, *(obs[c] for c in obs.columns), strict=True):
            found = name.split(":", 1)[1]
            known.add(found)
            if found == barcode:
                chunk = index.chunks[chunk_id].file
                yield str(file), int(source_row), f"kept: row {row - first} in {chunk} (cell {row} of the directory)"


def dropped(index: DatasetIndex, accession: str, barcode: str, known: set[str]) -> Iterator[Found]:
    """Yield each dropped cell of the name; ``known`` gets the barcodes of the accession."""
    for number in range(len(index.generations)):
        account = index.path / generation_file(SUMMARY_FILE, number)
        summary = read_json(account)
        with expecting(account):
            entry = dict(summary["dropped_cells"])
        with listed_table(index.path, entry) as table:
            for group in range(table.num_row_groups):
                names = table.read_row_group(group, ["accession", "barcode"])
                here = pc.equal(names.column("accession"), accession)
                known.update(names.filter(here).column("barcode").to_pylist())
                hit = pc.and_(here, pc.equal(names.column("barcode"), barcode))
                if pc.any(hit).as_py():
                    for cell in table.read_row_group(group).filter(hit).to_pylist():
                        yield cell["source_file"], cell["source_row"], reason(cell)


def reason(cell: dict[str, Any]) -> str:
    """Say which rule dropped a cell, with value and threshold."""
    rule, value, threshold = cell["rule"], cell["value"], cell["threshold"]
    if rule == DUPLICATE_RULE:
        return f"dropped by keep_duplicates: it has the same counts as {cell['copy_of']}"
    if rule in WORDS:
        return f"dropped by {rule}: {WORDS[rule]}"
    if rule == DOUBLET_RULE:
        return f"dropped by qc.doublets=drop: its doublet score is {value:.6g}, above {threshold:.6g}"
    outlier = rule.startswith("mad_")
    # What a limit of another class of rules looks at is not in the table.
    metric = rule.removeprefix("mad_") if outlier else METRICS.get(rule, "what it limits")
    side = "below" if value < threshold else "above"
    whose = " (the outlier bound of its experiment)" if outlier else ""
    return f"dropped by {rule}: {metric} is {value:.6g}, {side} {threshold:.6g}{whose}"


def close_names(barcode: str, known: set[str]) -> list[str]:
    """Return barcodes like the one asked for: with or without a suffix, or a letter apart."""
    stem = barcode.split("-")[0]
    same = sorted(name for name in known if name.split("-")[0] == stem)
    # A comparison of each is slow: those that begin alike go first.
    ordered = sorted(known, key=lambda name: (name[:4] != barcode[:4], name))[:MAX_COMPARED]
    return (same or get_close_matches(barcode, ordered, n=3))[:3]


def unknown_accession(index: DatasetIndex, directory: Location, accession: str) -> str:
    """Say what may have become of an experiment that is not there."""
    summary = read_json(directory / SUMMARY_FILE)
    with expecting(directory / SUMMARY_FILE):
        for file in summary["failed_files"]:
            if accession in file["source_file"]:
                return f"no cell of {accession} was read: {' '.join(str(file['message']).split())}"
    names = index.obs_columns[SRX_COLUMN].categories or ()
    close = get_close_matches(accession, names, n=3)
    hint = f"did you mean {', '.join(close)}?" if close else f"it has {len(names):,} experiments, e.g. {names[0]}"
    return f"experiment {accession} not in {directory}; {hint}"
