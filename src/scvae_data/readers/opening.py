"""How inputs are opened: what settings say, for whatever opens one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from scvae_data.system.hdf5_guard import DEFAULT_LIMITS, Limits

__all__ = ["DEFAULT_OPENING", "Opening", "TableRows"]

TableRows = Literal["genes", "cells"]


@dataclass(frozen=True)
class Opening:
    """How inputs are opened.

    Parameters
    ----------
    limits
        What one may ask for.
    own
        Import paths of readers of the user's own, see `ReaderClass`; they are asked before ours.
    table_rows
        What the rows of tables of text are; None if their names shall tell.
    """

    limits: Limits = DEFAULT_LIMITS
    own: tuple[str, ...] = ()
    table_rows: TableRows | None = None


DEFAULT_OPENING = Opening()
