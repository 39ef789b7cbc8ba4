"""TODO scvae_data.processing.settings.run."""

from __future__ import annotations

from scvae_data.errors import ConfigError
from scvae_data.processing.settings.control import ControlSubset

__all__ = ["KEEP", "check_settings"]


def check_settings(max_failed_fraction: float, keep_duplicates: str, control: ControlSubset | None) -> None:
    """Refuse settings that no inputs can suit.

    Parameters
    ----------
    max_failed_fraction, keep_duplicates
        As of :func:`~scvae_data.processing.pipeline.run`.
    control
        None where all cells are wanted.

    Raises
    ------
    ConfigError
        With the key and what it may be.
    """
    if not 0 <= max_failed_fraction <= 1:
        raise ConfigError(f"max_failed_fraction={max_failed_fraction} must be a share from 0 to 1")
    if keep_duplicates not in KEEP:
        raise ConfigError(f"keep_duplicates={keep_duplicates!r} must be one of {', '.join(KEEP)}")
    if control is not None and not control.columns:
        raise ConfigError("control.column is an empty list; name the obs column that tells controls")


KEEP = ("all", "first", "none")
