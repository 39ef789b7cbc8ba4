"""Jobs of a sweep over the share of training cells in; what more cells bring, as numbers, picture and sentence, out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scvae_data.report.colours import BLUE, GREEN, ORANGE
from scvae_data.store.files import read_json, write_atomic, write_json
from scvae_data.store.names import RUN_FILE
from scvae_data.training.scores import SCORES
from scvae_data.training.sweep_jobs import settings_in
from scvae_data.wording import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["FILE", "PLOT", "Share", "sentence_of", "told_of", "write_saturation"]

FILE, PLOT = "saturation.json", "saturation.png"
FRACTION = "data.train_fraction"
ENOUGH = 0.05
"""Share of what the ELBO gains from the smallest share to all cells that may be lost."""
LEAST_EXPERIMENTS = 20
"""Fewer are no sample of experiments: resampling them says nothing."""
LEAST_CELLS = 20
REPLICATES, TOGETHER = 2000, 50
INTERVAL = 2.5, 97.5


@dataclass(frozen=True, eq=False)
class Share:
    """What models of one share of the training cells came to, in all runs."""

    fraction: float
    n_cells: int
    sums: list[NDArray[np.float64]]
    """Of each run, the sum of ELBO over the cells of each unit that is resampled."""
    scores: dict[str, list[float]] = field(default_factory=dict)

    def elbo(self, n_held_out: float) -> float:
        """Mean over cells and runs, in nats."""
        return float(np.mean([sums.sum() for sums in self.sums]) / n_held_out)


def write_saturation(sweep_dir: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """Write ``saturation.json`` and ``saturation.png`` of the completed jobs, where these have shares of the cells.

    Parameters
    ----------
    sweep_dir
        With a directory for each job.
    rows
        Of the sweep's table.
    """
    done = [row for row in rows if row["status"] == "completed"]
    runs = [sweep_dir / row["run_dir"] for row in done]
    fractions = [float(settings_in(row).get(FRACTION, 1.0)) for row in done]
    if len(set(fractions)) < 2 or not all((run / "experiment_scores.parquet").is_file() for run in runs):
        return
    shares, weights, facts = _shares(runs, fractions)
    if not shares:
        write_json(sweep_dir / FILE, facts)
        return
    facts |= compared(shares, weights) | {"sentence": ""}
    facts["sentence"] = sentence_of(facts)
    write_json(sweep_dir / FILE, facts)
    _draw(facts, sweep_dir / PLOT)


def told_of(sweep_dir: Path) -> list[str]:
    """Lines on the saturation of a sweep, with the files; none where it has no such."""
    if not (sweep_dir / FILE).is_file():
        return []
    files = [str(sweep_dir / name) for name in (FILE, PLOT) if (sweep_dir / name).is_file()]
    return [read_json(sweep_dir / FILE)["sentence"], *files]


def compared(shares: Sequence[Share], weights: NDArray[np.float64], seed: int = 0) -> dict[str, Any]:
    """Held-out ELBO of each share, and what it lacks to that of the largest, with a bootstrap interval.

    Units of held-out cells are drawn with replacement, the same for all shares,
    and the runs of each share likewise.

    Parameters
    ----------
    shares
        From the smallest to the largest.
    weights
        Held-out cells of each unit.
    seed
        Of the bootstrap.
    """
    rng, gaps = np.random.default_rng(seed), []
    for _ in range(0, REPLICATES, TOGETHER):
        drawn = rng.multinomial(weights.size, np.full(weights.size, 1 / weights.size), size=TOGETHER)
        n_cells = drawn @ weights
        means = []
        for share in shares:
            n_runs = len(share.sums)
            of_runs = rng.multinomial(n_runs, np.full(n_runs, 1 / n_runs), size=TOGETHER) / n_runs
            means.append((drawn @ np.array(share.sums).T * of_runs).sum(axis=1) / n_cells)
        gaps.append(means[-1] - np.array(means))
    low, high = np.percentile(np.concatenate(gaps, axis=1), INTERVAL, axis=1)
    elbo = [share.elbo(weights.sum()) for share in shares]
    return {
        "n_units": int(weights.size),
        "n_held_out": int(weights.sum()),
        "shares": [
            {
                "fraction": share.fraction,
                "n_cells": share.n_cells,
                "n_runs": len(share.sums),
                "elbo": mean,
                "gap": elbo[-1] - mean,
                "gap_low": float(low[number]),
                "gap_high": float(high[number]),
                **{name: float(np.mean(values)) for name, values in share.scores.items() if values},
            }
            for number, (share, mean) in enumerate(zip(shares, elbo, strict=True))
        ],
    }


def sentence_of(facts: Mapping[str, Any]) -> str:
    """Say how many cells suffice, to within what, and how sure that is."""
    shares, units = facts["shares"], facts["units"]
    whole, gain = shares[-1], shares[0]["gap"]
    chosen = next(share for share in shares if share["gap"] <= ENOUGH * max(gain, 0.0))
    seeds = "" if min(share["n_runs"] for share in shares) > 1 else "; one seed, whose own part is not in it"
    how = f"bootstrap over {facts['n_units']:,} {units}{seeds}"
    if chosen is whole:
        last = shares[-2]
        return (
            f"No smaller share suffices: from {last['n_cells']:,} to {whole['n_cells']:,} cells the held-out ELBO "
            f"rises by {_gap(last)} ({how})"
        )
    return (
        f"{chosen['n_cells']:,} cells suffice to within {_gap(chosen)} of all {whole['n_cells']:,}; from "
        f"{shares[0]['n_cells']:,} cells to all the held-out ELBO gains {gain:,.2f} ({how})"
    )


def _gap(share: Mapping[str, Any]) -> str:
    return f"{share['gap']:,.2f} nats per cell (95 % interval {share['gap_low']:,.2f} to {share['gap_high']:,.2f})"


def _shares(
    runs: Sequence[Path], fractions: Sequence[float]
) -> tuple[list[Share], NDArray[np.float64], dict[str, Any]]:
    """The runs by share, held-out cells of each unit, and what units are; no share where cells differ."""
    from scvae_data.training.experiment_scores import read_scores

    found = [read_scores(run / "experiment_scores.parquet") for run in runs]
    tables = [one.table.set_index("srx_accession").sort_index() for one in found]
    blocks = [one.blocks for one in found]
    if any(not np.array_equal(one[:, 0], blocks[0][:, 0]) for one in blocks):
        sentence = "The jobs have held out different cells: what more cells bring is not known"
        return [], np.zeros(0), {"sentence": sentence}
    n_cells = tables[0]["n_cells"].to_numpy(np.float64)
    if np.count_nonzero(n_cells >= LEAST_CELLS) >= LEAST_EXPERIMENTS:
        units, weights = "experiments", n_cells
        sums = [table["elbo"].to_numpy() * n_cells for table in tables]
    else:
        some = blocks[0][:, 0] > 0
        units, weights = f"blocks of held-out cells of {counted(len(n_cells), 'experiment')}", blocks[0][some, 0]
        sums = [one[some, 1] for one in blocks]
    shares: dict[float, Share] = {}
    for run, fraction, of_units in sorted(zip(runs, fractions, sums, strict=True), key=lambda one: one[1]):
        n_train = int(json.loads((run / RUN_FILE).read_text())["facts"]["n_train"])
        share = shares.setdefault(fraction, Share(fraction, n_train, [], {name: [] for name in SCORES}))
        share.sums.append(of_units)
        result = json.loads((run / "result.json").read_text())
        for name in SCORES:
            if name in result:
                share.scores[name].append(result[name])
    return list(shares.values()), weights, {"part": found[0].part, "units": units}


def _draw(facts: Mapping[str, Any], png: Path) -> None:
    from scvae_data.training.plots import new_figure, png_bytes

    shares = facts["shares"]
    scored = [name for name in SCORES if any(name in share for share in shares)]
    figure, axes = new_figure(2 if scored else 1)
    x, elbo = (np.array([share[name] for share in shares]) for name in ("n_cells", "elbo"))
    # An interval of differences to the last point, around the others.
    around = [np.array([max(0.0, side * (share[end] - share["gap"])) for share in shares])
              for side, end in ((1, "gap_high"), (-1, "gap_low"))]  # fmt: skip
    axes[0].axhline(elbo[-1], color="0.7", lw=0.8, ls="--", zorder=0)
    axes[0].errorbar(x, elbo, around, color=BLUE, marker="o", markersize=5, capsize=3)
    part = {"test": "test", "val": "validation"}.get(facts["part"], "all")
    axes[0].set(title=f"ELBO of {facts['n_held_out']:,} {part} cells", ylabel="nats per cell")
    if scored:
        for name, colour, marker in zip(scored, (ORANGE, GREEN), "sD", strict=False):
            points = [(share["n_cells"], share[name]) for share in shares if name in share]
            label = name.replace("_", " ")
            axes[1].plot(*zip(*points, strict=True), color=colour, marker=marker, markersize=5, label=label)
        axes[1].set(title="Latents", ylabel="score, 0 to 1")
        axes[1].legend(frameon=False)
    for axis in axes:
        _label(axis, shares)
    figure.suptitle(facts["sentence"].rpartition(" (")[0], fontsize=9)  # the file tells how the interval was found
    write_atomic(png, png_bytes(figure))


def _label(axis: Axes, shares: Sequence[Mapping[str, Any]]) -> None:
    axis.set_xscale("log")
    axis.minorticks_off()
    names = [f"{share['n_cells']:,}\n{100 * share['fraction']:g} %" for share in shares]
    axis.set_xticks([share["n_cells"] for share in shares], names, fontsize=8)
    axis.set_xlabel("training cells")
