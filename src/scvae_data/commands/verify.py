"""``scvae-data verify``: a dataset directory in, a table of its files and of what is wrong with them out."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from scvae_data.calling import command, override, program
from scvae_data.commands.arguments import Parser
from scvae_data.errors import DamagedFileError, ScvaeDataError, StoreError
from scvae_data.progress import progress
from scvae_data.remote.location import Location, as_written, location
from scvae_data.store import GENE_LIST_FILE, INDEX_FILE, DatasetIndex, open_index, read_json
from scvae_data.store.files import expecting, is_there, names_in
from scvae_data.store.names import generation_file
from scvae_data.store.pages import PAGES, page_faults
from scvae_data.store.verify import (
    CONFIG_FILE,
    by_generation,
    chunk_fault,
    file_fault,
    listed,
    record_faults,
    table_faults,
)
from scvae_data.system.cpus import n_cpus
from scvae_data.wording import counted, named

__all__ = ["Faults", "add_arguments", "examine", "main", "rebuild_command", "table", "verify"]

Faults = dict[str, str | None]
"""By file what is wrong with it, None if nothing is."""

DESCRIPTION = "Check every file of a dataset directory; exit status 1 if any is damaged."
NOT_COMPARED = "no row was compared with an input: damaged files come first"
CHUNK = re.compile(r"chunk_\d{4,}\.h5")
LEFT_OVER = re.compile(r"chunk_\d{4,}\.h5|\..+\.tmp|\.(work|writing)")
# A record that somebody made may name code to run, or another folder of settings: neither is repeated.
SETTING = re.compile(r"(?!-)(?!.*_target_)[^=]+=.*|~[^=-]+", re.DOTALL)
# Settings for genes, with their defaults, that go with any choice of them.
WITH_GENES = {"mapping": None, "allow_mixed_species": False, "reference": "builtin", "species": None}
# Settings that the command for a rebuild does not repeat: it sets them itself, or files do not depend on them.
LEFT_OUT = ("paths.processed_dir=", "overwrite=", "resume=", "append=", "dry_run=", "engine", "logger", "hydra.")


def verify(
    directory: Location, *, deep: bool = False, against: Sequence[Location] = (), readers: Sequence[str] = ()
) -> Faults:
    """What :func:`examine` finds wrong, by file."""
    return examine(directory, deep=deep, against=against, readers=readers)[0]


def examine(
    directory: Location, *, deep: bool = False, against: Sequence[Location] = (), readers: Sequence[str] = ()
) -> tuple[Faults, str]:
    """Check every file of a dataset directory against its index and its own checksum.

    Parameters
    ----------
    deep
        Also decode every row: canonical, within the bounds of the index, with the totals that obs.parquet has.
    against
        Inputs, or folders of them, here or in a store, whose rows are compared with the directory's, count by count.
    readers
        Import paths of readers of your own that the inputs need.

    Returns
    -------
    The faults, and a line on what was compared with inputs, empty if nothing was to be.

    Raises
    ------
    MissingIndexError, FormatVersionError
        There is no dataset that this version reads.
    ConfigError
        ``against`` names what is none of the inputs.
    """
    try:
        index = open_index(directory)
    except DamagedFileError as error:
        return {INDEX_FILE: short(error, directory / INDEX_FILE)}, NOT_COMPARED if against else ""
    files = listed(index)
    found = in_threads(
        [partial(file_fault, directory / name, *facts) for name, facts in files.items()], "verify", "file"
    )
    faults: Faults = (
        {INDEX_FILE: None} | dict(zip(files, found, strict=True)) | record_faults(index) | page_faults(index)
    )
    try:
        index.genes  # noqa: B018 - read once, before threads ask for it
        if not any(faults[str(generation.gene_sets or GENE_LIST_FILE)] for generation in index.generations):
            index.gene_sets  # noqa: B018
    except StoreError as error:
        faults[GENE_LIST_FILE] = faults[GENE_LIST_FILE] or short(error, directory / GENE_LIST_FILE)
    tables = [GENE_LIST_FILE, *(name for generation in index.generations for name in generation.files)]
    if deep and not any(faults[name] for name in tables):
        faults |= look_deep(index, faults)
    if not against or any(fault for name, fault in faults.items() if name not in PAGES):
        return faults, NOT_COMPARED if against else ""
    from scvae_data.processing.finished.sources import compare_rows, coverage, find_sources

    sources = find_sources(index, against, readers)
    faults |= {index.chunks[chunk_id].file: fault for chunk_id, fault in compare_rows(index, sources)}
    return faults, coverage(index, sources)


def look_deep(index: DatasetIndex, faults: Mapping[str, str | None]) -> Faults:
    """Check the content of every chunk whose bytes are sound, and of the tables of cells."""
    sound = {chunk.file: number for number, chunk in enumerate(index.chunks) if faults[chunk.file] is None}
    found = in_threads([partial(chunk_fault, index, number) for number in sound.values()], "rows", "chunk")
    return {**dict(zip(sound, found, strict=True)), **table_faults(index)}


def in_threads(checks: Sequence[Callable[[], str | None]], desc: str, unit: str) -> list[str | None]:
    """Run checks, which release the interpreter lock, side by side; their results in order."""
    with ThreadPoolExecutor(n_cpus(), thread_name_prefix="verify") as pool:
        results = pool.map(lambda check: check(), checks)
        return list(progress(results, total=len(checks), desc=desc, unit=unit))


def short(error: StoreError, path: Location) -> str:
    """What an error says of a file, without its path and the remedy."""
    return str(error).removeprefix(f"{path}: ").split("; ")[0]


def table(faults: Mapping[str, str | None]) -> str:
    """Lay out the files as rows: sound chunks together, damaged files one by one."""
    n_sound = sum(fault is None for name, fault in faults.items() if CHUNK.fullmatch(name))
    rows = [("PASS", counted(n_sound, "chunk"), "")] if n_sound else []
    rows += [("PASS", name, "") for name, fault in faults.items() if fault is None and not CHUNK.fullmatch(name)]
    rows += [("FAIL", name, fault) for name, fault in faults.items() if fault is not None]
    width = max(len(name) for _, name, _ in rows)
    return "\n".join(f"{verdict}  {name:<{width}}  {fault}".rstrip() for verdict, name, fault in rows)


def left_over(directory: Location, faults: Mapping[str, str | None]) -> list[str]:
    """Names of what interrupted runs left and no reader looks at, sorted."""
    return [name for name in names_in(directory) if LEFT_OVER.fullmatch(name) and name not in faults]


def how_to_mend(directory: Location, damaged: Collection[str]) -> str:
    """Say what makes a damaged directory whole again."""
    if set(damaged) <= set(PAGES):
        return f"none is needed to read the data; this writes them again:\n  {report_command(directory)}"
    if INDEX_FILE in damaged:
        if is_there(directory / generation_file(CONFIG_FILE, 1)):
            return "the directory has grown: take them from a copy, or process all inputs anew with overwrite=true"
        commands = [rebuild_command(directory)]
    else:
        numbers = by_generation(open_index(directory), damaged)
        commands = list(dict.fromkeys(rebuild_command(directory, number) for number in numbers))
    this = "this builds" if len(commands) == 1 else "these, one after the other, build"
    return f"{this} them again, and no others:\n" + "\n".join(f"  {line}" for line in commands)


def report_command(directory: Location) -> str:
    """Command that writes the report of a directory again."""
    return f"scvae-data report {shlex.quote(str(directory))}"


def rebuild_command(directory: Location, number: int = 0) -> str:
    """Command that builds the damaged files of a generation of a directory again, and no others."""
    here, path = override("paths.processed_dir", directory), directory / generation_file(CONFIG_FILE, number)
    ends = ["append=true", "resume=true"] if number else ["resume=true"]
    try:
        record = read_json(path)
        with expecting(path):
            given = [item for item in record["command"]["overrides"] if SETTING.fullmatch(item)]
            folder = Path(record["command"]["directory"])
            given += [] if number else genes_that_stay(location(directory), record)
    except StoreError:
        return f"{program('process')} (the settings it was made with) {shlex.quote(here)} {' '.join(ends)}"
    chosen = [item for item in given if not item.lstrip("+~").startswith(LEFT_OUT)]
    there = "" if folder == Path.cwd() else f"cd {shlex.quote(str(folder))} && "
    here = override("paths.processed_dir", location(directory)) if there else here
    return there + command("process", *chosen, here, *ends)


def genes_that_stay(directory: Location, record: Mapping[str, Any]) -> list[str]:
    """Settings for the genes of a directory that was compacted; of any other one, none."""
    if "target_sum" not in record:
        return []
    rules = record["config"].get("genes") or {}
    kept = {key: rules[key] for key, usual in WITH_GENES.items() if rules.get(key, usual) != usual}
    return [
        "genes=list",
        override("genes.path", directory / GENE_LIST_FILE),
        *(override(f"genes.{key}", value) for key, value in kept.items()),
        override("normalization.target_sum", float(record["target_sum"])),
    ]


def add_arguments(parser: Parser) -> None:
    """Say what the command is called with."""
    parser.add_argument("directory", metavar="DIR", help="a directory that process.py has written")
    parser.add_argument("--deep", action="store_true", help="decode every row, and compare totals with obs.parquet")
    parser.add_argument(
        "--against", nargs="+", default=(), metavar="SOURCE", help="compare every row with these inputs"
    )
    parser.add_argument(
        "--reader", nargs="+", default=(), metavar="NAME", help="import paths of readers of your own, for --against"
    )


def main(arguments: Sequence[str]) -> int:
    """Print the table; return 0 if everything is sound, 1 if anything is damaged, 2 if there is nothing to check."""
    parser = Parser("verify", DESCRIPTION)
    add_arguments(parser)
    options = parser.parse_args(arguments)
    try:
        directory = as_written(options.directory)
        against = [as_written(source) for source in options.against]
        faults, compared = examine(directory, deep=options.deep, against=against, readers=options.reader)
    except ScvaeDataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(table(faults))
    if compared:
        print(compared)
    if names := left_over(directory, faults):
        print(f"not part of the dataset, and not read: {named(names)}")
    damaged = [name for name, fault in faults.items() if fault is not None]
    if damaged:
        print(f"{len(damaged):,} of {len(faults):,} files are damaged; {how_to_mend(directory, damaged)}")
    else:
        print(f"{len(faults):,} files are sound")
    return 1 if damaged else 0
