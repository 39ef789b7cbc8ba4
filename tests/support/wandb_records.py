"""Read an offline W&B run back from disk, from the layout of its file.

A ``.wandb`` file is a 7-byte header (``:W&B``, uint16 0xBEE1, version 0) and
then a LevelDB log: blocks of 32,768 bytes counted from the start of the file,
records headed by crc32, length and type (1 whole, 2 first, 3 middle, 4 last).
A record is a protocol buffer ``Record``.
"""

from __future__ import annotations

import base64
import json
import struct
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BLOCK = 32_768
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


@dataclass
class WandbArtifact:
    """What a run said about an artifact: the MD5 sums of its entries, and the addresses of those not uploaded."""

    name: str
    type: str
    is_input: bool
    metadata: dict[str, Any]
    digests: dict[str, bytes]
    references: dict[str, str]


@dataclass
class WandbRun:
    """What one run recorded."""

    run_id: str = ""
    group: str = ""
    job_type: str = ""
    name: str = ""
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    artifacts: list[WandbArtifact] = field(default_factory=list)
    exit_code: int | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    """How metrics are drawn: their records, by name or glob."""

    def series(self, name: str) -> list[Any]:
        """Values of a metric, in order."""
        return [row[name] for row in self.history if name in row]

    def datasets(self) -> list[WandbArtifact]:
        """Dataset directories it used or made."""
        return [artifact for artifact in self.artifacts if artifact.type == "dataset"]


def read_run(folder: Path) -> WandbRun:
    """The only run below ``folder``."""
    (run,) = read_runs(folder)
    return run


def read_runs(folder: Path) -> list[WandbRun]:
    """Every run below ``folder``, by path."""
    return [finished_run(path) for path in sorted(folder.glob("**/run-*.wandb"))]


def finished_run(path: Path, timeout_s: float = 10.0) -> WandbRun:
    """Parse a run once its exit record is on disk: W&B's own process writes it a moment after ``finish`` returns."""
    end = time.monotonic() + timeout_s
    while (run := parse_run(path)).exit_code is None and time.monotonic() < end:
        time.sleep(0.05)
    return run


def parse_run(path: Path) -> WandbRun:
    """Gather the records of a file."""
    from wandb.proto.wandb_internal_pb2 import Record

    run = WandbRun()
    for payload in records(path.read_bytes()):
        record = Record()
        record.ParseFromString(payload)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run.run_id, run.group, run.name = record.run.run_id, record.run.run_group, record.run.display_name
            run.tags, run.job_type = list(record.run.tags), record.run.job_type or run.job_type  # the first says it
            run.config |= _items(record.run.config.update)
        elif kind == "config":
            run.config |= _items(record.config.update)
        elif kind == "metric":
            run.metrics[record.metric.name or record.metric.glob_name] = record.metric
        elif kind == "history":
            run.history.append(_items(record.history.item))
        elif kind == "summary":
            run.summary |= _items(record.summary.update)
        elif kind == "artifact":
            run.artifacts.append(_artifact(record.artifact))
        elif kind == "files":
            run.files += [item.path for item in record.files.files]
        elif kind == "exit":
            run.exit_code = record.exit.exit_code
    return run


def records(content: bytes) -> Iterator[bytes]:
    """Whole records up to the first that is cut short."""
    assert struct.unpack("<4sHB", content[:7]) == (b":W&B", 0xBEE1, 0)
    at, parts = 7, []
    while at + 7 <= len(content):
        if BLOCK - at % BLOCK < 7:
            at += BLOCK - at % BLOCK
            continue
        crc, length, kind = struct.unpack("<IHB", content[at : at + 7])
        data = content[at + 7 : at + 7 + length]
        if len(data) < length:
            return
        assert crc == zlib.crc32(bytes([kind]) + data)
        parts.append(data)
        at += 7 + length
        if kind in (FULL, LAST):
            yield b"".join(parts)
            parts = []


def _artifact(record: Any) -> WandbArtifact:
    entries = record.manifest.contents
    return WandbArtifact(
        record.name,
        record.type,
        record.use_after_commit,
        json.loads(record.metadata or "{}"),
        {entry.path: base64.b64decode(entry.digest) for entry in entries},
        {entry.path: entry.ref for entry in entries if entry.ref},
    )


def _items(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
