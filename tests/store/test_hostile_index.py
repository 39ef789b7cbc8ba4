"""Dataset directories made to harm: whoever changes an index can compute its checksum as well."""

from __future__ import annotations

import ast
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.datasets import make_dataset

from scvae_data.errors import DamagedFileError, StoreError
from scvae_data.store import open_index
from scvae_data.store.files import write_json
from scvae_data.store.index_json import INDEX_FILE

SOURCES = sorted((Path(__file__).parents[2] / "src").rglob("*.py"))
HUGE = 2**61


def rewrite(directory: Path, change: Callable[[dict[str, Any]], None], name: str = INDEX_FILE) -> None:
    """Change a JSON file and give it the checksum of its new content."""
    content = json.loads((directory / name).read_text())
    del content["checksum"]
    change(content)
    write_json(directory / name, content)


def use(directory: Path) -> None:
    """Open a directory and read all of it, as loading does."""
    index = open_index(directory)
    obs = index.obs()
    for number in range(len(index.chunks)):
        index.reader(number).read_rows(0, index.chunks[number].n_obs)
    assert len(obs) == index.n_obs
    assert len(index.genes.names) == index.n_vars
    assert len(index.gene_sets) == 1


def set_key(*path: Any, to: Any) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        for key in path[:-1]:
            content = content[key]
        content[path[-1]] = to

    return change


def declare_cells(content: dict[str, Any]) -> None:
    content["n_obs"] = HUGE
    content["chunks"]["n_obs"][1] = HUGE - 30


def declare_counts(content: dict[str, Any]) -> None:
    content["nnz"] += HUGE
    content["chunks"]["nnz"][1] += HUGE


def declare_table(content: dict[str, Any]) -> None:
    content["chunks"]["bytes"][0] = HUGE
    content["chunks"]["blocks_size"][0] = HUGE // 2


CHANGES = {
    "a path upwards": set_key("chunks", "file", 0, to="../secret.h5"),
    "an absolute path": set_key("chunks", "file", 0, to="/etc/hostname"),
    "a path in another column": set_key("files", to={"../obs.parquet": {"bytes": 1, "sha256": "0" * 64}}),
    "a name with a null byte": set_key("chunks", "file", 0, to="chunk_0000.h5\0"),
    "a list as a name": set_key("chunks", "file", 0, to=["chunk_0000.h5"]),
    "more cells than bytes": declare_cells,
    "more counts than bytes": declare_counts,
    "a table larger than memory": declare_table,
    "an offset behind the end": set_key("chunks", "blocks_offset", 0, to=HUGE),
    "a negative size": set_key("chunks", "blocks_size", 0, to=-64),
    "a table of no rows": set_key("chunks", "blocks_size", 0, to=0),
    "a fraction": set_key("chunks", "n_obs", 0, to=30.0),
    "a truth": set_key("n_vars", to=True),
    "more genes than there are": set_key("n_vars", to=HUGE),
    "fewer genes than there are": set_key("n_vars", to=3),
    "blocks of everything": set_key("block_elements", to=HUGE),
    "blocks of nothing": set_key("block_elements", to=0),
    "another codec": set_key("codec", "name", to="lz4"),
    "a codec that is code": set_key("codec", "name", to="os.system"),
    "another width": set_key("chunks", "max_count", 0, to=2**40),
    "a type that is code": set_key("obs_columns", "donor_age", "dtype", to="object"),
    "categories of everything": set_key("obs_columns", "cell_type", "categories", to=["a"] * 9),
    "categories of nothing": set_key("obs_columns", "cell_type", "categories", to=[]),
    "a column that is not there": set_key("obs_columns", "more", to={"dtype": "int64"}),
    "no target sum": set_key("normalization", "target_sum", to=0),
    "a target sum in words": set_key("normalization", "target_sum", to="1e4"),
    "no genes of size_factor": set_key("normalization", "size_factor_genes", to=None),
    "no experiments": set_key("obs_columns", "SRX_accession", to={"dtype": "string"}),
    "no column that is needed": lambda content: content["obs_columns"].pop("split_hash"),
    "another order": set_key("order", "kind", to="random"),
    "no columns": set_key("obs_columns", to=None),
    "columns for chunks": set_key("chunks", to=[1, 2, 3]),
    "a tail of everything": set_key("files", "obs.parquet", "tail_bytes", to=HUGE),
    "a row table of everything": set_key("files", "rows.bin", "bytes", to=HUGE),
    "a row table without a tail": set_key("files", "rows.bin", "tail_bytes", to=0),
    "a row table that is another file": set_key("generations", 0, "rows", to="obs.parquet"),
    "a row table upwards": set_key("generations", 0, "rows", to="../rows.bin"),
    "codes that are fractions": set_key("generations", 0, "row_columns", "cell_type", to="float32"),
    "a generation of more chunks than there are": set_key("generations", 0, "n_chunks", to=HUGE),
}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path, _, _ = make_dataset(tmp_path / "data", n_obs=60)
    use(path)
    return path


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_an_index_that_lies_is_refused(
    change: Callable[[dict[str, Any]], None], directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewrite(directory, change)
    opened: list[Path] = []
    real = os.open
    monkeypatch.setattr(os, "open", lambda path, *rest, **more: opened.append(Path(path)) or real(path, *rest, **more))
    with pytest.raises(StoreError) as caught:
        use(directory)
    assert "\n" not in str(caught.value)
    assert all(path.parent == directory for path in opened)


def test_an_infinite_number_is_no_json(directory: Path) -> None:
    body = (directory / INDEX_FILE).read_bytes().split(b',\n "checksum"')[0].replace(b"1000.0", b"1e999")
    checksum = f',\n "checksum": "sha256:{hashlib.sha256(body).hexdigest()}"\n}}\n'
    (directory / INDEX_FILE).write_bytes(body + checksum.encode())
    with pytest.raises(DamagedFileError, match="normalization is log1p to inf"):
        open_index(directory)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "9" * 10_000, '{"a": 1, "a": 2}', "\ud800"])
def test_json_that_is_made_to_harm(text: str, directory: Path) -> None:
    (directory / INDEX_FILE).write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(DamagedFileError):
        open_index(directory)


def test_json_larger_than_any_is_not_parsed(directory: Path) -> None:
    with (directory / INDEX_FILE).open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(DamagedFileError, match="larger than"):
        open_index(directory)


@pytest.mark.parametrize(
    "name", [INDEX_FILE, "gene_list.json", "obs.parquet", "rows.bin", "gene_sets.bin", "chunk_0001.h5"]
)
@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_only_ordinary_files_are_read(name: str, kind: str, directory: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    (directory / name).rename(secret)
    if kind == "link":
        (directory / name).symlink_to(secret)
    elif kind == "pipe":
        os.mkfifo(directory / name)  # without a writer, opening it would wait for ever
    else:
        (directory / name).mkdir()
    with pytest.raises(StoreError, match=name.replace(".", r"\.")):
        use(directory)


def calls(path: Path) -> list[ast.Call]:
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]


# What processes of one run hand one another in memory without a name: nobody else can have written it.
AMONG_OURSELVES = {("loading/shared.py", "pickle.loads")}


def test_nothing_is_unpickled() -> None:
    loaders = {"pickle.load", "pickle.loads", "joblib.load", "pd.read_pickle", "yaml.load", "yaml.unsafe_load", "eval"}
    for path in SOURCES:
        for call in calls(path):
            name, keywords = ast.unparse(call.func), {item.arg: ast.unparse(item.value) for item in call.keywords}
            is_ours = any(path.match(place) and name == loader for place, loader in AMONG_OURSELVES)
            assert name not in loaders or is_ours, f"{path}:{call.lineno}"
            assert name != "torch.load" or keywords.get("weights_only") == "True", f"{path}:{call.lineno}"
            assert keywords.get("allow_pickle", "False") == "False", f"{path}:{call.lineno}"


def test_the_scan_for_unpickling_sees_this_package() -> None:
    assert sum(ast.unparse(call.func) == "torch.load" for path in SOURCES for call in calls(path)) >= 1
