"""`scvae-data verify`: what it prints, its exit status, and a command that does what it says."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from tests.support.pipeline import position_counts, run_pipeline
from tests.support.remote import put
from tests.support.warm import run_python

from scvae_data.commands import verify
from scvae_data.errors import ConfigError
from scvae_data.processing.settings.inputs import FileInput
from scvae_data.remote import objects
from scvae_data.remote.location import RemotePath
from scvae_data.store.remote_files import disk_cache

ROOT = Path(__file__).parents[2]


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def write_raw(path: Path, counts: np.ndarray) -> Path:
    import anndata as ad
    import pandas as pd

    adata = ad.AnnData(counts.astype(np.float32), obs=pd.DataFrame(index=[f"c{row}" for row in range(len(counts))]))
    adata.var_names = [f"g{column}" for column in range(counts.shape[1])]
    path.parent.mkdir(exist_ok=True)
    adata.write_h5ad(path)
    return path


@pytest.fixture
def raw(tmp_path: Path) -> list[Path]:
    return [write_raw(tmp_path / "raw" / f"SRX{n}.h5ad", position_counts(6, 5, 10 * n)) for n in (1, 2)]


def test_the_printed_command_builds_only_the_damaged_chunk(
    raw: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["input=files", "input.paths=raw/*.h5ad", "qc=none", "chunk_size=4", "genes.min_cells=1"]
    where = [f"paths.processed_dir={tmp_path}/out", f"hydra.run.dir={tmp_path}/log"]
    run_python(ROOT / "process.py", *given, *where, cwd=tmp_path).check_returncode()
    out = tmp_path / "out"
    assert verify.main([str(out), "--deep", "--against", str(tmp_path / "raw")]) == 0
    assert capsys.readouterr().out.endswith("\n12 of 12 rows were compared with their input\n16 files are sound\n")
    clean = {path.name: (path.read_bytes(), path.stat().st_ino) for path in out.glob("[!.]*.*")}
    flip(out / "chunk_0001.h5")
    assert verify.main([str(out)]) == 1
    *printed, command = capsys.readouterr().out.splitlines()
    assert printed[0] == "PASS  2 chunks"
    assert "FAIL  chunk_0001.h5            its content does not match its checksum" in printed
    assert printed[-1] == "1 of 16 files are damaged; this builds them again, and no others:"
    folder, program = command.strip().split(" && ")
    assert folder == f"cd {tmp_path}"
    arguments = shlex.split(program)
    assert arguments[:2] == ["scvae-data", "process"]
    assert arguments[2:] == [*given, f"paths.processed_dir={out}", "resume=true"]
    run_python(ROOT / "process.py", *arguments[2:], where[1], cwd=tmp_path).check_returncode()
    after = {path.name: (path.read_bytes(), path.stat().st_ino) for path in out.glob("[!.]*.*")}
    assert {name for name in clean if clean[name][1] != after[name][1]} == {"chunk_0001.h5"}
    assert all(clean[name][0] == after[name][0] for name in clean)


def test_the_printed_commands_build_what_each_run_has_made(
    raw: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [
        "input=files",
        "input.paths=raw/*.h5ad",
        f"paths.processed_dir={tmp_path}/out",
        f"hydra.run.dir={tmp_path}",
    ]
    of_first = [*given, "qc=none", "chunk_size=4", "genes.min_cells=1"]
    later = raw[1].rename(tmp_path / raw[1].name)
    run_python(ROOT / "process.py", *of_first, cwd=tmp_path).check_returncode()
    later.rename(raw[1])
    run_python(ROOT / "process.py", *given, "append=true", cwd=tmp_path).check_returncode()
    out = tmp_path / "out"
    clean = {name: (out / name).read_bytes() for name in ("chunk_0001.h5", "chunk_0002.h5", "rows_0001.bin")}
    for name in clean:
        flip(out / name)
    assert verify.main([str(out)]) == 1
    *_, said, first, second = capsys.readouterr().out.splitlines()
    assert said.endswith("damaged; these, one after the other, build them again, and no others:")
    for line, rest in ((first, ["resume=true"]), (second, ["append=true", "resume=true"])):
        arguments = shlex.split(line.strip().split(" && ")[1])[2:]
        assert arguments[-len(rest) - 1 :] == [f"paths.processed_dir={out}", *rest]
        run_python(ROOT / "process.py", *arguments, given[-1], cwd=tmp_path).check_returncode()
    assert {name: (out / name).read_bytes() for name in clean} == clean
    assert verify.main([str(out)]) == 0


def test_a_source_that_has_other_counts(raw: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    run_pipeline(raw, out)
    with h5py.File(raw[1], "r+") as file:
        file["X"][3, 2] += 1
    assert not any(verify.verify(out, deep=True, against=[raw[0]]).values())
    assert verify.main([str(out), "--against", str(raw[0])]) == 0
    assert "6 of 12 rows were compared with their input; not given: SRX2.h5ad\n" in capsys.readouterr().out
    faults = {name: fault for name, fault in verify.verify(out, against=[raw[0].parent]).items() if fault}
    assert len(faults) == 1
    assert "differs from row 3 of SRX2.h5ad" in next(iter(faults.values())) or ""
    assert verify.main([str(out), "--against", str(tmp_path / "elsewhere")]) == 2
    assert "there is none of the 2 inputs" in capsys.readouterr().err
    flip(out / "chunk_0000.h5")
    assert verify.main([str(out), "--against", str(raw[0])]) == 1
    assert "\nno row was compared with an input: damaged files come first\n" in capsys.readouterr().out


def test_sources_that_have_moved_and_genes_in_another_order(raw: list[Path], tmp_path: Path) -> None:
    from scvae_data.processing.settings.genes import GeneRules

    out = tmp_path / "out"
    # g0 has a count in fewer cells than the others and is left out.
    run_pipeline(raw, out, input=FileInput(paths=[str(path) for path in raw]), genes=GeneRules(min_cells=8))
    moved = tmp_path / "moved"
    raw[0].parent.rename(moved)
    assert not any(verify.verify(out, against=[moved]).values())
    assert not any(verify.verify(out, against=[moved / "SRX2.h5ad"]).values())


def test_a_symbol_of_two_genes_of_which_one_is_dropped(tmp_path: Path) -> None:
    import anndata as ad

    from scvae_data.processing.settings.genes import GeneRules

    counts = position_counts(6, 3)
    with_ids = ad.AnnData(counts.astype(np.float32))
    with_ids.X[:, 2] = 0  # the second gene called X is in no cell
    with_ids.obs_names = [f"c{row}" for row in range(6)]
    with_ids.var_names = [f"ENSG0000000000{n}" for n in range(3)]
    with_ids.var["gene_symbols"] = ["A", "X", "X"]
    (tmp_path / "raw").mkdir()
    with_ids.write_h5ad(tmp_path / "raw" / "SRX1.h5ad")
    by_symbol = ad.AnnData(counts[:, :2].astype(np.float32), obs=with_ids.obs)
    by_symbol.var_names = ["A", "X"]
    by_symbol.write_h5ad(tmp_path / "raw" / "SRX2.h5ad")
    paths = [str(tmp_path / "raw" / name) for name in ("SRX1.h5ad", "SRX2.h5ad")]
    run_pipeline(paths, tmp_path / "out", input=FileInput(paths=paths), genes=GeneRules(min_cells=1))
    assert not any(verify.verify(tmp_path / "out", against=[tmp_path / "raw"]).values())


def write_named(path: Path, names: list[str], symbols: list[str] | None = None) -> Path:
    """Write six cells whose genes go by these names, ids if there are symbols as well."""
    import anndata as ad

    adata = ad.AnnData(position_counts(6, len(names)).astype(np.float32))
    adata.obs_names = [f"c{row}" for row in range(6)]
    adata.var_names = names
    if symbols is not None:
        adata.var["gene_symbols"] = symbols
    path.parent.mkdir(exist_ok=True)
    adata.write_h5ad(path)
    return path


@pytest.mark.parametrize(
    ("older", "symbols"),
    [
        # X is gene 1 there and gene 2 in the newer reference: nobody knows which of them it is elsewhere.
        (["A", "X", "Y"], ["A", "X", "Y", "X"]),
        (["A", "W", "Y"], ["A", "W", "Y"]),
    ],
)
def test_a_symbol_whose_gene_has_another_one(older: list[str], symbols: list[str], tmp_path: Path) -> None:
    from scvae_data.store import open_index

    ids = [f"ENSG0000000000{n}" for n in range(3)]
    paths = [
        write_named(tmp_path / "raw" / "SRX1.h5ad", ids, older),
        write_named(tmp_path / "raw" / "SRX2.h5ad", ids, older),
        write_named(tmp_path / "raw" / "SRX3.h5ad", ids[::2], ["A", "X"]),
        write_named(tmp_path / "raw" / "SRX4.h5ad", ["A", "X"]),
    ]
    run_pipeline(paths, tmp_path / "out")
    genes = open_index(tmp_path / "out").genes
    assert list(genes.symbols) == symbols
    assert [key for key in genes.ids if key] == ids
    for against in (tmp_path / "raw", *paths):
        assert not any(verify.verify(tmp_path / "out", against=[against]).values())


def test_without_a_dataset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify.main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path} holds no chunk_index.json")


def test_what_is_left_over_is_named_and_does_not_count(
    raw: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_pipeline(raw, tmp_path / "out")
    for name in ("chunk_0099.h5", ".chunk_0000.h5.123-0123abcd.tmp"):
        (tmp_path / "out" / name).touch()
    assert verify.main([str(tmp_path / "out")]) == 0
    assert "not part of the dataset, and not read: .chunk_0000.h5.123-0123abcd.tmp, chunk_0099.h5" in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize("name", ["processing_config.json", "chunk_summary.json", "failure_report.json"])
def test_records_of_another_directory_are_found(name: str, raw: list[Path], tmp_path: Path) -> None:
    bad = tmp_path / "raw" / "SRX7.h5ad"
    for out, paths in ((tmp_path / "one", raw), (tmp_path / "two", raw[:1])):
        bad.write_bytes(b"" if out.name == "one" else b"text")
        run_pipeline([*paths, bad], out, max_failed_fraction=0.5)
    assert not any(verify.verify(tmp_path / "one").values())
    flip(tmp_path / "one" / name)
    assert [file for file, fault in verify.verify(tmp_path / "one").items() if fault] == [name]
    if name != "failure_report.json":
        (tmp_path / "one" / name).write_bytes((tmp_path / "two" / name).read_bytes())
        assert "is not that of chunk_index.json" in (verify.verify(tmp_path / "one")[name] or "")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (flip, "its content does not match its checksum"),
        (lambda path: path.write_bytes(path.read_bytes()[:100]), "has 100 bytes instead of"),
        (Path.unlink, "is missing"),
    ],
    ids=["flipped", "cut", "missing"],
)
def test_a_damaged_report_of_genes_is_one_line(
    damage: Callable[[Path], object], said: str, raw: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_pipeline(raw, tmp_path / "out")
    damage(tmp_path / "out" / "gene_report.parquet")
    assert verify.main([str(tmp_path / "out"), "--against", str(tmp_path / "raw")]) == 1
    lines = capsys.readouterr().out.splitlines()
    (failed,) = (line for line in lines if line.startswith("FAIL"))
    assert failed.split(maxsplit=2)[1] == "gene_report.parquet"
    assert said in failed
    assert "no row was compared with an input: damaged files come first" in lines


def test_rows_are_compared_with_inputs_wherever_either_lies(raw: list[Path], store: RemotePath, tmp_path: Path) -> None:
    given, place = raw[0].parent, store.parent / "raw"
    run_pipeline(raw[:1], tmp_path / "out")
    run_pipeline(raw[1:], tmp_path / "out", append=True)
    put(tmp_path / "out", store)
    put(given, place)
    for directory, against in ((store, given), (tmp_path / "out", place), (store, place), (store, place / "SRX2.h5ad")):
        faults, told = verify.examine(directory, against=[against])
        n_rows = 6 if against == place / "SRX2.h5ad" else 12
        assert not any(faults.values()) and told.startswith(f"{n_rows} of 12 rows were compared with their input")
    assert not list(disk_cache().folder.glob("*/SRX*"))  # copies of inputs go once they are read
    with h5py.File(raw[1], "r+") as file:
        file["X"][3, 2] += 1
    objects.upload(raw[1], place / raw[1].name)
    found = [fault for fault in verify.verify(store, against=[place]).values() if fault]
    assert len(found) == 1 and found[0].endswith("differs from row 3 of SRX2.h5ad")
    with pytest.raises(ConfigError, match=f"--against {store.parent}/none: there is none of the 2 inputs of {store}"):
        verify.verify(store, against=[store.parent / "none"])
