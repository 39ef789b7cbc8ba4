"""What every test may ask for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from scvae_data.remote.location import RemotePath

# How long an example takes depends on what else the machine does.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
# Or gcsfs asks for the kind of a bucket by a protocol that no emulator has.
os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"

# Modules whose few tests take longest: begun last, one of them would keep one process busy when all others are idle.
LONG = (
    "test_slurm.py", "test_readme.py", "test_sweep.py", "test_real_files.py", "test_all_files.py", "test_grid.py",
    "test_jit.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the modules that take longest."""
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real files beside the checkout; tests that need it say aloud that it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real files at {folder}")
    return folder


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RemotePath]:
    """A place in a store of this process; copies, and folders that are made here, are in the test's own."""
    from tests.support.remote import memory_store  # here: few tests need what it imports

    with memory_store(tmp_path, monkeypatch) as place:
        yield place
