from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from tests.support.pages import code_of, data_of, faults_of, table_of
from tests.support.wandb_records import read_runs
from tests.support.warm import run_python
from tests.training.conftest import run_train

from scvae_data.calling import command
from scvae_data.errors import ConfigError, SelectionError
from scvae_data.store.files import read_json
from scvae_data.training.metrics import read_rows
from scvae_data.training.sweep import SweepTable, table_text, write_table
from scvae_data.training.sweep_jobs import JobFile, Left, begin_sweep, continued_arguments, jobs_of, left_of
from scvae_data.training.sweep_plot import best_row, is_about_loading, sweep_figure, sweep_plot, swept_values
from scvae_data.training.sweep_report import sweep_report

GRID = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"
RESULT = {
    "val/loss": 812.5, "val/elbo": -812.5, "cells_per_s": 12345.678, "wait_share": 0.031, "hit_rate": 0.2083333,
    "predicted_hit_rate": 0.2083333, "bytes_read": 5_000_000, "holds_all_chunks": False,
}  # fmt: skip


def job(sweep_dir: Path, number: int, override: str, mode: RunMode = RunMode.MULTIRUN) -> DictConfig:
    """Configuration of a job that has begun, as its callback gets it."""
    run_dir = sweep_dir / str(number)
    run_dir.mkdir(parents=True)
    hydra = {
        "mode": mode,
        "runtime": {"output_dir": str(run_dir)},
        "sweep": {"dir": str(sweep_dir)},
        "job": {"num": number},
        "overrides": {"task": [override]},
    }
    config = OmegaConf.create({"hydra": hydra})
    if mode == RunMode.MULTIRUN and not (sweep_dir / "sweep.json").exists():
        begin_sweep(sweep_dir, GRID, 3, goes_on=False)
    SweepTable().on_job_start(config, task_function=print)
    return config


def ended(sweep_dir: Path, number: int, override: str, error: Exception | None = None, **result: Any) -> None:
    """Run a job that measures RESULT, or fails."""
    config = job(sweep_dir, number, override)
    if error is None:
        (sweep_dir / str(number) / "result.json").write_text(json.dumps(RESULT | result))
    status = JobStatus.COMPLETED if error is None else JobStatus.FAILED
    SweepTable().on_job_end(config, JobReturn(_return_value=error, status=status))


def test_a_row_per_job_as_it_ends(tmp_path: Path) -> None:
    ended(tmp_path, 0, "data.chunk_cache_size=1")
    assert [row["status"] for row in read_rows(tmp_path / "sweep_table.csv")] == ["completed"]
    ended(tmp_path, 1, "data.chunk_cache_size=16", holds_all_chunks=True)
    rows = read_rows(tmp_path / "sweep_table.csv")
    assert [row["overrides"] for row in rows] == ["data.chunk_cache_size=1", "data.chunk_cache_size=16"]
    assert [row["holds_all_chunks"] for row in rows] == ["False", "True"]
    assert rows[0]["hit_rate"] == rows[0]["predicted_hit_rate"] == "0.208333"
    assert rows[0]["val_loss"] == "812.5"
    shown = table_text(rows)
    assert "12,346" in shown
    assert "20.8 %" in shown
    assert shown.count("all in cache") == 1
    assert "error" not in shown  # no job has one


def test_failed_job_has_a_row_with_its_error(tmp_path: Path) -> None:
    error = SelectionError("batch_size=4096 exceeds the 1,200 cells selected;\nlower batch_size")
    ended(tmp_path, 0, "data.batch_size=4096", error)
    (row,) = read_rows(tmp_path / "sweep_table.csv")
    assert row["status"] == "failed"
    assert row["error"] == "batch_size=4096 exceeds the 1,200 cells selected;"
    assert row["cells_per_s"] == ""


def test_only_a_job_that_may_succeed_is_worth_going_on_with(tmp_path: Path) -> None:
    ended(tmp_path, 0, "model.n_latent=0", ConfigError("model: n_latent=0 must be at least 1"))
    assert left_of(tmp_path) == Left(tmp_path, 3, 3, [0])  # of three jobs two have not begun
    ended(tmp_path, 1, "model.n_latent=2", RuntimeError("out of memory"))
    ended(tmp_path, 2, "model.n_latent=3")
    left = left_of(tmp_path)
    assert (left.count, left.command) == (
        "2 of 3 jobs are not completed", f"{command('train')} resume_sweep={tmp_path}",
    )  # fmt: skip
    again = "would fail again: change what"
    assert left.refused == f"job 0 {again} its error names, and start it in a sweep of its own"
    page = sweep_report(tmp_path, write_table(tmp_path), ["-m", "model.n_latent=0,2,3"], {}, left)
    assert f"{left.count}; {left.refused}." in page
    assert any("resume_sweep=" in block for block in code_of(page))
    many = Left(tmp_path, 9, 5, range(5))
    assert (many.command, many.refused) == (
        "", f"jobs 0, 1, 2 and 2 more {again} their errors name, and start them in a sweep of its own",
    )  # fmt: skip


def test_single_run_has_no_table(tmp_path: Path) -> None:
    config = job(tmp_path, 0, "seed=1", RunMode.RUN)
    SweepTable().on_job_end(config, JobReturn(status=JobStatus.COMPLETED))
    assert [path.name for path in tmp_path.rglob("*")] == ["0"]


def test_the_picture_is_drawn_anew_with_every_job(tmp_path: Path) -> None:
    pictures = []
    for number, size in enumerate((1, 2)):
        ended(tmp_path, number, f"data.chunk_cache_size={size}", cells_per_s=1000 * size)
        pictures.append((tmp_path / "sweep_plot.png").read_bytes())
    ended(tmp_path, 2, "data.chunk_cache_size=0", SelectionError("no such thing"))
    pictures.append((tmp_path / "sweep_plot.png").read_bytes())
    assert all(picture.startswith(b"\x89PNG") for picture in pictures)
    assert len(set(pictures)) == 3
    assert not list(tmp_path.glob("*.tmp"))


# --- jobs as files ----------------------------------------------------------------------------------------------------


def test_a_job_that_runs_is_told_from_one_that_was_killed(tmp_path: Path) -> None:
    begin_sweep(tmp_path, GRID, 2, goes_on=False)
    killed = (
        "import os, sys; from pathlib import Path; from scvae_data.training.sweep_jobs import JobFile\n"
        "JobFile(Path(sys.argv[1])).begin(['seed=0']); os._exit(9)"
    )
    for number in (0, 1):
        (tmp_path / str(number)).mkdir()
    run_python("-c", killed, tmp_path / "0", cwd=tmp_path)
    running = JobFile(tmp_path / "1")
    running.begin(["seed=1"])
    assert [(found["job"], found["status"]) for found in jobs_of(tmp_path)] == [(0, "killed"), (1, "running")]
    running.end("completed")
    assert [row["status"] for row in write_table(tmp_path)] == ["killed", "completed"]


def test_jobs_that_end_at_the_same_time_all_stand_in_the_table(tmp_path: Path) -> None:
    begin_sweep(tmp_path, GRID, 9, goes_on=False)
    ends = """
import os, sys, time
from pathlib import Path
from scvae_data.training import metrics, sweep
from scvae_data.training.sweep_jobs import JobFile

def slowly(*arguments, write=metrics.write_atomic):
    time.sleep(1.5)
    write(*arguments)

for first in range(3):
    if os.fork() == 0:
        for number in range(first, 9, 3):
            run_dir = Path(sys.argv[1], str(number))
            run_dir.mkdir()
            job = JobFile(run_dir)
            job.begin([f"seed={number}"])
            if number == 6:  # it looks before jobs 7 and 8 end, and writes after them
                metrics.write_atomic = slowly
            elif number > 6:
                time.sleep(0.7)
            job.end("completed")
            sweep.write_table(run_dir.parent)
        os._exit(0)
assert [os.wait()[1] for _ in range(3)] == [0, 0, 0]
"""
    done = run_python("-c", ends, tmp_path, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = read_rows(tmp_path / "sweep_table.csv")
    assert [(row["job"], row["status"]) for row in rows] == [(str(number), "completed") for number in range(9)]


def test_what_another_sweep_left_in_the_directory_does_not_count(tmp_path: Path) -> None:
    ended(tmp_path, 7, "seed=7")
    begin_sweep(tmp_path, GRID, 1, goes_on=False)
    assert jobs_of(tmp_path) == []


def test_a_sweep_that_goes_on_is_started_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", "-m", "seed=1,2", "hydra/launcher=joblib", "hydra.sweep.dir=here"])
    monkeypatch.chdir(tmp_path)
    begin_sweep(tmp_path / "it's here", GRID, 2, goes_on=False)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    found = continued_arguments(["resume_sweep=../it's here", "hydra/launcher=basic"])
    place = str(tmp_path).replace("'", r"\'") + r"/elsewhere/../it\'s here"
    assert found == [
        "-m", "seed=1,2", "hydra/launcher=basic",
        "hydra.sweeper._target_=hydra_plugins.scvae_data_sweeps.MissingJobs",
        f"hydra.sweep.dir='{place}'", f"resume_sweep='{place}'",
    ]  # fmt: skip
    assert Path.cwd() == tmp_path
    assert continued_arguments(["seed=1"]) == ["seed=1"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resume_sweep=absent"], r"resume_sweep=absent has no sweep\.json; give the directory of a sweep"),
        (["resume_sweep=it", "model.lr=0.1"], r"as it was started; leave out model\.lr=0\.1"),
        (["resume_sweep=other"], "sweeps by somebody.Sweeper cannot go on"),
    ],
)
def test_a_sweep_that_cannot_go_on_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    begin_sweep(tmp_path / "it", GRID, 2, goes_on=False)
    begin_sweep(tmp_path / "other", "somebody.Sweeper", 2, goes_on=False)
    with pytest.raises(ConfigError, match=message):
        continued_arguments(arguments)


# --- what a sweep is about --------------------------------------------------------------------------------------------


def test_the_objective_comes_first_and_the_best_is_marked(tmp_path: Path) -> None:
    for number, elbo in enumerate((-900.0, -800.0, -850.0)):
        ended(tmp_path, number, f"model.n_latent={number + 2}", **{"val/elbo": elbo})
    rows = read_rows(tmp_path / "sweep_table.csv")
    assert [row["best"] for row in rows] == ["", "best", ""]
    head, *lines = table_text(rows).splitlines()
    assert head.index("val elbo") < head.index("cells per s")
    assert [line.split()[:4] for line in lines if " best " in line] == [["1", "completed", "model.n_latent=3", "best"]]


def test_the_cache_comes_first_where_only_loading_is_swept(tmp_path: Path) -> None:
    for number in range(2):
        ended(tmp_path, number, f"data.chunk_cache_size={number + 2}")
    rows = read_rows(tmp_path / "sweep_table.csv")
    assert [row["best"] for row in rows] == ["", ""]  # all have the same objective
    head = table_text(rows).splitlines()[0]
    assert head.index("hit rate") < head.index("val elbo")


def rows(*overrides: str) -> list[dict[str, str]]:
    return [{"job": str(number), "overrides": text} for number, text in enumerate(overrides)]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (("a=1 b=2", "a=3 b=2"), ("a", ["1", "3"])),
        (("a=1", "b=2"), ("settings", ["a=1", "b=2"])),
        (("a=1", "a=1 b=2"), ("b", ["default", "2"])),
        (("a=1 b=x", "a=2 b=y"), ("settings", ["a=1, b=x", "a=2, b=y"])),
        (("a=1",), ("job", ["0"])),
    ],
)
def test_the_axis_is_what_differs(overrides: tuple[str, ...], expected: tuple[str, list[str]]) -> None:
    assert swept_values(rows(*overrides)) == expected


@pytest.mark.parametrize(
    ("overrides", "loading"),
    [
        (("data.num_threads=1", "data.num_threads=2"), True),
        (("data.num_threads=1 data.range_rows=5", "data.num_threads=2"), True),
        (("data.num_threads=1 seed=1", "data.num_threads=2 seed=2"), False),
        (("data.batch_size=1", "data.batch_size=2"), False),
        (("data.num_threads=1",), False),
    ],
)
def test_what_a_sweep_is_about(overrides: tuple[str, ...], loading: bool) -> None:
    assert is_about_loading(rows(*overrides)) is loading


def test_only_a_completed_job_is_the_best() -> None:
    measured = [("completed", "-3"), ("failed", "-1"), ("completed", "nan"), ("completed", "-2"), ("running", "")]
    some = [
        row | {"status": status, "val_elbo": elbo} for row, (status, elbo) in zip(rows(*"abcde"), measured, strict=True)
    ]
    assert best_row(some) == 3
    assert best_row(some[2:3]) is None


@pytest.mark.parametrize("values", [("a", "b"), ("1", "16"), ("1e-3", "1"), ("2", "2"), ("-1", "0")])
def test_any_values_can_be_drawn(tmp_path: Path, values: tuple[str, ...]) -> None:
    measured = dict.fromkeys(("cells_per_s", "wait_share", "hit_rate", "predicted_hit_rate"), "0.5")
    status = {"status": "completed", "val_elbo": "-0.5"}
    sweep_plot([row | measured | status for row in rows(*(f"x={value}" for value in values))], tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 1000


def test_many_settings_can_be_drawn(tmp_path: Path) -> None:
    measured = dict.fromkeys(("cells_per_s", "wait_share", "val_elbo"), "0.5") | {"status": "completed"}
    settings = [
        f"model.lr=0.00{number}1229607110732572 model.dropout=0.{number}1270964398016714" for number in range(9)
    ]
    sweep_plot([row | measured for row in rows(*settings)], tmp_path / "plot.png")  # a layout that fails would warn
    assert (tmp_path / "plot.png").stat().st_size > 1000


@pytest.mark.parametrize("measured", ["-800.0", ""], ids=["another completed", "all failed"])
def test_a_job_that_failed_has_no_height(measured: str) -> None:
    empty = dict.fromkeys(("cells_per_s", "wait_share", "hit_rate", "predicted_hit_rate", "val_elbo"), "")
    failed, other = (row | empty | {"status": "failed"} for row in rows("x=1", "x=2"))
    if measured:
        other |= {"status": "completed", "val_elbo": measured}
    figure = sweep_figure([failed, other])
    figure.canvas.draw()
    for axis in figure.axes:
        (cross,) = (line for line in axis.lines if line.get_label() == "not completed")
        drawn = cross.get_transform().transform(cross.get_xydata())
        assert len(drawn) == (1 if measured else 2)
        assert (drawn[:, 1] < axis.bbox.y0).all()
    objective = figure.axes[0]
    assert objective.get_yticks().size or not measured
    assert [text.get_text() for text in objective.texts] == ([] if measured else ["nothing measured"])


def test_choices_are_no_line_and_many_jobs_have_some_ticks() -> None:
    measured = dict.fromkeys(("cells_per_s", "wait_share", "val_elbo"), "0.5") | {"status": "completed"}
    numbers = sweep_figure([row | measured for row in rows(*(f"x={number}" for number in range(40)))])
    words = sweep_figure([row | measured for row in rows("x=nb", "x=zinb")])
    assert [figure.axes[1].lines[0].get_linestyle() for figure in (numbers, words)] == ["-", "None"]
    assert 5 <= len(numbers.axes[1].get_xticks()) <= 12


class Swept(NamedTuple):
    """A sweep that has ended: its directory, and what the program printed."""

    path: Path
    done: subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def swept(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Swept:
    """Three jobs, of which the second fails."""
    folder = tmp_path_factory.mktemp("sweep")
    settings = [
        "-m", "data.chunk_cache_size=1,0,4", "trainer=quick", "trainer.max_epochs=1", "outputs=none",
        "data.batch_size=64", "model.n_hidden=16", f"paths.processed_dir={dataset}", f"hydra.sweep.dir={folder}/sweep",
    ]  # fmt: skip
    return Swept(folder / "sweep", run_train(folder, *settings))


def test_a_sweep_goes_on_after_a_failing_job_and_fails(swept: Swept) -> None:
    assert swept.done.returncode == 1
    table = read_rows(swept.path / "sweep_table.csv")
    assert [row["status"] for row in table] == ["completed", "failed", "completed"]
    assert table[1]["error"] == "chunk_cache_size=0 must be a whole number of at least 1"
    assert all(float(row["cells_per_s"]) > 0 for row in (table[0], table[2]))


def test_a_sweep_prints_its_table_once_and_draws_it(swept: Swept) -> None:
    assert swept.done.stdout.count("data.chunk_cache_size=0") == 1  # in the table
    # Where it begins, and where it fails.
    assert [line.split(maxsplit=2)[2] for line in swept.done.stderr.splitlines() if "job 1 " in line] == [
        "job 1 (2 of 3): data.chunk_cache_size=0, in sweep/1",
        "job 1 failed: chunk_cache_size=0 must be a whole number of at least 1",
    ]
    assert swept.done.stderr.count("must be a whole number of at least 1") == 1
    assert "Error executing" not in swept.done.stderr
    assert "must be a whole number of at least 1" in swept.done.stdout
    assert (swept.path / "sweep_plot.png").is_file()


def test_a_sweep_ends_with_a_page_that_leads_to_those_of_its_jobs(swept: Swept) -> None:
    assert "sweep/report.html" in swept.done.stdout.splitlines()
    page = (swept.path / "report.html").read_text()
    assert "3 jobs, 2 completed" in page
    assert "1 of 3 jobs are not completed" in page
    table = table_of(page, "jobs")
    assert table["job"] == ["job 0", "job 1", "job 2"]
    assert table["data.chunk_cache_size"] == ["1", "0", "4"]
    assert table["status"] == ["completed", "failed", "completed"]
    assert "<dt>job 1</dt><dd>chunk_cache_size=0 must be a whole number of at least 1</dd>" in page
    links = data_of(page)["tables"]["jobs"]["columns"][0]["links"]
    assert links == ["0/report.html", None, "2/report.html"]
    assert all((swept.path / link).is_file() for link in links if link)
    assert "job 1 would fail again" in page and "job 1 would fail again" in swept.done.stdout
    assert not any("resume_sweep=" in text for text in (*code_of(page), swept.done.stdout))


def test_the_best_job_is_named_first(tmp_path: Path) -> None:
    for number in range(2):
        ended(tmp_path, number, f"model.n_latent={10 * (number + 1)}", **{"val/elbo": -800.0 + number})
    rows = write_table(tmp_path)
    page = sweep_report(
        tmp_path, rows, ["-m", "model.n_latent=10,20"], {"sweep_plot.png": "the jobs"}, Left(tmp_path, 2, 0)
    )
    assert "Job 1 is the best: model.n_latent=20, validation ELBO -799.0." in page
    assert data_of(page)["tables"]["jobs"]["order"] == list(table_of(page, "jobs")).index("ELBO")
    assert 'alt="the jobs"' in page
    assert faults_of(page) == []
    assert not any("resume_sweep=" in block for block in code_of(page))  # nothing was cut off
    assert "1/checkpoints/best.ckpt" in "".join(code_of(page))


def test_the_runs_of_a_sweep_share_a_group_with_its_summary(swept: Swept) -> None:
    runs = {run.name: run for run in read_runs(swept.path)}
    assert set(runs) == {"sweep_0", "sweep_2", "sweep_summary"}
    assert {run.group for run in runs.values()} == {"sweep"}
    summary = runs["sweep_summary"]
    assert summary.exit_code == 1
    assert any(name.startswith("media/images/sweep_plot") for name in summary.files), summary.files
    assert any(name.startswith("media/table/sweep_table") for name in summary.files), summary.files


# --- a sweep that is cut off ------------------------------------------------------------------------------------------

STEPS = 36  # of each job
TO_BE_CUT = (
    "-m", "model.n_latent=2,3,4", "trainer=default", "trainer.max_epochs=4", "trainer.accelerator=cpu", "outputs=none",
    "logger=csv", "data.batch_size=64", "model.n_hidden=16", "model.dropout=0.3", "callbacks.early_stopping=null",
    "callbacks.progress_bar=null",
)  # fmt: skip


def weights(sweep_dir: Path, number: int) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(sweep_dir / str(number) / "checkpoints" / "last.ckpt", weights_only=True)
    return found["state_dict"] | {"global_step": torch.tensor(found["global_step"])}


@pytest.fixture(scope="module")
def uncut(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uncut")
    done = run_train(folder, *TO_BE_CUT, f"paths.processed_dir={dataset}", "hydra.sweep.dir=sweep")
    assert done.returncode == 0, done.stderr
    assert "job 1 (2 of 3): model.n_latent=" in done.stderr
    return folder / "sweep"


@pytest.mark.parametrize(
    ("signum", "exit_status", "status"),
    [(signal.SIGTERM, 143, "interrupted"), (signal.SIGKILL, -signal.SIGKILL, "killed")],
)
def test_a_sweep_that_was_cut_off_goes_on_and_ends_as_if_it_had_not_been(
    dataset: Path, tmp_path: Path, uncut: Path, signum: signal.Signals, exit_status: int, status: str
) -> None:
    options = [*TO_BE_CUT, f"paths.processed_dir={dataset}", "hydra.sweep.dir=sweep"]
    cut = run_train(tmp_path, *options, at=STEPS + 20, signum=signum)
    assert cut.returncode == exit_status, cut.stderr
    sweep_dir = tmp_path / "sweep"
    assert [row["status"] for row in write_table(sweep_dir)] == ["completed", status]
    if status == "interrupted":
        assert f"stopped by SIGTERM; to go on with the sweep: scvae-data train resume_sweep={sweep_dir}\n" in cut.stderr
        assert (
            f"2 of 3 jobs are not completed; to go on with them: scvae-data train resume_sweep={sweep_dir}"
            in cut.stdout
        )
    first = (sweep_dir / "0" / "job.json").stat().st_mtime_ns
    done = run_train(tmp_path, "resume_sweep=sweep")
    assert done.returncode == 0, done.stderr
    assert "2 of 3 jobs are to be done" in done.stderr
    assert "job 1 (2 of 3): " in done.stderr
    assert "the run continues from" in done.stderr
    assert (sweep_dir / "0" / "job.json").stat().st_mtime_ns == first
    mine, theirs = (read_rows(path / "sweep_table.csv") for path in (sweep_dir, uncut))
    for name in ("job", "status", "overrides", "best", "val_elbo"):
        assert [row[name].replace(str(tmp_path), "") for row in mine] == [row[name] for row in theirs]
    for number in range(3):
        expected = weights(uncut, number)
        assert all(torch.equal(value, expected[name]) for name, value in weights(sweep_dir, number).items())
    assert read_json(sweep_dir / "1" / "job.json")["overrides"] == read_json(uncut / "1" / "job.json")["overrides"]


@pytest.mark.services
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_jobs_in_processes_of_their_own_share_a_table(launcher: str, dataset: Path, tmp_path: Path) -> None:
    options = [
        *TO_BE_CUT,
        "model.n_latent=2",
        "data.batch_size=64,0",
        "trainer.max_epochs=1",
        f"paths.processed_dir={dataset}",
    ]
    done = run_train(tmp_path, *options, f"hydra/launcher={launcher}", "hydra.sweep.dir=sweep")
    assert done.returncode == 1, done.stderr
    rows = read_rows(tmp_path / "sweep" / "sweep_table.csv")
    assert [(row["job"], row["status"], row["best"]) for row in rows] == [
        ("0", "completed", "best"),
        ("1", "failed", ""),
    ]
    assert "batch_size=0 must be" in rows[1]["error"]
    assert done.stdout.count("batch_size=0 must be") == 1  # in the table
    assert "1 of 2 jobs are not completed" in done.stdout


def test_a_sweep_that_is_complete_has_nothing_to_do(uncut: Path) -> None:
    done = run_train(uncut.parent, f"resume_sweep={uncut}")
    assert done.returncode == 0, done.stderr
    assert "0 of 3 jobs are to be done" in done.stderr
    assert done.stdout.count("completed") == 3
