"""The older JSON configuration: comments, the meaning of every key, and Hydra's grammar."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from tests.compat.conftest import ROOT

from scvae_data import ConfigError
from scvae_data.compat.json_config import DEMO, SECTIONS, TOP, overrides_of, strip_comments
from scvae_data.config import conf_dir

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NUMBERS = st.integers(-(10**6), 10**6) | st.floats(allow_nan=False, allow_infinity=False)
PLAIN = st.none() | st.booleans() | NUMBERS | TEXT
VALUES = PLAIN | st.lists(PLAIN, max_size=3) | st.dictionaries(st.text("ab_", min_size=1), PLAIN, max_size=3)


def composed(overrides: list[str]) -> dict[str, Any]:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("process", overrides)
    cfg.paths.output_dir = "unused"
    plain = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def config(folder: Path, content: Any) -> Path:
    path = folder / "config.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@given(VALUES)
def test_comments_go_and_strings_stay(value: Any) -> None:
    lines = json.dumps(value, ensure_ascii=False, indent=1).split("\n")
    commented = '// "first"\n' + "\n".join(f'{line} // "a\\" // b' for line in lines)
    assert json.loads(strip_comments(commented)) == value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"path": "http://x//y"} // z', '{"path": "http://x//y"} '),
        (r'{"quote": "\"// in"}//out', r'{"quote": "\"// in"}'),
        (r'{"backslash": "\\"}// out "', r'{"backslash": "\\"}'),
        ('{\n// "a": 1,\n"b": 2}', '{\n\n"b": 2}'),
        ('{"a": 1/2}', '{"a": 1/2}'),
    ],
)
def test_comments(text: str, expected: str) -> None:
    assert strip_comments(text) == expected


@pytest.mark.parametrize(
    ("content", "meaning"),
    [
        ({"chunk_size": 25_000}, {"chunk_size": 25_000, "chunking.chunk_size": 25_000}),
        (
            {"compression": "lz4", "compression_level": 7},
            {"chunking.compression": "lz4", "chunking.compression_level": 7},
        ),
        ({"output_dir": "a b"}, {"paths.processed_dir": "a b"}),
        (
            {"subset_to_control_cells": True, "control_column": "drug", "control_values": ["DMSO, 1%"]},
            {"subset_to_control_cells": True, "control.column": "drug", "control.values": ["DMSO, 1%"]},
        ),
        ({"quality_control": {"min_genes_per_cell": 10}}, {"qc.min_genes": 10}),
        (
            {"quality_control": {"max_mt_percent": 15.5, "min_counts": None}},
            {"qc.max_pct_counts_mt": 15.5, "qc.min_counts": None},
        ),
        ({"quality_control": {"nmads": {"pct_counts_mt": 3.0}}}, {"qc.nmads": {"pct_counts_mt": 3.0}}),
        ({"quality_control": {"min_cells_per_gene": 7}}, {"genes.min_cells": 7}),
        ({"gene_processing": {"min_cells": 5}}, {"genes.min_cells": 5}),
        (
            {"gene_processing": {"n_top_genes": 500, "hvg_flavor": "cell_ranger"}},
            {"genes.n_top_genes": 500, "genes.flavor": "cell_ranger"},
        ),
        ({"gene_processing": {"gene_list": "genes.txt"}}, {"genes.path": "genes.txt"}),
        ({"gene_processing": {"normalize": False, "log1p": False}}, {"normalization.method": "none"}),
        (
            {"gene_processing": {"normalize": True, "target_sum": 5e3}},
            {"normalization.method": "log1p", "normalization.target_sum": 5e3},
        ),
        ({"n_workers": 3, "random_seed": 5}, {"engine.n_workers": 3, "seed": 5}),
        ({"overwrite": True}, {"overwrite": True, "resume": False}),
        (
            {"chunk_size": None, "n_workers": None, "control_values": None},
            {"chunk_size": 50_000, "engine.n_workers": 1},
        ),
        (
            {"gene_processing": {"n_top_genes": None, "hvg_flavor": "seurat_v3", "gene_list": None, "min_cells": None}},
            {"genes.flavor": None, "genes.path": None, "genes.min_cells": None, "genes.join": "outer"},
        ),
        ({}, {"overwrite": False, "resume": True, "chunk_size": 50_000, "qc.min_genes": 200}),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else None,
)
def test_keys_mean(content: dict[str, Any], meaning: dict[str, Any], tmp_path: Path) -> None:
    cfg = OmegaConf.create(composed(overrides_of(config(tmp_path, {"input_path": "x.h5ad", **content}))))
    found = {key: OmegaConf.select(cfg, key) for key in meaning}
    assert found == meaning


def test_every_key_is_a_setting_of_process(tmp_path: Path) -> None:
    keys = {*TOP, *(key for table in SECTIONS.values() for key in table)} - {"input", "normalize", "log1p"}
    options = ["input=manifest", "input=files", "genes=hvg", "genes=list", "engine=local"]
    known = {key for option in options for key in flat_keys(composed([option]))}
    assert keys <= known


def flat_keys(node: dict[str, Any], prefix: str = "") -> set[str]:
    keys = {f"{prefix}{key}" for key in node}
    return keys.union(*(flat_keys(value, f"{prefix}{key}.") for key, value in node.items() if isinstance(value, dict)))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (DEMO, ["input=demo"]),
        ("a.h5ad", ["input=files", "input.paths=[a.h5ad]"]),
        (["a.h5ad", "b c.h5"], ["input=files", 'input.paths=[a.h5ad,"b c.h5"]']),
        ("data/*.h5ad", ["input=files", "input.paths=[data/*.h5ad]"]),
        ("{raw}", ["input=files", "input.paths=[{raw}/**/*.h5ad]"]),
    ],
)
def test_inputs(path: Any, expected: list[str], tmp_path: Path, raw: Path) -> None:
    path = str(raw) if path == "{raw}" else path
    overrides = overrides_of(config(tmp_path, {"input_path": path}))
    assert [text for text in overrides if text.startswith("input")] == [
        text.replace("{raw}", str(raw)) for text in expected
    ]


def test_manifest(tmp_path: Path) -> None:
    overrides = overrides_of(config(tmp_path, {"manifest": "samples.csv"}))
    assert overrides == ["input=manifest", "input.manifest=samples.csv", "resume=true"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"chunksize": 5}, "chunksize is not a known key; did you mean chunk_size?"),
        (
            {"quality_control": {"min_gene": 5}},
            "quality_control.min_gene is not a known key; did you mean quality_control.min_genes?",
        ),
        ({"quality_controls": {}}, "quality_controls is not a known key; did you mean quality_control?"),
        ({"zzz": 1}, "zzz is not a known key; did you mean "),
        ({"quality_control": 5}, "quality_control must be an object {…}, got 5"),
        ({"chunk_size": 5}, 'no input; add "input_path": a file, a folder, a glob or a list of them, or "demo"'),
        (
            {"input_path": "a", "input_dir": "b"},
            "input_path and input_dir both set input, to different values; leave one out",
        ),
        ({"input_path": "a", "manifest": "b"}, "manifest and input_path both say which files; leave one out"),
        (
            {"input_path": "a", "gene_processing": {"normalize": True, "log1p": False}},
            "normalize=true with log1p=false is not to be had",
        ),
        ({"input_path": None}, 'no input; add "input_path"'),
        ({"input_path": 5}, 'no input; add "input_path"'),
        (
            {"input_path": "a", "gene_processing": {"normalize": "cpm"}},
            "normalize=cpm with log1p=null is not to be had",
        ),
        ('{"a": 1,\n"b" 2}', "line 2, column 5: Expecting ':' delimiter"),
        ('{"chunk_size": 1, "chunk_size": 2}', "chunk_size is there twice; leave one out"),
        ("[1]", "holds no JSON object; it must begin with {"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else ",".join(value),
)
def test_mistakes(content: Any, message: str, tmp_path: Path) -> None:
    path = config(tmp_path, content)
    with pytest.raises(ConfigError) as caught:
        overrides_of(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.json: cannot be read"):
        overrides_of(tmp_path / "none.json")


def test_the_example_means_the_defaults_of_process() -> None:
    stated = composed(overrides_of(ROOT / "config" / "chunked_data_config.json"))
    default = composed(["input=demo"])
    differing = {key for key in default if default[key] != stated[key]}
    assert differing == {"chunk_size", "chunking", "control", "resume"}
    assert stated["chunking"] == default["chunking"] | {"chunk_size": 25_000, "compression_level": 4}
