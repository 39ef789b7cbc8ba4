"""A directory that has grown in, one of a single generation beside it and a word on it out."""

from __future__ import annotations

import shutil
from pathlib import Path

from scvae_data.errors import ConfigError
from scvae_data.processing.finished.compact import compact
from scvae_data.processing.finished.report import keep_report
from scvae_data.processing.run.directory import disk_faults, held_directory, is_complete
from scvae_data.store import open_index
from scvae_data.store.files import names_in
from scvae_data.store.pages import QC_REPORT_FILE

__all__ = ["compact_directory"]

UNFINISHED = ".compacting"


def compact_directory(directory: Path, target: Path | None = None) -> str:
    """Write the compact directory; return what was done. The one that is read stays as it is.

    Parameters
    ----------
    target
        Where to; None for ``DIR.compact``. What an interrupted try left there is written anew.

    Raises
    ------
    ScvaeDataError
        There is no dataset, it cannot be merged, or the target holds something else.
    """
    index = open_index(directory)
    target = directory.with_name(f"{directory.resolve().name}.compact") if target is None else target
    if len(index.generations) == 1:
        return f"{directory} has one generation of cells; nothing to do"
    if is_complete(target) or (names_in(target) and not (target / UNFINISHED).exists()):
        raise ConfigError(f"{target} is not empty; name another folder")
    try:
        target.mkdir(parents=True, exist_ok=True)
        (target / UNFINISHED).touch()
    except FileExistsError as error:
        raise ConfigError(f"{target} is a file; name a folder, or a new one") from error
    except OSError as error:
        raise ConfigError(f"{target} cannot be written: {error.strerror}; name another folder") from error
    with disk_faults(target), held_directory(target):
        for path in (target / name for name in names_in(target)):
            if path.name not in (UNFINISHED, ".lock"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        made = compact(index, target)
    (target / UNFINISHED).unlink()
    if (directory / QC_REPORT_FILE).exists():
        keep_report(target, changed=True)
    return (
        f"{target}: {made.n_obs:,} cells in {len(made.chunks):,} chunks of one generation; {directory} is as it was, "
        "and may be removed once nothing uses it"
    )
