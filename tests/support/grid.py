"""Every way of making batches, compared with the plainest one: order, contents, position and resuming.

    python -m tests.support.grid hash   # the whole grid, as a table in Markdown; or: source

Each setting starts in the middle of an epoch, at the position that the plainest
setting saved, serves the rest and another epoch, and leaves a third in the
middle. What counts is the SHA-256 of each batch, of its rows, values and labels,
and the position at the end. Two ranks are two processes that talk through gloo
on the loopback device.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from itertools import islice, product
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
EVERYTHING = 100  # more than the directory has chunks
STOP = 4  # batches after which the second epoch is left


class Setting(NamedTuple):
    """One way of making batches."""

    world_size: int
    num_workers: int
    start: str | None
    """How workers are started; None without workers."""
    num_threads: int
    cache: int
    """``chunk_cache_size``."""


VALUES: dict[str, tuple[Any, ...]] = {
    "world_size": (1, 2),
    "num_workers": (0, 1, 2, 4),
    "start": ("fork", "spawn"),
    "num_threads": (1, 2, 4),
    "cache": (1, 2, EVERYTHING),
}
PLAIN = (0, None, 1, 1)  # all but the number of ranks


def every_setting() -> list[Setting]:
    """The grid, in the order of its table."""
    settings = (Setting(*values) for values in product(*VALUES.values()))
    return list(dict.fromkeys(s if s.num_workers else s._replace(start=None) for s in settings))


def digest(batch: dict[str, Any]) -> str:
    """SHA-256 of all that a batch holds."""
    tensors = {**batch, **batch["obs"]}
    parts = [tensors[name].numpy().tobytes() for name in sorted(tensors) if name != "obs"]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def serve(path: Path, setting: Setting, saved: dict[str, Any] | None) -> dict[str, Any]:
    """From a ``saved`` position, or the beginning: the rest of an epoch, the next, and some batches of a third."""
    from scvae_data import ChunkedDataModule  # not in spawned workers, which import this module too

    module = ChunkedDataModule(
        path, batch_size=16, split=None, counts=True, label_keys="cell_type", max_chunks_in_memory=1,
        num_workers=setting.num_workers, num_threads=setting.num_threads, chunk_cache_size=setting.cache,
        multiprocessing_context=setting.start,  # type: ignore[arg-type]
    )  # fmt: skip
    if saved is not None:
        module.load_state_dict(saved)
    module.setup()
    loader = module.train_dataloader()
    made: dict[str, Any] = {"rest": [digest(batch) for batch in loader], "epoch": [digest(batch) for batch in loader]}
    first = list(islice(loader, STOP))
    made |= {"first": [digest(batch) for batch in first], "state": module.state_dict()}
    made["rows"] = [row for batch in first for row in batch["index"].tolist()]
    module.teardown()
    return made


def serve_all(path: Path, settings: Sequence[Setting]) -> list[dict[str, Any]]:
    """What each setting made on this rank, the plainest one first, all from a position that the plainest one saved."""
    plain = Setting(settings[0].world_size, *PLAIN)
    saved = serve(path, plain, None)["state"]
    return [serve(path, setting, saved) for setting in (plain, *settings)]


def of_ranks(path: Path, settings: Sequence[Setting]) -> list[list[dict[str, Any]]]:
    """What each setting made, by rank; all settings have the same number of ranks."""
    if not settings:
        return []
    world_size = settings[0].world_size
    if world_size == 1:
        return [serve_all(path, settings)]
    with tempfile.TemporaryDirectory() as folder:
        asked = json.dumps([str(path), str(Path(folder) / "store"), settings])
        settings_of_process = {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        environment = os.environ | settings_of_process | {"PYTHONWARNINGS": "ignore"}
        command = [sys.executable, "-m", "tests.support.grid"]
        ranks = [
            subprocess.Popen([*command, str(rank), asked], stdout=subprocess.PIPE, text=True, env=environment)
            for rank in range(world_size)
        ]
        answers = [rank.communicate()[0] for rank in ranks]
        if any(rank.returncode for rank in ranks):
            raise RuntimeError(f"a rank failed: {[rank.returncode for rank in ranks]}")
        return json.loads(answers[0])  # type: ignore[no-any-return]


def be_rank(rank: int, asked: str) -> None:
    """Serve as one of the ranks; the first gathers what all made and prints it."""
    from torch import distributed

    path, store, given = json.loads(asked)
    settings = [Setting(*values) for values in given]
    world_size = settings[0].world_size
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world_size)
    made = serve_all(Path(path), settings)
    gathered: list[Any] = [None] * world_size
    distributed.all_gather_object(gathered, made)
    distributed.destroy_process_group()
    if rank == 0:
        print(json.dumps(gathered))


def faults(made: dict[str, Any], plain: dict[str, Any]) -> list[str]:
    """In what a setting differs from the plain one."""
    return [name for name in ("epoch", "first", "state", "rest") if made[name] != plain[name]]


def compare(path: Path, settings: Sequence[Setting]) -> dict[Setting, list[str]]:
    """In what each setting differs from the plainest one, on any rank; all have the same number of ranks."""
    ranks = of_ranks(path, settings)
    return {
        setting: [fault for made in ranks for fault in faults(made[1 + place], made[0])]
        for place, setting in enumerate(settings)
    }


def table(found: dict[Setting, list[str]]) -> str:
    """The grid in Markdown."""
    columns = list(product(VALUES["cache"], VALUES["num_threads"]))
    heads = [f"{'all' if cache == EVERYTHING else cache}, {threads}" for cache, threads in columns]
    lines = ["| ranks | workers | started by | " + " | ".join(heads) + " |", "|--:|--:|---|" + ":-:|" * len(columns)]
    for world_size, workers, start in dict.fromkeys(setting[:3] for setting in found):
        cells = [found[Setting(world_size, workers, start, threads, cache)] for cache, threads in columns]
        marks = " | ".join("=" if not cell else ", ".join(dict.fromkeys(cell)) for cell in cells)
        lines.append(f"| {world_size} | {workers} | {start or '–'} | {marks} |")
    return "\n".join(lines)


def main(order: str) -> None:
    """Run the whole grid; exit status 1 if a setting differs."""
    from tests.support.datasets import make_dataset

    started = time.perf_counter()
    found: dict[Setting, list[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        path, _, _ = make_dataset(Path(folder) / order, n_obs=300, order=order)
        for world_size in VALUES["world_size"]:
            part = compare(path, [setting for setting in every_setting() if setting.world_size == world_size])
            print(f"cells in {order} order; columns: chunk_cache_size, num_threads\n\n{table(part)}\n", flush=True)
            found |= part
    n_differ = sum(map(bool, found.values()))
    print(f"{len(found)} settings, {n_differ} differ from the plainest; {time.perf_counter() - started:.0f} s\n")
    sys.exit(n_differ > 0)


if __name__ == "__main__":
    warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)  # more workers than cores
    if len(sys.argv) == 3:
        be_rank(int(sys.argv[1]), sys.argv[2])
    else:
        main(*sys.argv[1:])
