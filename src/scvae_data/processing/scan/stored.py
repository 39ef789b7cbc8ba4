"""A chunk of a dataset directory in; its cells with the names, metrics and origins that they have there out."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scvae_data.errors import InputError
from scvae_data.filter import mask
from scvae_data.processing.facts import InputFacts
from scvae_data.processing.scan.cells import FileCells, InputObs, by_final_name, control_mask, one_column
from scvae_data.processing.scan.job import ScanJob
from scvae_data.processing.settings.dataset import CellColumns
from scvae_data.processing.sort.obs_schema import ORIGIN_ROW, is_ours
from scvae_data.readers.base import Reader
from scvae_data.remote.location import as_written
from scvae_data.store import SRX_COLUMN, DatasetIndex, open_index
from scvae_data.store.files import sha256_file

__all__ = ["stored_cells"]


def stored_cells(job: ScanJob, file: InputFacts, reader: Reader) -> FileCells:
    """Read what a chunk says of its cells.

    Raises
    ------
    InputError
        The chunk is not the one that its directory lists, or lacks a metric that is wanted.
    """
    index = opened(file.folder)
    check_content(file, reader.path, index)
    frame = reader.obs()
    if absent := [name for name in job.qc.columns if name not in frame]:
        raise InputError(
            file.path, "no_metric",
            f"has no obs column {absent[0]}, which is measured over the genes of the raw files; choose qc.percent_top, "
            "qc.species and qc.doublets as the directory was made with",
        )  # fmt: skip
    names, accessions = reader.barcodes(), frame[SRX_COLUMN].astype(str).to_numpy(object)
    codes, distinct = pd.factorize(accessions, sort=True)
    wanted = job.obs_columns
    own = by_final_name([name for name in reader.obs_columns if not is_ours(name)], job)
    origins = origins_of(job, file, frame, index)
    columns = {ORIGIN_ROW: pd.Series(origins[:, 1])} | {
        called: one_column(frame, names, called, file.path)
        for called, names in own.items()
        if wanted is None or called in wanted
    }
    obs = InputObs.of(columns, job, reader.n_obs, file.path)
    control = control_mask(job, file, reader, pd.DataFrame())
    if job.where is not None:
        control = mask(CellColumns(index.obs_columns, frame, index.where), job.where, judged=True)
    return FileCells(
        obs=obs,
        accessions=accessions,
        experiments=distinct.tolist(),
        codes=codes,
        names=lambda rows: names[rows],
        control=control,
        unmatched={},
        n_renamed=0,
        control_rule="not_control" if job.where is None else "not_where",
        metrics={name: values_of(frame[name]) for name in job.qc.columns},
        origins=origins,
    )


def values_of(metric: pd.Series) -> Any:
    """Return a metric as scans measure it."""
    return metric.to_numpy() if isinstance(metric.dtype, np.dtype) else metric.array


@lru_cache(maxsize=8)
def opened(directory: str) -> DatasetIndex:
    """Open a directory once per process."""
    return open_index(directory)


def check_content(file: InputFacts, here: Path, index: DatasetIndex) -> None:
    """Refuse a chunk that is not what its directory lists; ``here`` it is on this machine."""
    name = as_written(file.path).name
    listed = next(chunk.sha256 for chunk in index.chunks if chunk.file == name)
    if sha256_file(here) != listed:
        remedy = f"mend it: scvae-data verify {index.path} prints the command"
        raise InputError(file.path, "damaged", f"is not what the index of its directory lists; {remedy}")


def origins_of(job: ScanJob, file: InputFacts, frame: pd.DataFrame, index: DatasetIndex) -> NDArray[np.int64]:
    """Return the number of the input of each cell, and its row there; (n_obs, 2)."""
    first = dict(job.origins)[file.folder]
    place = pd.Index(index.obs_columns["source_file"].categories or (), dtype=object)
    numbers = place.get_indexer(pd.Index(frame["source_file"].astype(str), dtype=object))
    return np.column_stack([first + numbers, frame["source_row"].to_numpy(np.int64)])
