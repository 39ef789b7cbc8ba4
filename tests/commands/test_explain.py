"""Every group, option and key of the configuration says what it means, in a terminal and on the page made from it."""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from scvae_data.calling import Program
from scvae_data.commands.explain import explain, page
from scvae_data.commands.settings import groups_of, root_keys
from scvae_data.config import conf_dir
from scvae_data.errors import ConfigError

ROOT = Path(__file__).parents[2]
PROGRAMS: tuple[Program, ...] = ("process", "train")


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal in which no line is broken."""
    monkeypatch.setenv("COLUMNS", "120")


def leaves(node: Any, prefix: str = "") -> set[str]:
    """Dotted names of all keys that hold a value."""
    if not isinstance(node, dict) or not node:
        return {prefix.strip(".")}
    return {leaf for key, inner in node.items() if key != "_target_" for leaf in leaves(inner, f"{prefix}.{key}")}


@functools.cache
def composed(program: Program) -> dict[tuple[str, str], DictConfig]:
    """The configuration with each option of each group, by both names."""
    groups = [group for group in groups_of(program).values() if group.name != "experiment"]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return {
            (group.name, option): compose(program, [f"{group.name}={option}"])
            for group in groups
            for option in group.options
        }


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_key_of_every_option_is_described_and_none_that_is_not_there(program: Program) -> None:
    groups = {name: group for name, group in groups_of(program).items() if name != "experiment"}
    described = set(root_keys(program)) | {key for group in groups.values() for key in group.keys}
    there: set[str] = set()
    for cfg in composed(program).values():
        there |= leaves(OmegaConf.to_container(cfg, resolve=False))
    # Callbacks without settings; a key of keys, which are described as well.
    there -= {"callbacks.throughput", "callbacks.random_state", "logger"}
    assert there <= described
    assert {key for key in described if not any(leaf == key or leaf.startswith(f"{key}.") for leaf in there)} == set()
    silent = [key for key in root_keys(program).values() if not key.about]
    silent += [key for group in groups.values() for key in group.keys.values() if not key.about]
    assert [key.name for key in silent] == []
    assert [group.name for group in groups.values() if not group.about] == []
    assert [
        option.name for group in groups_of(program).values() for option in group.options.values() if not option.about
    ] == []


@pytest.mark.parametrize("program", PROGRAMS)
def test_values_are_those_that_hydra_finds(program: Program) -> None:
    for (group, option), cfg in composed(program).items():
        for name, (value, _) in groups_of(program)[group].options[option].keys.items():
            if value and "${" not in value:
                assert OmegaConf.select(cfg, name) == OmegaConf.create(f"x: {value}").x, name


def test_the_page_is_the_one_made_from_the_comments() -> None:
    assert (ROOT / "docs" / "configuration.md").read_text() == page(), "make configuration"


def test_a_program_names_groups_and_keys() -> None:
    text = explain("process", [])
    assert "  qc=default                         which cells are kept: mad, none, strict\n" in text
    assert (
        "  keep_duplicates=all                of cells with equal counts (50 genes or more): all | first | none\n"
        in text
    )
    assert "model" not in {line.split("=")[0].strip() for line in text.splitlines()}


@pytest.mark.parametrize(
    ("topic", "line"),
    [
        ("qc", "  qc.min_genes=200                   genes with a count, per cell (none: null, strict: 500)"),
        ("qc=strict", "  qc.min_genes=500                   genes with a count, per cell"),
        (
            "strict",
            "  qc.max_pct_counts_mt=10.0          per cent of a cell's counts in mitochondrial genes: MT-…, with",
        ),
        ("qc.min_counts", "  qc.min_counts=500                  counts per cell (none: null, strict: 1000)"),
        ("min_counts", "  genes.min_counts=null              the same for a gene's total count"),
        ("seed", "  seed=0                             every random choice derives from it"),
        (
            "input=files",
            "  input.scratch_gb=20                bound on copies of files of a remote store, in GB: each is",
        ),
    ],
)
def test_what_a_topic_means(topic: str, line: str) -> None:
    assert any(found.startswith(line) for found in explain("process", [topic]).splitlines())


@pytest.mark.parametrize(
    ("topic", "message"),
    [
        ("model", "--help model: it belongs to another program: scvae-data train --help model"),
        ("qc.min_gene", "--help qc.min_gene: no such group or key; did you mean qc.min_genes?"),
        ("zzz", "--help zzz: no such group or key; scvae-data process --help has them all"),
    ],
)
def test_what_there_is_not(topic: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        explain("process", [topic])
    assert str(caught.value) == message


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of options of one's own, named on the command line."""
    for name, text in {
        "qc/organoids.yaml": "# for organoids\ndefaults: [default, _self_]\nmin_genes: 800  # few are less\n",
        "qc/strict.yaml": "# of our own\ndefaults: [default]\nmin_genes: 900\n",
        "qc/broken.yaml": "# broken\ndefaults: [default\nmin_genes: 3\n",
        "experiment/ours.yaml": "# for both\n",
        "experiment/fit.yaml": "# @package _global_\n# scvae-data train experiment=fit\n# to fit\n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(sys, "argv", ["scvae-data process", "--help", f"--config-dir={tmp_path}"])
    return tmp_path


def test_options_of_ones_own_are_among_the_others(own: Path) -> None:
    text = explain("process", [])
    assert "  qc=default                         which cells are kept: broken, mad, none, organoids, strict\n" in text
    text = " ".join(explain("process", ["qc"]).split())
    assert "genes with a count, per cell (broken: 3, none: null, organoids: 800, strict: 900)" in text
    assert "qc=organoids for organoids" in text
    assert explain("process", ["qc=organoids"]).splitlines()[0] == "qc=organoids: for organoids"
    assert explain("process", ["qc=strict"]).splitlines()[0] == "qc=strict: of our own"
    assert set(groups_of("process")["experiment"].options) == {"ours"}
    assert {"ours", "fit", "quick"} <= set(groups_of("train")["experiment"].options)


def test_a_folder_of_options_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["scvae-data process", "--config-dir", "nowhere", "--help"])
    with pytest.raises(ConfigError, match=r"--config-dir nowhere: there is no such folder"):
        explain("process", [])


def test_help_ends_quietly_where_nobody_reads_on(tmp_path: Path) -> None:
    program = f"{sys.executable} -m scvae_data process --help"
    done = subprocess.run(["bash", "-c", f"{program} | head -n 1"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("usage: scvae-data process [group=option …] [key=value …]\n", "")
    assert not list(tmp_path.iterdir())
