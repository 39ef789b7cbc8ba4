"""The older way to process: ``python src/data_processor.py --config config/chunked_data_config.json``.

It is ``process.py`` with the settings of a JSON file, and prints the command
that is the same; further overrides of ``process.py`` may follow.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path


def main() -> None:
    """Read the configuration, say what it means, process."""
    from scvae_data.cli import start
    from scvae_data.compat.json_config import overrides_of
    from scvae_data.errors import ConfigError

    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--config", type=Path, required=True, help="JSON file, which may hold // comments")
    arguments, further = parser.parse_known_args()
    try:
        overrides = [*overrides_of(arguments.config), *further]
    except ConfigError as error:
        sys.exit(f"error: {error}")
    print(f"data_processor.py is an older name; the same run: {shlex.join(['python', 'process.py', *overrides])}")
    sys.stdout.flush()
    sys.argv = ["process.py", *overrides]
    start("process")


if __name__ == "__main__":  # worker processes import this file again and need none of it
    main()
