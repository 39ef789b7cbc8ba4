"""The words after a command in, its arguments out; help on request, mistakes in one line."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

__all__ = ["Parser"]


class Parser(argparse.ArgumentParser):
    """Arguments of ``scvae-data COMMAND``; a mistake ends the program with one line and exit status 2.

    Parameters
    ----------
    command
        Its name.
    description
        What it does, for ``--help``.
    """

    def __init__(self, command: str, description: str, **more: Any) -> None:
        super().__init__(f"scvae-data {command}", description=description, allow_abbrev=False, **more)

    def error(self, message: str) -> NoReturn:
        """Name the mistake and how the command is called."""
        usage = " ".join(self.format_usage().removeprefix("usage: ").split())
        self.exit(2, f"error: {message}; usage: {usage}\n")
