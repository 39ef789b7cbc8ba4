from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from tests.loading.conftest import Directory

from scvae_data import ChunkedDataModule
from scvae_data.errors import ConfigError, SelectionError
from scvae_data.loading.select.accessions import digest_of, listed_accessions

KEY = "exclude_srx_accessions"


def scores(path: Path, column: str = "srx_accession", **more: list[object]) -> str:
    """A table of three experiments, as an argument."""
    pd.DataFrame({column: ["SRX1", "SRX2", "SRX3"], **more}).to_parquet(path)
    return f"@{path}"


def text(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return f"@{path}"


def test_flagged_rows_of_a_table_are_meant(tmp_path: Path) -> None:
    table = scores(tmp_path / "scores.parquet", flagged=[False, True, False])
    assert listed_accessions(KEY, (table,)) == ("SRX2",)


@pytest.mark.parametrize("column", ["srx_accession", "SRX_accession"])
def test_all_rows_of_a_table_without_flags_are_meant(tmp_path: Path, column: str) -> None:
    assert listed_accessions(KEY, (scores(tmp_path / "x.parquet", column),)) == ("SRX1", "SRX2", "SRX3")


def test_a_line_each_beside_names(tmp_path: Path) -> None:
    file = text(tmp_path / "bad.txt", b"# why\nSRX3  # shuffled\n\nSRX1\n")
    assert listed_accessions(KEY, ("SRX1", file)) == ("SRX1", "SRX3")
    assert listed_accessions(KEY, None) is None


def test_the_digest_is_of_what_files_say_in_any_order(tmp_path: Path) -> None:
    one, other = (text(tmp_path / name, content) for name, content in (("a", b"SRX1\nSRX2"), ("b", b"SRX2\nSRX1")))
    digests = [digest_of((name,), listed_accessions(KEY, (name,))) for name in (one, other)]
    assert digests[0] == digests[1] is not None
    assert digest_of(("SRX1",), ("SRX1",)) is digest_of(None, None) is None


@pytest.mark.parametrize("way", ["include", "exclude"])
def test_a_file_selects_the_cells_that_its_list_selects(tmp_path: Path, hashed: Directory, way: str) -> None:
    file = text(tmp_path / "some.txt", b"SRX1\nSRX3\n")
    by_file = ChunkedDataModule(hashed.path, batch_size=8, **{f"{way}_srx_accessions": file})
    by_list = ChunkedDataModule(hashed.path, batch_size=8, **{f"{way}_srx_accessions": ["SRX1", "SRX3"]})
    for module in (by_file, by_list):
        module.setup()
    assert by_file.n_obs == by_list.n_obs == {"include": 200, "exclude": 100}[way]


def test_nothing_flagged_excludes_nothing_and_includes_nothing(tmp_path: Path, hashed: Directory) -> None:
    none = scores(tmp_path / "scores.parquet", flagged=[False] * 3)
    module = ChunkedDataModule(hashed.path, batch_size=8, exclude_srx_accessions=none)
    module.setup()
    assert module.n_obs == 300
    with pytest.raises(SelectionError, match=r"no cell is left of 300: include_srx_accessions=\[\]"):
        ChunkedDataModule(hashed.path, include_srx_accessions=none).setup()


def test_a_run_is_not_resumed_with_another_list_under_the_same_name(tmp_path: Path, hashed: Directory) -> None:
    file = text(tmp_path / "bad.txt", b"SRX1")
    state = begun(hashed, file).state_dict()
    text(tmp_path / "bad.txt", b"SRX2")
    resumed = ChunkedDataModule(hashed.path, batch_size=8, exclude_srx_accessions=file)
    resumed.setup()
    resumed.load_state_dict(state)
    with pytest.raises(SelectionError, match="cannot resume: the saved run has exclude_srx_accessions="):
        resumed.train_dataloader()


def begun(directory: Directory, file: str) -> ChunkedDataModule:
    module = ChunkedDataModule(directory.path, batch_size=8, exclude_srx_accessions=file)
    module.setup()
    next(iter(module.train_dataloader()))
    return module


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(None, r"@.*bad: there is no such file; give a parquet file or a list", id="absent"),
        pytest.param(b"SRX1\nSRX2 SRX3\n", r"@.*bad: line 2 has 2 words; give one accession per line", id="words"),
        pytest.param(b"\xff\xfe\x00", "it is neither parquet nor text", id="binary"),
        pytest.param(b"PAR1 and no more", "it cannot be read as parquet", id="damaged"),
    ],
)
def test_files_that_are_no_list(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "bad"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=f"{KEY}={message}" if message.startswith("@") else message):
        listed_accessions(KEY, (f"@{path}",))


def test_tables_that_are_no_list(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no column srx_accession, but donor;"):
        listed_accessions(KEY, (scores(tmp_path / "x.parquet", "donor"),))
    with pytest.raises(ConfigError, match=r"its column flagged is not of true and false"):
        listed_accessions(KEY, (scores(tmp_path / "y.parquet", flagged=["no", "yes", "no"]),))
    with pytest.raises(ConfigError, match=r"give a path on this machine"):
        listed_accessions(KEY, ("@s3://bucket/scores.parquet",))
