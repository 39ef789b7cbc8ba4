"""Which cells are controls: an obs column and its values in, a mask out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scvae_data.errors import ConfigError
from scvae_data.processing.labels import as_label

__all__ = ["ControlSubset"]


@dataclass(frozen=True)
class ControlSubset:
    """How control cells are recognised.

    Parameters
    ----------
    column
        Input obs column, or several of which a file has one.
    values
        Values that mean control: text, numbers or booleans, of which 1, 1.0 and "1" are one, and true and "TRUE".
    strip, ignore_case
        Compare without surrounding spaces, without case.
    missing
        What a file without the column means: an ``"error"``, or
        ``"drop_file"``. It is never silently kept.
    """

    column: str | Sequence[str] | None = None
    values: Sequence[str | float] = ("non-targeting", "control", "ctrl", "DMSO", "DMSO_TF", "vehicle")
    strip: bool = True
    ignore_case: bool = True
    missing: Literal["error", "drop_file"] = "error"

    def __post_init__(self) -> None:
        if self.missing not in ("error", "drop_file"):
            raise ConfigError(f"control.missing={self.missing!r} must be error or drop_file")
        if isinstance(self.values, str) or not self.values:
            raise ConfigError(f"control.values={self.values!r} must be a list with at least one value")
        if odd := [value for value in self.values if not isinstance(value, str | int | float)]:
            raise ConfigError(f"control.values holds {odd[0]!r}; each must be a text, a number, true or false")

    @property
    def columns(self) -> list[str]:
        """The columns looked for, in order."""
        if self.column is None:
            raise ConfigError("subset_to_control_cells=true needs control.column, e.g. control.column=target_gene")
        return [self.column] if isinstance(self.column, str) else list(self.column)

    def find_column(self, available: Sequence[str]) -> str | None:
        """Return the first of the columns that a file has, or None."""
        return next((column for column in self.columns if column in available), None)

    def mask(self, labels: pd.Series) -> NDArray[np.bool_]:
        """Return which cells are controls, shape (n_obs,); values are compared as `as_label` writes them."""
        wanted = {self._clean(value) for value in self.values}
        codes, distinct = pd.factorize(labels)
        controls = np.array([self._clean(value) in wanted for value in distinct], bool)
        return np.append(controls, False)[codes]  # a missing value has the code -1

    def _clean(self, value: str | float) -> str:
        text = as_label(value)
        text = as_label(text.strip()) if self.strip else text
        return text.casefold() if self.ignore_case else text
