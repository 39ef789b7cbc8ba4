"""Arguments of the data module in, the same out or one line about what they must be."""

from __future__ import annotations

from typing import Literal, get_args

from scvae_data.errors import ConfigError

__all__ = [
    "OnBadChunk",
    "StartMethod",
    "XFormat",
    "check_cache",
    "check_memory",
    "check_numbers",
    "check_on_bad_chunk",
    "check_start_method",
    "check_x_format",
]

XFormat = Literal["dense", "csr", "compact"]

OnBadChunk = Literal["raise", "skip"]


def check_on_bad_chunk(value: str) -> OnBadChunk:
    """Return what to do with a damaged chunk, or refuse it."""
    for known in get_args(OnBadChunk):
        if value == known:
            return known  # type: ignore[no-any-return]
    raise ConfigError(f"on_bad_chunk={value!r} must be one of {', '.join(get_args(OnBadChunk))}")


StartMethod = Literal["fork", "spawn", "forkserver"]


def check_numbers(least: int, *, or_none: bool = False, **values: object) -> None:
    """Refuse the first value that is no whole number of at least ``least``."""
    for name, value in values.items():
        if or_none and value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ConfigError(f"{name}={value!r} must be a whole number of at least {least}")


def check_memory(memory_gb: float | None) -> None:
    """Refuse a budget that is no positive number."""
    if memory_gb is not None and (isinstance(memory_gb, bool) or not memory_gb > 0):
        raise ConfigError(f"memory_gb={memory_gb!r} must be a positive number of GB, or null for no limit")


def check_cache(chunk_cache_size: int | None, max_chunks_in_memory: int | None) -> None:
    """Refuse a cache that is smaller than the window."""
    if chunk_cache_size is not None and chunk_cache_size < (max_chunks_in_memory or 1):
        raise ConfigError(
            f"chunk_cache_size={chunk_cache_size} is smaller than max_chunks_in_memory={max_chunks_in_memory}, "
            f"whose cells are mixed at once; set chunk_cache_size={max_chunks_in_memory} or more"
        )


def check_start_method(method: StartMethod | None) -> StartMethod | None:
    """Return how workers are started, or refuse it."""
    if method is not None and method not in get_args(StartMethod):
        raise ConfigError(f"multiprocessing_context={method!r} must be fork, spawn, forkserver or null")
    return method


def check_x_format(x_format: XFormat) -> XFormat:
    """Return how ``x`` leaves the loader, or refuse it."""
    if x_format not in get_args(XFormat):
        raise ConfigError(f"x_format={x_format!r} must be one of {', '.join(get_args(XFormat))}")
    return x_format
