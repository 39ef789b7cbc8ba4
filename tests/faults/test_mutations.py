"""Files that are changed with a plan, opened in a child with little memory and time: an error or the right values."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.support.fault_points import CLEAN_ERROR, in_child

from scvae_data import ChunkedDataset
from scvae_data.commands.check import look_up
from scvae_data.commands.info import info
from scvae_data.commands.verify import main, verify
from scvae_data.commands.why import why
from scvae_data.errors import ScvaeDataError
from scvae_data.loading.plan.mixing import diversity_table
from scvae_data.readers.recognise import open_reader
from scvae_data.store import open_index
from scvae_data.store.files import write_json

from .conftest import make, many
from .test_bytes import served

MEMORY = 1 << 30
OUTSIDE = 5
BATCH = 250
VALUES: tuple[Any, ...] = (
    0, 1, -1, 2**31, 2**61, 2**70, 1.5, 1e308, True, None, "", "../x", "/etc/hostname", "a\0b", [], {}, [[[]]],
    "é" * 300,
)  # fmt: skip
INTERESTING = (b"\x00", b"\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff", b"\x80", b"/", b"../", b"PAR1", b"\x89HDF")


def mutate_json(path: Path, chance: random.Random) -> None:
    """Change a value somewhere, with a checksum that fits."""
    content = json.loads(path.read_text())
    del content["checksum"]
    node, key = content, chance.choice(list(content))
    while isinstance(node[key], dict | list) and node[key] and chance.random() < 0.8:
        node = node[key]
        key = chance.choice(list(node)) if isinstance(node, dict) else chance.randrange(len(node))
    action = chance.random()
    if action < 0.15:
        del node[key]
    elif action < 0.3 and isinstance(node, dict):
        node[key] = node[chance.choice(list(node))]
    elif action < 0.45 and isinstance(node, list):
        node.extend(node[:1] * chance.choice([1, 100]))
    else:
        node[key] = chance.choice(VALUES)
    write_json(path, content or {"": 0})


def mutate_bytes(path: Path, chance: random.Random) -> None:
    """Overwrite, insert, remove or repeat some bytes."""
    content = bytearray(path.read_bytes())
    for _ in range(chance.choice([1, 1, 2, 8])):
        at = chance.randrange(len(content) + 1)
        piece = chance.choice(INTERESTING) if chance.random() < 0.5 else chance.randbytes(chance.randrange(1, 9))
        how = chance.randrange(4)
        end = at + (len(piece) if how == 0 else chance.randrange(1, 64) if how == 1 else 0)
        content[at:end] = piece if how in (0, 2) else content[at : at + 16] if how == 3 else b""
    path.write_bytes(content)


def read_directory(directory: Path) -> None:
    """Open and read everything."""
    index = open_index(directory)
    index.obs()
    for number, chunk in enumerate(index.chunks):
        index.reader(number).read_rows(0, chunk.n_obs)
    assert index.genes


def verify_directory(directory: Path) -> None:
    """Print what is wrong and the command that mends it, and compare with the inputs."""
    main([str(directory), "--deep"])
    verify(directory, against=[directory / "raw"])


def look_into(directory: Path) -> None:
    """What the other commands do."""
    index = open_index(directory)
    assert info(directory)
    assert why(directory, "SRX1", "c3")
    assert why(directory, "SRX1", "c7")
    look_up(directory)
    diversity_table(index)


def resume_directory(directory: Path) -> None:
    """What process.py does to mend it."""
    make(sorted((directory / "raw").iterdir()), directory, resume=True)


def miss_in(directory: Path) -> None:
    """Look for an experiment that there is not."""
    why(directory, "SRX3", "c3")


USES: tuple[Callable[[Path], Any], ...] = (
    read_directory, verify_directory, look_into, resume_directory, miss_in, served,
    lambda directory: ChunkedDataset(directory).to_anndata(),
)  # fmt: skip


def use_directory(directory: Path, chance: random.Random) -> None:
    """Do one of the things that are done with a directory."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        chance.choice(USES)(directory)


def use_input(path: Path, _: random.Random) -> None:
    """Read everything that processing reads."""
    with open_reader(path) as reader:
        for slot in reader.slots:
            reader.genes(slot)
            for block in reader.blocks(slot):
                assert block.n_rows
        reader.barcodes()
        reader.obs(list(reader.obs_columns))


def forbid_other_files(folder: Path) -> None:
    """End this process when Python opens a file that is neither below ``folder`` nor of an installed package."""
    root = Path(verify.__code__.co_filename).parents[3]
    allowed = tuple(str(place) for place in (folder, root, sys.prefix, sys.base_prefix, *sys.path) if place)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str | os.PathLike):
            path = os.fspath(arguments[0])
            # A bare name is one of a folder that is being removed.
            whole = os.path.abspath(path)  # noqa: PTH100 - links stay as they are
            if "/" in path and not whole.startswith((*allowed, "/proc", "/sys")):
                os.write(2, f"opened {path}\n".encode())
                os._exit(OUTSIDE)

    sys.addaudithook(hook)


Use = Callable[[Path, random.Random], None]


def mutate_and_use(use: Use, path: Path, names: list[str], seeds: range, log: Path) -> None:
    """Make one change after the other, each of the original; the number of the last is in ``log``."""
    originals = {name: (path / name).read_bytes() for name in names}
    fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    tempfile.tempdir = str(path)
    forbid_other_files(path)
    for seed in seeds:
        os.pwrite(fd, f"{seed:9d}".encode(), 0)
        chance = random.Random(seed)
        name = chance.choice(names)
        (mutate_json if name.endswith(".json") and chance.random() < 0.8 else mutate_bytes)(path / name, chance)
        try:
            use(path if use is use_directory else path / name, chance)
        except ScvaeDataError as error:
            assert "\n" not in str(error)
        for each, content in originals.items():
            (path / each).write_bytes(content)


@pytest.mark.parametrize("kind", ["directory", "input"])
def test_no_crash_no_hang_no_memory(kind: str, clean: Path, raw: list[Path], tmp_path: Path, record: list[str]) -> None:
    n = many(10_000, 2 * BATCH if kind == "input" else 80)
    folder = tmp_path / "copy"
    if kind == "directory":
        shutil.copytree(clean, folder)
        shutil.copytree(raw[0].parent, folder / "raw")
        use, names = use_directory, sorted(path.name for path in folder.glob("[!.]*.*"))
    else:
        folder.mkdir()
        shutil.copy(raw[0], folder)
        use, names = use_input, [raw[0].name]
    for first in range(0, n, BATCH):
        run = partial(mutate_and_use, use, folder, names, range(first, min(n, first + BATCH)), tmp_path / "log")
        status = in_child(run, report=folder / "report", seconds=1800, memory=MEMORY)
        told = (folder / "report").read_text() if (folder / "report").exists() else ""
        assert status in (0, CLEAN_ERROR), f"change {(tmp_path / 'log').read_text()}: status {status}\n{told}"
    what = {
        "directory": "files of a directory changed (JSON values with a checksum that fits, bytes); verify, info, why, "
        "diversity, loading, AnnData, `resume=true`",
        "input": "an H5AD input changed",
    }[kind]
    record.append(f"{what} | {n:,} | 0 crashes, 0 hangs, within {MEMORY >> 30} GiB, nothing opened elsewhere")
