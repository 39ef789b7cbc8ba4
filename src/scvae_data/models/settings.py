"""Settings of a VAE in, nothing out, or one line about the first that cannot be."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from scvae_data.errors import ConfigError

__all__ = ["check_settings"]

CHOICES = {"norm": ("batch", "layer", "none"), "dispersion": ("gene", "gene-batch")}
WHOLE = {"n_latent": 1, "n_hidden": 1, "n_layers": 1, "batch_dim": 0}
"""The least of each."""
SHARES = ("dropout", "unknown_dropout")
AT_LEAST_ZERO = ("kl_warmup_epochs", "lr", "eps", "weight_decay")


def check_settings(given: Mapping[str, Any]) -> None:
    """Check the arguments of a :class:`~scvae_data.VAE`, by name, that nothing but themselves decides.

    Raises
    ------
    ConfigError
        Naming the setting, its value and what is possible.
    """
    for name, allowed in CHOICES.items():
        if given[name] not in allowed:
            raise ConfigError(f"{name}={given[name]} is not one of {', '.join(allowed)}")
    for name, least in WHOLE.items():
        _check_number(name, given[name], low=least, whole=True)
    for name in SHARES:
        _check_number(name, given[name], high=1)
    for name in AT_LEAST_ZERO:
        _check_number(name, given[name])
    batch_key = given["batch_key"]
    if given["dispersion"] == "gene-batch" and batch_key is None:
        raise ConfigError("dispersion=gene-batch needs a batch_key; set model.batch_key or dispersion=gene")
    categorical, continuous = given["categorical_covariates"], given["continuous_covariates"]
    columns = [*([] if batch_key is None else [batch_key]), *categorical, *continuous]
    if twice := sorted({name for name in columns if columns.count(name) > 1}):
        raise ConfigError(
            f"{', '.join(twice)} is named twice among batch_key={batch_key}, categorical_covariates={categorical} and "
            f"continuous_covariates={continuous}; name each column once"
        )


def _check_number(name: str, value: object, *, low: float = 0, high: float = math.inf, whole: bool = False) -> None:
    """Refuse what is not a number in ``[low, high]``."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{name}={value} is not a number")
    if whole and not isinstance(value, int):
        raise ConfigError(f"{name}={value} must be a whole number")
    if not low <= value <= high:
        raise ConfigError(
            f"{name}={value} must be at least {low}" + (f" and at most {high}" if high < math.inf else "")
        )
