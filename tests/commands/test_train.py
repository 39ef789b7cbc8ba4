"""A chunk size given to training must be the dataset's."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from scvae_data.commands.train import check_against_index
from scvae_data.errors import ConfigError


def test_chunk_size_is_compared_with_the_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scvae_data.store.open_index", lambda path: SimpleNamespace(chunk_size=400))
    check_against_index(400, "chunks")
    with pytest.raises(ConfigError, match="chunk_size=25000 disagrees with chunks, processed with chunk_size=400"):
        check_against_index(25_000, "chunks")
