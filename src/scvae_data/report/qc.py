"""A finished directory in, the page that tells what became of its inputs out."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from scvae_data.calling import command
from scvae_data.report.charts import bars_between, histogram, line, points, steps
from scvae_data.report.page import Column, Table, page
from scvae_data.report.qc_facts import BINS, QcFacts, columns_of, genes_once
from scvae_data.store import DatasetIndex
from scvae_data.wording import counted

__all__ = ["lost_cells", "qc_report", "why_dropped"]

MOST_CURVES = 5000
MOST_ROWS = 200
MOST_FAILED = 20
MOST_POINTS = 2000
KNEE = "knee"
LATE = "copies and cells without counts in kept genes"
SECTIONS = {
    "cells": "Cells",
    "experiments": "Experiments",
    "distributions": "Distributions",
    "genes": "Genes",
    "copies": "Copies",
    "made": "How it was made",
}
TITLES = {
    "total_counts": ("counts of a cell", True),
    "n_genes_by_counts": ("genes with a count", True),
    "pct_counts_mt": ("mitochondrial counts, per cent", False),
}
LIMITS = {
    "total_counts": ("min_counts", "max_counts"),
    "n_genes_by_counts": ("min_genes", "max_genes"),
    "pct_counts_mt": ("max_pct_counts_mt",),
}
ABOUT = {
    "matrix": "where in the file its counts were",
    "in": "cells in the file",
    "kept": "cells in the directory",
    "% kept": "share of the cells that is kept",
    "counts": "median counts of a kept cell",
    "genes": "median genes with a count of a kept cell",
    "% mt": "median mitochondrial share of a kept cell, per cent",
    "% known": "share of the counts whose gene has a known id, per cent",
    "% in columns": "share of the counts in genes that the directory kept, per cent",
    "% ambient": "estimated share of ambient counts, per cent",
    "flags": "what is odd; see the remedies above the table",
}


def qc_report(index: DatasetIndex, facts: QcFacts, remedies: Mapping[str, str]) -> str:
    """Tell what became of every cell, experiment and gene that went into a directory.

    Parameters
    ----------
    index
        Of the directory.
    facts
        Of the directory, by `qc_facts`.
    remedies
        What to do about each flag of an experiment.

    Returns
    -------
    One HTML page that needs nothing else.
    """
    losses = lost_cells(facts.summaries)
    n_in, n_kept = _n_in(facts.summaries), sum(summary["n_obs"] for summary in facts.summaries)
    n_everywhere = int((facts.measured == n_kept).sum())
    of_experiments = _of_experiments(facts, remedies)
    n_experiments = of_experiments["n_experiments"]
    why = why_dropped(facts.summaries, facts.configs)
    dropped = genes_once(columns_of(facts.summaries, "dropped_genes") | {"why": why})
    tables = {"experiments": _experiments(facts)} if n_experiments else {}
    if dropped.get("gene"):
        tables["dropped"] = _dropped_genes(dropped)
    share = 100 * n_kept / max(n_in, 1)
    return page(
        "qc.html",
        _charts(facts, n_in, n_kept, losses),
        tables,
        title=f"Quality of {index.path.name}",
        lead=f"{counted(n_in, 'cell')} of {counted(n_experiments, 'experiment')} in, {n_kept:,} kept ({share:.1f} %), "
        f"over {index.n_vars:,} genes in {counted(len(index.chunks), 'chunk')}.",
        sections=SECTIONS,
        losses=losses,
        n_in=n_in,
        n_kept=n_kept,
        metrics={name: TITLES[name][0] for name in _counted_metrics(facts)},
        unmeasured=_unmeasured(facts),
        n_dropped=len(dropped.get("gene", ())),
        why_dropped=Counter(dropped["why"]).most_common(),
        crossed=_crossed(facts.summaries),
        most_rows=MOST_ROWS,
        n_vars=index.n_vars,
        n_everywhere=n_everywhere,
        **of_experiments,
        **_of_files(facts.summaries),
        **_how_made(index, facts),
    )


def _counted_metrics(facts: QcFacts) -> list[str]:
    return [name for name, binned in facts.metrics.items() if binned.n_cells]


def _charts(facts: QcFacts, n_in: int, n_kept: int, losses: Mapping[str, int]) -> dict[str, Any]:
    charts = {
        "attrition": steps(
            _waterfall(n_in, n_kept, losses), f"{n_in:,} cells in, {n_kept:,} kept, and what each rule took"
        ),
        KNEE: line("rank of the cell", "counts", "counts of the cells of one experiment, by rank"),
        **{f"metric-{name}": _metric(facts, name) for name in _counted_metrics(facts)},
    }
    if (facts.measured != n_kept).any():
        charts["measured"] = _measured(facts, n_kept)
    if len(facts.experiments) > 1:
        charts["experiments"] = points(_points(facts.experiments), "counts", "genes", "medians of each experiment")
    return charts


def _of_experiments(facts: QcFacts, remedies: Mapping[str, str]) -> dict[str, Any]:
    """What the page says of experiments beside their table."""
    table, n_rows = facts.experiments, len(facts.experiments)
    return {
        "flags": _flags(table, remedies),
        "n_flagged": table["srx_accession"][table["flags"].map(len) > 0].nunique() if n_rows else 0,
        "n_curves": min(len(facts.by_experiment), MOST_CURVES),
        "n_experiments": table["srx_accession"].nunique() if n_rows else 0,
        "n_rows": n_rows,
        "n_points": min(n_rows, MOST_POINTS),
    }


def _of_files(summaries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the page says of files: those that failed or were left out, and those that have cells of others."""
    failed = _failed(summaries)
    return {
        "failed": failed,
        "n_failed": counted(len(failed), "file"),
        "most_failed": MOST_FAILED,
        "other_species": _other_species(summaries),
        "unapplied": _unapplied(summaries),
        "copies": _copies(summaries),
        "n_copies": sum((summary.get("duplicates") or {}).get("n_copies", 0) for summary in summaries),
    }


def _how_made(index: DatasetIndex, facts: QcFacts) -> dict[str, Any]:
    config = facts.configs[-1]
    given = config.get("command")
    return {
        "simulated": bool(index.simulated),
        "command": command("process", *given["overrides"]) if given else None,
        "versions": config.get("versions", {}),
        "seconds": facts.summaries[-1].get("seconds", {}),
        "config": json.dumps(config.get("config", {}), indent=1),
        "content_hash": index.content_hash,
    }


def lost_cells(summaries: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Cells that are not kept, by the rule that dropped them, over all generations; rules without any are left out."""
    lost: dict[str, int] = {}
    for summary in summaries:
        for rule, numbers in summary["attrition"]["lost"].items():
            lost[rule] = lost.get(rule, 0) + sum(numbers)
        late = sum(summary["attrition"]["n_obs_in"]) - sum(map(sum, summary["attrition"]["lost"].values()))
        if late := late - summary["n_obs"]:  # judged when the genes, or all files, were known
            lost[LATE] = lost.get(LATE, 0) + late
    return {rule: n for rule, n in lost.items() if n}


def why_dropped(summaries: Sequence[Mapping[str, Any]], configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Which rule dropped each of the ``dropped_genes`` of all generations: the first of those that it fails."""
    reasons: list[str] = []
    for number, (summary, config) in enumerate(zip(summaries, configs, strict=True)):
        dropped = summary.get("dropped_genes") or {"n_cells": [], "total_counts": []}
        rules = config.get("config", {}).get("genes") or {}
        later = number > 0 or "generations" in summary  # which cannot say of each gene when it came
        last = "it was not among the genes when the directory grew" if later else _last_rule(rules)
        least_cells, least_counts = (0 if later else rules.get(key) or 0 for key in ("min_cells", "min_counts"))
        for n_cells, n_counts in zip(dropped["n_cells"], dropped["total_counts"], strict=True):
            if n_cells < least_cells:
                reasons.append(f"in fewer than {counted(least_cells, 'cell')} (genes.min_cells)")
            elif n_counts < least_counts:
                reasons.append(f"fewer than {counted(least_counts, 'count')} (genes.min_counts)")
            else:
                reasons.append(last)
    return reasons


def _last_rule(rules: Mapping[str, Any]) -> str:
    """What drops a gene that has cells and counts enough."""
    kind = str(rules.get("_target_", ""))
    if kind.endswith("ListRules"):
        return "not in the list (genes.path)"
    if kind.endswith("HvgRules"):
        return f"not among the {rules.get('n_top_genes', 0):,} most variable (genes.n_top_genes)"
    if rules.get("join") == "inner":
        return "not measured in every file (genes.join)"
    return "of another species (genes.species)" if rules.get("species") else "not told"


def _n_in(summaries: Sequence[Mapping[str, Any]]) -> int:
    return sum(sum(summary["attrition"]["n_obs_in"]) for summary in summaries)


def _waterfall(n_in: int, n_kept: int, losses: Mapping[str, int]) -> list[dict[str, Any]]:
    bars = [("cells in", 0, n_in, "in")]
    left = n_in
    for rule, n in losses.items():
        bars.append((rule, left - n, left, "lost"))
        left -= n
    bars.append(("kept", 0, n_kept, "kept"))
    return [
        {
            "step": step, "start": start, "end": end, "far": end, "kind": kind, "n": end - start,
            "share": f"{100 * (end - start) / max(n_in, 1):.2f} %",
            "label": f"{'−' if kind == 'lost' else ''}{end - start:,}",
        }
        for step, start, end, kind in bars
    ]  # fmt: skip


def _metric(facts: QcFacts, name: str) -> dict[str, Any]:
    edges, binned = BINS[name], facts.metrics[name]
    used = np.flatnonzero(binned.kept + binned.dropped)
    bins = {
        "low": edges[used].tolist(), "high": edges[used + 1].tolist(),
        "kept": binned.kept[used].tolist(), "not kept": binned.dropped[used].tolist(),
    }  # fmt: skip
    title, logarithmic = TITLES[name]
    rules = facts.configs[-1].get("config", {}).get("qc", {})
    limits = {rule: float(rules[rule]) for rule in LIMITS[name] if rules.get(rule) is not None}
    return histogram(bins, title, f"cells by {title}, kept and not kept", logarithmic=logarithmic, limits=limits)


def _unmeasured(facts: QcFacts) -> dict[str, str]:
    """Of each metric that fewer cells have than have another one, how many lack it."""
    n_known = max((binned.n_cells for binned in facts.metrics.values()), default=0)
    lacking = {name: n_known - binned.n_cells for name, binned in facts.metrics.items()}
    return {
        TITLES[name][0]: "any cell" if n == n_known else f"{n:,} of {counted(n_known, 'cell')}"
        for name, n in lacking.items()
        if n
    }


def _measured(facts: QcFacts, n_kept: int) -> dict[str, Any]:
    shares = 100 * facts.measured / max(n_kept, 1)
    numbers, edges = np.histogram(shares, bins=20, range=(0, 100))
    rows = [
        {"low": float(low), "high": float(high), "n": int(n)}
        for low, high, n in zip(edges, edges[1:], numbers, strict=False)
        if n
    ]
    return bars_between(
        rows, "cells whose file measured the gene, per cent", "genes", "genes by how many cells have them"
    )


def _points(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Medians of the flagged experiments, then of the others, as far as a picture has room for."""
    known = table[(table["median_counts"] > 0) & (table["median_genes"] > 0)]
    order = np.argsort(-known["flags"].map(len).to_numpy(), kind="stable")[:MOST_POINTS]
    chosen = known.iloc[order[::-1]]
    columns = (chosen[name] for name in ("srx_accession", "median_counts", "median_genes", "flags"))
    return [
        {
            "name": name, "counts": float(counts), "genes": float(genes), "flags": ", ".join(flags),
            "kind": "flagged" if len(flags) else "not flagged",
        }
        for name, counts, genes, flags in zip(*columns, strict=True)
    ]  # fmt: skip


def _experiments(facts: QcFacts) -> Table:
    table = facts.experiments
    rules = facts.configs[-1].get("config", {}).get("qc", {})
    shares = {"% known": "share_known", "% in columns": "share_in_columns", "% ambient": "ambient_share"}
    lost = [name for name in table.columns if name.startswith("lost_") and table[name].fillna(0).any()]
    file = Column("file", _texts(table["source_file"]))
    in_files = table["srx_accession"].duplicated().any()  # rows that the experiment alone does not tell apart
    columns = [
        Column("experiment", _texts(table["srx_accession"])),
        *([file] if in_files else []),
        Column("flags", [list(flags) for flags in table["flags"]], about=ABOUT["flags"]),
        _numbers("% kept", 100 * table["n_kept"] / table["n_obs"].clip(lower=1), 1),
        _numbers("in", table["n_obs"]),
        _numbers("kept", table["n_kept"]),
        _numbers("counts", table["median_counts"]),
        _numbers("genes", table["median_genes"]),
        _numbers("% mt", table["median_pct_counts_mt"], 1),
        *(_numbers(title, 100 * table[name], 1) for title, name in shares.items() if table[name].notna().any()),
        *(Column(name, _texts(table[name])) for name in ("species", "chemistry") if table[name].notna().any()),
        Column("matrix", _texts(table["slot"]), about=ABOUT["matrix"]),
        *([] if in_files else [file]),
        *(_numbers(name.removeprefix("lost_"), table[name], about="cells that this rule dropped") for name in lost),
    ]
    first = np.argsort(-table["flags"].map(len).to_numpy(), kind="stable")[:MOST_CURVES]
    details: list[Any] = [None] * len(table)
    for row in first.tolist():
        details[row] = _curve(facts, table.iloc[row], rules.get("min_counts"))
    return Table([_reordered(column, table) for column in columns], None, _reorder(details, table), KNEE)


def _reorder(values: Sequence[Any], table: pd.DataFrame) -> list[Any]:
    """Rows with the most flags first, then those that kept the smallest share."""
    n_flags = table["flags"].map(len).to_numpy()
    share = (table["n_kept"] / table["n_obs"].clip(lower=1)).to_numpy()
    return [values[row] for row in np.lexsort((share, -n_flags)).tolist()]


def _reordered(column: Column, table: pd.DataFrame) -> Column:
    return Column(column.title, _reorder(column.values, table), column.digits, column.about)


def _curve(facts: QcFacts, row: Any, min_counts: float | None) -> dict[str, Any] | None:
    """Counts by rank of an experiment: from the most to the fewest, a point for each bin that has cells."""
    numbers = facts.by_experiment.get(row["srx_accession"])
    if numbers is None or numbers.sum() < 2:
        return None
    used = np.flatnonzero(numbers)[::-1]
    ranks = np.cumsum(numbers[used])
    lows = BINS["total_counts"][used]
    curve = {"x": [1, *ranks.tolist()], "y": [_rounded(low) for low in (lows[0], *lows)]}
    marks = {"knee": row["knee"], "inflection": row["inflection"], "min_counts": min_counts}
    known = {name: float(at) for name, at in marks.items() if at and not math.isnan(at)}
    drawn = {"rule": [f"{name} {at:,.0f}" for name, at in known.items()], "at": list(known.values())}
    return {"curve": curve, "marks": drawn}


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def _dropped_genes(dropped: Mapping[str, list[Any]]) -> Table:
    order = np.argsort(-np.asarray(dropped["total_counts"], float), kind="stable")[:MOST_ROWS].tolist()
    taken = {name: [values[row] for row in order] for name, values in dropped.items()}
    return Table(
        [
            Column("gene", taken["gene"]),
            Column("symbol", taken["symbol"]),
            Column("cells", taken["n_cells"], 0, "kept cells that have a count of it"),
            Column("counts", taken["total_counts"], 0, "over kept cells"),
            Column("why", taken["why"]),
        ],
        order=3,
    )


def _flags(table: pd.DataFrame, remedies: Mapping[str, str]) -> list[tuple[str, int, str]]:
    """Each flag that an experiment has in one of its files, how many have it, and what to do."""
    if not len(table):
        return []
    times = table[["srx_accession", "flags"]].explode("flags").drop_duplicates()["flags"].value_counts()
    return [(name, int(times[name]), remedy) for name, remedy in remedies.items() if name in times]


def _failed(summaries: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """Each file that could not be used: its name, the kind of failure, and what is wrong."""
    files = [file for summary in summaries for file in summary.get("failed_files", [])]
    return [(file["source_file"], file["reason"], file["message"].removeprefix(f"{file['path']}: ")) for file in files]


def _other_species(summaries: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """The files that were left out for the sake of each species that is kept alone."""
    found: dict[str, list[str]] = {}
    for account in (summary["species"] for summary in summaries if summary.get("species")):
        found.setdefault(account["kept"], []).extend(account["files_left_out"])
    return {species: files for species, files in found.items() if files}


def _crossed(summaries: Sequence[Mapping[str, Any]]) -> list[str]:
    """What each generation has of rows with the id of one gene and the symbol of another."""
    told = [one.get("genes_crossed") for summary in summaries for one in summary.get("generations") or [summary]]
    return [
        f"{counted(account['n_rows'], 'row')} of the gene tables of {counted(account['n_files'], 'file')} "
        f"({100 * account['share']:.3g} % of UMIs) have the id of one gene and the symbol of another, and count as the "
        f"gene of the id: {'; '.join(f'{gene_id} is called {symbol}' for gene_id, symbol in account['pairs'])}"
        for account in told
        if account
    ]


def _unapplied(summaries: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """To how many files a rule could not be applied."""
    found: dict[str, int] = {}
    for summary in summaries:
        for rule, files in (summary.get("unapplied_rules") or {}).items():
            found[rule] = found.get(rule, 0) + len(files)
    return {rule: counted(n, "file") for rule, n in found.items()}


def _copies(summaries: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, int]]:
    """Pairs of files that have cells with equal counts, the most first."""
    pairs = columns_of([summary.get("duplicates") or {} for summary in summaries], "pairs")
    if not pairs:
        return []
    rows = list(zip(pairs["first_file"], pairs["file"], pairs["n_copies"], strict=True))
    return sorted(rows, key=lambda row: -row[2])[:MOST_ROWS]


def _texts(values: pd.Series) -> list[str | None]:
    return [None if pd.isna(value) else str(value) for value in values]


def _numbers(title: str, values: pd.Series, digits: int = 0, about: str = "") -> Column:
    numbers = [None if pd.isna(value) else round(float(value), digits) if digits else round(value) for value in values]
    return Column(title, numbers, digits, about or ABOUT.get(title, ""))
