"""How counts become normalised values; the loader applies what is recorded here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from scvae_data.errors import ConfigError

__all__ = ["Normalization"]


@dataclass(frozen=True)
class Normalization:
    """Per-cell size factors: ``x = log1p(count / size_factor)``.

    The same as ``scanpy.pp.normalize_total`` followed by ``log1p``.

    Parameters
    ----------
    method
        ``"log1p"``, or ``"none"`` for counts as they are.
    target_sum
        Total of every cell after scaling; None takes the median total of the
        kept cells, as scanpy does.
    size_factor_genes
        Which genes a cell's total runs over: those in the directory
        (``"kept"``) or all of its file (``"all"``).
    """

    method: Literal["log1p", "none"] = "log1p"
    target_sum: float | None = 10_000.0
    size_factor_genes: Literal["kept", "all"] = "kept"

    def __post_init__(self) -> None:
        if self.method not in ("log1p", "none"):
            raise ConfigError(f"normalization.method={self.method!r} must be log1p or none")
        if self.size_factor_genes not in ("kept", "all"):
            raise ConfigError(f"normalization.size_factor_genes={self.size_factor_genes!r} must be kept or all")
        if self.target_sum is not None and not self.target_sum > 0:
            raise ConfigError(f"normalization.target_sum={self.target_sum} must be above 0, or null for the median")
        if self.target_sum is not None:  # 10000 and 10000.0 are one setting, and make the same bytes
            object.__setattr__(self, "target_sum", float(self.target_sum))
