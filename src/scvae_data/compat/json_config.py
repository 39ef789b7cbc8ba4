"""The older system's JSON configuration in, overrides of ``process.py`` out.

Nothing is decided here: each key stands for one setting of the Hydra
configuration, whose defaults hold for the keys a file does not have.
"""

from __future__ import annotations

import glob
import json
import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from scvae_data.calling import override
from scvae_data.errors import ConfigError
from scvae_data.remote.location import local_path

__all__ = ["DEMO", "overrides_of", "read_config", "strip_comments"]

DEMO = "demo"
"""The input path that stands for simulated files."""

# Setting of process.py -> the keys that mean it. The setting's own name always does.
TOP: Mapping[str, tuple[str, ...]] = {
    "input": ("input_path", "input_paths", "input_dir", "input_directory", "input_file", "input_files", "data_path"),
    "paths.processed_dir": ("output_path", "output_dir", "output_directory", "output"),
    "chunk_size": (),
    "chunking.compression": (),
    "chunking.compression_level": (),
    "subset_to_control_cells": (),
    "control.column": ("control_column",),
    "control.values": ("control_values",),
    "input.manifest": ("manifest",),
    "input.obs_columns": ("obs_columns",),
    "engine.n_workers": ("n_workers", "num_workers", "n_jobs"),
    "seed": ("random_seed",),
    "overwrite": (),
    "max_failed_fraction": (),
}
QC: Mapping[str, tuple[str, ...]] = {
    "qc.min_genes": ("min_genes_per_cell",),
    "qc.max_genes": ("max_genes_per_cell",),
    "qc.min_counts": ("min_counts_per_cell",),
    "qc.max_counts": ("max_counts_per_cell",),
    "qc.max_pct_counts_mt": ("max_pct_mt", "max_mt_percent", "max_mito_percent", "max_mitochondrial_percent"),
    "qc.max_pct_counts_ribo": ("max_pct_ribo", "max_ribo_percent", "max_ribosomal_percent"),
    "qc.max_pct_counts_hb": ("max_pct_hb", "max_hb_percent", "max_haemoglobin_percent", "max_hemoglobin_percent"),
    "qc.nmads": (),
    "qc.mad_scale": (),
    "qc.percent_top": (),
    "genes.min_cells": ("min_cells_per_gene",),
}
GENES: Mapping[str, tuple[str, ...]] = {
    "genes.min_cells": ("min_cells_per_gene",),
    "genes.min_counts": ("min_counts_per_gene",),
    "genes.join": (),
    "genes.mapping": (),
    "genes.allow_mixed_species": (),
    "genes.n_top_genes": ("n_hvg", "n_hvgs", "n_highly_variable_genes", "n_variable_genes"),
    "genes.flavor": ("hvg_flavor",),
    "genes.batch_key": ("hvg_batch_key",),
    "genes.path": ("gene_list", "gene_list_path"),
    "normalization.target_sum": (),
    "normalize": ("normalise", "normalization"),
    "log1p": ("log_transform", "log_normalize"),
}
GENE_OPTIONS = {"genes.path": "list", "genes.n_top_genes": "hvg"}
HVG_OR_LIST = {"genes.path": (), "genes.n_top_genes": ("genes.flavor", "genes.batch_key")}
SECTIONS = {"quality_control": QC, "gene_processing": GENES}
STRING_OR_COMMENT = re.compile(r'("(?:\\.|[^"\\])*")|//[^\n]*', re.DOTALL)


def strip_comments(text: str) -> str:
    r"""Remove ``//`` comments, but not what looks like one within a string; lines keep their numbers.

    Examples
    --------
    >>> strip_comments('{"url": "http://x"} // where')
    '{"url": "http://x"} '
    """
    return STRING_OR_COMMENT.sub(lambda match: match[1] or "", text)


def read_config(path: Path) -> dict[str, Any]:
    """Read a JSON object that may carry ``//`` comments.

    Raises
    ------
    ConfigError
        The file cannot be read, is no JSON object, or has a key twice; names the line.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if twice := [key for key, _ in pairs if [name for name, _ in pairs].count(key) > 1]:
            raise ConfigError(f"{path}: {twice[0]} is there twice; leave one out")
        return dict(pairs)

    try:
        content = json.loads(strip_comments(path.read_text(encoding="utf-8-sig")), object_pairs_hook=unique)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); give the JSON file of the older system") from None
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"{path}: line {error.lineno}, column {error.colno}: {error.msg}; it must be JSON, with // comments"
        ) from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: holds no JSON object; it must begin with {{")
    return content


def overrides_of(path: Path) -> list[str]:
    """Return the overrides of ``process.py`` that mean the same as an older configuration file.

    A finished output directory is left alone and an unfinished one continued
    (``resume=true``), unless the file says ``"overwrite": true``.

    Raises
    ------
    ConfigError
        For a key that is not known, with the closest that is; for keys that
        contradict each other, and for a missing input.
    """
    given: dict[str, tuple[str, Any]] = {}
    for key, setting, value in known_keys(path, read_config(path)):
        before = given.setdefault(setting, (key, value))
        if before[1] != value:
            raise ConfigError(f"{path}: {before[0]} and {key} both set {setting}, to different values; leave one out")
    settings = {setting: value for setting, (_, value) in given.items()}
    if not settings.get("overwrite"):
        settings["resume"] = True
    return [*choices(path, settings), *(override(key, value) for key, value in settings.items())]


def known_keys(path: Path, content: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Yield (key in the file, setting it means, value); sections are taken apart."""
    top = meanings(TOP)
    known = [*top, *(f"{section}.{key}" for section, table in SECTIONS.items() for key in meanings(table))]
    for key, value in content.items():
        if key in SECTIONS:
            if not isinstance(value, dict):
                raise ConfigError(f"{path}: {key} must be an object {{…}}, got {value!r}")
            table = meanings(SECTIONS[key])
            found = [(f"{key}.{name}", table.get(name), inner) for name, inner in value.items()]
        else:
            found = [(key, top.get(key), value)]
        for name, setting, inner in found:
            if setting is not None and setting in TOP and inner is None:
                continue  # there, null says the same as no key
            if setting is None:
                close = get_close_matches(name, [*known, *SECTIONS], n=1, cutoff=0.0)[0]
                raise ConfigError(f"{path}: {name} is not a known key; did you mean {close}?")
            yield name, setting, inner


def meanings(table: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """Return key -> setting, from setting -> other keys."""
    return {key: setting for setting, others in table.items() for key in (setting.rpartition(".")[2], *others)}


def choices(path: Path, settings: dict[str, Any]) -> list[str]:
    """Return the options of config groups that the settings imply; what is no setting of its own is taken out."""
    chosen = [*input_choice(path, settings), *gene_choice(settings), *normalization_choice(path, settings)]
    return chosen + (["engine=local"] if settings.get("engine.n_workers", 1) != 1 else [])


def input_choice(path: Path, settings: dict[str, Any]) -> list[str]:
    """Choose between files, a manifest and simulated files."""
    given = settings.pop("input", None)
    if "input.manifest" in settings:
        if given is not None:
            raise ConfigError(f"{path}: manifest and input_path both say which files; leave one out")
        return ["input=manifest"]
    if given == DEMO:
        return ["input=demo"]
    names = [given] if isinstance(given, str) else given
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ConfigError(
            f'{path}: no input; add "input_path": a file, a folder, a glob or a list of them, or "{DEMO}"'
        )
    settings["input.paths"] = [pattern_of(name) for name in names]
    return ["input=files"]


def gene_choice(settings: dict[str, Any]) -> list[str]:
    """Choose between all genes, variable ones and a list; null switches a choice off with what belongs to it."""
    for switch, others in HVG_OR_LIST.items():
        if switch in settings and settings[switch] is None:
            for key in (switch, *others):
                settings.pop(key, None)
    return [f"genes={option}" for key, option in GENE_OPTIONS.items() if key in settings][:1]


def normalization_choice(path: Path, settings: dict[str, Any]) -> list[str]:
    """Choose between log1p of normalised counts and counts as they are: the two things a loader can give."""
    normalize, log1p = settings.pop("normalize", None), settings.pop("log1p", None)
    given = {value for value in (normalize, log1p) if value is not None}
    if given <= {True}:
        return []
    if given == {False}:
        return ["normalization=none"]
    raise ConfigError(
        f"{path}: gene_processing.{override('normalize', normalize)} with {override('log1p', log1p)} is not to be had: "
        "a loader gives counts, or log1p of normalised counts; set both to true or both to false"
    )


def pattern_of(name: str) -> str:
    """Return a folder as the pattern of the H5AD files in it; a matrix folder, and anything else, as it is."""
    folder = local_path("data_path", name).expanduser()
    if folder.is_dir() and any(folder.rglob("*.h5ad")):
        return f"{glob.escape(name.rstrip('/'))}/**/*.h5ad"
    return name
