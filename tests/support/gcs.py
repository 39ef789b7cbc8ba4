"""A server on this machine that answers as Google's store does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from fsspec.config import conf
from tests.support.s3 import server

from scvae_data.remote import objects
from scvae_data.remote.location import RemotePath


@contextmanager
def google_store(patch: pytest.MonkeyPatch) -> Iterator[RemotePath]:
    """An empty bucket; what it holds is gone afterwards."""
    with server("gcp_storage_emulator", "start", "-M", "-q", "--default-bucket", "data", "--port") as port:
        patch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
        patch.setitem(conf, "gs", {"token": "anon"})  # credentials would be looked for on the network
        objects.store_of.cache_clear()
        yield RemotePath("gs://data")
    objects.store_of.cache_clear()
