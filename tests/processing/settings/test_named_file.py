"""A setting that names no file is told with what is there instead, and what to give."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scvae_data.errors import ConfigError
from scvae_data.processing.genes.reference import load_reference
from scvae_data.processing.genes.wanted import read_mapping
from scvae_data.processing.settings.genes import ListRules
from scvae_data.processing.settings.inputs import FileInput, ManifestInput
from scvae_data.processing.settings.named_file import named_file, why_absent

SETTINGS: dict[str, tuple[Callable[[str], Any], str]] = {
    "input.paths": (lambda path: FileInput(paths=path).files(), "give a file, a folder or a glob"),
    "input.manifest": (lambda path: ManifestInput(manifest=path).files(), "give a CSV, TSV or Parquet file with a col"),
    "input.obs_table": (lambda path: FileInput(obs_table=path).obs_table_path, "give a CSV, TSV or Parquet file with"),
    "genes.mapping": (read_mapping, "give a table with the columns id and symbol"),
    "genes.path": (lambda path: ListRules(path=path).file, "give a file that lists genes, or another dataset"),
    "genes.reference": (load_reference, "give a parquet file, builtin or null"),
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_setting_has_a_remedy(setting: str, tmp_path: Path) -> None:
    read, remedy = SETTINGS[setting]
    with pytest.raises(ConfigError) as caught:
        read(str(tmp_path / "nope.csv"))
    assert str(caught.value).startswith(f"{setting}: {tmp_path}/nope.csv does not exist; {remedy}")


def test_links_that_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("gone")
    (tmp_path / "b").symlink_to("c")
    (tmp_path / "c").symlink_to("b")
    assert why_absent(tmp_path / "a") == "is a link to gone, which does not exist"
    assert why_absent(tmp_path / "b") == "is a link that leads back to itself"
    assert why_absent(tmp_path) == ""


def test_a_folder_that_may_not_be_entered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(ConfigError, match="cannot be reached: a folder above it may not be entered; give a file"):
        FileInput(paths=str(tmp_path / "SRX1.h5ad")).files()


def test_a_folder_that_may_not_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda path, mode, **_: False)
    with pytest.raises(ConfigError, match="is a folder that may not be opened; give a file"):
        FileInput(paths=str(tmp_path)).files()


def test_a_folder_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"genes\.mapping: .* is not a file; give a table"):
        named_file("genes.mapping", tmp_path, "give a table")
