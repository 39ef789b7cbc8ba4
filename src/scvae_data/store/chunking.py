"""The settings of a dataset directory's chunk files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from scvae_data.errors import ConfigError
from scvae_data.store.codec import Codec, imported_codec

__all__ = ["Chunking", "Order"]

Order = Literal["hash", "source", "group"]


@dataclass(frozen=True)
class Chunking:
    """How cells are cut into chunk files and those into blocks.

    Parameters
    ----------
    chunk_size
        Cells of a chunk file; the last one may hold fewer.
    compression, compression_level
        ``"gzip"``, ``"lz4"``, ``"none"``, or the import path of a :class:`~scvae_data.store.codec.Codec`;
        a level of None takes the codec's default.
    order
        ``"hash"`` shuffles the cells of all inputs, the same for any order of
        inputs and any chunk size; ``"source"`` keeps them by accession and
        source row; ``"group"`` puts cells with equal values of an obs column together.
    group_column
        The obs column of ``order="group"``.
    block_elements
        Non-zeros of a block, the unit that is compressed and read.

    Raises
    ------
    ConfigError
        If a value is not possible; the message names it and what is.
    """

    chunk_size: int = 50_000
    compression: str = "gzip"
    compression_level: int | None = None
    order: Order = "hash"
    group_column: str | None = None
    block_elements: int = 131_072

    def __post_init__(self) -> None:
        object.__setattr__(self, "chunk_size", _whole("chunk_size", self.chunk_size, "cells", 25_000))
        object.__setattr__(
            self, "block_elements", _whole("block_elements", self.block_elements, "non-zeros", 131_072, 1 << 24)
        )
        object.__setattr__(self, "compression_level", self.codec.level)
        if self.order not in get_args(Order):
            raise ConfigError(f"chunking.order={self.order!r} is not one of {', '.join(get_args(Order))}")
        if (self.order == "group") != (self.group_column is not None):
            raise ConfigError(
                f"chunking.order={self.order} with chunking.group_column={self.group_column}: "
                "order=group needs a group_column, the other orders take none"
            )

    @property
    def codec(self) -> Codec:
        """The codec with its level."""
        return imported_codec(self.compression, self.compression_level)


def _whole(name: str, value: object, unit: str, example: int, largest: int | None = None) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise ConfigError(f"{name}={value!r} is not a whole number of {unit}; give one, e.g. {name}={example}")
    if value <= 0 or (largest is not None and value > largest):
        limit = "above 0" if largest is None else f"from 1 to {largest}"
        raise ConfigError(f"{name}={value} is out of range; give a number of {unit} {limit}, e.g. {name}={example}")
    return int(value)
