"""Addresses in a store in; bytes, sizes and names of objects out, each retried until it is had or refused in one line.

Everything goes through fsspec, by whatever package it has for the scheme.
Retrying is ours: a fault that may pass is met with pauses that double, of a
store's own packages each has other rules.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import math
import os
import random
import threading
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from inspect import unwrap
from pathlib import Path
from traceback import walk_tb
from types import MethodType
from typing import Any, TypeVar

from scvae_data.errors import ConfigError, RemoteError
from scvae_data.remote.location import RemotePath
from scvae_data.wording import counted

__all__ = [
    "Changed",
    "ObjectFacts",
    "check_bucket",
    "delete",
    "facts_of",
    "find",
    "glob",
    "holds",
    "names_in",
    "pieces",
    "read",
    "read_whole",
    "store_of",
    "swap",
    "upload",
]

log = logging.getLogger(__name__)

T = TypeVar("T")
ATTEMPTS = 6
"""How often a request is made until its fault counts as lasting."""
BACK_OFF_SECONDS = 0.25
"""The pause before the first retry; it doubles with each, and varies so that many readers do not come back at once."""
FIRST_SECONDS = 15.0
"""As long a store is asked that has never answered: a wrong address is likelier than a fault that passes."""
QUIET_SECONDS = 3.0
"""Then it is told that such a store is being asked."""
BLOCK_BYTES = 1 << 24
"""Bytes of one request of a download: what is lost by a fault."""
PART_BYTES = 1 << 26
"""Bytes of a part of an upload."""
USUAL_PARTS = tuple(n << 20 for n in (5, 8, 10, 15, 16, 25, 32, 50, 64, 100, 128, 256, 512))
"""Sizes of parts that programs upload with."""
S3, GOOGLE = ("s3", "s3a"), ("gs", "gcs")
EXTRAS = {
    "s3": "pip install 'scvae-data[s3]'",
    "s3a": "pip install 'scvae-data[s3]'",
    "gs": "pip install 'scvae-data[gcs]'",
    "gcs": "pip install 'scvae-data[gcs]'",
}
# Their errors are no OSErrors, but as much of the network.
LIBRARIES = frozenset({"aiobotocore", "aiohttp", "botocore", "fsspec", "gcsfs", "google", "s3fs", "urllib3"})
OF_CREDENTIALS = frozenset(
    {"NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "DefaultCredentialsError", "RefreshError"}
)
OF_REQUEST = frozenset({"ParamValidationError", "InvalidBucketName"})
UNMET = ("PreconditionFailed", "412")
TIMEOUTS = {"connect_timeout": 5, "read_timeout": 15, "retries": {"total_max_attempts": 1}}

_answering: set[str] = set()
"""Buckets that have answered this process."""


@dataclass(frozen=True)
class ObjectFacts:
    """What a store says of an object.

    Parameters
    ----------
    size
        In bytes.
    version
        What changes when its content does: the entity tag, or a time.
    """

    size: int
    version: str


class Changed(RemoteError):
    """An object is not what it was when it was looked at; nothing was put in its place."""


def facts_of(path: RemotePath) -> ObjectFacts:
    """Size and version of an object.

    Raises
    ------
    FileNotFoundError
        There is no such object.
    RemoteError
        The store cannot be asked.
    """
    return _as_facts(path, _asked(path, lambda fs, name: fs.info(name)))


def check_bucket(path: RemotePath) -> None:
    """Refuse an address in a bucket that there is not: stores tell of what is not in it likewise.

    Raises
    ------
    RemoteError
        With the bucket.
    """
    bucket = RemotePath(path.parts[0])
    if path.scheme in EXTRAS and not _asked(bucket, lambda fs, name: bool(fs.exists(name))):
        raise RemoteError(f"{path}: there is no bucket {bucket}, or none for these credentials; correct the address")


def find(folder: RemotePath, *, deep: bool = True) -> dict[RemotePath, ObjectFacts]:
    """Every object below a folder, or directly in it, in order of their addresses; nothing where there is no folder."""

    def ask(fs: Any, name: str) -> dict[str, Any]:
        try:
            listed: dict[str, Any] = fs.find(name, maxdepth=None if deep else 1, detail=True)
        except FileNotFoundError:
            return {}
        return listed

    found = {_address(folder, name): info for name, info in _asked(folder, ask).items()}
    return {path: _as_facts(path, found[path]) for path in sorted(found) if path != folder}


def names_in(folder: RemotePath) -> set[str]:
    """Names of the objects and folders directly in a folder; none where there is no folder."""

    def ask(fs: Any, name: str) -> list[str]:
        try:
            return list(fs.ls(name, detail=False))
        except (FileNotFoundError, NotADirectoryError):
            return []

    return {path.name for path in (_address(folder, name) for name in _asked(folder, ask)) if path != folder}


def glob(pattern: RemotePath) -> list[RemotePath]:
    """Objects and folders that a pattern matches, sorted; ``**`` descends."""
    return sorted(_address(pattern, name) for name in _asked(pattern, lambda fs, name: list(fs.glob(name))))


def read(path: RemotePath, offset: int, n_bytes: int) -> bytes:
    """``n_bytes`` bytes of an object from ``offset`` on, which it must have.

    Raises
    ------
    FileNotFoundError
        There is no such object.
    RemoteError
        They are not to be had.
    """

    def ask(fs: Any, name: str) -> bytes:
        content = bytes(fs.cat_file(name, start=offset, end=offset + n_bytes)) if n_bytes else b""
        if len(content) != n_bytes:
            raise OSError(f"{len(content)} of {n_bytes} bytes came")
        return content

    return _asked(path, ask)


def read_whole(path: RemotePath, max_bytes: int) -> bytes:
    """A whole small object, of at most ``max_bytes`` and one more."""
    return read(path, 0, min(facts_of(path).size, max_bytes + 1))


def pieces(path: RemotePath, facts: ObjectFacts) -> Iterator[bytes]:
    """The content of an object, in pieces.

    Raises
    ------
    FileNotFoundError
        There is no such object.
    RemoteError
        It is not to be had, or became another one meanwhile.
    """
    for offset in range(0, facts.size, BLOCK_BYTES):
        yield read(path, offset, min(BLOCK_BYTES, facts.size - offset))
    if facts_of(path) != facts:
        raise RemoteError(f"{path} was changed while it was read; run the command again")


def upload(source: Path, path: RemotePath) -> ObjectFacts:
    """Put a file in place of an object, whole or not at all; return what the store says of it then.

    Raises
    ------
    RemoteError
        The store does not take it, or has something else afterwards.
    """
    # Only s3fs has parts of a size to be chosen; an entity tag is made of theirs.
    of_parts = {"chunksize": PART_BYTES} if path.scheme in S3 else {}
    return _sent(source, path, lambda fs, name: fs.put_file(str(source), name, **of_parts))


def swap(source: Path, path: RemotePath, old: ObjectFacts | None) -> ObjectFacts:
    """Put a file in place of an object if that is still what it was; return what the store says of it then.

    S3 decides and puts in one request, so that of two who try one fails, and so
    does Google's store where there was none. Of others, and of an object there
    that is replaced, it is looked at just before.

    Parameters
    ----------
    old
        What it was; None: there was none.

    Raises
    ------
    Changed
        It is another one.
    RemoteError
        As :func:`upload`.
    """

    def put(fs: Any, name: str) -> None:
        try:
            _put_if(fs, name, source, path, old)
        except Exception as error:
            if not _is_unmet(error, old):
                raise
            # The answer to an earlier try may have been lost on its way.
            if _as_found(path) is None or read_whole(path, source.stat().st_size) != source.read_bytes():
                told = f"{path} was changed by another machine meanwhile; run the command again"
                raise Changed(told) from error

    return _sent(source, path, put)


def _put_if(fs: Any, name: str, source: Path, path: RemotePath, old: ObjectFacts | None) -> None:
    if path.scheme in S3:
        condition = {"IfNoneMatch": "*"} if old is None else {"IfMatch": f'"{old.version}"'}
        whole = max(PART_BYTES, source.stat().st_size)  # in one part: of several, s3fs passes no condition on
        try:
            fs.put_file(str(source), name, chunksize=whole, **condition)
            return
        except OSError as error:
            if error.errno != errno.ENOSYS:  # not all that speak S3 know conditions
                raise
    if _as_found(path) != old:
        raise FileExistsError(errno.EEXIST, "is another one", name)
    fs.put_file(str(source), name, **({"mode": "create"} if old is None and path.scheme in GOOGLE else {}))


def _sent(source: Path, path: RemotePath, put: Callable[[Any, str], Any]) -> ObjectFacts:
    """What the store says of an object after a file was put there."""

    def ask(fs: Any, name: str) -> ObjectFacts:
        put(fs, name)
        facts = _as_facts(path, fs.info(name))
        if facts.size != source.stat().st_size or is_content(source, facts, (PART_BYTES,)) is False:
            raise OSError("what arrived is not what was sent")
        return facts

    try:
        return _asked(path, ask)
    except FileNotFoundError as error:
        raise RemoteError(f"{path}: {error}; make the bucket, or correct the address") from None


def _as_found(path: RemotePath) -> ObjectFacts | None:
    """What a store says of an object; None if there is none."""
    try:
        return facts_of(path)
    except FileNotFoundError:
        return None


def _is_unmet(error: Exception, old: ObjectFacts | None) -> bool:
    """Whether a store says that an object is not what it should be for another one to take its place."""
    if isinstance(error, FileNotFoundError):
        return old is not None
    answer = getattr(error.__cause__, "response", {})
    return isinstance(error, FileExistsError) or answer.get("Error", {}).get("Code") in UNMET


def holds(path: RemotePath, file: Path) -> bool:
    """Whether an object is there and, as its entity tag proves, has the content of a file."""
    facts = _as_found(path)
    return facts is not None and facts.size == file.stat().st_size and is_content(file, facts, (PART_BYTES,)) is True


def delete(path: RemotePath) -> None:
    """Remove an object; nothing if there is none."""

    def ask(fs: Any, name: str) -> None:
        fs.rm_file(name)

    try:
        _asked(path, ask)
    except FileNotFoundError:
        return


def is_content(file: Path, facts: ObjectFacts, parts: tuple[int, ...] = USUAL_PARTS) -> bool | None:
    """Whether a file has the content that an entity tag tells of; None where it does not tell.

    A tag is the MD5 of the object, or that of the MD5s of its parts with their number.
    """
    digest, _, n_parts = facts.version.partition("-")
    if len(digest) != 32 or not set(digest) <= set("0123456789abcdef"):
        return None
    if not n_parts:
        return _md5s(file, facts.size)[0].hex() == digest
    sizes = [size for size in parts if n_parts == str(max(1, -(-facts.size // size)))]
    found = [hashlib.md5(b"".join(_md5s(file, size)), usedforsecurity=False).hexdigest() == digest for size in sizes]
    return any(found) or (False if len(sizes) == len(parts) == 1 else None)


def _md5s(file: Path, part_bytes: int) -> list[bytes]:
    """MD5 of each part of a file."""
    digests: list[bytes] = []
    with file.open("rb") as stream:
        while not digests or stream.peek(1):
            digest, left = hashlib.md5(usedforsecurity=False), part_bytes
            while left and (block := stream.read(min(left, 1 << 20))):
                digest.update(block)
                left -= len(block)
            digests.append(digest.digest())
    return digests


def _as_facts(path: RemotePath, info: dict[str, Any]) -> ObjectFacts:
    if info.get("type") == "directory":
        raise FileNotFoundError(f"{path} is a folder")
    keys = ("ETag", "etag", "LastModified", "last_modified", "mtime", "created")
    version = next((info[key] for key in keys if info.get(key)), "")
    if "md5Hash" in info:  # of Google's store, whose entity tags tell nothing of the content
        version = b64decode(info["md5Hash"]).hex()
    # Listings may give as a number of seconds what is a time where one object is asked for.
    version = version.timestamp() if isinstance(version, datetime) else version
    return ObjectFacts(int(info["size"]), str(version).strip('"'))


def _address(beside: RemotePath, name: str) -> RemotePath:
    """The address of what a store calls by a name of its own."""
    return RemotePath(name if "://" in name else f"{beside.scheme}://{name.lstrip('/')}")


def _name(path: RemotePath) -> str:
    return str(_filesystem(path)._strip_protocol(path.url))


def _filesystem(path: RemotePath) -> Any:
    """What fsspec has for the scheme of an address."""
    try:
        return store_of(path.scheme, os.getpid())
    except ImportError as error:
        remedy = EXTRAS.get(path.scheme, f"install what fsspec has for {path.scheme}")
        raise ConfigError(f"{path}: {' '.join(str(error).split())}; {remedy}") from None
    except ValueError as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())}; known are s3:// and gs://") from None


@cache
def store_of(scheme: str, _process: int) -> Any:
    """What fsspec has for a scheme: one for all threads of a process, where fsspec would make one for each thread."""
    import fsspec  # here: who works on local files needs none of it
    from fsspec.config import conf

    options: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
    if scheme in S3:
        options["config_kwargs"] = TIMEOUTS | conf.get("s3", {}).get("config_kwargs", {})
        for name in ("aiobotocore", "botocore"):  # where credentials are found they tell of by themselves
            logging.getLogger(name).setLevel(logging.WARNING)
    if scheme in GOOGLE:
        logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # what it tells with a traceback is told in one line
    store = fsspec.filesystem(scheme, **options)
    if scheme in S3:
        store.retries = 1  # s3fs repeats each request five times, each of ours
    if scheme in GOOGLE:  # so does gcsfs, six times
        store._request = MethodType(unwrap(type(store)._request), store)
    return store


def _asked(path: RemotePath, ask: Callable[[Any, str], T]) -> T:
    """What a request answers; asked again where its fault may pass."""
    bucket = path.parts[0]
    if bucket in _answering:
        return _asked_often(path, ask)
    waiting = "%s does not answer yet; it is asked for about %.0f s"
    told = threading.Timer(QUIET_SECONDS, log.warning, (waiting, bucket, FIRST_SECONDS))
    told.daemon = True
    told.start()
    try:
        return _asked_often(path, ask, FIRST_SECONDS)
    finally:
        told.cancel()


def _asked_often(path: RemotePath, ask: Callable[[Any, str], T], max_seconds: float = math.inf) -> T:
    """What a request answers, made as often as `ATTEMPTS` and time allow."""
    bucket, started = path.parts[0], time.monotonic()
    for attempt in range(1, ATTEMPTS + 1):
        fs = _filesystem(path)
        try:
            answer = ask(fs, str(fs._strip_protocol(path.url)))
        except FileNotFoundError:
            _answering.add(bucket)
            raise
        except Exception as error:
            if not _of_store(error):
                raise
            remedy, seconds = _lasting(error), time.monotonic() - started
            if remedy or attempt == ATTEMPTS or seconds > max_seconds:
                tried = "" if remedy else f" ({counted(attempt, 'attempt')} in {seconds:.0f} s)"
                remedy = remedy or "see whether the store can be reached, then run the command again"
                raise RemoteError(f"{path}: {_text(error)}{tried}; {remedy}") from error
            pause = BACK_OFF_SECONDS * 2 ** (attempt - 1) * random.uniform(0.75, 1.25)  # noqa: S311 - no secret
            log.debug("%s: %s; trying again in %.1f s", path, error, pause)
            time.sleep(pause)
        else:
            _answering.add(bucket)
            return answer
    raise AssertionError  # the last attempt returns or raises


def _text(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _of_store(error: Exception) -> bool:
    """Whether an error is of a store or the way to it, not of a program."""
    return isinstance(error, OSError | EOFError) or bool(
        {_library(type(error).__module__), _raised_in(error)} & LIBRARIES
    )


def _raised_in(error: Exception) -> str:
    """The package of the line that raised an error."""
    frames = list(walk_tb(error.__traceback__))
    return _library(frames[-1][0].f_globals["__name__"]) if isinstance(error, ValueError) and frames else ""


def _library(module: str) -> str:
    return module.partition(".")[0]


def _lasting(error: Exception) -> str:
    """What to do about a fault that does not pass by itself; empty where it may."""
    name = type(error).__name__
    if isinstance(error, PermissionError) or name in OF_CREDENTIALS:
        return "see whether the credentials are right and may do this (docs/cloud.md)"
    if isinstance(error, ValueError):
        return "correct the store's settings (docs/cloud.md)"
    if isinstance(error, IsADirectoryError | NotADirectoryError) or name in OF_REQUEST:
        return "correct the address"
    return ""
