"""Text that names a place in; a path on this machine, or the address of an object or folder in a store, out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from scvae_data.errors import ConfigError

__all__ = ["Location", "RemotePath", "as_written", "is_remote", "local_path", "location"]

SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
ONE_SLASH = re.compile(r"(s3a?|gs|gcs|abfss?|az|https?):/(?!/)")
FILE = "file://"


@dataclass(frozen=True, order=True)
class RemotePath:
    """The address of an object, or of a folder of objects, in a store.

    It is no ``os.PathLike``: what opens local files refuses it instead of making a folder called ``s3:``.

    Parameters
    ----------
    url
        With its scheme, e.g. ``s3://bucket/folder``.
    """

    url: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", self.url.rstrip("/"))

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> RemotePath:
        return RemotePath(f"{self.url}/{name}")

    @property
    def scheme(self) -> str:
        """What kind of store it is in, e.g. ``s3``."""
        return self.url.partition("://")[0]

    @property
    def parts(self) -> tuple[str, ...]:
        """Scheme with bucket, and each name below."""
        scheme, _, rest = self.url.partition("://")
        bucket, *names = rest.split("/")
        return (f"{scheme}://{bucket}", *names)

    @property
    def name(self) -> str:
        """The last part; empty for a whole bucket."""
        return self.parts[-1] if len(self.parts) > 1 else ""

    @property
    def suffix(self) -> str:
        """Ending of the name, with its dot."""
        return Path(self.name).suffix

    @property
    def parent(self) -> RemotePath:
        """The folder that it is in; a bucket is in itself."""
        return self if len(self.parts) == 1 else RemotePath("/".join(self.parts[:-1]))

    @property
    def parents(self) -> tuple[RemotePath, ...]:
        """All folders that it is in, the deepest first."""
        return () if len(self.parts) == 1 else (self.parent, *self.parent.parents)

    def below(self, folder: RemotePath) -> str:
        """Its name seen from a folder that it is in, with forward slashes."""
        return self.url.removeprefix(f"{folder.url}/")


Location = Path | RemotePath
"""Where a file or folder is: on this machine, or in a store."""


def is_remote(text: object) -> bool:
    """Whether text, or a location, is the address of something in a store.

    >>> [is_remote(text) for text in ("s3://bucket/x.h5ad", "data/x.h5ad", "file:///data/x.h5ad", "C://x")]
    [True, False, False, False]
    """
    return SCHEME.match(str(text)) is not None and not str(text).startswith(FILE)


def location(text: str | Location) -> Location:
    """The place that text names; paths of this machine become absolute."""
    place = as_written(text)
    return place.expanduser().absolute() if isinstance(place, Path) else place


def as_written(text: str | Location) -> Location:
    """The place that text names; a relative path stays so.

    Raises
    ------
    ConfigError
        A scheme is followed by one slash, which would name a folder here.
    """
    if isinstance(text, RemotePath) or is_remote(text):
        return RemotePath(str(text))
    if match := ONE_SLASH.match(str(text)):
        raise ConfigError(f"{text} has one slash behind {match[1]}:, where the address of a store has two")
    return Path(str(text).removeprefix(FILE))


def local_path(setting: str, text: str | Location) -> Path:
    """The place on this machine that a setting names, as it is written.

    Raises
    ------
    ConfigError
        It is in a store, where the setting's files cannot be.
    """
    place = as_written(text)
    if isinstance(place, RemotePath):
        raise ConfigError(f"{setting}={text} is in a remote store, where it cannot be; give a path on this machine")
    return place
