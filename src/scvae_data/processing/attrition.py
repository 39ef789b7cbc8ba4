"""The rules for cells and how many each lost in; words on it, and warnings where it looks like a mistake, out."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from scvae_data.processing.qc import GENE_CLASSES, QcRules
from scvae_data.wording import counted

__all__ = ["few_cells", "lost_text", "warn_of_fractions", "warn_of_losses"]

log = logging.getLogger(__name__)

FEW = 0.1
"""Share of the cells that is so small that a setting is likelier wrong than the cells."""


def lost_text(lost: Mapping[str, int]) -> str:
    """Return the rules that lost cells, e.g. ``"12 min_genes, 3 max_pct_counts_mt"``."""
    return ", ".join(f"{count:,} {rule}" for rule, count in lost.items() if count)


def fractions(qc: QcRules) -> list[str]:
    """Return the percentage limits that are set as if they were shares of one."""
    names = [f"max_pct_counts_{name}" for name in GENE_CLASSES]
    return [name for name in names if getattr(qc, name) is not None and 0 < getattr(qc, name) <= 1]


def warn_of_fractions(qc: QcRules) -> None:
    """Warn of limits that are hardly meant as percentages."""
    for name in fractions(qc):
        log.warning("qc.%s=%g is %s", name, getattr(qc, name), in_per_cent(getattr(qc, name)))


def in_per_cent(value: float) -> str:
    """Say how a limit is read."""
    return f"{value:g} per cent of the counts; a share of {value:g} is written {100 * value:g}"


def few_cells(lost: Mapping[str, int], n_obs: int, qc: QcRules) -> str:
    """Say how few cells are kept, and by which rule most are lost; empty where they are not few.

    Cells that are no controls and droplets without a count are not counted: they are lost as they should be.

    Parameters
    ----------
    lost
        Cells not kept, per rule.
    n_obs
        All cells.
    """
    by_rules = {rule: count for rule, count in lost.items() if rule not in ("not_control", "zero_counts")}
    n_kept = n_obs - sum(lost.values())
    n_judged = n_kept + sum(by_rules.values())
    if n_kept >= FEW * n_judged:
        return ""
    rule = max(by_rules, key=lambda name: by_rules[name])
    limit = f"qc.{rule}={value:g}" if isinstance(value := getattr(qc, rule, None), int | float) else rule
    unit = f" ({in_per_cent(getattr(qc, rule))})" if rule in fractions(qc) else ""
    return f"only {n_kept:,} of {counted(n_judged, 'cell')} are kept, {lost[rule]:,} are lost by {limit}{unit}"


def warn_of_losses(lost: Mapping[str, int], n_obs: int, qc: QcRules) -> None:
    """Warn where hardly a cell is kept."""
    if text := few_cells(lost, n_obs, qc):
        log.warning("%s", text)
