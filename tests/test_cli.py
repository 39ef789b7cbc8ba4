"""The console script: dispatch, `info`, and messages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import scvae_data
from scvae_data import cli


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["scvae-data", *arguments])
    cli.main()


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_help_names_every_command(
    arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, *arguments)
    printed = capsys.readouterr().out
    results = ("latents", "elbo", "express", "ppc", "de", "card")
    commands = (
        "process",
        "train",
        *results,
        "info",
        "diversity",
        "verify",
        "why",
        "diff",
        "upgrade",
        "compact",
        "compile",
        "completion",
    )
    assert all(f"  {command} " in printed for command in commands)


def test_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run(monkeypatch, "--version")
    assert capsys.readouterr().out == f"scvae-data {scvae_data.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("info",), "error: the following arguments are required: DIR; usage: scvae-data info [-h] DIR"),
        (
            ("why", "a"),
            "error: the following arguments are required: SRX|FILE; usage: scvae-data why [-h] DIR SRX|FILE",
        ),
        (("diversity",), "error: the following arguments are required: DIR; usage: scvae-data diversity [-h] DIR"),
        (("info", "a", "b"), "error: unrecognized arguments: b; usage: scvae-data info [-h] DIR"),
        (("verify", "a", "--dep"), "error: unrecognized arguments: --dep; usage: scvae-data verify [-h] [--deep]"),
    ],
)
def test_mistakes(
    arguments: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        run(monkeypatch, *arguments)
    told = capsys.readouterr().err
    assert caught.value.code == 2
    assert told.startswith(message)
    assert told.count("\n") == 1


@pytest.mark.parametrize(("written", "meant"), [("proces", "process"), ("inf", "info"), ("verfy", "verify")])
def test_a_command_that_is_written_otherwise(written: str, meant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit) as caught:
        run(monkeypatch, written)
    message = f"error: {written!r} is not a command; did you mean {meant}? scvae-data --help has them all"
    assert caught.value.code == message


def test_a_command_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit) as caught:
        run(monkeypatch, "zzz")
    results = "latents, elbo, express, ppc, de, card"
    names = (
        f"process, train, {results}, info, diversity, verify, report, why, diff, upgrade, compact, compile, completion"
    )
    message = f"error: 'zzz' is not a command; there are {names}"
    assert caught.value.code == message


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("info", "holds"),
        ("express", "--transform-batch"),
        ("de", "--group1 FILTER"),
        ("ppc", "--where FILTER"),
        ("diversity", "random order"),
        ("verify", "--against SOURCE"),
        ("why", "BARCODE"),
        ("diff", "OTHER"),
        ("upgrade", "present version"),
        ("compact", "TARGET"),
    ],
)
def test_every_command_has_help(
    command: str, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        run(monkeypatch, command, "--help")
    printed = capsys.readouterr().out
    assert caught.value.code == 0
    assert printed.startswith(f"usage: scvae-data {command} ")
    assert words in printed
    assert "DIR" in printed


@pytest.mark.parametrize("command", ["process", "train"])
def test_programs_get_the_rest_of_the_command_line(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    monkeypatch.setattr(f"scvae_data.commands.{command}.main", lambda: seen.append(sys.argv))
    run(monkeypatch, command, "chunk_size=5", "-m")
    assert seen == [[f"scvae-data {command}", "chunk_size=5", "-m"]]


@pytest.mark.parametrize(("arguments", "started"), [(["engine=local", "seed=5"], ["workers"]), (["seed=5"], [])])
def test_workers_start_while_modules_are_imported(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], started: list[str]
) -> None:
    seen: list[str] = []
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    monkeypatch.setattr("scvae_data.processing.engine.workers.preload", lambda: seen.append("workers"))
    monkeypatch.setattr("scvae_data.commands.process.main", lambda: seen.append("program"))
    run(monkeypatch, "process", *arguments)
    assert seen == [*started, "program"]


@pytest.mark.parametrize("module", ["scvae_data", "scvae_data.cli"])
def test_the_package_runs_as_a_module(module: str, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", module, "verify", tmp_path], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {tmp_path} holds no chunk_index.json")


def test_info_on_a_directory_without_a_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit) as caught:
        run(monkeypatch, "info", str(tmp_path))
    assert isinstance(caught.value.code, str)
    assert caught.value.code.startswith("error: ")
    assert "scvae-data process" in caught.value.code
    assert "\n" not in caught.value.code


@pytest.mark.parametrize("script", ["process.py", "train.py"])
def test_top_level_scripts_are_for_any_directory(script: str, tmp_path: Path) -> None:
    path = Path(__file__).parents[1] / script
    result = subprocess.run([sys.executable, str(path), "--cfg", "job"], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "chunk_size:" in result.stdout
    assert list(tmp_path.iterdir()) == []
