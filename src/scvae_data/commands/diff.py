"""Two dataset directories in; experiments, genes and cells that one has and the other has not, out.

A cell is a row of an input file: it is the same one in both, whatever the
order of the directories. Where the other directory has its experiment of
files of other names, a cell is what its name says: experiment and barcode.
Cells of some experiments are compared at a time, so that memory does not grow
with the number of cells.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scvae_data.remote.location import Location
from scvae_data.store import SRX_COLUMN, DatasetIndex, open_index

__all__ = ["Difference", "compare", "diff"]

PART_CELLS = 50_000_000
ROW_BITS = 40
BY_NAME = np.int64(np.iinfo(np.int64).min)
"""Set in the number of a cell that is made of its name."""
MOST_NAMED = 5


@dataclass(frozen=True, eq=False)
class Difference:
    """What became of the cells of one directory in another: numbers of cells of each experiment, (n_experiments,)."""

    experiments: Sequence[str]
    """Those of both, sorted."""
    kept: NDArray[np.int64]
    """The same in both."""
    changed: NDArray[np.int64]
    """With another sum of counts, or of another experiment."""
    gone: NDArray[np.int64]
    """In the first only."""
    added: NDArray[np.int64]
    """In the second only."""

    @property
    def nothing(self) -> bool:
        """Whether both have the same cells."""
        return not (self.changed.any() or self.gone.any() or self.added.any())


def compare(one: DatasetIndex, other: DatasetIndex, part_cells: int = PART_CELLS) -> Difference:
    """Compare the cells of two directories.

    Raises
    ------
    DamagedFileError
        A table of cells is not what was written.
    """
    experiments, files = (Names.of(one, other, column) for column in (SRX_COLUMN, "source_file"))
    names = list(experiments.place)
    n_parts = -(-max(one.n_obs, other.n_obs) // part_cells)
    tallies = np.zeros((4, len(names) + 1), np.int64)
    for part in range(n_parts):
        (keys, of, totals), (their_keys, their_of, their_totals) = (
            _cells(index, experiments, files, range(part, len(names) + 1, n_parts)) for index in (one, other)
        )
        _, mine, its = np.intersect1d(keys, their_keys, assume_unique=True, return_indices=True)
        same = (totals[mine] == their_totals[its]) & (of[mine] == their_of[its])
        alone, added = np.ones(len(keys), bool), np.ones(len(their_keys), bool)
        alone[mine] = added[its] = False
        for tally, cells in zip(tallies, (of[mine[same]], of[mine[~same]], of[alone], their_of[added]), strict=True):
            tally += np.bincount(cells, minlength=len(tally))
    kept, changed, gone, new = tallies[:, : len(names)]
    return Difference(names, kept, changed, gone, new)


def diff(first: Location, second: Location) -> tuple[bool, str]:
    """Say how a directory differs from another: whether they hold the same, and the lines to print.

    Raises
    ------
    ScvaeDataError
        One of them cannot be read.
    """
    one, other = open_index(first), open_index(second)
    found = compare(one, other)
    lines = list(_settings(one, other))
    names = np.array(found.experiments, object)
    in_first, in_second = found.kept + found.changed + found.gone > 0, found.kept + found.changed + found.added > 0
    altered = in_first & in_second & (found.changed + found.gone + found.added > 0)
    for what, chosen in (("added", in_second & ~in_first), ("gone", in_first & ~in_second), ("changed", altered)):
        lines += _listed(f"experiments {what}", names[chosen].tolist())
    lines += _genes(one, other)
    sums = {name: int(getattr(found, name).sum()) for name in ("kept", "changed", "gone", "added")}
    lines.append(_line("cells", ", ".join(f"{number:,} {name}" for name, number in sums.items())))
    same = found.nothing and len(lines) == 1
    return same, "\n".join(lines)


@dataclass(frozen=True, eq=False)
class Names:
    """Categories of a column of two directories."""

    place: Mapping[str, int]
    """A number for each, in their order."""
    in_both: NDArray[np.bool_]
    """Whether both have it, and False for none; (n_names + 1,)."""

    @classmethod
    def of(cls, one: DatasetIndex, other: DatasetIndex, column: str) -> Names:
        """Bring those of two directories together."""
        mine, its = ({*(index.obs_columns[column].categories or ())} for index in (one, other))
        names = sorted(mine | its)
        in_both = np.array([*(name in mine and name in its for name in names), False])
        return cls({name: number for number, name in enumerate(names)}, in_both)

    def numbers(self, names: Sequence[str] | None) -> NDArray[np.int64]:
        """Return the number of each category of a directory, and that of none."""
        return np.array([*(self.place[name] for name in names or ()), len(self.place)], np.int64)


def _cells(
    index: DatasetIndex, experiments: Names, files: Names, wanted: range
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Of the cells of some experiments: a number for each, its experiment, and its sum of counts."""
    of_code, file_of_code = (
        names.numbers(index.obs_columns[column].categories)
        for column, names in ((SRX_COLUMN, experiments), ("source_file", files))
    )
    parts = [np.zeros((3, 0), np.int64)]
    for chunk_id, first_row in enumerate(index.first_rows[:-1].tolist()):
        values = index.cells.arrays(chunk_id, [SRX_COLUMN, "source_file", "source_row", "total_counts"])
        of, file = of_code[values[SRX_COLUMN]], file_of_code[values["source_file"]]
        here = np.flatnonzero((of - wanted.start) % wanted.step == 0)
        keys = (file[here] << ROW_BITS) + values["source_row"][here]
        by_name = np.flatnonzero(experiments.in_both[of[here]] & ~files.in_both[file[here]])
        if len(by_name):
            names = index.obs([], here[by_name] + first_row).index.to_numpy(object)
            keys[by_name] = pd.util.hash_array(names, categorize=False).view(np.int64) | BY_NAME
        parts.append(np.stack([keys, of[here], values["total_counts"][here]]))
    keys, of, totals = np.concatenate(parts, axis=1)
    return keys, of, totals


def _settings(one: DatasetIndex, other: DatasetIndex) -> Iterator[str]:
    """What each directory has one of, where they differ."""
    for name in ("normalization", "order"):
        mine, its = getattr(one, name), getattr(other, name)
        for key in sorted({*mine, *its}):
            if mine.get(key) != its.get(key):
                yield _line(f"{name}.{key}", f"{mine.get(key)} → {its.get(key)}")
    mine, its = ({name: known.dtype for name, known in index.obs_columns.items()} for index in (one, other))
    for name in sorted({*mine, *its}):
        if mine.get(name) != its.get(name):
            yield _line(f"obs column {name}", f"{mine.get(name, 'not there')} → {its.get(name, 'not there')}")


def _genes(one: DatasetIndex, other: DatasetIndex) -> Iterator[str]:
    """Genes that are added, gone, or called by another id or symbol; and whether their order is another."""
    if one.gene_list_hash == other.gene_list_hash:
        return
    mine, its = (
        {name: (key, symbol) for name, key, symbol in zip(genes.names, genes.ids, genes.symbols, strict=True)}
        for genes in (one.genes, other.genes)
    )
    both = [name for name in mine if name in its]
    yield from _listed("genes added", [name for name in its if name not in mine])
    yield from _listed("genes gone", [name for name in mine if name not in its])
    yield from _listed("genes changed", [name for name in both if mine[name] != its[name]])
    if both != [name for name in its if name in mine]:
        yield _line("genes", "those of both come in another order")


def _listed(what: str, names: Sequence[str]) -> list[str]:
    """A line on some names; none, no line."""
    if not names:
        return []
    more = f" and {len(names) - MOST_NAMED:,} more" if len(names) > MOST_NAMED else ""
    return [_line(what, f"{len(names):,}: {', '.join(names[:MOST_NAMED])}{more}")]


def _line(what: str, text: str) -> str:
    return f"{what:<20}  {text}"
