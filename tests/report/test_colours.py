"""Colours of categories stay apart whatever cones a reader has."""

from __future__ import annotations

import itertools

import numpy as np
from matplotlib.colors import to_rgb
from skimage.color import deltaE_ciede2000, rgb2lab

from scvae_data.report.colours import CATEGORIES, MISSING, OTHER

# Machado, Oliveira and Fernandes (2009), severity 1, for linear RGB.
SEEN_WITHOUT = {
    "nothing": np.eye(3),
    "long": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "middle": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "short": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}


def least_distance(colours: tuple[str, ...]) -> float:
    """The least CIEDE2000 between two of them, for any reader."""
    rgb = np.array([to_rgb(colour) for colour in colours])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    found = []
    for matrix in SEEN_WITHOUT.values():
        seen = np.clip(linear @ np.array(matrix).T, 0, 1)
        lab = rgb2lab(np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055))
        found += [float(deltaE_ciede2000(one, other)) for one, other in itertools.combinations(lab, 2)]
    return min(found)


def test_all_twenty_are_told_apart_with_and_without_each_kind_of_cones() -> None:
    assert len(set(CATEGORIES)) == 20
    assert least_distance(CATEGORIES) > 10
    assert least_distance((*CATEGORIES, MISSING)) > 10
    assert least_distance((*CATEGORIES[:-1], MISSING, OTHER)) > 7.5
    assert least_distance(("#1f77b4", "#9467bd", "#8c564b", "#2ca02c")) < 7  # of matplotlib's default colours
