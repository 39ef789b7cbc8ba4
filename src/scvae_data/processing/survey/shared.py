"""The survey of all files by many processes: what one has found, the others read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from scvae_data.errors import InputError
from scvae_data.processing.engine.base import Engine
from scvae_data.processing.engine.task import Failure, Outcome, Task
from scvae_data.processing.facts import InputFacts
from scvae_data.processing.settings.shard import Shard
from scvae_data.processing.survey.file import parts_of
from scvae_data.processing.work import ShardFolder
from scvae_data.remote.fetched import objects_of
from scvae_data.remote.location import Location, RemotePath
from scvae_data.store.files import expecting, read_json, write_json

__all__ = ["SharedSurvey"]


class SharedSurvey:
    """An engine for the survey, which keeps what it finds where other shards look for it.

    The files are dealt to the shards. A shard surveys its own first, and then
    those that no other one has published yet: side by side each does its
    share, one that runs alone does all, and none waits for another. What is
    published is known by the names, sizes and times of its files. A file that
    failed is not published, and is tried again by all.

    Parameters
    ----------
    engine
        Does the work.
    folder
        Where parts of the survey are published.
    shard
        Whose share comes first.
    """

    def __init__(self, engine: Engine, folder: ShardFolder, shard: Shard) -> None:
        self.engine, self.folder, self.shard = engine, folder, shard
        self.n_workers = engine.n_workers

    @property
    def peak_rss(self) -> int:
        """That of the engine that works."""
        return self.engine.peak_rss

    def warm_up(self) -> None:
        """Make workers ready."""
        self.engine.warm_up()

    def must_see(self, folder: Path) -> None:
        """Ask it of the engine that works."""
        self.engine.must_see(folder)

    def run(self, tasks: Sequence[Task]) -> Iterator[tuple[int, Outcome]]:
        """Yield what is known of each file, or its failure."""
        for shard in self.shard.from_own():
            share = shard.share(len(tasks))
            path = self.folder.survey(key_of([tasks[position] for position in share]))
            found = read_found(path) if path.exists() else {}
            unknown = [place for place in range(len(share)) if place not in found]
            yield from ((share[place], facts) for place, facts in found.items())
            for number, outcome in self.engine.run([tasks[share[place]] for place in unknown]):
                yield share[unknown[number]], outcome
                if not isinstance(outcome, Failure):
                    found[unknown[number]] = outcome
            if unknown and found:
                # Each as a text of its own: values of a manifest may be infinite, which strict JSON has no word for.
                facts = [json.dumps(asdict(facts)) for facts in found.values()]
                write_json(path, {"place": list(found), "facts": facts})

    def close(self) -> None:
        """Let workers go."""
        self.engine.close()


def read_found(path: Path) -> dict[int, InputFacts]:
    """Read a published part: the facts of each file by its place in the share."""
    content = read_json(path)
    with expecting(path):
        facts = [InputFacts.from_plain(json.loads(text)) for text in content["facts"]]
        return dict(zip(content["place"], facts, strict=True))


def key_of(tasks: Sequence[Task]) -> str:
    """Hash what surveys depend on: their arguments, and size and time of everything that is read."""
    digest = hashlib.sha256()
    for task in tasks:
        digest.update(repr((task.arguments, signature(task.arguments[0].path))).encode())
    return digest.hexdigest()[:32]


def signature(path: Location) -> list[tuple[str, int, int | str]]:
    """Return name, size and time, or version, of each part of an input; none where it cannot be looked at."""
    try:
        if isinstance(path, RemotePath):
            return [(part.url, facts.size, facts.version) for part, facts in objects_of(path).items()]
        stats = [(part.name, part.stat()) for part in parts_of(path)]
    except (OSError, InputError):
        return []
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
