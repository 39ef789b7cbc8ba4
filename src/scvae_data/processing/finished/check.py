"""A finished directory and the settings of a new run in; leave it alone, or say what differs."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

from scvae_data.calling import override
from scvae_data.errors import ConfigError, DamagedFileError
from scvae_data.processing.facts import InputFacts
from scvae_data.processing.run.summary import Summary
from scvae_data.remote.location import Location
from scvae_data.store import INDEX_FILE, DatasetIndex, open_index
from scvae_data.store.files import expecting, is_there, read_json
from scvae_data.store.names import generation_file
from scvae_data.store.verify import CONFIG_FILE

__all__ = ["check_again", "check_finished", "check_rest", "grown_index", "summary_of"]

log = logging.getLogger(__name__)

SECTIONS = (
    "seed", "keep_duplicates", "subset_to_control_cells", "qc", "genes", "normalization", "chunking", "control",
    "input.obs_columns",
)  # fmt: skip
MOST_NAMED = 3


def check_finished(
    directory: Location, files: Sequence[InputFacts], processing_id: str, config: Mapping[str, Any]
) -> DatasetIndex | None:
    """Refuse settings or inputs that are not those the directory was made with.

    Parameters
    ----------
    files
        The inputs as they are now.
    processing_id
        Of these inputs with the settings of now.
    config
        The settings of now, to name those that differ.

    Returns
    -------
    The index; None where it is damaged.

    Raises
    ------
    ConfigError
        What differs, or neither index nor record can be read.
    FormatVersionError
        It was written by a newer version.
    """
    index, different = None, None
    try:
        index = open_index(directory)
    except DamagedFileError as error:
        log.warning("%s", error)
    try:
        different = differences(directory / CONFIG_FILE, files, processing_id, config)
    except DamagedFileError as error:
        log.warning("%s", error)
    if different is None:
        if index is None or index.processing_id != processing_id:
            what = "that no file tells the settings of" if index is None else "made with other inputs or settings"
            raise ConfigError(f"{directory} holds a finished dataset {what}; overwrite=true replaces it")
        return index
    if different:
        raise ConfigError(f"{directory} holds a finished dataset made with {different}; overwrite=true replaces it")
    return index


def grown_index(directory: Location) -> DatasetIndex | None:
    """Return the index of a directory that has grown; None for any other.

    Raises
    ------
    ConfigError
        It is damaged: a run would make a directory of the first generation's inputs in its place.
    """
    try:
        index = open_index(directory)
    except DamagedFileError as error:
        if is_there(directory / generation_file(CONFIG_FILE, 1)):
            raise ConfigError(
                f"{directory} has grown, and {INDEX_FILE} is damaged; take it from a copy of the directory, or process "
                "all inputs anew with overwrite=true"
            ) from error
        return None
    return index if len(index.generations) > 1 else None


def check_again(
    index: DatasetIndex, number: int, files: Sequence[InputFacts], processing_id: str, config: Mapping[str, Any]
) -> None:
    """Refuse settings or inputs that are not those that a generation was made with.

    Raises
    ------
    ConfigError
        What differs.
    """
    if processing_id == index.generations[number].processing_id:
        return
    different = ""
    with suppress(DamagedFileError):
        different = differences(index.path / generation_file(CONFIG_FILE, number), files, processing_id, config)
    raise ConfigError(
        f"{index.path}: its damaged files were made with {different or 'other inputs or settings'}; scvae-data verify "
        f"{index.path} prints the command that builds them again"
    )


def check_rest(index: DatasetIndex, damaged: Sequence[str], rebuilt: Collection[str]) -> None:
    """Tell of damaged files of other generations than those of which files were built again.

    Raises
    ------
    ConfigError
        No file was built again: this is not the run that does it.
    """
    if not damaged:
        return
    text = (
        f"{index.path} has grown, and this run did not make {shortened(damaged)}; scvae-data verify {index.path} "
        "prints the command that builds such files again"
    )
    if not rebuilt:
        raise ConfigError(text)
    log.warning("%s", text)


def differences(record: Location, files: Sequence[InputFacts], processing_id: str, config: Mapping[str, Any]) -> str:
    """Say how inputs or settings differ from the recorded ones; empty where they do not."""
    recorded = read_json(record)
    with expecting(record):
        different = different_inputs(recorded["inputs"], files)
        if not different and recorded["processing_id"] != processing_id:
            different = different_settings(recorded["config"], config) or "other settings"
        return different


def different_inputs(recorded: Mapping[str, Sequence[Any]], files: Sequence[InputFacts]) -> str:
    """Say how the inputs differ from the recorded ones; empty where they do not."""
    wanted = any(file.sha256 for file in files)
    whole = wanted and all(recorded["sha256"])
    if wanted and not whole:
        log.warning("input.full_hash: the finished run has no hashes of whole files; sampled ones are compared")
    sizes, hashes = recorded["bytes"], recorded["sha256" if whole else "sampled_sha256"]
    known = {name: facts for name, *facts in zip(recorded["source_file"], sizes, hashes, strict=True)}
    now = {file.source_file: [file.bytes, file.sha256 if whole else file.fingerprint] for file in files}
    changed = [name for name in now if name in known and now[name] != known[name]]
    parts = {
        "fewer inputs (new: {})": sorted(now.keys() - known.keys()),
        "more inputs (now absent or unreadable: {})": sorted(known.keys() - now.keys()),
        "other content in {}": sorted(changed),
    }
    return ", ".join(text.format(shortened(names)) for text, names in parts.items() if names)


def different_settings(recorded: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """Name the settings that differ, as they were; empty where the config does not tell."""
    before, now = flat(recorded), flat(config)
    keys = [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]
    relevant = [key for key in keys if key.startswith(SECTIONS)]
    written = [(override(key, before.get(key)), override(key, now.get(key)).partition("=")[2]) for key in relevant]
    return shortened([f"{setting} (now {value})" for setting, value in written])


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return settings by dotted key."""
    plain: dict[str, Any] = {}
    for key, value in config.items():
        plain |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return plain


def shortened(names: Sequence[str]) -> str:
    """Join a few names and count the rest."""
    more = f" and {len(names) - MOST_NAMED:,} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more


def summary_of(directory: Location, rebuilt: Sequence[str] = ()) -> Summary:
    """Return the summary of a finished directory that was left alone, but for files that were ``rebuilt``."""
    index = open_index(directory)
    return Summary(
        directory,
        n_obs=index.n_obs,
        n_vars=index.n_vars,
        nnz=index.nnz,
        n_chunks=len(index.chunks),
        chunk_size=index.chunk_size,
        bytes=sum(chunk.bytes for chunk in index.chunks) + sum(file.bytes for file in index.files.values()),
        simulated=index.simulated,
        left_alone=True,
        rebuilt=rebuilt,
    )
