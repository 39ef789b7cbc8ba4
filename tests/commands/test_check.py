"""``test_chunked_system.py``: what passes on sound data, and what is said of damaged ones."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest
from tests.support.datasets import make_dataset
from tests.support.remote import put
from tests.support.s3 import lead_to, s3_server

from scvae_data.commands import check
from scvae_data.commands.check import Result
from scvae_data.remote.location import RemotePath
from scvae_data.simulate import simulate_files

ROOT = Path(__file__).resolve().parents[2]
STEPS = ["imports", "process", "verify", "index", "SRX filter", "loader", "training step"]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("dataset"))[0]


def verdicts(results: list[Result]) -> dict[str, str]:
    return {result.step: result.verdict for result in results}


def test_a_sound_directory_passes(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main([str(directory)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[:19].strip().split(maxsplit=1) for line in lines[:-1]] == [
        ["PASS", step] for step in STEPS if step != "process"
    ]
    assert lines[-1] == "6 of 6 steps pass"
    assert "100 cells of 3 experiments, 20 genes, 4 chunks" in lines[2]
    assert "SRX2: 33 of 100 cells" in lines[3]


@pytest.mark.parametrize(
    ("name", "damage", "failing"),
    [
        ("chunk_0001.h5", lambda path: path.unlink(), {"verify", "SRX filter", "loader"}),
        ("chunk_0001.h5", lambda path: path.write_bytes(path.read_bytes()[:-100]), {"verify", "SRX filter", "loader"}),
        ("obs.parquet", lambda path: path.write_bytes(b"PAR1" + path.read_bytes()[4:-1]), None),
        ("gene_list.json", lambda path: path.write_text(path.read_text().replace("GENE1", "GENE0", 1)), None),
    ],
)
def test_a_damaged_directory_fails_with_a_remedy(
    name: str, damage: object, failing: set[str] | None, directory: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    damaged = tmp_path / "damaged"
    shutil.copytree(directory, damaged)
    damage(damaged / name)  # type: ignore[operator]
    results = check.check([damaged], tmp_path)
    failed = {step for step, verdict in verdicts(results).items() if verdict == "FAIL"}
    assert "verify" in failed
    assert failing is None or failing <= failed
    for result in results:
        assert (result.verdict == "FAIL") == bool(result.remedy)
    verified = next(result for result in results if result.step == "verify")
    assert str(damaged) in verified.found
    assert verified.remedy.startswith(f"scvae-data verify {damaged} prints")
    assert check.main([str(damaged)]) == 1
    assert "remedy: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("damage", "remedy"),
    [
        (lambda path: path.unlink(), "make a dataset elsewhere with: "),
        (lambda path: path.write_text(path.read_text().replace("4", "5", 1)), "scvae-data verify {} prints"),
    ],
)
def test_without_an_index_one_step_fails_and_no_other_is_tried(
    damage: Callable[[Path], object], remedy: str, directory: Path, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(directory, damaged)
    damage(damaged / "chunk_index.json")
    results = check.check([damaged], tmp_path)
    skipped = dict.fromkeys(["index", "SRX filter", "loader", "training step"], "SKIP")
    assert verdicts(results) == {"imports": "PASS", "verify": "FAIL"} | skipped
    assert results[1].remedy.startswith(remedy.format(damaged))
    assert results[1].remedy not in results[1].found


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    process = check.check([tmp_path / "absent"], tmp_path)[1]
    assert (process.verdict, process.found) == ("FAIL", f"{tmp_path / 'absent'}: there is no such file or folder")
    assert process.remedy == "check the path"


def test_files_that_fail_together_are_named(tmp_path: Path) -> None:
    for name in ("SRX1.h5ad", "SRX2.h5ad"):
        (tmp_path / "raw" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "raw" / name).write_text("no cells")
    scratch = tmp_path / "scratch"
    found = check.check([tmp_path / "raw"], scratch)[1].found
    assert found.startswith("2 of 2 files failed:\n")
    assert all(f" {name}: not_single_cell: " in found for name in ("SRX1.h5ad", "SRX2.h5ad"))
    assert str(scratch) not in found


def test_files_that_cannot_be_processed(tmp_path: Path) -> None:
    file = tmp_path / "notes.h5ad"
    file.write_text("no cells")
    results = check.check([file], tmp_path)
    assert verdicts(results) == dict.fromkeys(STEPS, "SKIP") | {"imports": "PASS", "process": "FAIL"}
    assert results[1].found.startswith(f"{file}: a text file that is no table: ")
    assert "dry_run=true" in results[1].remedy


def test_real_files_pass(shared_data: Path, tmp_path: Path) -> None:
    names = ("h5ad/pbmc3k_2700.h5ad", "10x_h5/1k_PBMCs_TotalSeq_B_3p_LT_filtered_feature_bc_matrix.h5")
    results = check.check([shared_data / name for name in names], tmp_path)
    assert verdicts(results) == dict.fromkeys(STEPS, "PASS"), [str(result) for result in results]


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main(["--help"]) == 0
    assert capsys.readouterr().out.startswith("usage: python test_chunked_system.py [DIR | FILE")


def test_pytest_finds_no_test_in_the_script(request: pytest.FixtureRequest) -> None:
    script = pytest.Module.from_parent(request.session, path=ROOT / "test_chunked_system.py")
    assert script.obj.__doc__.startswith("Does it work here")
    assert list(script.collect()) == []


def test_one_in_a_store_is_checked(store: RemotePath, directory: Path, tmp_path: Path) -> None:
    put(directory, store)
    assert check.main([str(store)]) == 0
    fsspec.filesystem("memory").pipe_file((store / "chunk_0001.h5").url, b"?")
    verified = check.check([store], tmp_path)[1]
    assert verified.found.startswith(f"{store}/chunk_0001.h5: has 1 bytes instead of ")
    assert verified.remedy.startswith(f"scvae-data verify {store} prints")


@pytest.mark.services
def test_raw_files_of_a_store_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    simulate_files(tmp_path / "raw", n_files=2, cells_per_file=300, n_genes=2000)
    with s3_server() as port:
        lead_to(port, monkeypatch)
        place = put(tmp_path / "raw", RemotePath("s3://data/raw"))
        assert verdicts(check.check([place], tmp_path)) == dict.fromkeys(STEPS, "PASS")
