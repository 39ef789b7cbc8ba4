"""The page of a directory tells what its tables say, of every cell, and asks nobody for anything."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.support.browser import needs_browser, opened
from tests.support.pages import data_of, faults_of, table_of

from scvae_data.processing.evidence.flags import REMEDIES
from scvae_data.processing.finished.report import write_report
from scvae_data.report.qc import lost_cells, qc_report, why_dropped
from scvae_data.report.qc_facts import BINS, Binned, QcFacts, qc_facts
from scvae_data.report.qc_multiqc import multiqc
from scvae_data.store import open_index


@pytest.fixture(scope="module")
def facts(directory: Path) -> QcFacts:
    return qc_facts(open_index(directory))


@pytest.fixture(scope="module")
def page(directory: Path, facts: QcFacts) -> str:
    return qc_report(open_index(directory), facts, REMEDIES)


def test_every_cell_is_counted_once(directory: Path, facts: QcFacts) -> None:
    counts = facts.metrics["total_counts"]
    assert (int(counts.kept.sum()), int(counts.dropped.sum())) == (8, 4)
    assert lost_cells(facts.summaries) == {"min_counts": 1, "max_pct_counts_mt": 3}
    assert {name: int(numbers.sum()) for name, numbers in facts.by_experiment.items()} == {
        "SRX1": 6,
        "SRX2": 3,
        "SRX3": 3,
    }
    where = np.flatnonzero(facts.by_experiment["SRX1"])
    totals = [10, 40, 100, 100, 400, 1000]  # the cell that is half mitochondrial has 100
    assert np.repeat(where, facts.by_experiment["SRX1"][where]).tolist() == [
        int(np.searchsorted(BINS["total_counts"], total, side="right")) - 1 for total in totals
    ]
    assert facts.measured.tolist() == [8] * open_index(directory).n_vars


def test_what_lies_outside_counts_in_the_outer_bins(facts: QcFacts) -> None:
    assert facts.metrics["pct_counts_mt"].kept[0] == 8
    assert facts.metrics["pct_counts_mt"].dropped[50] == 3
    assert facts.metrics["pct_counts_mt"].dropped[0] == 1


def test_the_table_is_that_of_the_experiments(page: str) -> None:
    table = data_of(page)["tables"]["experiments"]
    columns = {column["title"]: column["values"] for column in table["columns"]}
    order = [columns["experiment"].index(name) for name in ("SRX1", "SRX2", "SRX3")]
    assert [columns["in"][row] for row in order] == [6, 3, 3]
    assert [columns["kept"][row] for row in order] == [4, 2, 2]
    assert [columns["counts"][row] for row in order] == [250, 55, 2535]
    assert [columns["min_counts"][row] for row in order] == [1, 0, 0]
    curve = table["details"][order[0]]["curve"]
    assert curve["x"] == [1, 1, 2, 4, 5, 6]  # ranks from the most counts to the fewest
    assert table["details"][order[0]]["marks"]["rule"][-1] == "min_counts 30"


def test_limits_are_drawn_into_the_distributions(page: str) -> None:
    charts = data_of(page)["charts"]
    drawn = charts["metric-total_counts"]["layer"][1]["data"]["values"]
    assert drawn == [{"rule": "min_counts 30", "at": 30.0}]
    steps = charts["attrition"]["data"]["values"]
    assert [(row["step"], row["n"]) for row in steps] == [
        ("cells in", 12), ("min_counts", 1), ("max_pct_counts_mt", 3), ("kept", 8),
    ]  # fmt: skip


def of_totals(facts: QcFacts, **totals: list[int]) -> QcFacts:
    """The same facts, with experiments of these cells."""
    bins = np.zeros(BINS["total_counts"].size - 1, np.int64)
    by_experiment = {name: bins.copy() for name in totals}
    for name, counts in totals.items():
        np.add.at(by_experiment[name], np.searchsorted(BINS["total_counts"], counts, side="right") - 1, 1)
    return replace(facts, by_experiment=by_experiment)


def test_one_cell_has_no_curve_and_unknown_marks_are_left_out(directory: Path, facts: QcFacts) -> None:
    marked = of_totals(facts, SRX1=[40, 400], SRX2=[50])
    marked.experiments = facts.experiments.assign(knee=33.0, inflection=np.nan)
    page = qc_report(open_index(directory), marked, REMEDIES)
    names, curves = table_of(page, "experiments")["experiment"], data_of(page)["tables"]["experiments"]["details"]
    details = dict(zip(names, curves, strict=True))
    assert details["SRX2"] is None
    assert details["SRX1"]["marks"] == {"rule": ["knee 33", "min_counts 30"], "at": [33, 30]}


def test_a_metric_that_no_cell_has_is_said_and_not_drawn(directory: Path, facts: QcFacts) -> None:
    known = facts.metrics["pct_counts_mt"]
    for metric, told in (
        (Binned(0 * known.kept, 0 * known.dropped), "any cell"),
        (Binned(0 * known.kept, known.dropped), "8 of 12 cells"),
    ):
        changed = replace(facts, metrics=facts.metrics | {"pct_counts_mt": metric})
        page = qc_report(open_index(directory), changed, REMEDIES)
        assert ("metric-pct_counts_mt" in data_of(page)["charts"]) == (told != "any cell")
        assert f"Mitochondrial counts, per cent: not measured in {told}." in page


def test_what_one_experiment_cannot_show_is_left_out(directory: Path, facts: QcFacts) -> None:
    page = qc_report(open_index(directory), replace(facts, experiments=facts.experiments.iloc[:1]), REMEDIES)
    assert "experiments" not in data_of(page)["charts"]
    assert "measured" not in data_of(page)["charts"]  # every gene is measured in every cell
    assert set(data_of(page)["charts"]) == {*re.findall(r'<figure data-chart="([^"]+)"', page)}


@pytest.mark.parametrize(
    ("rules", "last"),
    [
        ({"_target_": "x.ListRules"}, "not in the list (genes.path)"),
        ({"_target_": "x.HvgRules", "n_top_genes": 2000}, "not among the 2,000 most variable (genes.n_top_genes)"),
        ({"_target_": "x.GeneRules", "join": "inner"}, "not measured in every file (genes.join)"),
        ({"_target_": "x.GeneRules", "join": "outer", "species": "human"}, "of another species (genes.species)"),
        ({}, "not told"),
    ],
    ids=lambda one: str(one.get("_target_", "none")) if isinstance(one, dict) else "",
)
def test_each_dropped_gene_has_the_first_rule_that_it_fails(rules: dict[str, object], last: str) -> None:
    dropped = {"dropped_genes": {"n_cells": [2, 3, 9], "total_counts": [90, 3, 90]}}
    configs = [{"config": {"genes": {"min_cells": 3, "min_counts": 5, **rules}}}]
    first = ["in fewer than 3 cells (genes.min_cells)", "fewer than 5 counts (genes.min_counts)", last]
    assert why_dropped([dropped], configs) == first
    grown = why_dropped([dropped, dropped], configs * 2)
    assert grown == [*first, *["it was not among the genes when the directory grew"] * 3]


def test_a_gene_that_two_generations_dropped_counts_once(directory: Path, facts: QcFacts) -> None:
    dropped = {"gene": ["G1", "G2"], "symbol": ["a", "b"], "n_cells": [1, 2], "total_counts": [3, 5]}
    twice = [summary | {"dropped_genes": dropped} for summary in facts.summaries]
    page = qc_report(open_index(directory), replace(facts, summaries=twice), REMEDIES)
    assert "; 2 were dropped.</p>" in page
    table = table_of(page, "dropped")
    found = zip(table["gene"], table["cells"], table["counts"], table["why"], strict=True)
    assert sorted(found) == [("G1", 2, 6, "not told"), ("G2", 4, 10, "not told")]


def test_a_file_that_failed_is_named_once_and_as_text(page: str, raw: Path) -> None:
    assert "1 file could not be used" in page
    assert page.count("&lt;b&gt;SRX9.h5ad</dt>") == 1
    assert f"{raw}" not in page.split("<dl>")[1].split("</dl>")[0]
    assert "<b>SRX9" not in page


class _Links(HTMLParser):
    """What a page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in ("src", "href", "action", "poster", "data")]


def test_a_page_fetches_nothing(page: str) -> None:
    links = _Links()
    links.feed(page)
    assert [link for link in links.found if not link.startswith(("#", "data:"))] == []
    assert not re.search(r"@import|url\((?!['\"]?data:)", page)
    assert page.count("<main>") == page.count("</main>") == 1


def test_what_is_not_shown_without_scripts_is_said_first(page: str) -> None:
    assert page.index("<noscript>") < page.index("<h2")


def test_readers_who_do_not_see_it_find_their_way(page: str) -> None:
    assert faults_of(page) == []
    assert all(chart["description"] for chart in data_of(page)["charts"].values())


def test_multiqc_finds_bars_and_a_table(directory: Path, facts: QcFacts, tmp_path: Path) -> None:
    bars, table = multiqc(facts).values()
    assert bars["data"]["SRX1"] == {
        "kept": 4, "zero_counts": 0, "min_genes": 0, "min_counts": 1, "max_pct_counts_mt": 1, "duplicate": 0,
        "zero_counts_in_kept_genes": 0,
    }  # fmt: skip
    assert table["data"]["SRX2"]["median_counts"] == 55
    assert set(table["headers"]) == set(table["data"]["SRX2"])
    assert write_report(directory, tmp_path).name == "qc_report.html"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "qc_attrition_mqc.json", "qc_experiments_mqc.json", "qc_report.html",
    ]  # fmt: skip


def many(facts: QcFacts, n: int) -> QcFacts:
    """The same facts of many experiments that differ."""
    draw = np.random.default_rng(0)
    rows = pd.concat([facts.experiments.iloc[:1]] * n, ignore_index=True)
    names = [f"SRX{number}" for number in range(n)]
    rows = rows.assign(
        srx_accession=names, source_file=[f"{name}.h5ad" for name in names],
        n_kept=draw.integers(100, 10_000, n), n_obs=draw.integers(10_000, 20_000, n),
        median_counts=draw.uniform(500, 20_000, n), median_genes=draw.uniform(200, 5_000, n),
        share_in_columns=draw.uniform(0.9, 1, n),
        flags=[["outlier"] if number % 50 == 0 else [] for number in range(n)],
    )  # fmt: skip
    shape = np.exp(-((np.arange(BINS["total_counts"].size - 1) - 70) ** 2) / 300)
    return replace(facts, experiments=rows, by_experiment={name: draw.poisson(200 * shape) for name in names})


def test_five_thousand_experiments_make_a_small_page(directory: Path, facts: QcFacts) -> None:
    text = qc_report(open_index(directory), many(facts, 5000), REMEDIES)
    assert len(text.encode()) < 5_000_000
    table = data_of(text)["tables"]["experiments"]
    assert len(table["details"]) == 5000
    assert table["columns"][1]["values"][:100] == [["outlier"]] * 100  # those come first


@pytest.mark.services
@needs_browser
@pytest.mark.parametrize("n", [0, 5000])
def test_a_browser_draws_everything_without_a_complaint(
    n: int, directory: Path, facts: QcFacts, tmp_path: Path
) -> None:
    index = open_index(directory)
    page = qc_report(index, many(facts, n) if n else facts, REMEDIES)
    (tmp_path / "page.html").write_text(page)
    complaints, document = opened(tmp_path / "page.html", tmp_path / "browser")
    assert complaints == []
    assert 'data-ready="true"' in document
    charts = re.findall(r'<figure data-chart="([^"]+)".*?</figure>', document, flags=re.DOTALL)
    assert document.count('role="graphics-document"') == len(charts) >= 5
    counts = document.split('data-chart="metric-total_counts"')[1].split("</figure>")[0]
    legends = re.findall(r'role-legend"[^>]*><g transform="translate\(([\d.-]+),', counts)
    assert len(legends) == 2 and len(set(legends)) == 1  # one above the other: beside each other they may be cut off
    names = re.findall(r'<nav aria-label="([^"]*)"', document)
    assert len(names) == len(set(names)) == (3 if n else 2)  # of the page, and of each table of several pages
    # In a window of 800 pixels not all columns have room; those of the experiment that is chosen are all told.
    titles = table_of(page, "experiments").keys()
    shown = document.split('data-table="experiments"')[1].split("</thead>")[0].count("<th ")
    assert 3 < shown < len(titles)
    told = re.findall(r"<dt>([^<]*)</dt>", document.split('data-facts="experiments"')[1].split("</dl>")[0])
    assert titles - set(told) <= {"flags"}
