"""The YAML files of the configuration, and of one's own, in; what groups, options and keys mean, for people, out.

Each key is described where it is set first, by the comment behind it; an option by the comment at the top of its file,
a group by the comment behind it in the list of defaults of a program. Nothing is described anywhere else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import cast

from omegaconf import DictConfig, OmegaConf
from yaml import YAMLError

from scvae_data.calling import Program, own_options
from scvae_data.config import conf_dir
from scvae_data.errors import ConfigError

__all__ = ["Group", "Key", "Option", "belongs_to", "closest", "groups_of", "root_keys"]

LINE = re.compile(r"( *)([\w@/.]+):(?: +(.*))?")  # how far in, key, value
BEHIND = re.compile(r"(?:^| +)# ")  # what comes before a comment
DEFAULT = re.compile(r" +- (?P<group>\w+): (?P<option>\w+)(?: +# (?P<about>.*))?")
APART = ("hydra", "experiment")  # folders that are no groups of settings
COMMAND = re.compile(r"# (?:python )?(?:scvae-data )?(process|train)(?:\.py)? ")
PROGRAMS: tuple[Program, ...] = ("process", "train")
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


def groups_of(program: Program) -> dict[str, Group]:
    """Return the groups of a program, in the order of its list of defaults, then those that both programs share."""
    return _groups(program, _folders())


@cache
def _groups(program: Program, folders: tuple[Path, ...]) -> dict[str, Group]:
    found: dict[str, Group] = {}
    for file in (f"{program}.yaml", "base.yaml"):
        for line in _lines(conf_dir() / file):
            if (match := DEFAULT.fullmatch(line)) and match["group"] not in APART:
                files = _files(match["group"], folders)
                options = {name: _option(path, folders) for name, path in files.items()}
                found[match["group"]] = Group(match["group"], match["about"] or "", match["option"], options)
    presets = {
        name: _option(path, folders)
        for name, path in _files("experiment", folders).items()
        if program in _programs_of(path)
    }
    about = "presets: each chooses options and values of other groups"
    return found | {"experiment": Group("experiment", about, "null", presets)}


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
    group, _, option = name.partition("=")
    if option:
        return [one for one in PROGRAMS if group in groups_of(one) and option in groups_of(one)[group].options]
    return [one for one in PROGRAMS if name in names_of(one)]


def names_of(program: Program) -> list[str]:
    """Return the names of all groups and keys of a program."""
    groups = groups_of(program)
    return [*groups, *root_keys(program), *(key for group in groups.values() for key in group.keys)]


def closest(name: str, program: Program) -> str | None:
    """Return the group or key of a program that is likeliest meant: the same name in another group, or one like it."""
    names, last = names_of(program), name.rpartition(".")[2]
    same = [other for other in names if other.rpartition(".")[2] == last]
    return next(iter(same or get_close_matches(name, names, n=1)), None)


def _folders() -> tuple[Path, ...]:
    """Folders of options: of two of one name that of the last one counts."""
    own = own_options()
    if own is not None and not own.is_dir():
        raise ConfigError(f"--config-dir {own}: there is no such folder")
    return (conf_dir(), *([own.absolute()] if own is not None else []))


def _files(group: str, folders: Sequence[Path]) -> dict[str, Path]:
    """Return the files of the options of a group, by their names."""
    found = {path.stem: path for folder in folders for path in (folder / group).glob("*.yaml")}
    return dict(sorted(found.items()))


def _option(path: Path, folders: Sequence[Path]) -> Option:
    lines = _lines(path)
    head = [line[2:] for line in _head(lines)]
    prefix = "" if "@package _global_" in head else f"{path.parent.name}."
    keys: dict[str, tuple[str, str]] = {}
    for other in _defaults(path, folders):
        keys |= _option(other, folders).keys if other.parent.name == path.parent.name else _keys(other, prefix)
    for name, (value, about) in _keys(path, prefix).items():
        keys[name] = value, about or keys.get(name, ("", ""))[1]
    about = " ".join(line for line in head if not line.startswith(("@package", "python ")))
    return Option(path.stem, about, {} if path.parent.name in APART else keys)


def _defaults(path: Path, folders: Sequence[Path]) -> Iterator[Path]:
    """Files that an option is made of, itself left out; none of a file that is no YAML, which Hydra tells."""
    try:
        entries = cast(DictConfig, OmegaConf.load(path)).get("defaults", ())
    except YAMLError:
        return
    for entry in entries:
        name = entry.partition("@")[0] if isinstance(entry, str) else "_self_"
        below = f"{name[1:]}.yaml" if name.startswith("/") else f"{path.parent.name}/{name}.yaml"
        there = [folder / below for folder in folders if (folder / below).is_file() and folder / below != path]
        if name != "_self_" and there:
            yield there[-1]


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


def _programs_of(preset: Path) -> tuple[Program, ...]:
    """Return the programs that a preset is of, as the command in its comment says; of both where it has none."""
    match = COMMAND.search(preset.read_text(encoding="utf-8"))
    return PROGRAMS if match is None else (cast(Program, match[1]),)
