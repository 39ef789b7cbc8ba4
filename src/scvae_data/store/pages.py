"""A page about a directory in, a file that knows when it was damaged and what it tells of out."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from scvae_data.errors import StoreError
from scvae_data.remote.location import Location, RemotePath
from scvae_data.remote.objects import upload
from scvae_data.store.dataset_index import DatasetIndex
from scvae_data.store.files import is_there, read_bytes, read_json, remove, write_atomic, write_json

__all__ = ["PAGES", "QC_REPORT_FILE", "page_faults", "remove_pages", "write_pages"]

QC_REPORT_FILE = "qc_report.html"
PAGES = ("qc_attrition_mqc.json", "qc_experiments_mqc.json", QC_REPORT_FILE)
"""What a directory may have about itself that people read; none of it is needed to read the data."""

SEAL = re.compile(rb"<!-- processing_id ([^ ]*), sha256 of all above ([0-9a-f]{64}) -->\n\Z")
OTHER = "tells of other cells than the directory has"


def write_pages(folder: Location, index: DatasetIndex, html: str, tables: Mapping[str, Mapping[str, Any]]) -> Location:
    """Write the page of a directory, and before it the tables that go with it; return its place.

    Parameters
    ----------
    folder
        Where they go, here or in a store.
    tables
        Content of JSON files, by their names.
    """
    if isinstance(folder, RemotePath):
        with TemporaryDirectory() as here:
            write_pages(Path(here), index, html, tables)
            for name in PAGES:
                if Path(here, name).exists():
                    upload(Path(here, name), folder / name)
                else:
                    remove(folder / name)
        return folder / QC_REPORT_FILE
    folder.mkdir(parents=True, exist_ok=True)
    for name in set(PAGES) - tables.keys() - {QC_REPORT_FILE}:
        (folder / name).unlink(missing_ok=True)  # of cells of which there was more to tell
    for name, content in tables.items():
        write_json(folder / name, {**content, "processing_id": index.processing_id})
    body = html.removesuffix("\n").encode() + b"\n"
    seal = f"<!-- processing_id {index.processing_id}, sha256 of all above {hashlib.sha256(body).hexdigest()} -->\n"
    write_atomic(folder / QC_REPORT_FILE, body + seal.encode())
    return folder / QC_REPORT_FILE


def remove_pages(directory: Location) -> None:
    """Remove what will not be true any more."""
    for name in PAGES:
        remove(directory / name)


def page_faults(index: DatasetIndex) -> dict[str, str | None]:
    """Check what a directory has about itself; what is wrong with each file that is there, None if nothing is."""
    paths = [index.path / name for name in PAGES]
    return {path.name: _fault(path, index.processing_id) for path in paths if is_there(path)}


def _fault(path: Location, processing_id: str) -> str | None:
    try:
        told_of = _told_of_page(path) if path.name == QC_REPORT_FILE else read_json(path).get("processing_id")
    except StoreError as error:
        return str(error).removeprefix(f"{path}: ").split(";")[0]
    return None if told_of == processing_id else OTHER


def _told_of_page(path: Location) -> str:
    """The directory that a page tells of, if the page is as it was written."""
    content = read_bytes(path)
    seal = SEAL.search(content, max(0, len(content) - 300))
    if seal is None or hashlib.sha256(content[: seal.start()]).hexdigest() != seal[2].decode():
        raise StoreError(f"{path}: its checksum does not match")
    return seal[1].decode()
