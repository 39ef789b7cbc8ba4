"""Bits flipped and ends cut off in every file of a directory: found by verify, and no wrong value from the loader."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scvae_data import ChunkedDataModule
from scvae_data.commands.verify import verify
from scvae_data.errors import ScvaeDataError

from .conftest import make, many


@pytest.fixture(scope="module")
def whole(raw: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with every kind of file."""
    from scvae_data.processing.hvg import HvgRules

    folder = tmp_path_factory.mktemp("whole")
    (folder / "SRX9.h5ad").write_bytes(b"no cells")
    rules = HvgRules(flavor="seurat", n_top_genes=20, min_cells=1)
    make([*raw, folder / "SRX9.h5ad"], folder / "out", genes=rules, max_failed_fraction=0.5)
    return folder / "out"


def served(directory: Path) -> dict[str, Any]:
    """Everything that loading makes of a directory."""
    data = ChunkedDataModule(directory, batch_size=5, counts=True, split=None)
    data.setup()
    batches = list(data.predict_dataloader())
    names = ("x", "counts", "library_size", "size_factor", "index", "gene_set")
    values: dict[str, Any] = {name: np.concatenate([batch[name].numpy() for batch in batches]) for name in names}
    values["codes"] = np.concatenate([batch["obs"]["SRX_accession"].numpy() for batch in batches])
    values["genes"], values["categories"] = data.var_names, data.categories
    values["measured"] = data.gene_mask([0])
    return values


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(
        np.array_equal(one[name], other[name]) if name != "categories" else one[name] == other[name] for name in one
    )


def damage(path: Path, rng: np.random.Generator, kind: str) -> None:
    content = bytearray(path.read_bytes())
    if kind == "flip":
        content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
    else:
        del content[int(rng.integers(len(content))) :]
    path.write_bytes(content)


@pytest.mark.parametrize(("kind", "n"), [("flip", many(1000, 60)), ("cut", many(300, 20))])
def test_nothing_wrong_passes(kind: str, n: int, whole: Path, tmp_path: Path, record: list[str]) -> None:
    directory = tmp_path / "copy"
    shutil.copytree(whole, directory)
    expected, originals = served(directory), {path.name: path.read_bytes() for path in whole.glob("*.*") if path.suffix}
    assert len(originals) == 12
    rng = np.random.default_rng(n)
    names = sorted(originals)
    refused = unharmed = 0
    for trial in range(n):
        name = names[trial % len(names)]
        damage(directory / name, rng, kind)
        if (directory / name).read_bytes() == originals[name]:
            continue
        faults = {file: fault for file, fault in verify(directory).items() if fault}
        assert name in faults, f"trial {trial}: verify passes {name}"
        try:
            found = served(directory)
        except ScvaeDataError:
            refused += 1
        else:
            assert same(found, expected), f"trial {trial}: {name} gives wrong values"
            unharmed += 1
        (directory / name).write_bytes(originals[name])
    assert same(served(directory), expected)
    record.append(
        f"{n} times {kind}, over {len(names)} files: 0 passed by verify, 0 wrong values loaded "
        f"({refused} refused, {unharmed} in bytes that loading does not use)"
    )
