"""Bits flipped and ends cut off in every file of a directory: found by verify, and no wrong value from the loader."""

from __future__ import annotations

import itertools
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scvae_data import ChunkedDataModule, ChunkedDataset, open_index
from scvae_data.commands.verify import verify
from scvae_data.errors import ScvaeDataError
from scvae_data.store import Chunking
from scvae_data.store.index_json import write_index

from .conftest import make, many, sample


@pytest.fixture(scope="module")
def whole(raw: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with every kind of file."""
    from scvae_data.processing.settings.genes import HvgRules

    folder = tmp_path_factory.mktemp("whole")
    (folder / "SRX9.h5ad").write_bytes(b"no cells")
    rules = HvgRules(flavor="seurat", n_top_genes=20, min_cells=1)
    make([*raw, folder / "SRX9.h5ad"], folder / "out", genes=rules, max_failed_fraction=0.5)
    return folder / "out"


def served(directory: Path, **settings: Any) -> dict[str, Any]:
    """Everything that loading makes of a directory."""
    data = ChunkedDataModule(directory, batch_size=5, counts=True, split=None, **settings)
    data.setup()
    batches = list(data.predict_dataloader())
    data.teardown()
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


def areas(directory: Path) -> dict[str, tuple[str, np.ndarray]]:
    """Places that damage is spread over: file and bytes, by name. A chunk has five, other files are one each."""
    index = open_index(directory)
    found: dict[str, tuple[str, np.ndarray]] = {}
    for number, chunk in enumerate(index.chunks):
        with index.reader(number) as reader:
            arrays = reader._load()[0]
        parts = {"block table": [(chunk.blocks_offset, chunk.blocks_size)]}
        parts |= {name: list(zip(blocks.offset, blocks.size, strict=True)) for name, blocks in arrays.items()}
        is_other = np.ones(chunk.bytes, bool)
        for part, extents in parts.items():
            places = np.concatenate([np.arange(int(start), int(start) + int(size)) for start, size in extents])
            found[f"{part} of {chunk.file}"] = chunk.file, places
            is_other[places] = False
        found[f"names and attributes of {chunk.file}"] = chunk.file, np.flatnonzero(is_other)
    names = {path.name for path in directory.glob("*.*") if path.suffix} - {chunk.file for chunk in index.chunks}
    return found | {name: (name, np.arange((directory / name).stat().st_size)) for name in sorted(names)}


def damage(path: Path, at: int, rng: np.random.Generator, kind: str) -> None:
    content = bytearray(path.read_bytes())
    if kind == "flip":
        content[at] ^= 1 << int(rng.integers(8))
    else:
        del content[at:]
    path.write_bytes(content)


@pytest.mark.parametrize(("kind", "n"), [("flip", many(1000, 60)), ("cut", many(300, 20))])
def test_nothing_wrong_passes(kind: str, n: int, whole: Path, tmp_path: Path, record: list[str]) -> None:
    directory = tmp_path / "copy"
    shutil.copytree(whole, directory)
    expected, originals = served(directory), {path.name: path.read_bytes() for path in whole.glob("*.*") if path.suffix}
    places = list(areas(directory).items())
    assert len(originals) == 16
    assert {name for _, (name, _) in places} == set(originals)
    rng = np.random.default_rng(n)
    refused, unharmed = Counter[str](), Counter[str]()
    for trial in range(n):
        area, (name, bytes_of_area) = places[trial % len(places)]
        damage(directory / name, int(rng.choice(bytes_of_area)), rng, kind)
        faults = {file: fault for file, fault in verify(directory).items() if fault}
        assert name in faults, f"trial {trial}: verify passes {area}"
        try:
            found = served(directory)
        except ScvaeDataError:
            refused[area.split(" of ")[0]] += 1
        else:
            assert same(found, expected), f"trial {trial}: {area} gives wrong values"
            unharmed[area.split(" of ")[0]] += 1
        (directory / name).write_bytes(originals[name])
    assert same(served(directory), expected)
    read = {"block table", "indptr", "indices", "data", "gene_list.json", "gene_sets.bin", "chunk_index.json"}
    assert not read & set(unharmed), "what loading reads is refused wherever it is damaged"
    what = {"flip": "a bit flipped", "cut": "the end cut off"}[kind]
    record.append(
        f"{what}, in each of {len(places)} areas of {len(originals)} files in turn | {n:,} | verify finds {n:,}; 0 "
        f"wrong values loaded ({refused.total()} refused, {unharmed.total()} in bytes that loading does not use)"
    )


def test_every_chunk_in_the_place_of_every_other(raw: list[Path], tmp_path: Path, record: list[str]) -> None:
    """As sound as the right one, with an index that agrees: only the cells tell."""
    make(raw, tmp_path / "clean", chunking=Chunking(chunk_size=3))
    index = open_index(tmp_path / "clean")
    whole = [number for number, chunk in enumerate(index.chunks) if chunk.n_obs == 3]
    assert len(whole) == 7
    pairs = sample(list(itertools.permutations(whole, 2)), 6)
    for place, other in pairs:
        directory, mine = tmp_path / f"{place}_{other}", index.chunks[place]
        shutil.copytree(tmp_path / "clean", directory)
        shutil.copyfile(directory / index.chunks[other].file, directory / mine.file)
        taken = replace(index.chunks[other], file=mine.file, first_row=mine.first_row)
        chunks = (*index.chunks[:place], taken, *index.chunks[place + 1 :])
        write_index(directory, replace(index, chunks=chunks, nnz=sum(chunk.nnz for chunk in chunks)))
        assert verify(directory, deep=True)[mine.file]
        for load in (served, lambda path: list(cells(path)), lambda path: ChunkedDataset(path).to_anndata()):
            with pytest.raises(ScvaeDataError, match=rf"{mine.file}: .* counts where obs\.parquet says"):
                load(directory)
    record.append(
        f"an entry of the index that points at another valid chunk | {len(pairs)} | refused by `verify --deep`, "
        "batches, single cells and AnnData"
    )


def cells(directory: Path) -> Iterator[Any]:
    """Counts of the cells, one after the other."""
    dataset = ChunkedDataset(directory, chunk_cache_size=1, normalized=False)
    for row in range(len(dataset)):
        yield dataset[row]["x"].tolist()
