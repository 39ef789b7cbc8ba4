"""A directory that has grown in, one of a single generation beside it and a word on it out; each here or in a store."""

from __future__ import annotations

from pathlib import Path

from scvae_data.errors import ConfigError
from scvae_data.processing.finished.compact import compact
from scvae_data.processing.finished.report import keep_report
from scvae_data.processing.finished.unfinished import Unfinished
from scvae_data.processing.run.directory import SCRATCH, claimed, disk_faults, held_directory, made_in
from scvae_data.remote.location import Location
from scvae_data.store import open_index
from scvae_data.store.files import is_there
from scvae_data.store.pages import QC_REPORT_FILE
from scvae_data.system.stopping import going_on

__all__ = ["compact_directory"]


def compact_directory(directory: Location, target: Location | None = None, scratch: Path = SCRATCH) -> str:
    """Write the compact directory; return what was done. The one that is read stays as it is.

    Parameters
    ----------
    target
        Where to; None for ``DIR.compact``. What an interrupted try of the same cells left there is gone on with.
    scratch
        Where files are made that go to a store.

    Raises
    ------
    ScvaeDataError
        There is no dataset, it cannot be merged, or the target holds something else.
    """
    index = open_index(directory)
    target = beside(directory) if target is None else target
    if len(index.generations) == 1:
        return f"{directory} has one generation of cells; nothing to do"
    unfinished = Unfinished(index, target, made_in(target, scratch))
    unfinished.check()
    try:
        unfinished.made.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise ConfigError(f"{unfinished.made} is a file; name a folder, or a new one") from error
    except OSError as error:
        raise ConfigError(f"{unfinished.made} cannot be written: {error.strerror}; name another folder") from error
    made_here = unfinished.made
    with going_on(), held_directory(made_here), disk_faults(made_here, "the same command"), claimed(target, made_here):
        unfinished.begin()
        made = compact(index, unfinished)
        unfinished.finish()
    if is_there(directory / QC_REPORT_FILE):
        keep_report(target, changed=True)
    return (
        f"{target}: {made.n_obs:,} cells in {len(made.chunks):,} chunks of one generation; {directory} is as it was, "
        "and may be removed once nothing uses it"
    )


def beside(directory: Location) -> Location:
    """Return where the compact directory goes by default.

    Raises
    ------
    ConfigError
        The directory is a whole bucket, beside which there is nothing.
    """
    if isinstance(directory, Path):
        return directory.with_name(f"{directory.resolve().name}.compact")
    if not directory.name:
        raise ConfigError(f"{directory} is a whole bucket; name the TARGET")
    return directory.parent / f"{directory.name}.compact"
