"""Arguments of the data module in, nothing out, or one line about the first that cannot be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

from scvae_data.errors import ConfigError

__all__ = ["OnBadChunk", "StartMethod", "XFormat", "check_settings"]

XFormat = Literal["dense", "csr", "compact"]
OnBadChunk = Literal["raise", "skip"]
StartMethod = Literal["fork", "spawn", "forkserver"]

# Least whole number of each setting; those of the second table may be None.
NUMBERS = {"batch_size": 1, "num_threads": 1, "num_workers": 0, "seed": 0}
NUMBERS_OR_NONE = dict.fromkeys(
    ("chunk_cache_size", "max_chunks_in_memory", "cache_bytes", "range_rows", "generations"), 1
)
CHOICES: Mapping[str, tuple[str | None, ...]] = {
    "x_format": get_args(XFormat),
    "on_bad_chunk": get_args(OnBadChunk),
    "multiprocessing_context": (*get_args(StartMethod), None),
}


def check_settings(given: Mapping[str, Any]) -> None:
    """Check the arguments of a :class:`~scvae_data.ChunkedDataModule`, by name, that nothing but themselves decides.

    Raises
    ------
    ConfigError
        Naming the setting, its value and what is possible.
    """
    for name, least in {**NUMBERS, **NUMBERS_OR_NONE}.items():
        value = given[name]
        if value is None and name in NUMBERS_OR_NONE:
            continue
        # Of several directories a number for each.
        for number in value if name == "generations" and isinstance(value, list | tuple) else [value]:
            if isinstance(number, bool) or not isinstance(number, int) or number < least:
                raise ConfigError(f"{name}={value!r} must be a whole number of at least {least}")
    for name, choices in CHOICES.items():
        if given[name] not in choices:
            possible = ", ".join("null" if choice is None else choice for choice in choices)
            raise ConfigError(f"{name}={given[name]!r} must be one of {possible}")
    disk_gb = given["cache_disk_gb"]
    if isinstance(disk_gb, bool) or not isinstance(disk_gb, int | float) or not disk_gb > 0:
        raise ConfigError(f"cache_disk_gb={disk_gb!r} must be a positive number of GB")
    memory_gb, size, window = given["memory_gb"], given["chunk_cache_size"], given["max_chunks_in_memory"]
    if memory_gb is not None and (isinstance(memory_gb, bool) or not memory_gb > 0):
        raise ConfigError(f"memory_gb={memory_gb!r} must be a positive number of GB, or null for no limit")
    if size is not None and size < (window or 1):
        raise ConfigError(
            f"chunk_cache_size={size} is smaller than max_chunks_in_memory={window}, whose cells are mixed at once; "
            f"set chunk_cache_size={window} or more"
        )
    fraction = given["train_fraction"]
    if isinstance(fraction, bool) or not isinstance(fraction, int | float) or not 0 < fraction <= 1:
        raise ConfigError(f"train_fraction={fraction!r} must be a share of the training cells, above 0 and at most 1")
    sampling = given["sampling"]
    weighted = isinstance(sampling, Mapping) and sampling.get("column") is not None
    if given["matched_epochs"] and (weighted or given["sampler"] is not None):
        raise ConfigError("matched_epochs goes with neither sampling nor a sampler, which say how long an epoch is")
    if given["sampler"] is not None and (weighted or window or given["range_rows"]):
        raise ConfigError(
            "sampler decides the order by itself; leave out sampling, max_chunks_in_memory and range_rows"
        )
