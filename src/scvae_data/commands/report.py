"""A finished directory in, its report as a page and as tables for MultiQC out."""

from __future__ import annotations

from pathlib import Path

from scvae_data.processing.evidence.flags import REMEDIES
from scvae_data.remote.location import Location
from scvae_data.report.qc import QC_REPORT_FILE, qc_report
from scvae_data.report.qc_facts import qc_facts
from scvae_data.report.qc_multiqc import multiqc
from scvae_data.store import open_index
from scvae_data.store.files import write_atomic, write_json

__all__ = ["report_directory"]


def report_directory(directory: Location, folder: Path) -> Path:
    """Write ``qc_report.html`` and the tables for MultiQC into a folder; return the page's path.

    Parameters
    ----------
    directory
        A finished dataset directory.
    folder
        Where the files go; made where it is missing.

    Raises
    ------
    ScvaeDataError
        There is no dataset, or one of its files is damaged.
    """
    index = open_index(directory)
    facts = qc_facts(index)
    text = qc_report(index, facts, REMEDIES)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / QC_REPORT_FILE, text.encode())
    for name, content in multiqc(facts).items():
        write_json(folder / name, content)
    return folder / QC_REPORT_FILE
