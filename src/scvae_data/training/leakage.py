"""A DataModule in; what training shares with the cells held out from it out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from scvae_data.calling import program
from scvae_data.errors import DamagedFileError
from scvae_data.store import SRX_COLUMN
from scvae_data.store.files import names_in, read_json
from scvae_data.wording import counted, named

__all__ = ["PARTS", "HeldOut", "Shared", "copies_across", "held_out", "told_columns", "without_value"]

SUMMARIES = "chunk_summary*.json"
FILE_COLUMN = "source_file"
USUAL = (
    "donor", "donor_id", "patient", "patient_id", "subject", "subject_id", "individual", "study", "study_id",
    "study_accession", "project", "dataset", "dataset_id",
)  # fmt: skip
"""obs columns of donors and studies, by their usual names in small letters."""
PARTS = {"val": "validation", "test": "test"}


class Shared(NamedTuple):
    """Values of an obs column in a part that is held out, those of them in training, and the share of their cells.

    ``names`` are the first values, where training has none of them.
    """

    column: str
    part: str
    groups: int
    in_training: int
    share: float
    names: str = ""


@dataclass(frozen=True)
class HeldOut:
    """What the parts that are held out share with training; nothing where there are none."""

    shared: Sequence[Shared] = ()
    """Of each column and part."""
    copies: str = ""
    """A sentence on cells that are equal to one of another part."""
    without: str = ""
    """One on cells without a value of the column that the split is by."""


def held_out(data: Any, split: Mapping[str, Any] | None) -> HeldOut:
    """Say of each part that is held out how far it shares experiments, donors and studies with training.

    Parameters
    ----------
    data
        After ``setup``.
    split
        As the configuration has it.
    """
    parts = [part for part in PARTS if data.n_cells(part)]
    if not parts:
        return HeldOut()
    found = data.leakage(told_columns(data, split)).to_dict("records")
    shared = [
        Shared(
            one["column"], PARTS[one["part"]], one["groups"], one["groups_in_train"], one["cells_in_train"],
            "" if one["groups_in_train"] else _names(data, one["column"], one["part"]),
        )
        for one in found
    ]  # fmt: skip
    return HeldOut(shared, _copies(data, ["train", *parts]), without_value(data, split))


def without_value(data: Any, split: Mapping[str, Any] | None) -> str:
    """Say how many cells have no value of the column that the split is by, and where they go; nothing if all have one.

    Parameters
    ----------
    data
        After ``setup``.
    split
        As the configuration has it.
    """
    column = _column_of(split)
    if column is None or not (n_without := int(data.group_counts(column, "predict")[-1])):
        return ""
    counts = {words: int(data.group_counts(column, part)[-1]) for part, words in {"train": "training", **PARTS}.items()}
    where = ", ".join(f"{n:,} for {words}" for words, n in counts.items() if n)
    return f"{n_without:,} of {counted(data.n_obs, 'cell')} have no value of {column}, which the split is by: {where}."


def _column_of(split: Mapping[str, Any] | None) -> str | None:
    """The obs column that a split is by; None for one by cells."""
    return (split or {}).get("by") or (split or {}).get("column")


def _names(data: Any, column: str, part: Any) -> str:
    """The first values of a column that a part has."""
    cells = data.group_counts(column, part)[:-1]
    categories = data.index.categories(column)
    return named([categories[code] for code in np.flatnonzero(cells)])


def told_columns(data: Any, split: Mapping[str, Any] | None) -> list[str]:
    """Categorical obs columns that a report speaks of: experiments, batches, what the split is by, donors, studies."""
    known = data.index.obs_columns
    usual = [name for name in known if name.lower() in USUAL]
    wanted = dict.fromkeys([SRX_COLUMN, data.batch_key, _column_of(split), *usual])
    return [name for name in wanted if name in known and known[name].categories is not None]


def copies_across(account: Mapping[str, Any], cells: Sequence[NDArray[np.int64]], files: Sequence[str]) -> float:
    """Expected number of cells that equal a cell of another part.

    Exact where files are held out whole; where cells are held out at random it
    is what chance says, because a cell's part does not depend on its counts.

    Parameters
    ----------
    account
        ``duplicates`` of ``chunk_summary.json``.
    cells
        Of each part, cells by file, (n_files + 1,).
    files
        Names of files, in the order of the counts.
    """
    place = {name: number for number, name in enumerate(files)}
    counts = np.array(cells, np.float64)
    shares = counts / np.maximum(counts.sum(axis=0), 1)
    pairs = account["pairs"]
    return sum(
        float(n * (1 - shares[:, place[first]] @ shares[:, place[other]]))
        for first, other, n in zip(pairs["first_file"], pairs["file"], pairs["n_copies"], strict=True)
        if first in place and other in place and counts[:, place[first]].any() and counts[:, place[other]].any()
    )


def _copies(data: Any, parts: Sequence[Any]) -> str:
    """How many copies of one cell lie on both sides."""
    try:
        accounts = [account for path in data.index.paths for account in _accounts(path)]
    except DamagedFileError as error:
        return f"Copies of one cell in several parts: not known ({error})."
    if not accounts or FILE_COLUMN not in data.index.obs_columns:
        return "Copies of one cell in several parts: not known, as the directory does not say which cells are equal."
    n_copies = sum(account["n_copies"] for account in accounts if account["keep"] == "all")
    if not n_copies:
        return "Copies of one cell in several parts: none, as no two cells are equal."
    cells = [data.group_counts(FILE_COLUMN, part) for part in parts]
    files = data.index.categories(FILE_COLUMN)
    n_across = sum(copies_across(account, cells, files) for account in accounts if account["keep"] == "all")
    return (
        f"Copies of one cell in several parts: about {n_across:,.0f} of {counted(n_copies, 'cell')} that equal another "
        f"cell; {program('process')} keep_duplicates=first keeps one of each."
    )


def _accounts(directory: Any) -> Iterator[Mapping[str, Any]]:
    for name in names_in(directory):
        if fnmatch(name, SUMMARIES):
            account = read_json(directory / name).get("duplicates")
            if account:
                yield account
