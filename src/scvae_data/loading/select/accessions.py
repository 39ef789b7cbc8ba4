"""Accessions and names of files that list some in, accessions out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path

from scvae_data.errors import ConfigError
from scvae_data.remote.location import local_path
from scvae_data.wording import first_line

__all__ = ["FILE_MARK", "digest_of", "listed_accessions"]

FILE_MARK = "@"
COLUMNS = ("srx_accession", "SRX_accession")
FLAGGED = "flagged"


def listed_accessions(key: str, names: Sequence[str] | None) -> tuple[str, ...] | None:
    """Replace each ``@FILE`` among names by the accessions in the file; None stays None.

    A parquet file has the column ``srx_accession``; where it has the column
    ``flagged`` too, only the rows that are flagged count. Any other file has
    an accession per line; empty lines and what follows ``#`` do not count.

    Parameters
    ----------
    key
        The setting, for messages.
    names
        Accessions, and files behind ``@``.

    Raises
    ------
    ConfigError
        If a file cannot be read or is of neither kind.
    """
    if names is None:
        return None
    found: dict[str, None] = {}
    for name in names:
        found.update(dict.fromkeys(_in_file(key, name) if name.startswith(FILE_MARK) else (name,)))
    return tuple(found)


def digest_of(names: Sequence[str] | None, listed: Sequence[str] | None) -> str | None:
    """SHA-256 of accessions that came out of files; None if none of them did."""
    if not any(name.startswith(FILE_MARK) for name in names or ()):
        return None
    return sha256("\n".join(sorted(listed or ())).encode()).hexdigest()


def _in_file(key: str, name: str) -> tuple[str, ...]:
    setting = f"{key}={name}"
    path = local_path(key, name.removeprefix(FILE_MARK)).expanduser()
    if not path.is_file():
        raise ConfigError(f"{setting}: there is no such file; give a parquet file or a list of accessions behind @")
    with path.open("rb") as file:
        is_parquet = file.read(4) == b"PAR1"
    return tuple(_of_table(setting, path) if is_parquet else _of_lines(setting, path))


def _of_table(setting: str, path: Path) -> Iterator[str]:
    import pyarrow as pa  # here: most runs name no file
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            column = next((name for name in COLUMNS if name in names), None)
            if column is None:
                raise ConfigError(
                    f"{setting}: it has no column {COLUMNS[0]}, but {', '.join(names)}; give one that train.py wrote"
                )
            table = file.read([column, *([FLAGGED] if FLAGGED in names else [])])
    except (pa.ArrowException, OSError) as error:
        raise ConfigError(f"{setting}: it cannot be read as parquet ({first_line(error)}); make it again") from error
    if FLAGGED in table.column_names:
        if not pa.types.is_boolean(table.schema.field(FLAGGED).type):
            raise ConfigError(f"{setting}: its column {FLAGGED} is not of true and false; write it as booleans")
        table = table.filter(table[FLAGGED])
    yield from (str(name) for name in table[column].to_pylist() if name is not None)


def _of_lines(setting: str, path: Path) -> Iterator[str]:
    try:
        lines = path.read_text().splitlines()
    except UnicodeDecodeError:
        raise ConfigError(f"{setting}: it is neither parquet nor text; give an accession per line") from None
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        if len(words) > 1:
            raise ConfigError(f"{setting}: line {number} has {len(words)} words; give one accession per line")
        yield from words
