"""Latents of all cells in, ``latents.h5ad`` out: by one process, or by several that each predict a share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from torch import distributed

from scvae_data.loading.select.split import PARTS
from scvae_data.results.files import Content, write_h5ad
from scvae_data.training.ranks import Ranks

__all__ = ["KEY", "joined_shares", "predict_share", "with_split", "write_latents"]

Latents = tuple[NDArray[np.int64], NDArray[np.float32]]
"""Global rows (n,) and latents (n, n_latent) of some cells."""

KEY = "X_scvae"
SPLIT, OUR_SPLIT = "split", "scvae_split"  # the second where obs has a column of the first name


def write_latents(
    path: Path,
    latents: Iterable[Latents],
    n_latent: int,
    obs: Callable[[NDArray[np.int64]], Iterable[pa.Table]],
    uns: Mapping[str, Any],
) -> int:
    """Write latents and obs of cells as an AnnData file without X.

    Parameters
    ----------
    path
        The file; replaced only when the new one is whole.
    latents
        Batches of (global rows, latents (n, n_latent)), rows ascending
        throughout: the order of the file.
    n_latent
        Latent dimensions.
    obs
        Given rows, the tables whose rows, one after the other, describe
        them; the column ``obs_name`` becomes the index.
    uns
        Strings and numbers to keep with the file, under ``uns["scvae_data"]``.

    Returns
    -------
    Number of cells.

    Raises
    ------
    StoreError
        If rows are not ascending, or obs has another number of them.
    """
    columns = [f"latent_{number}" for number in range(n_latent)]
    return write_h5ad(path, latents, obs, Content("obsm", KEY, columns, uns=uns))


def with_split(tables: Iterable[pa.Table], parts: NDArray[np.int8]) -> Iterator[pa.Table]:
    """Add to the obs of cells which side of the split each is on; missing for those on none.

    Parameters
    ----------
    tables
        Whose rows, one after the other, are the cells.
    parts
        Positions in :data:`~scvae_data.loading.select.split.PARTS`, -1 for none.
    """
    first = 0
    for table in tables:
        name = SPLIT if SPLIT not in table.column_names else OUR_SPLIT
        codes = parts[first : first + len(table)]
        yield table.append_column(name, pa.DictionaryArray.from_arrays(pa.array(codes, mask=codes < 0), list(PARTS)))
        first += len(table)


def predict_share(run_dir: Path, latents: Iterable[Latents], ranks: Ranks) -> None:
    """Leave the latents of this rank's share where the first one finds them, and say so to all."""
    with share_file(run_dir, ranks.rank).open("wb") as file:
        for rows, values in latents:
            np.save(file, rows)
            np.save(file, values)
    distributed.barrier()


def joined_shares(run_dir: Path, latents: Iterable[Latents], ranks: Ranks) -> Iterator[Latents]:
    """Latents of this rank's share, which is the first, and then those of the others; in order of the rows.

    One batch is in memory at a time, whatever the number of cells.
    """
    yield from latents
    if ranks.size == 1:
        return
    distributed.barrier()
    for rank in range(1, ranks.size):
        path = share_file(run_dir, rank)
        n_bytes = path.stat().st_size
        with path.open("rb") as file:
            while file.tell() < n_bytes:
                yield np.load(file), np.load(file)
        path.unlink()


def share_file(run_dir: Path, rank: int) -> Path:
    """Where a rank's latents lie until they are joined."""
    return run_dir / f".latents-of-rank-{rank}.npy"
