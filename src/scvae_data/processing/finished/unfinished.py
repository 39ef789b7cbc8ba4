"""A directory, and where one made of its cells goes, in; what an interrupted try has made there already out.

What is made names the cells that it is of, in ``.compacting``: a folder here,
an object in a store. Beside it, here, lie notes on the chunks that stand.
"""

from __future__ import annotations

import logging
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from scvae_data.errors import ConfigError
from scvae_data.processing.write.chunks import as_noted
from scvae_data.remote.location import Location, RemotePath
from scvae_data.remote.objects import facts_of
from scvae_data.store import INDEX_FILE, ChunkEntry, DatasetIndex, sweep_temporaries, write_atomic, write_json
from scvae_data.store.files import is_there, names_in, read_bytes, read_json, remove
from scvae_data.store.grow import give_file
from scvae_data.store.names import CLAIM
from scvae_data.wording import named

__all__ = ["Unfinished"]

log = logging.getLogger(__name__)

MARK, OF = ".compacting", "of"
OF_OTHERS = (".lock", ".survey", CLAIM)
"""What a folder may have that is no part of a directory."""
MOST_BYTES = 1000
MOST_NAMED = 4


@dataclass(frozen=True)
class Unfinished:
    """A compact directory that is being made.

    Parameters
    ----------
    index
        Of the directory whose cells it has.
    target
        Where it goes.
    made
        Where its files are made: the target or, of one in a store, a folder of this machine.
    """

    index: DatasetIndex
    target: Location
    made: Path

    @property
    def store(self) -> RemotePath | None:
        """The target, if it is in a store."""
        return self.target if isinstance(self.target, RemotePath) else None

    @property
    def places(self) -> tuple[Location, ...]:
        """Where something of it is: where it is made and, if that is elsewhere, the target."""
        return (self.made,) if self.store is None else (self.made, self.store)

    def check(self) -> None:
        """Refuse a target that holds something else.

        Raises
        ------
        ConfigError
            It does.
        """
        for place in self.places:
            names = _names(place)
            if names and (MARK not in names or (INDEX_FILE in names and not self._is_of_these_cells(place))):
                raise ConfigError(f"{place} is not empty; name another folder")

    def begin(self) -> None:
        """Make ready for the first chunk: what was made of the same cells stays, what was made of others goes.

        Only where nobody else is writing.

        Raises
        ------
        ConfigError
            As :meth:`check`, by what has come there since.
        """
        self.check()
        cells = self.made / MARK / OF
        for place in self.places:
            if self._is_of_these_cells(place):
                continue
            for name in (names := _names(place)):
                _remove(place / name)
            if left := [name for name in names if name != MARK]:
                log.warning("%s: removed what a try with other cells left: %s", place, named(left, MOST_NAMED))
            if isinstance(place, Path):
                cells.parent.mkdir()
                write_atomic(cells, self._cells)
            else:
                give_file(cells, place / MARK)
        sweep_temporaries(self.made)

    def standing(self, number: int) -> ChunkEntry | None:
        """Return the entry of a chunk that stands as it was made."""
        if not (note := self._note(number)).exists():
            return None
        content = read_json(note)
        return ChunkEntry(**content["entry"]) if as_noted(self.target, content) else None

    def settle(self, number: int, entry: ChunkEntry) -> None:
        """Put a chunk that was made where it belongs, and note it."""
        version = None
        if self.store is not None:
            give_file(self.made / entry.file, self.store / entry.file)
            version = facts_of(self.store / entry.file).version
            (self.made / entry.file).unlink()
        write_json(self._note(number), {"entry": asdict(entry), "version": version})

    def finish(self) -> None:
        """Leave nothing but the directory."""
        for place in reversed(self.places):
            _remove(place / MARK)

    @property
    def _cells(self) -> bytes:
        return f"{self.index.content_hash} {self.index.processing_id}\n".encode()

    def _is_of_these_cells(self, place: Location) -> bool:
        """Whether what is in a place was made of the same cells."""
        mark = place / MARK / OF if isinstance(place, Path) else place / MARK
        return is_there(mark) and read_bytes(mark, MOST_BYTES) == self._cells

    def _note(self, number: int) -> Path:
        return self.made / MARK / f"{number:04d}.json"


def _names(place: Location) -> list[str]:
    return [name for name in names_in(place) if name not in OF_OTHERS]


def _remove(path: Location) -> None:
    if isinstance(path, Path) and path.is_dir():
        shutil.rmtree(path)
    else:
        remove(path)
