"""The reader of one file in; what the file says of its cells, besides their counts, out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scvae_data.errors import InputError
from scvae_data.processing.control import ControlSubset
from scvae_data.processing.names import cell_names
from scvae_data.processing.obs import InputObs, input_obs
from scvae_data.processing.scan_job import ScanJob
from scvae_data.processing.survey import ACCESSION_COLUMNS, FileFacts
from scvae_data.readers import Reader

__all__ = ["FileCells", "read_cells"]


@dataclass(frozen=True)
class FileCells:
    """All cells of a file.

    Parameters
    ----------
    obs
        The file's own obs columns.
    accessions
        Accession of each cell, shape (n_obs,).
    names
        Function from row numbers to names that are unique in the directory.
    control
        Which cells are controls, shape (n_obs,); None where all cells are wanted.
    """

    obs: InputObs
    accessions: NDArray[np.object_]
    names: Any
    control: NDArray[np.bool_] | None

    def groups(self, column: str | None, rows: NDArray[np.int64]) -> NDArray[np.object_]:
        """Return what cells are grouped by in group order; a file without the column is a group."""
        if column in ACCESSION_COLUMNS:
            return self.accessions[rows]
        if column not in self.obs.frame:
            return np.full(len(rows), "", object)
        groups: NDArray[np.object_] = self.obs.frame[column].iloc[rows].astype(str).to_numpy(object)
        return groups


def read_cells(job: ScanJob, file: FileFacts, reader: Reader, rank: int) -> FileCells:
    """Read what a file says of its cells.

    Parameters
    ----------
    rank
        Position among the files of its accession: tells their cells' names apart.

    Raises
    ------
    InputError
        Controls are wanted, and the file has no column that tells them.
    """
    obs = input_obs(reader, file, job.obs_columns)
    accessions, names = cell_names(reader, file, rank)
    return FileCells(obs, accessions, names, control_mask(job.control, file, reader))


def control_mask(control: ControlSubset | None, file: FileFacts, reader: Reader) -> NDArray[np.bool_] | None:
    """Return which cells of the file are controls; None where all cells are wanted."""
    if control is None:
        return None
    column = control.find_column((*file.obs_columns, *file.obs_values))
    if column is None:
        raise InputError(
            file.path, "no_control_column",
            f"has no obs column {' or '.join(control.columns)}; "
            "name it in control.column, or set control.missing=drop_file",
        )  # fmt: skip
    if column in file.obs_values:
        return control.mask(pd.Series([file.obs_values[column]] * reader.n_obs, dtype=object))
    return control.mask(reader.obs([column])[column].astype(object))
