"""Bytes in, whole files out: atomic writes, checksums, and JSON that knows when it was damaged."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import deflate

from scvae_data.calling import mend
from scvae_data.errors import DamagedFileError, ScvaeDataError, StoreError
from scvae_data.remote import objects
from scvae_data.remote.location import Location, RemotePath

__all__ = [
    "FileFacts",
    "atomic_file",
    "check_plain_name",
    "expecting",
    "is_there",
    "names_in",
    "open_plain",
    "read_json",
    "read_note",
    "remove",
    "sha256_file",
    "sweep_temporaries",
    "sync_directory",
    "sync_file",
    "syncing",
    "write_atomic",
    "write_json",
    "write_note",
]

TEMPORARY = re.compile(r"\.(?P<name>.+)\.[0-9]+-[0-9a-f]{8}\.tmp")
PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")
CHECKSUM_LINE = re.compile(rb',\n "checksum": "sha256:([0-9a-f]{64})"\n}\n\Z')
MAX_JSON_BYTES = 1 << 28
READ_BYTES = 1 << 22


@dataclass(frozen=True)
class FileFacts:
    """What the index knows about another file of the directory.

    ``tail_bytes`` and ``tail_crc32`` describe the end of obs.parquet, which
    holds the checksums of the rest; they are None for other files.
    """

    bytes: int
    sha256: str
    tail_bytes: int | None = None
    tail_crc32: int | None = None


def check_plain_name(name: object) -> str:
    """Return ``name`` if it is a bare file name; raise StoreError if it could lead out of the directory."""
    if not isinstance(name, str) or not PLAIN_NAME.fullmatch(name):
        raise StoreError(f"{name!r} is not a plain file name; a dataset refers to files beside its index only")
    return name


def sync_directory(directory: Path) -> None:
    """Make names created or replaced in ``directory`` survive a power cut."""
    sync_file(directory, os.O_DIRECTORY)


def sync_file(path: Path, flags: int = 0) -> None:
    """Make a file survive a power cut."""
    fd = os.open(path, os.O_RDONLY | flags)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def syncing() -> Iterator[Callable[[Path], None]]:
    """Return what makes files survive a power cut while the program goes on; at the end of the block all do."""
    begun: list[Future[None]] = []
    with ThreadPoolExecutor(1, thread_name_prefix="sync") as beside:
        yield lambda path: begun.append(beside.submit(sync_file, path))
        for one in begun:
            one.result()


@contextmanager
def atomic_file(path: Path, *, synced: bool = True) -> Iterator[BinaryIO]:
    """Open a temporary file that becomes ``path`` when the block ends, and vanishes when it raises.

    The file can be read back before it is published. One that is not
    ``synced`` may be found empty after a power cut.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    # os.open instead of tempfile: the published file gets the permissions that the umask asks for.
    fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with os.fdopen(fd, "w+b") as file:
            yield file
            file.flush()
            if synced:
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if synced:
        sync_directory(path.parent)


def write_atomic(path: Path, content: bytes | bytearray | memoryview, *, synced: bool = True) -> None:
    """Publish ``content`` as ``path``: the old file or the whole new one, never a part; see :func:`atomic_file`."""
    with atomic_file(path, synced=synced) as file:
        file.write(content)


def sweep_temporaries(directory: Path) -> list[Path]:
    """Delete what killed writers left in ``directory``; return the deleted paths, sorted.

    Only for a directory that nobody is writing to.
    """
    left = sorted(path for path in directory.iterdir() if TEMPORARY.fullmatch(path.name))
    for path in left:
        path.unlink(missing_ok=True)
    return left


def sha256_file(file: Path | BinaryIO) -> str:
    """SHA-256 of a file as hex digits; an open file is read from its start."""
    if isinstance(file, Path):
        with file.open("rb") as opened:
            return sha256_file(opened)
    file.seek(0)
    digest = hashlib.sha256()
    while block := file.read(READ_BYTES):
        digest.update(block)
    return digest.hexdigest()


def _layout(value: object, indent: str) -> str:
    """Objects spread over lines, everything else on one: readable, and small with columns of 10,000 numbers."""
    if not isinstance(value, Mapping) or not value:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    inner = indent + " "
    items = (f"{inner}{json.dumps(key, ensure_ascii=False)}: {_layout(item, inner)}" for key, item in value.items())
    return "{\n" + ",\n".join(items) + f"\n{indent}}}"


def encode_json(content: Mapping[str, Any]) -> bytes:
    """Lay out a JSON object in the order of its keys, closed by a checksum of all bytes before it."""
    if not content or "checksum" in content:
        raise ValueError("content must have at least one key, and none called 'checksum'")
    body = _layout(content, "").removesuffix("\n}").encode()
    return body + f',\n "checksum": "sha256:{hashlib.sha256(body).hexdigest()}"\n}}\n'.encode()


def write_json(path: Path, content: Mapping[str, Any], *, synced: bool = True) -> FileFacts:
    """Write a JSON object atomically, with its checksum as the last key; ``synced`` as of :func:`atomic_file`."""
    encoded = encode_json(content)
    write_atomic(path, encoded, synced=synced)
    return FileFacts(len(encoded), hashlib.sha256(encoded).hexdigest())


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("a key occurs twice")
    return content


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def parse_json(path: Location, encoded: bytes) -> dict[str, Any]:
    """Parse the bytes of ``path`` without verifying the checksum; the result has no key ``checksum``."""
    try:
        content = json.loads(encoded, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(f"{path}: not valid JSON ({error}); {mend()}") from None
    if not isinstance(content, dict):
        raise DamagedFileError(f"{path}: holds no JSON object; {mend()}")
    content.pop("checksum", None)
    return content


def verify_checksum(path: Location, encoded: bytes) -> None:
    """Raise DamagedFileError unless the bytes of ``path`` end in the checksum of those before it."""
    if not _is_sealed(encoded):
        raise DamagedFileError(f"{path}: its checksum does not match; {mend()}")


def _is_sealed(encoded: bytes) -> bool:
    """Whether bytes end in the checksum of those before it."""
    match = CHECKSUM_LINE.search(encoded, max(0, len(encoded) - 120))
    return match is not None and hashlib.sha256(encoded[: match.start()]).hexdigest() == match[1].decode()


def open_plain(path: Path) -> int:
    """Open an ordinary file for reading; return its descriptor.

    A symbolic link is not followed, so that nothing outside a dataset
    directory is read, and a pipe does not make the reader wait.

    Raises
    ------
    OSError
        It cannot be opened, or is no ordinary file.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "is a symbolic link; put the file itself there") from None
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "is not an ordinary file")
    return fd


def read_bytes(path: Location, max_bytes: int = MAX_JSON_BYTES) -> bytes:
    """Read a whole small file; raise DamagedFileError if it is absent, unreadable or larger than ``max_bytes``."""
    try:
        if isinstance(path, RemotePath):
            encoded = objects.read_whole(path, max_bytes)
        else:
            with os.fdopen(open_plain(path), "rb") as file:
                encoded = file.read(max_bytes + 1)
    except OSError as error:
        raise DamagedFileError(f"{path}: {error.strerror or error}; {mend()}") from error
    if len(encoded) > max_bytes:
        raise DamagedFileError(f"{path}: larger than {max_bytes} bytes, which no file of this kind should be")
    return encoded


def read_sealed(path: Location, max_bytes: int = MAX_JSON_BYTES) -> bytes:
    """As :func:`read_bytes`, of a file with a checksum: one that came changed from a store is asked for once more."""
    encoded = read_bytes(path, max_bytes)
    return read_bytes(path, max_bytes) if isinstance(path, RemotePath) and not _is_sealed(encoded) else encoded


def is_there(path: Location) -> bool:
    """Whether there is a file."""
    if not isinstance(path, RemotePath):
        return path.exists()
    try:
        objects.facts_of(path)
    except FileNotFoundError:
        return False
    return True


def remove(path: Location) -> None:
    """Remove a file, if there is one."""
    if isinstance(path, RemotePath):
        objects.delete(path)
    else:
        path.unlink(missing_ok=True)


def names_in(directory: Location) -> list[str]:
    """Names of what lies in a directory, sorted; nothing where there is none."""
    if isinstance(directory, RemotePath):
        return [path.name for path in objects.find(directory, deep=False)]
    return sorted(path.name for path in directory.iterdir()) if directory.is_dir() else []


@contextmanager
def expecting(path: Location) -> Iterator[None]:
    """Turn what happens to code that meets other values than a file should hold into an error that names the file.

    Raises
    ------
    DamagedFileError
        In place of any error of types, keys and values.
    """
    try:
        yield
    except ScvaeDataError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        fault = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise DamagedFileError(f"{path}: does not hold what it should ({fault}); {mend()}") from error


def read_json(path: Location, max_bytes: int = MAX_JSON_BYTES, *, sha256: str | None = None) -> dict[str, Any]:
    """Read what :func:`write_json` wrote, without the checksum.

    Raises
    ------
    DamagedFileError
        If the file is absent, too large, not a JSON object or not what was written, or if ``sha256`` is not its own.
    """
    encoded = read_sealed(path, max_bytes)
    content = parse_json(path, encoded)
    verify_checksum(path, encoded)
    if sha256 is not None and hashlib.sha256(encoded).hexdigest() != sha256:
        raise DamagedFileError(f"{path}: is not the one of this dataset; {mend()}")
    return content


def write_note(path: Path, content: Mapping[str, Any], files: Iterable[Path] = ()) -> None:
    """As :func:`write_json`, not synced: what is done, and how ``files`` beside the note are, not synced either."""
    write_json(path, {**content, "files": {file.name: state_of(file) for file in files}}, synced=False)


def read_note(path: Path) -> dict[str, Any]:
    """Read what :func:`write_note` wrote; nothing where the note, or a file of it, is not as it was or unreadable."""
    try:
        note = read_json(path)
        files = {path.parent / name: state for name, state in note.pop("files", {}).items()}
        return note if all(state_of(file) == state for file, state in files.items()) else {}
    except (DamagedFileError, OSError):
        return {}


def state_of(path: Path) -> list[int]:
    """Return the size of a file, and a checksum: a power cut leaves a beginning of it, or zeros anywhere."""
    size = checksum = 0
    with path.open("rb") as file:
        while block := file.read(READ_BYTES):
            size, checksum = size + len(block), deflate.crc32(block, checksum)
    return [size, checksum]
