"""The YAML files of the configuration in; what their groups, options and keys mean, for people, out.

Each key is described where it is set first, by the comment behind it; an option by the comment at the top of its file,
a group by the comment behind it in the list of defaults of a program. Nothing is described anywhere else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import cast

from omegaconf import DictConfig, OmegaConf

from scvae_data.calling import Program
from scvae_data.config import conf_dir

__all__ = ["Group", "Key", "Option", "belongs_to", "closest", "groups_of", "root_keys"]

LINE = re.compile(r"( *)([\w@/.]+):(?: +(.*))?")  # how far in, key, value
BEHIND = re.compile(r"(?:^| +)# ")  # what comes before a comment
DEFAULT = re.compile(r" +- (?P<group>\w+): (?P<option>\w+)(?: +# (?P<about>.*))?")
APART = ("hydra", "experiment")  # folders that are no groups of settings
COMMAND = re.compile(r"# python (process|train)\.py ")
NOTHING = ("_target_", "defaults")


@dataclass(frozen=True)
class Key:
    """A setting: its value in the default option, or in the first that has it, and what it means."""

    name: str
    value: str
    about: str
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    """Option → value, where it is another one."""


@dataclass(frozen=True)
class Option:
    """A file of a group: what it is for, and the keys that it has by itself or from others."""

    name: str
    about: str
    keys: Mapping[str, tuple[str, str]]
    """Dotted name → value, and meaning."""


@dataclass(frozen=True)
class Group:
    """A folder of options of which one is chosen, by ``name=option``."""

    name: str
    about: str
    chosen: str
    options: Mapping[str, Option]

    @property
    def keys(self) -> dict[str, Key]:
        """Keys of all options by their dotted names, those of the chosen one first."""
        found: dict[str, Key] = {}
        order = sorted(self.options, key=lambda name: name != self.chosen)
        for name in dict.fromkeys(key for option in order for key in self.options[option].keys):
            values = {option: self.options[option].keys[name] for option in order if name in self.options[option].keys}
            (value, about), *_ = values.values()
            others = {option: other for option, (other, _) in values.items() if other != value}
            found[name] = Key(name, value, about or next((text for _, text in values.values() if text), ""), others)
        return found


@cache
def groups_of(program: Program) -> dict[str, Group]:
    """Return the groups of a program, in the order of its list of defaults, then those that both programs share."""
    found: dict[str, Group] = {}
    for file in (f"{program}.yaml", "base.yaml"):
        for line in _lines(conf_dir() / file):
            if (match := DEFAULT.fullmatch(line)) and match["group"] not in APART:
                found[match["group"]] = _group(match["group"], match["option"], match["about"] or "")
    experiments = _group("experiment", "", "presets: each chooses options and values of other groups")
    found["experiment"] = Group(
        "experiment", experiments.about, "null",
        {name: option for name, option in experiments.options.items() if _program_of(name) == program},
    )  # fmt: skip
    return found


@cache
def root_keys(program: Program) -> dict[str, Key]:
    """Return the keys of a program that are in no group."""
    found: dict[str, Key] = {}
    for file in (f"{program}.yaml", "base.yaml"):
        keys = _keys(conf_dir() / file, "")
        found |= {name: Key(name, *described) for name, described in keys.items()}
    for group in groups_of(program).values():
        found |= {name: key for name, key in group.keys.items() if "." not in name}
    return found


def belongs_to(name: str) -> list[Program]:
    """Return the programs that have a group, a preset (``experiment=quick``) or a key of this name."""
    programs: tuple[Program, ...] = ("process", "train")
    group, _, option = name.partition("=")
    if option:
        return [one for one in programs if group in groups_of(one) and option in groups_of(one)[group].options]
    return [one for one in programs if name in names_of(one)]


def names_of(program: Program) -> list[str]:
    """Return the names of all groups and keys of a program."""
    groups = groups_of(program)
    return [*groups, *root_keys(program), *(key for group in groups.values() for key in group.keys)]


def closest(name: str, program: Program) -> str | None:
    """Return the group or key of a program that is likeliest meant: the same name in another group, or one like it."""
    names, last = names_of(program), name.rpartition(".")[2]
    same = [other for other in names if other.rpartition(".")[2] == last]
    return next(iter(same or get_close_matches(name, names, n=1)), None)


def _group(name: str, chosen: str, about: str) -> Group:
    files = sorted((conf_dir() / name).glob("*.yaml"))
    return Group(name, about, chosen, {path.stem: _option(path) for path in files})


def _option(path: Path) -> Option:
    lines = _lines(path)
    head = [line[2:] for line in _head(lines)]
    prefix = "" if "@package _global_" in head else f"{path.parent.name}."
    keys: dict[str, tuple[str, str]] = {}
    for other in _defaults(path):
        keys |= _option(other).keys if other.parent == path.parent else _keys(other, prefix)
    for name, (value, about) in _keys(path, prefix).items():
        keys[name] = value, about or keys.get(name, ("", ""))[1]
    about = " ".join(line for line in head if not line.startswith(("@package", "python ")))
    return Option(path.stem, about, {} if path.parent.name in APART else keys)


def _defaults(path: Path) -> Iterator[Path]:
    """Files that an option is made of, itself left out."""
    for entry in cast(DictConfig, OmegaConf.load(path)).get("defaults", ()):
        name = entry.partition("@")[0] if isinstance(entry, str) else "_self_"
        if name != "_self_":
            yield conf_dir() / f"{name[1:]}.yaml" if name.startswith("/") else path.with_name(f"{name}.yaml")


def _keys(path: Path, prefix: str) -> dict[str, tuple[str, str]]:
    """Keys that a file sets itself, with value and comment; one that holds others has none of its own."""
    found: dict[str, tuple[str, str]] = {}
    above: list[tuple[int, str]] = []
    for line in _lines(path):
        text, *about = BEHIND.split(line, maxsplit=1)
        if not (match := LINE.fullmatch(text)) or match[2] in NOTHING:
            continue
        above = [(depth, key) for depth, key in above if depth < len(match[1])]
        name = ".".join([*(key for _, key in above), match[2]])
        above.append((len(match[1]), match[2]))
        if match[3] or about:
            found[prefix + name] = match[3] or "", about[0] if about else ""
    return found


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def _head(lines: list[str]) -> Iterator[str]:
    for line in lines:
        if not line.startswith("# "):
            return
        yield line


def _program_of(experiment: str) -> Program:
    match = COMMAND.search((conf_dir() / "experiment" / f"{experiment}.yaml").read_text(encoding="utf-8"))
    return "process" if match and match[1] == "process" else "train"
