"""A file of a release in; its rows of the table of cells that lies beside the release's files out."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from scvae_data.errors import InputError
from scvae_data.processing.facts import InputFacts
from scvae_data.processing.settings.scbasecount import cells_beside, columns_of_cells
from scvae_data.processing.survey.obs_table import plain_column
from scvae_data.remote.location import location
from scvae_data.remote.range_file import open_anywhere

__all__ = ["rows_beside"]


def rows_beside(file: InputFacts, names: Mapping[str, str]) -> pa.Table:
    """Read what the release says of the cells of a file, and the file does not; only row groups that have some of them.

    Parameters
    ----------
    names
        What columns are called, where not by their own name.

    Raises
    ------
    InputError
        The table cannot be read, or has two rows for a barcode.
    """
    path = location(cells_beside(file.path))
    try:
        key, barcode, others = columns_of_cells(str(path))
        known = {names.get(name, name) for name in file.obs_columns}
        columns = [name for name in others if names.get(name, name) not in known]
        with open_anywhere(path) as table_file:
            table = pq.read_table(table_file, columns=[barcode, *columns], filters=[(key, "==", file.accession)])
    except (pa.ArrowException, OSError) as error:
        said = str(error).splitlines()[0]
        raise InputError(path, "unreadable", f"cannot be read as Parquet ({said}); fetch it again") from error
    barcodes = table.column(barcode).to_numpy(zero_copy_only=False)
    unique, counts = np.unique(barcodes.astype(str), return_counts=True)
    if len(unique) < len(barcodes):
        twice = unique[counts > 1][0]
        raise InputError(path, "ambiguous_barcode", f"has two rows for barcode {twice} of {file.accession}; remove one")
    plain = {names.get(name, name): plain_column(path, name, table.column(name), False) for name in columns}
    return pa.table({"barcode": pa.array(barcodes, pa.string()), **plain})
