"""Headers of all inputs in, the room on disks that a run takes out, or one line where there is not enough."""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from scvae_data.errors import ConfigError
from scvae_data.processing.facts import InputFacts
from scvae_data.processing.run.summary import human_bytes
from scvae_data.processing.settings.run import Settings
from scvae_data.processing.sort.sorted_run import MAX_RUNS, RUN_ENTRIES
from scvae_data.processing.survey.stage import Surveyed
from scvae_data.remote.location import is_remote
from scvae_data.store.names import WORK_FOLDER

__all__ = ["Room", "check_room", "free_bytes", "room_of", "stored_counts"]

BYTES_PER_COUNT = {"gzip": 1.4, "lz4": 1.9, "none": 8.1}
OBS_BYTES = 200
"""Of a cell, in chunks and beside them."""
SPOOL_BYTES = 2.0
SPOOL_CELL_BYTES = 400
"""Of a count and of a cell in a sorted run."""
DENSE_SHARE = 0.1


@dataclass(frozen=True)
class Room:
    """Bytes that a run takes if every cell is kept.

    Parameters
    ----------
    chunks
        Of the directory.
    spool
        Of the files beside it while it runs, copies of remote inputs among them.
    n_merges
        How often all rows are merged, each time into files beside those that they come from.
    """

    chunks: float
    spool: float
    n_merges: int


def room_of(surveyed: Surveyed, compression: str, scratch_gb: float) -> Room:
    """Add up what inputs take."""
    files, maps = surveyed.files, surveyed.universe.maps
    counts = [stored_counts(file, file.n_obs * len(maps[file.slot.table])) for file in files]
    nnz, n_obs = sum(counts), sum(file.n_obs for file in files)
    n_merges = merges_of(sum(max(1, -(-n // RUN_ENTRIES)) for n in counts))
    copies = min(sum(file.bytes for file in files if is_remote(file.path)), scratch_gb * 1e9)
    per_count = BYTES_PER_COUNT.get(compression, BYTES_PER_COUNT["gzip"])  # of the user's own: not measured
    spool = (1 + n_merges) * (nnz * SPOOL_BYTES + n_obs * SPOOL_CELL_BYTES)
    return Room(nnz * per_count + n_obs * OBS_BYTES, spool + copies, n_merges)


def merges_of(n_runs: int) -> int:
    """Return how often runs are merged until a chunk touches few enough of them."""
    n_merges = 0
    while n_runs > MAX_RUNS:
        n_runs, n_merges = -(-n_runs // MAX_RUNS), n_merges + 1
    return n_merges


def check_room(directory: Path, surveyed: Surveyed, settings: Settings, *, goes_away: bool) -> None:
    """Refuse a run that will not fit the disk, before it reads for hours.

    Parameters
    ----------
    directory
        Where the run makes its files.
    goes_away
        Whether chunks go to a store, one by one.

    Raises
    ------
    ConfigError
        With what is needed, what is free, and how to go on all the same.
    """
    room = room_of(surveyed, settings.chunking.compression, settings.input.scratch_gb)
    needed, free = room.spool + (0 if goes_away else room.chunks), free_bytes(directory)
    if needed > free and needed > free + bytes_of_earlier(directory):
        raise ConfigError(
            f"{directory}: the run needs some {human_bytes(needed)} there if every cell is kept, and "
            f"{human_bytes(free)} are free; make room, choose another disk, or go on with check_disk=false"
        )


def bytes_of_earlier(directory: Path) -> int:
    """Return what an interrupted run, which goes on, or other shards have made already."""
    n_bytes = 0
    for path in (*directory.glob("*"), *(directory / WORK_FOLDER).rglob("*")):
        with suppress(FileNotFoundError):  # other shards run
            n_bytes += path.stat().st_size if path.is_file() else 0
    return n_bytes


def stored_counts(file: InputFacts, n_elements: int) -> int:
    """Return how many counts a file stores, for a dense one a tenth of its elements."""
    nnz: int | None = file.slot.storage["nnz"]
    return int(DENSE_SHARE * n_elements) if nnz is None else nnz


def free_bytes(path: Path) -> int:
    """Return the room on the disk where a directory lies or would lie."""
    there = next(part for part in (path.absolute(), *path.absolute().parents) if part.exists())
    return shutil.disk_usage(there).free
