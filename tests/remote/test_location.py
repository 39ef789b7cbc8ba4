"""Addresses of stores are told from paths, and never taken for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from scvae_data.errors import ConfigError
from scvae_data.remote.location import RemotePath, as_written, is_remote, local_path, location

REMOTE = ("s3://bucket", "s3://bucket/a/b.h5ad", "gs://b/c", "memory://x")
LOCAL = ("data/x.h5ad", "/data/s3:x", "file:///data/x", "a:b")


@pytest.mark.parametrize("text", REMOTE)
def test_a_scheme_makes_an_address(text: str) -> None:
    place = location(text)
    assert is_remote(text) and isinstance(place, RemotePath) and str(place) == text
    assert is_remote(place) and location(place) == place


@pytest.mark.parametrize("text", LOCAL)
def test_all_else_is_of_this_machine(text: str) -> None:
    assert not is_remote(text)
    assert location(text) == Path(text.removeprefix("file://")).absolute()
    assert local_path("key", text) == as_written(text) == Path(text.removeprefix("file://"))


def test_what_opens_local_files_refuses_an_address() -> None:
    with pytest.raises(TypeError):
        Path(RemotePath("s3://bucket/x"))  # type: ignore[arg-type]


def test_a_setting_of_local_files_refuses_an_address() -> None:
    with pytest.raises(ConfigError, match=r"^ckpt=s3://b/x is in a remote store.*; give a path on this machine$"):
        local_path("ckpt", "s3://b/x")


def test_one_slash_is_a_mistake_not_a_folder() -> None:
    with pytest.raises(ConfigError, match="one slash behind s3:"):
        location("s3:/bucket/x")


def test_parts_of_an_address() -> None:
    path = RemotePath("s3://bucket/a/b.h5ad")
    assert (path.name, path.suffix, path.parts) == ("b.h5ad", ".h5ad", ("s3://bucket", "a", "b.h5ad"))
    assert [str(parent) for parent in path.parents] == ["s3://bucket/a", "s3://bucket"]
    assert path.parent / "b.h5ad" == path == RemotePath("s3://bucket/a/b.h5ad/")
    assert path.below(RemotePath("s3://bucket")) == "a/b.h5ad"
    assert RemotePath("s3://bucket").parent == RemotePath("s3://bucket")
