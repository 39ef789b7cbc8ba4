"""Hydra's composition errors in, one readable line out."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from hydra.errors import ConfigCompositionException, MissingConfigException, OverrideParseException

from scvae_data.config import conf_dir

__all__ = ["one_line"]


def one_line(error: BaseException, known_keys: Iterable[str] = ()) -> str:
    """Say what is wrong with the command line: the setting, its value, and what is allowed.

    Parameters
    ----------
    error
        What Hydra or OmegaConf raised.
    known_keys
        Dotted names of all settings, to suggest the closest from.
    """
    if isinstance(error, OverrideParseException):
        return (
            f"{error.override!r} is not of the form key=value; values with brackets, commas, braces or '=' need "
            "quotes inside the shell's: 'input.paths=\"data/[1].h5ad\"'"
        )
    if isinstance(error, MissingConfigException):
        return _missing_option(error)
    text = str(error)
    if text.startswith("Ambiguous value for argument"):
        return f"{_first_line(error)}: add -m to sweep over the values, or write key=[a,b] for a list"
    if isinstance(error, ConfigCompositionException):
        if match := re.match(r"Could not override '(.+?)'\.", text):
            return _unknown_key(match[1], known_keys)
        if match := re.match(r"Error merging override (.+)", text):
            return f"{match[1]}: {_first_line(error.__cause__ or error)}"
    return _first_line(error)


def _missing_option(error: MissingConfigException) -> str:
    group, _, option = (error.missing_cfg_file or "").rpartition("/")
    if not group:
        return _first_line(error)
    if group.startswith("hydra/"):
        more = "pip install 'scvae-data[sweeps]'"
        return f"{group}={option}: no such option here; for launchers and search {more}"
    options = ", ".join(error.options or ()) or "none"
    return f"{group}={option}: no such option; available: {options}"


def _unknown_key(key: str, known_keys: Iterable[str]) -> str:
    group, _, name = key.partition(".")
    if options := _options_with(group, name.split(".")[0]):
        remedy = f"{group}={options[0]}" if len(options) == 1 else "one of them"
        return f"{key} belongs to {group}={' or '.join(options)}; add {remedy}"
    close = difflib.get_close_matches(key, list(known_keys), n=1)
    return f"{key} is not a setting" + (f"; did you mean {close[0]}?" if close else "; --cfg job prints them all")


def _options_with(group: str, name: str) -> list[str]:
    """Options of a config group that have a setting of this name."""
    files = sorted((conf_dir() / group).glob("*.yaml")) if name else []
    return [file.stem for file in files if any(line.startswith(f"{name}:") for line in file.read_text().splitlines())]


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
