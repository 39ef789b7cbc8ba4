"""When workers start; and the settings of a run that adds cells: what is given must be the directory's."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf
from tests.support.datasets import make_dataset

from scvae_data.commands.process import (
    MOVED,
    keep_settings,
    recorded_config,
    refuse_beside_append,
    settings_of,
    with_report,
)
from scvae_data.commands.upgrade import upgrade_directory
from scvae_data.config import conf_dir, resolved
from scvae_data.errors import ConfigError
from scvae_data.processing.run.summary import Summary
from scvae_data.remote.location import location

VERSION1 = Path(__file__).parents[1] / "data" / "version1"


def config(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("process", overrides=["input=files", "input.paths=x", "paths.output_dir=x", *overrides])
    return cfg


@pytest.fixture(scope="module")
def recorded() -> dict[str, Any]:
    """Of a directory made with settings that are not the defaults."""
    made = resolved(config("qc=mad", "qc.min_genes=7", "chunk_size=123", "seed=5", "genes.min_cells=9"))
    return dict(made)


def keys(overrides: tuple[str, ...]) -> list[str]:
    return [override.partition("=")[0] for override in overrides]


@pytest.mark.parametrize("given", [(), ("seed=5",), ("qc=mad", "qc.min_genes=7"), ("engine=local", "chunk_size=123")])
def test_settings_are_those_of_the_directory(recorded: dict[str, Any], given: tuple[str, ...]) -> None:
    cfg = config(*given)
    keep_settings(cfg, recorded, keys(given), Path("out"))
    settings = settings_of(cfg)
    assert (settings.seed, settings.qc.min_genes, settings.chunking.chunk_size) == (5, 7, 123)
    assert settings.qc.nmads is not None and settings.genes.min_cells == 9  # type: ignore[union-attr]


def test_a_directory_of_an_earlier_version_keeps_its_settings_once_it_is_upgraded(tmp_path: Path) -> None:
    directory = shutil.copytree(VERSION1 / "gzip", tmp_path / "version1")
    with pytest.raises(ConfigError, match=f"format version 1; scvae-data upgrade {directory}"):
        recorded_config(directory)
    upgrade_directory(directory)
    cfg = config()
    keep_settings(cfg, recorded_config(directory), [], directory)
    settings = settings_of(cfg)
    assert (settings.qc.min_genes, settings.qc.min_counts, settings.chunking.chunk_size) == (20, 40, 40)


def test_all_classes_that_were_moved_are_there() -> None:
    assert [get_class(name).__name__ for name in MOVED.values()] == [name.rpartition(".")[2] for name in MOVED]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("seed=6",), r"made with seed=5 \(now 6\); leave them out"),
        (("qc.min_genes=8",), r"qc\.min_genes=7 \(now 8\)"),
        (("qc=default",), r"qc\.min_genes=7"),
        (("normalization.target_sum=3",), r"normalization\.target_sum=10000"),
        (("genes=hvg",), r"genes\._target_=.*GeneRules \(now .*HvgRules"),
    ],
)
def test_given_ones_that_differ_are_refused_by_name(
    recorded: dict[str, Any], given: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        keep_settings(config(*given), recorded, keys(given), Path("out"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["overwrite", "dry_run"])
def test_what_contradicts_append(key: str) -> None:
    with pytest.raises(ConfigError, match=f"append=true and {key}=true contradict"):
        refuse_beside_append(config("append=true", f"{key}=true"))


def test_a_report_is_written_where_one_is_wanted_and_the_directory_is_local(tmp_path: Path) -> None:
    out, _, _ = make_dataset(tmp_path / "chunks", n_obs=6)
    asked = OmegaConf.create({"report": False})
    assert with_report(asked, Summary(out)).report is None
    asked.report = True
    assert with_report(asked, Summary(location("s3://bucket/chunks"))).report is None
    assert with_report(asked, Summary(out)).report is None  # it has no summary to tell of: a warning
    assert not (out / "qc_report.html").exists()
