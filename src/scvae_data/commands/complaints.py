"""Hydra's composition errors in, one readable line out."""

from __future__ import annotations

import re
import shlex

from hydra.errors import ConfigCompositionException, MissingConfigException, OverrideParseException
from yaml import MarkedYAMLError

from scvae_data.calling import Program, override, program
from scvae_data.commands.settings import belongs_to, closest, groups_of
from scvae_data.wording import first_line

__all__ = ["one_line"]


def one_line(error: BaseException, name: Program) -> str:
    """Say what is wrong with the command line: the setting, its value, and what is allowed.

    Parameters
    ----------
    error
        What Hydra, OmegaConf or the reader of YAML raised.
    name
        The program that was called.
    """
    if isinstance(error, OverrideParseException):
        key, _, value = str(error.override).partition("=")
        example = override(key, value) if value and value[0] not in "[{" else 'input.paths="data/[1].h5ad"'
        return (
            f"{error.override!r} is not of the form key=value; values with brackets, commas, braces, quotes or '=' "
            f"need quotes inside the shell's: {shlex.quote(example)}"
        )
    if isinstance(error, MissingConfigException):
        return _missing_option(error)
    if isinstance(error, MarkedYAMLError) and (mark := error.problem_mark):
        return f"{mark.name}, line {mark.line + 1}: no YAML: {error.problem}; correct the file"
    text = str(error)
    if text.startswith("Ambiguous value for argument"):
        return f"{first_line(error)}: add -m to sweep over the values, or write key=[a,b] for a list"
    if isinstance(error, ConfigCompositionException):
        if match := re.match(r"In 'experiment/(\w+)': Could not override '.+?'\.", text):
            return _of_other(f"experiment={match[1]}", name) or first_line(error)
        if match := re.match(r"Could not override '(.+?)'\.", text):
            return _unknown_key(match[1], name)
        if match := re.match(r"Error merging override (.+)", text):
            return f"{match[1]}: {first_line(error.__cause__ or error)}"
    return first_line(error)


def _missing_option(error: MissingConfigException) -> str:
    group, _, option = (error.missing_cfg_file or "").rpartition("/")
    if not group:
        return first_line(error)
    if group.startswith("hydra/"):
        more = "pip install 'scvae-data[sweeps]'"
        return f"{group}={option}: no such option here; for launchers and search {more}"
    options = ", ".join(error.options or ()) or "none"
    return f"{group}={option}: no such option; available: {options}"


def _unknown_key(key: str, name: Program) -> str:
    group = key.partition(".")[0]
    groups = groups_of(name)
    if group in groups and (options := [one.name for one in groups[group].options.values() if key in one.keys]):
        remedy = f"{group}={options[0]}" if len(options) == 1 else "one of them"
        return f"{key} belongs to {group}={' or '.join(options)}; add {remedy}"
    if other := _of_other(key, name):
        return other
    close = closest(key, name)
    return f"{key} is not a setting" + (
        f"; did you mean {close}?" if close else f"; {program(name)} --help has them all"
    )


def _of_other(what: str, name: Program) -> str:
    """Say that something is of another program; empty if it is of none."""
    others = [program(other) for other in belongs_to(what) if other != name]
    return f"{what} is of {others[0]}, not of {program(name)}; leave it out here" if others else ""
