"""Colours of pictures and charts, told apart by readers with any colour vision."""

from __future__ import annotations

__all__ = ["BLUE", "CATEGORIES", "GREEN", "GREY", "MISSING", "ORANGE", "OTHER", "VERMILION"]

# Okabe and Ito (2008), "Color Universal Design".
BLUE, VERMILION, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
GREY = "#8A8F98"
MISSING, OTHER = "#C8C8C8", "#868686"

CATEGORIES = (
    BLUE, VERMILION, GREEN, "#CC79A7", ORANGE, "#56B4E9", "#F0E442", "#000000",
    "#B40000", "#5A0069", "#5A5A5A", "#A5D287", "#3C2D3C", "#0000E1", "#3C693C", "#8778FF", "#783C78", "#96E1FF",
    "#69000F", "#876987",
)  # fmt: skip
"""Colours of up to 20 categories.

The eight of Okabe and Ito, and beyond them twelve found by the method of Glasbey et al. (2007): each as far as possible
(CIEDE2000) from all others, from white paper and from `MISSING`, as seen with normal vision and, by the model of
Machado et al. (2009), without one of the three kinds of cones. matplotlib's tab20 and scanpy's palettes keep less than
half of that distance.
"""
