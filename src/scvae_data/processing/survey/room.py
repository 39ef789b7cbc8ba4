"""Headers of all inputs in, the room on disks that a run takes out, or one line where there is not enough."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from scvae_data.errors import ConfigError
from scvae_data.processing.facts import InputFacts
from scvae_data.processing.run.context import Context
from scvae_data.processing.run.summary import human_bytes
from scvae_data.processing.survey.stage import Surveyed
from scvae_data.remote.location import is_remote

__all__ = ["Room", "check_room", "free_bytes", "room_of", "stored_counts"]

BYTES_PER_COUNT = {"gzip": 1.5, "lz4": 1.9, "none": 8.0}
OBS_BYTES = 60
SPOOL_BYTES = 2.0
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
    """

    chunks: float
    spool: float


def room_of(surveyed: Surveyed, compression: str, scratch_gb: float) -> Room:
    """Add up what inputs take."""
    files, maps = surveyed.files, surveyed.universe.maps
    nnz = sum(stored_counts(file, file.n_obs * len(maps[file.slot.table])) for file in files)
    copies = min(sum(file.bytes for file in files if is_remote(file.path)), scratch_gb * 1e9)
    per_count = BYTES_PER_COUNT.get(compression, BYTES_PER_COUNT["gzip"])  # of the user's own: not measured
    return Room(nnz * per_count + sum(file.n_obs for file in files) * OBS_BYTES, nnz * SPOOL_BYTES + copies)


def check_room(context: Context, surveyed: Surveyed) -> None:
    """Refuse a run that will not fit the disk, before it reads for hours.

    Raises
    ------
    ConfigError
        With what is needed, what is free, and how to go on all the same.
    """
    settings, directory = context.settings, context.directory
    room = room_of(surveyed, settings.chunking.compression, settings.input.scratch_gb)
    # Into a store the chunks go one by one.
    needed = room.spool + (room.chunks if context.store is None else 0)
    free = free_bytes(directory)
    if needed <= free:
        return
    of_earlier = (*directory.glob("*"), *context.work.scans.rglob("*"))  # an interrupted run, which goes on
    there = sum(path.stat().st_size for path in of_earlier if path.is_file())
    if needed > free + there:
        raise ConfigError(
            f"{directory}: the run needs some {human_bytes(needed)} there if every cell is kept, and "
            f"{human_bytes(free)} are free; make room, choose another disk, or go on with check_disk=false"
        )


def stored_counts(file: InputFacts, n_elements: int) -> int:
    """Return how many counts a file stores, for a dense one a tenth of its elements."""
    nnz: int | None = file.slot.storage["nnz"]
    return int(DENSE_SHARE * n_elements) if nnz is None else nnz


def free_bytes(path: Path) -> int:
    """Return the room on the disk where a directory lies or would lie."""
    there = next(part for part in (path.absolute(), *path.absolute().parents) if part.exists())
    return shutil.disk_usage(there).free
