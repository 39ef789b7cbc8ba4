"""Every option of every config group composes and fits the object it describes; overrides do what they say."""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.errors import ConfigCompositionException, MissingConfigException
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from scvae_data import ConfigError
from scvae_data.commands.process import process
from scvae_data.config import absolute_paths, check_chunk_size, conf_dir, instantiate, resolved
from scvae_data.loading.plan.sampling import Sampling

CONF = conf_dir()
OPTIONS = sorted(
    path.relative_to(CONF).with_suffix("").as_posix() for path in CONF.rglob("*.yaml") if path.parent != CONF
)
# One number to change per option added: a group whose files are not found would otherwise test nothing.
N_OPTIONS = {
    "callbacks": 1,
    "chunking": 5,
    "control": 1,
    "data": 1,
    "engine": 4,
    "experiment": 6,
    "genes": 3,
    "hydra": 1,
    "hydra/callbacks": 2,
    "hydra/sweeper": 1,
    "input": 5,
    "logger": 3,
    "model": 3,
    "normalization": 2,
    "outputs": 2,
    "paths": 1,
    "qc": 4,
    "trainer": 3,
}
# Parameters that the program fills in and nobody sets.
FILLED_IN = {"scvae_data.VAE": {"facts"}}
PLUMBING = {"_target_", "_partial_", "_convert_", "_recursive_"}


def composed(program: str, *overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(program, list(overrides))


def groups_of(program: str) -> set[str]:
    """Groups in a program's defaults list and in base.yaml's."""
    groups = set()
    for name in (program, "base"):
        for entry in yaml.safe_load((CONF / f"{name}.yaml").read_text())["defaults"]:
            if isinstance(entry, dict):
                groups |= {key.removeprefix("override ") for key in entry}
    return groups


def programs_of(option: str) -> list[str]:
    """Programs an option belongs to; the command at the top of an experiment says."""
    group, _, name = option.rpartition("/")
    if group == "hydra/sweeper":  # no default, which experiments could not replace
        return ["train"]
    if group == "experiment":
        command = rf"^# python (process|train)\.py .*experiment={name}\b"
        match = re.search(command, (CONF / f"{option}.yaml").read_text(), flags=re.MULTILINE)
        assert match, f"{option}.yaml does not begin with its command"
        return [match[1]]
    return [program for program in ("process", "train") if group in groups_of(program)]


CASES = [
    pytest.param(program, option, id=f"{program}-{option}") for option in OPTIONS for program in programs_of(option)
]


def targets(node: Any, key: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every node with a ``_target_``, with its dotted key."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield key, node
        for name, inner in node.items():
            yield from targets(inner, f"{key}.{name}".lstrip("."))
    elif isinstance(node, list):
        for position, inner in enumerate(node):
            yield from targets(inner, f"{key}[{position}]")


def chosen(option: str) -> list[str]:
    """The override that chooses an option; Hydra's own settings are there without one."""
    group, _, name = option.rpartition("/")
    return [] if group == "hydra" else [f"{group}={name}"]


def complaints(key: str, node: dict[str, Any]) -> list[str]:
    """What is wrong between a node and the signature of its target."""
    target = get_object(node["_target_"])
    parameters = inspect.signature(target).parameters
    given = {name for name in node if name not in PLUMBING}
    named = {name for name, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    required = {name for name in named if parameters[name].default is inspect.Parameter.empty}
    found = [f"{key}.{name}: {node['_target_']} has no such parameter" for name in sorted(given - named)]
    if not node.get("_partial_"):
        found += [f"{key}: {node['_target_']} needs {name}" for name in sorted(required - given)]
    if node["_target_"].startswith("scvae_data."):
        if any(p.kind == p.VAR_KEYWORD for p in parameters.values()):
            found.append(f"{key}: {node['_target_']} absorbs unknown keys")
        unset = named - given - FILLED_IN.get(node["_target_"], set())
        if not node.get("_partial_"):
            found += [f"{key}.{name} is not in the config" for name in sorted(unset)]
    return found


def chunk_sizes(node: Any) -> set[int]:
    if not isinstance(node, dict):
        return set()
    here = {node["chunk_size"]} if "chunk_size" in node else set()
    return here.union(*(chunk_sizes(inner) for inner in node.values()))


# --- every option -----------------------------------------------------------------------------------------------------


def test_every_option_is_found() -> None:
    found = Counter(option.rpartition("/")[0] for option in OPTIONS)
    assert found == N_OPTIONS
    assert {case.values[1] for case in CASES} == set(OPTIONS)


@pytest.mark.parametrize(("program", "option"), CASES)
def test_option_fits_its_target(program: str, option: str) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose(program, chosen(option), return_hydra_config=True)  # Hydra's callbacks are targets too
    nodes = list(targets(OmegaConf.to_container(cfg, resolve=False)))
    assert nodes
    assert [line for key, node in nodes for line in complaints(key, node)] == []


@pytest.mark.parametrize(("program", "option"), CASES)
def test_option_can_be_built_without_data(program: str, option: str, tmp_path: Path) -> None:
    overrides = [f"paths.output_dir={tmp_path}", f"paths.processed_dir={tmp_path}/absent"]
    cfg = composed(program, *overrides, *chosen(option))
    config = resolved(cfg)
    config.pop("logger", None)  # the run fills in where it logs to
    for key, node in targets(config):
        if node["_target_"].startswith("scvae_data.") and not node.get("_partial_"):
            assert instantiate(node) is not None, key
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("program", "key"),
    [("process", key) for key in ("qc", "genes", "normalization", "control", "chunking")] + [("train", "data")],
)
def test_default_option_repeats_the_constructor_defaults(program: str, key: str) -> None:
    node = OmegaConf.to_container(composed(program, "chunking=default")[key], resolve=False)
    assert isinstance(node, dict)
    defaults = {
        name: list(p.default) if isinstance(p.default, tuple) else p.default
        for name, p in inspect.signature(get_object(node["_target_"])).parameters.items()
        if p.default is not inspect.Parameter.empty
    }
    given = {name: value for name, value in node.items() if name in defaults and "${" not in str(value)}
    # train.py's own model takes sparse rows; who loops over batches in Python expects dense ones.
    own = {"x_format": "csr"} if key == "data" else {}
    assert given == {name: defaults[name] for name in given} | own


def test_a_binding_test_would_see_a_wrong_key() -> None:
    node = {"_target_": "scvae_data.processing.settings.qc.QcRules", "min_gene": 3}
    found = complaints("qc", node)
    assert found[0] == "qc.min_gene: scvae_data.processing.settings.qc.QcRules has no such parameter"
    assert "qc.min_genes is not in the config" in found


@pytest.mark.parametrize("option", [option for option in OPTIONS if option.startswith("experiment/")])
def test_experiments_choose_presets_and_leave_chunk_size_to_them(option: str) -> None:
    text = (CONF / f"{option}.yaml").read_text()
    assert "chunk_size" not in yaml.safe_load(text)
    assert len(text.splitlines()) <= 20


# --- overrides --------------------------------------------------------------------------------------------------------

BOTH = [
    pytest.param(["chunk_size=25000"], 25_000, id="value"),
    pytest.param(["chunking=large"], 200_000, id="preset"),
    pytest.param(["chunking=large", "chunk_size=777"], 777, id="preset and value"),
    pytest.param(["chunk_size=777", "chunking=large"], 777, id="value and preset"),
    pytest.param(["chunking=fast", "chunk_size=777"], 777, id="preset of another key and value"),
]


@pytest.mark.parametrize("program", ["process", "train"])
@pytest.mark.parametrize(("overrides", "expected"), BOTH)
def test_chunk_size_is_one_key(program: str, overrides: list[str], expected: int) -> None:
    cfg = composed(program, *overrides)
    check_chunk_size(cfg)
    assert (cfg.chunk_size, cfg.chunking.chunk_size) == (expected, expected)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], 400),
        (["input=demo"], 400),
        (["input=files"], 50_000),
        (["input=manifest"], 50_000),
        (["input=demo", "chunk_size=25000"], 25_000),
        (["input=demo", "chunking=large"], 200_000),
        (["chunking=default", "input=demo"], 50_000),
        (["input=files", "chunking=small"], 10_000),
        (["input=files", "chunking=demo"], 400),
    ],
    ids=str,
)
def test_the_demo_chooses_small_chunks_unless_told_otherwise(overrides: list[str], expected: int) -> None:
    assert composed("process", *overrides).chunk_size == expected


@pytest.mark.parametrize("program", ["process", "train"])
def test_a_chunk_size_reaches_every_place(program: str, tmp_path: Path) -> None:
    cfg = composed(program, "chunk_size=12345", f"paths.output_dir={tmp_path}")
    assert chunk_sizes(resolved(cfg)) == {12_345}


def test_an_experiment_can_choose_a_preset_and_be_overridden(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "big.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /chunking: large\nseed: 7\n"
    )
    search_path = f"hydra.searchpath=[file://{tmp_path}]"
    cfg = composed("process", search_path, "experiment=big")
    assert (cfg.chunk_size, cfg.seed) == (200_000, 7)
    assert composed("process", search_path, "experiment=big", "chunk_size=777").chunk_size == 777
    assert composed("process", search_path, "experiment=big", "chunking=small").chunk_size == 10_000


def test_fast_preset_changes_the_codec_only() -> None:
    cfg, default = composed("process", "input=files", "chunking=fast"), composed("process", "input=files")
    assert cfg.chunking.compression == "lz4"
    assert cfg.chunk_size == default.chunk_size


def test_n_workers_exists_in_every_engine() -> None:
    assert composed("process", "engine.n_workers=1").engine.n_workers == 1
    assert composed("process", "engine=local", "engine.n_workers=3").engine.n_workers == 3


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("chunk_size=25k", "Error merging override chunk_size=25k"),
        ("chunk_size=2.5e4", "Error merging override chunk_size=2.5e4"),
        ("chunk_size=true", "Error merging override chunk_size=true"),
        ("seed=abc", "Error merging override seed=abc"),
        ("chunk_sise=3", "Could not override 'chunk_sise'"),
        ("paths.procesed_dir=x", "Could not override 'paths.procesed_dir'"),
    ],
)
@pytest.mark.parametrize("program", ["process", "train"])
def test_mistakes_are_refused_at_composition(program: str, override: str, message: str) -> None:
    with pytest.raises(ConfigCompositionException, match=re.escape(message)):
        composed(program, override)


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(MissingConfigException, match="qc/lax"):
        composed("process", "qc=lax")


# --- functions --------------------------------------------------------------------------------------------------------


def test_alias_of_chunk_size_must_not_be_set() -> None:
    with pytest.raises(ConfigError, match=r"chunking\.chunk_size=5 disagrees .* set chunk_size=5 at the top level"):
        check_chunk_size(composed("process", "chunking.chunk_size=5"))


@pytest.mark.parametrize("value", [0, -3])
def test_chunk_size_must_be_positive(value: int) -> None:
    with pytest.raises(ConfigError, match=f"chunk_size={value} must be a positive number"):
        check_chunk_size(composed("process", f"chunk_size={value}"))


def test_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cfg = composed("process", "paths.processed_dir=a/b", "paths.output_dir=/run")
    absolute_paths(cfg)
    assert cfg.paths.processed_dir == str(tmp_path / "a" / "b")
    assert cfg.paths.output_dir == "/run"
    assert cfg.input.directory == str(tmp_path / "data" / "demo")


def test_several_directories_are_for_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cfg = composed("train", "paths.processed_dir=[a,s3://bucket/b]", "paths.output_dir=/run")
    absolute_paths(cfg)
    assert resolved(cfg)["data"]["data_path"] == [str(tmp_path / "a"), "s3://bucket/b"]
    with pytest.raises(ConfigError, match=r"paths.output_dir=\['a', 'b'\] must be one path"):
        absolute_paths(OmegaConf.create({"paths": {"output_dir": ["a", "b"]}}))
    with pytest.raises(
        ConfigError, match=r"processed_dir=\['a', 'b'\] must be one path; scvae-data process input=data"
    ):
        process(composed("process", "paths.processed_dir=[a,b]", "paths.output_dir=/run"))


def test_missing_values_are_named() -> None:
    with pytest.raises(ConfigError, match=r"qc\.min_genes must be given"):
        resolved(composed("process", "qc.min_genes='???'", "paths.output_dir=x"))


def test_resolved_is_plain() -> None:
    config = resolved(composed("process", "paths.output_dir=x"))
    assert config["chunking"]["chunk_size"] == 400
    assert type(config["qc"]["percent_top"]) is list


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        pytest.param([], None, id="each cell once"),
        pytest.param(
            ["data.sampling.column=cell_type", "data.sampling.alpha=0.5"], Sampling("cell_type", 0.5), id="power"
        ),
        pytest.param(
            ["data.sampling.column=donor", "data.sampling.weights={B cell: 1, T cell: 2}", "data.sampling.n_obs=99"],
            Sampling("donor", weights=(("B cell", 1.0), ("T cell", 2.0)), n_obs=99),
            id="weights",
        ),
    ],
)
def test_sampling_on_the_command_line(overrides: list[str], expected: Sampling | None) -> None:
    assert instantiate(resolved(composed("train", "paths.output_dir=x", *overrides))["data"]).sampling == expected


def test_instantiate_hands_over_plain_lists() -> None:
    rules = instantiate(composed("process", "qc.percent_top=[10,20]").qc)
    assert type(rules.percent_top) is list


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("qc.min_genes=-1", r"^qc\.min_genes=-1 must be 0 or more"),
        ("+qc.min_gens=1", r"^qc\.min_gens is not a setting; did you mean qc\.min_genes\?$"),
        ("+qc.zzz=1", r"^qc\.zzz is not a setting; scvae_data\.processing\.settings\.qc\.QcRules has .*min_genes"),
        ("qc._target_=scvae_data.processing.settings.qc.Nothing", r"Nothing"),
    ],
)
def test_instantiate_unwraps_errors_to_one_line(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        instantiate(composed("process", override).qc)
    assert "\n" not in str(caught.value)


def test_only_the_chunk_directory_may_be_in_a_store() -> None:
    paths = {"processed_dir": "s3://bucket/set", "data_dir": "data"}
    cfg = OmegaConf.create({"paths": paths})
    absolute_paths(cfg)
    assert dict(cfg.paths) == {"processed_dir": "s3://bucket/set", "data_dir": str(Path("data").absolute())}
    with pytest.raises(ConfigError, match=r"paths.data_dir=s3://b/x is in a remote store"):
        absolute_paths(OmegaConf.create({"paths": {"data_dir": "s3://b/x"}}))
