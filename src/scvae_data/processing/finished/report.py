"""A finished directory in, its page and tables for MultiQC, as facts and files of their own, out.

They are made of what the directory holds, like by anyone who opens it, once
its index stands: a dataset is complete without them, and whatever goes wrong
with a picture does not make hours of processing unfinished.
"""

from __future__ import annotations

import logging
from contextlib import nullcontext
from pathlib import Path

from scvae_data.processing.evidence.flags import REMEDIES
from scvae_data.processing.run.directory import held_directory
from scvae_data.remote.location import Location
from scvae_data.store import open_index
from scvae_data.store.pages import QC_REPORT_FILE, page_faults, write_pages

__all__ = ["keep_report", "write_report"]

log = logging.getLogger(__name__)


def write_report(directory: Location, folder: Location) -> Location:
    """Write ``qc_report.html`` and the tables for MultiQC into a folder; return the page's place.

    Parameters
    ----------
    directory
        A finished dataset directory.
    folder
        Where the files go, here or in a store; made where it is missing.

    Raises
    ------
    ScvaeDataError
        There is no dataset, or one of its files is damaged.
    """
    from scvae_data.report.qc import qc_report  # here: what makes pages is not needed to process
    from scvae_data.report.qc_facts import qc_facts
    from scvae_data.report.qc_multiqc import multiqc

    index = open_index(directory)
    facts = qc_facts(index)
    return write_pages(folder, index, qc_report(index, facts, REMEDIES), multiqc(facts))


def keep_report(directory: Location, *, changed: bool) -> Location | None:
    """Write the report of a directory into it, unless it stands there; None, with a warning, where that fails.

    Parameters
    ----------
    changed
        The directory is not what it was: a report that stands there is of before.
    """
    try:
        with held_directory(directory) if isinstance(directory, Path) else nullcontext():
            faults = page_faults(open_index(directory))
            if changed or QC_REPORT_FILE not in faults or any(faults.values()):
                write_report(directory, directory)
    except Exception as error:  # noqa: BLE001 - whatever it is, the dataset is finished
        told = " ".join(str(error).split()) or type(error).__name__
        log.warning("no report: %s; the dataset is complete, scvae-data report %s tries again", told, directory)
        return None
    return directory / QC_REPORT_FILE
