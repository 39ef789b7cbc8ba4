"""Rows of a sweep's table in, one HTML page about the sweep out, with links to the pages of its jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from scvae_data.calling import command, override
from scvae_data.report.page import Column, Picture, Table, page
from scvae_data.training.pages import REPORT
from scvae_data.training.sweep_jobs import Left, settings_in
from scvae_data.training.sweep_plot import best_row, differing_settings, is_about_loading
from scvae_data.wording import counted

__all__ = ["sweep_report"]

Row = Mapping[str, str]

SECTIONS = {"jobs": "Jobs", "pictures": "Pictures", "next": "How to go on", "made": "How it was made"}
MOST_ERRORS = 20
NUMBERS = {
    "ELBO": ("val_elbo", 1.0, 1, "of validation cells by the best checkpoint, in nats per cell; higher is better"),
    "cells/s": ("cells_per_s", 1.0, 0, "speed of training; higher is better"),
    "% waiting": ("wait_share", 100.0, 1, "of the training time, waiting on data; lower is better"),
    "% cache": ("hit_rate", 100.0, 1, "of chunks found in memory; higher is better"),
    "MB read": ("bytes_read", 1e-6, 1, "of chunks, compressed; lower is better"),
}
"""Title → column of the sweep's table, factor, decimal places, what it means."""


def sweep_report(
    sweep_dir: Path,
    rows: Sequence[Row],
    arguments: Sequence[str],
    pictures: Mapping[str, str],
    left: Left,
    *,
    told: str = "",
) -> str:
    """Tell which job did best, what each of them came to, and how to go on.

    Parameters
    ----------
    sweep_dir
        Has a directory for each job.
    rows
        Of the sweep's table.
    arguments
        What the sweep was started with.
    pictures
        What each picture of the directory shows, by its file name.
    left
        What is not completed.
    told
        A sentence on what more cells bring.
    """
    n_completed = sum(row["status"] == "completed" for row in rows)
    shown = {name: text for name, text in pictures.items() if (sweep_dir / name).is_file()}
    return page(
        "sweep.html",
        {},
        {"jobs": _jobs(sweep_dir, rows)},
        title=f"Sweep {sweep_dir.resolve().name}",
        lead=f"{counted(len(rows), 'job')}, {n_completed:,} completed",
        sections=SECTIONS,
        best=_best(rows),
        told=told,
        left=[text for text in (left.count, left.refused) if text],
        errors=[(f"job {row['job']}", row["error"]) for row in rows if row["error"]],
        most_errors=MOST_ERRORS,
        pictures=[Picture(sweep_dir / name, text, text) for name, text in shown.items()],
        next=_next(sweep_dir, rows, arguments, left),
        command=command("train", *arguments),
        files={"directory": str(sweep_dir.absolute()), "pictures": ", ".join(shown), "each job": "0/, 1/, …"},
    )


def _jobs(sweep_dir: Path, rows: Sequence[Row]) -> Table:
    names = differing_settings(rows)
    settings = [settings_in(row) for row in rows]
    pages = [f"{row['run_dir']}/{REPORT}" for row in rows]
    links = [address if (sweep_dir / address).is_file() else None for address in pages]
    measured = [
        Column(title, [_number(row[name], factor, digits) for row in rows], digits, about)
        for title, (name, factor, digits, about) in NUMBERS.items()
        if any(row[name] for row in rows)
    ]
    of_objective = [column for column in measured if column.title == "ELBO"]
    columns = [
        Column("job", [f"job {row['job']}" for row in rows], links=links),
        Column("status", [f"{row['status']}, best" if row["best"] else row["status"] for row in rows]),
        *of_objective,
        *(Column(name, [one.get(name) for one in settings]) for name in names),
        *(column for column in measured if column not in of_objective),
    ]
    titles = [column.title for column in columns]
    by_objective = "ELBO" in titles and not is_about_loading(rows)
    return Table(columns, order=titles.index("ELBO") if by_objective else None)


def _number(text: str, factor: float, digits: int) -> float | None:
    return None if text in ("", "nan") else round(factor * float(text), digits)


def _best(rows: Sequence[Row]) -> str:
    """Say which job did best; empty where all lead to the same model."""
    best = best_row(rows)
    if best is None:
        return ""
    row, differing = rows[best], differing_settings(rows)
    settings = [part for part in row["overrides"].split(" ") if part.partition("=")[0] in differing]
    return f"Job {row['job']} is the best: {', '.join(settings)}, validation ELBO {float(row['val_elbo']):,.1f}."


def _next(sweep_dir: Path, rows: Sequence[Row], arguments: Sequence[str], left: Left) -> dict[str, str]:
    found = {"Jobs that are missing or were cut off": left.command} if left.command else {}
    if left.failing:
        found["This sweep, with other values for those that were refused"] = command("train", *arguments)
    best = best_row(rows)
    if best is not None:
        run_dir = sweep_dir.absolute() / rows[best]["run_dir"]
        ckpt = override("ckpt", run_dir / "checkpoints" / "best.ckpt")
        found["The best model on the cells of a directory"] = command(
            "train", "mode=embed", ckpt, "paths.processed_dir=DIR"
        )
        found["Its settings, for longer"] = command("train", override("resume_from", run_dir), "trainer.max_epochs=N")
    return found
