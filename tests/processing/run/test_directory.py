"""A dataset directory is held by one run, or it is said why it cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from scvae_data.errors import ConfigError
from scvae_data.processing.run.directory import held_directory


def test_a_file_in_its_place_is_told_as_one(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    expected = r"^paths\.processed_dir=.*notes\.txt is a file; name a folder, or a new one$"
    with pytest.raises(ConfigError, match=expected), held_directory(tmp_path / "notes.txt"):
        pytest.fail("held")
    with held_directory(tmp_path / "new"):
        assert (tmp_path / "new").is_dir()
