"""A program and what is asked about in; what its groups, options and keys mean, as text or as a page, out."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Iterator, Sequence

from scvae_data.calling import Program, program
from scvae_data.commands.settings import Group, Key, Option, belongs_to, closest, groups_of, root_keys
from scvae_data.errors import ConfigError

__all__ = ["explain", "page"]

Row = tuple[str, str]
"""What is set, and what it means."""

PROGRAMS: tuple[Program, ...] = ("process", "train")
WHAT = {
    "process": "raw count files -> a directory of chunk files",
    "train": "a directory of chunk files -> a trained model, its latents and its log",
}
FLAGS: Sequence[Row] = (
    ("--help GROUP", "what a group means, an option (qc=strict) or a key (qc.min_genes)"),
    ("--cfg job", "print the whole configuration as it would be used, and stop"),
    ("-m", "run once for each of several values: key=1,2,3"),
    ("--config-dir DIR", "a folder with options of your own, e.g. DIR/qc/mine.yaml for qc=mine"),
    ("--hydra-help", "what else Hydra, which reads the command line, can do"),
)
WIDEST = 34  # of what is set, before its meaning
PAGE = """\
# Configuration

Every stage is a [Hydra](https://hydra.cc) group: choose an option by `group=option`, change a setting by
`group.key=value`. `python process.py --help qc` and `python train.py --help data.batch_size` say in a terminal what
this page says, and `--cfg job` prints what a command would use. A key that does not exist is an error.

The page is made from the comments in `conf/` by `make configuration`.
"""


def explain(name: Program, topics: Sequence[str]) -> str:
    """Return what a program is called with, or what groups, options and keys of it mean.

    Raises
    ------
    ConfigError
        Something is asked about that the program does not have.
    """
    if not topics:
        return "\n".join(_of_program(name))
    return "\n\n".join("\n".join(_of_topic(name, topic)) for topic in topics)


def page() -> str:
    """Return all groups, options and keys of both programs as a page in Markdown."""
    parts = [PAGE]
    shown: set[str] = set()
    for name in PROGRAMS:
        parts += [
            f"## {name}.py: keys of no group\n",
            *_table(("key", "meaning"), _settings(root_keys(name).values())),
            "",
        ]
    for name in PROGRAMS:
        for group in groups_of(name).values():
            if group.name in shown:
                continue
            shown.add(group.name)
            users = " and ".join(f"{user}.py" for user in PROGRAMS if group.name in groups_of(user))
            options = [(f"{group.name}={option.name}", option.about) for option in _options(group)]
            parts += [f"## {group.name}\n", f"{_sentence(group.about)} Of {users}.\n"]
            parts += [*_table(("option", "what for"), options), ""]
            if group.keys:
                parts += [*_table(("key", "meaning"), _settings(group.keys.values())), ""]
    return "\n".join(parts)


def _of_program(name: Program) -> Iterator[str]:
    yield f"usage: {program(name)} [group=option …] [key=value …]\n\n{WHAT[name]}\n"
    yield "groups, with the option that is chosen, and others"
    for group in groups_of(name).values():
        others = [option for option in group.options if option != group.chosen]
        called = f"{group.name}={group.chosen}"
        yield from _row(called, f"{group.about}{': ' if others else ''}{', '.join(others)}")
    yield "\nkeys of no group"
    yield from _rows(_settings(root_keys(name).values()))
    yield "\nand"
    yield from _rows(FLAGS)


def _of_topic(name: Program, topic: str) -> Iterator[str]:
    groups, roots = groups_of(name), root_keys(name)
    group, _, option = topic.partition("=")
    if group in groups and option in {"", *groups[group].options}:
        yield from _of_option(groups[group], option) if option else _of_group(name, groups[group])
        return
    keys = roots | {key: found for one in groups.values() for key, found in one.keys.items()}
    found = [key for key in keys if key == group or key.startswith(f"{group}.")]
    found = found or [key for key in keys if key.rpartition(".")[2] == group]
    having = [one for one in groups.values() if group in one.options]
    if not found and having:
        for one in having:
            yield from _of_option(one, group)
        return
    if not found:
        raise ConfigError(f"--help {topic}: {_unknown(name, topic)}")
    yield from _rows(_settings(keys[key] for key in found))


def _unknown(name: Program, topic: str) -> str:
    others = [other for other in belongs_to(topic) if other != name]
    if others:
        return f"it belongs to another program: {program(others[0])} --help {topic}"
    close = closest(topic, name)
    return (
        f"no such group or key; did you mean {close}?"
        if close
        else f"no such group or key; {program(name)} --help has them all"
    )


def _of_group(name: Program, group: Group) -> Iterator[str]:
    yield f"{group.name}: {group.about}\n\noptions"
    yield from _rows(
        (f"{group.name}={option.name}", f"{option.about}{' (default)' if option.name == group.chosen else ''}")
        for option in _options(group)
    )
    if group.keys:
        yield f"\nkeys, with their values in {group.name}={group.chosen} or where there are such keys"
        yield from _rows(_settings(group.keys.values()))
    yield f"\n{program(name)} {group.name}=OPTION --cfg job prints what an option sets"


def _of_option(group: Group, option: str) -> Iterator[str]:
    chosen = group.options[option]
    yield f"{group.name}={option}: {chosen.about}"
    yield from _rows((f"{name}={value}", group.keys[name].about) for name, (value, _) in chosen.keys.items() if value)


def _options(group: Group) -> list[Option]:
    return sorted(group.options.values(), key=lambda option: option.name != group.chosen)


def _settings(keys: Iterable[Key]) -> Iterator[Row]:
    for key in keys:
        others = ", ".join(f"{option}: {value}" for option, value in key.elsewhere.items() if value)
        yield f"{key.name}={key.value}", f"{key.about}{f' ({others})' if others else ''}"


def _rows(rows: Iterable[Row]) -> Iterator[str]:
    for row in rows:
        yield from _row(*row)


def _row(called: str, about: str) -> list[str]:
    """Lay out what is set and what it means, in lines as wide as the terminal."""
    width = max(60, min(120, shutil.get_terminal_size((120, 24)).columns))
    lines = textwrap.wrap(about, width - WIDEST - 3, break_long_words=False, break_on_hyphens=False) or [""]
    if len(called) > WIDEST:
        return [f"  {called}", *(f"  {'':{WIDEST}} {line}" for line in lines)]
    return [f"  {called:{WIDEST}} {lines[0]}".rstrip(), *(f"  {'':{WIDEST}} {line}" for line in lines[1:])]


def _table(head: Row, rows: Iterable[Row]) -> list[str]:
    escaped = [(name.replace("|", "\\|"), about.replace("|", "\\|")) for name, about in rows]
    return [f"| {head[0]} | {head[1]} |", "|---|---|", *(f"| `{name}` | {about} |" for name, about in escaped)]


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


if __name__ == "__main__":
    print(page(), end="")
