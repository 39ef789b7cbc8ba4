"""A dataset, an experiment or its file, and perhaps the name of a cell in; what became of it, or of the cell, out."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from scvae_data.errors import SelectionError
from scvae_data.processing.decide.duplicates import DUPLICATE_RULE
from scvae_data.processing.decide.stage import LATE_RULE
from scvae_data.processing.finished.append import recorded_inputs
from scvae_data.processing.run.losses import lost_text
from scvae_data.processing.settings.inputs import without_ending
from scvae_data.processing.settings.qc import DOUBLET_RULE, SPECIES_METRIC, QcRules
from scvae_data.remote.location import Location
from scvae_data.store import SRX_COLUMN, DatasetIndex, open_index, read_json
from scvae_data.store.files import expecting
from scvae_data.store.listed_table import listed_table
from scvae_data.store.names import generation_file
from scvae_data.store.verify import SUMMARY_FILE
from scvae_data.wording import counted, did_you_mean, named

__all__ = ["why"]

Found = tuple[str, int, str]
"""Source file and row of a cell, and what became of it."""

MAX_COMPARED = 20_000
KEPT = ""
"""The rule of cells that no rule dropped."""
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


@dataclass(frozen=True)
class Meant:
    """The experiments or files that are asked about."""

    column: str
    """The obs column of them."""
    values: tuple[str, ...]
    """Those that are meant."""
    name: str
    """As they are called in words."""

    @property
    def dropped_column(self) -> str:
        """The column of the table of dropped cells that says the same."""
        return "accession" if self.column == SRX_COLUMN else self.column

    def rows(self, index: DatasetIndex, chunk_id: int) -> NDArray[np.int64]:
        """Return their rows of a chunk."""
        place = index.obs_columns[self.column].place
        codes = [place[value] for value in self.values if value in place]
        return np.flatnonzero(np.isin(index.codes(self.column, chunk_id), codes)) if codes else np.zeros(0, np.int64)


def why(directory: Location, experiment: str, barcode: str | None = None) -> str:
    """Say what became of an experiment, or of a cell; a line for each file, or cell of that name.

    Parameters
    ----------
    directory
        A finished dataset directory.
    experiment
        The experiment as obs calls it, or the name of its file, with or without folders and ending.
    barcode
        The cell's name in its file, or its whole name in the directory; None asks for all cells of the experiment.

    Raises
    ------
    SelectionError
        There is no such experiment or cell; names what is like it.
    """
    index = open_index(directory)
    accessions = index.obs_columns[SRX_COLUMN].categories or ()
    meant = what_is_meant(index, experiment)
    if barcode is None:
        told = told_of_files(index, meant) or of_file_without_cells(index, experiment)
        if not told:
            raise SelectionError(unknown_experiment(index, directory, experiment))
        return told
    prefix, _, rest = barcode.partition(":")
    name = rest if rest and prefix.partition("#")[0] in {experiment, *accessions} else barcode
    known: set[str] = set()
    found = [*kept(index, meant, name, known), *dropped(index, meant, name, known)]
    if found:
        return "\n".join(f"{what}; row {row} of {file}" for file, row, what in sorted(found))
    if known:
        hint = did_you_mean(close_names(name, known), f"it has {len(known):,}, e.g. {min(known)}")
        raise SelectionError(f"{meant.name} has no cell {name}, kept or dropped; {hint}")
    raise SelectionError(unknown_experiment(index, directory, experiment))


def told_of_files(index: DatasetIndex, meant: Meant) -> str:
    """Say how many cells of each file are kept, and how many each rule dropped; empty if none was read."""
    lines = []
    for file, times in sorted(cells_of_files(index, meant).items()):
        n_kept, n_all = times.pop(KEPT, 0), times.total()
        lost = lost_text(dict(sorted(times.items(), key=lambda one: (-one[1], one[0]))))
        whose = f"{meant.name} in {file}" if meant.column == SRX_COLUMN else file
        lines.append(
            f"{whose}: {n_kept:,} of {counted(n_kept + n_all, 'cell')} kept" + (f"; dropped: {lost}" if lost else "")
        )
    return "\n".join(lines)


def cells_of_files(index: DatasetIndex, meant: Meant) -> dict[str, Counter[str]]:
    """Count the cells of each file that are kept, and those that each rule dropped."""
    found: defaultdict[str, Counter[str]] = defaultdict(Counter)
    files = index.obs_columns["source_file"].categories or ()
    for chunk_id in range(len(index.chunks)):
        codes = index.codes("source_file", chunk_id)[meant.rows(index, chunk_id)]
        for code, n in zip(*np.unique(codes, return_counts=True), strict=True):
            found[files[code]][KEPT] += int(n)
    for table, group in groups_of_dropped(index):
        cells = table.read_row_group(group, [meant.dropped_column, "source_file", "rule"])
        here = cells.filter(pc.is_in(cells.column(meant.dropped_column), pa.array(meant.values)))
        for row in here.group_by(["source_file", "rule"]).aggregate([([], "count_all")]).to_pylist():
            found[row["source_file"]][row["rule"]] += row["count_all"]
    return found


def what_is_meant(index: DatasetIndex, experiment: str) -> Meant:
    """Return the experiment of a name, else the files of it, else an experiment of which no cell is kept."""
    if experiment not in (index.obs_columns[SRX_COLUMN].categories or ()) and (found := files_of(index, experiment)):
        return Meant("source_file", tuple(found), named(found))
    return Meant(SRX_COLUMN, (experiment,), experiment)


def files_of(index: DatasetIndex, name: str) -> list[str]:
    """Return the input files of a name: by as many folders as both have, and by the ending if some have it."""
    files = input_files(index)
    for plain in (str, without_ending):
        wanted = parts_of(plain(name.rstrip("/")))
        shared = {file: n_shared(parts_of(plain(file)), wanted) for file in files}
        if found := [file for file, n in shared.items() if n and n == max(shared.values())]:
            return found
    return []


def input_files(index: DatasetIndex) -> list[str]:
    """Return the names of all inputs, also of those of which no cell is kept."""
    kept = index.obs_columns["source_file"].categories or ()
    return sorted({*kept, *(str(row[0]) for row in recorded_inputs(index))})


def parts_of(path: str) -> list[str]:
    """Return the folders and the name of a path."""
    return [part for part in path.split("/") if part not in ("", ".")]


def n_shared(path: list[str], other: list[str]) -> int:
    """Return how many last parts two paths share where one of them is the end of the other, else 0."""
    n = min(len(path), len(other))
    return n if path[-n:] == other[-n:] else 0


def kept(index: DatasetIndex, meant: Meant, barcode: str, known: set[str]) -> Iterator[Found]:
    """Yield each kept cell of the name; ``known`` gets the barcodes of all that are meant."""
    for chunk_id, first in enumerate(index.first_rows[:-1].tolist()):
        rows = meant.rows(index, chunk_id)
        if not len(rows):
            continue
        obs = index.obs(["source_file", "source_row"], rows + first)
        for row, name, file, source_row in zip(rows, obs.index, *(obs[c] for c in obs.columns), strict=True):
            found = name.split(":", 1)[1]
            known.add(found)
            if found == barcode:
                place = f"row {row} in {index.chunks[chunk_id].file} (cell {row + first} of the directory)"
                yield str(file), int(source_row), f"kept: {place}"


def dropped(index: DatasetIndex, meant: Meant, barcode: str, known: set[str]) -> Iterator[Found]:
    """Yield each dropped cell of the name; ``known`` gets the barcodes of all that are meant."""
    for table, group in groups_of_dropped(index):
        names = table.read_row_group(group, [meant.dropped_column, "barcode"])
        here = pc.is_in(names.column(meant.dropped_column), pa.array(meant.values))
        known.update(names.filter(here).column("barcode").to_pylist())
        hit = pc.and_(here, pc.equal(names.column("barcode"), barcode))
        if pc.any(hit).as_py():
            for cell in table.read_row_group(group).filter(hit).to_pylist():
                yield cell["source_file"], cell["source_row"], reason(cell)


def groups_of_dropped(index: DatasetIndex) -> Iterator[tuple[pq.ParquetFile, int]]:
    """Yield each group of rows of the tables of dropped cells: its table, and its number there."""
    for number in range(len(index.generations)):
        account = index.path / generation_file(SUMMARY_FILE, number)
        summary = read_json(account)
        with expecting(account):
            entry = dict(summary["dropped_cells"])
        with listed_table(index.path, entry) as table:
            for group in range(table.num_row_groups):
                yield table, group


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


def of_file_without_cells(index: DatasetIndex, name: str) -> str:
    """Say why no cell of a file was read; empty if there is no such file."""
    for number in range(len(index.generations)):
        account = index.path / generation_file(SUMMARY_FILE, number)
        summary = read_json(account)
        with expecting(account):
            for file in summary["failed_files"]:
                if is_called(file["source_file"], name):
                    return f"no cell of {name} was read: {' '.join(str(file['message']).split())}"
            species = summary.get("species") or {"files_left_out": ()}
            if found := next((file for file in species["files_left_out"] if is_called(file, name)), None):
                return f"no cell of {name} was read: genes.species={species['kept']} leaves {found} out"
    return ""


def is_called(file: str, name: str) -> bool:
    """Whether a name is a part of that of a file that stands by itself, or one of them the end of the other."""
    in_name = re.search(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])", file)
    return bool(in_name) or n_shared(parts_of(file), parts_of(name)) > 0


def unknown_experiment(index: DatasetIndex, directory: Location, experiment: str) -> str:
    """Say what may have become of an experiment that is not there."""
    if told := of_file_without_cells(index, experiment):
        return told
    names = index.obs_columns[SRX_COLUMN].categories or ()
    files = {parts_of(without_ending(file))[-1]: file for file in reversed(input_files(index))}
    plain = without_ending((parts_of(experiment) or [experiment])[-1])
    like = [*get_close_matches(plain, names, n=2), *(files[name] for name in get_close_matches(plain, files, n=2))]
    hint = did_you_mean(dict.fromkeys(like), f"it has {len(names):,} experiments, e.g. {next(iter(names), 'none')}")
    return f"experiment {experiment} not in {directory}, nor is there a file of that name; {hint}"
