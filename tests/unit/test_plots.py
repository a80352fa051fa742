"""Plots of a page: self-contained, in the page's colours, and words of data that stay words."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable

import pytest

from visionlake.udfs.plots import bar_plot, curves, histogram

HOSTILE = "</text><script>alert(1)</script> $\\frac{1}{0}$ & \"'"
LINE = [(0.0, 1.0), (0.5, 0.75), (0.9, 0.25)]
PLOTS: dict[str, Callable[[str], str]] = {
    "bars": lambda name: bar_plot(["one", HOSTILE], [3, 1], name=name),
    "histogram": lambda name: histogram([1, 0, 4], low=0, high=3, unit=HOSTILE, name=name),
    "curves": lambda name: curves({"one": LINE, HOSTILE: LINE}, x="recall", y=HOSTILE, name=name),
}


def words(svg: str) -> str:
    return " ".join(ElementTree.fromstring(svg).itertext())


@pytest.mark.parametrize("kind", PLOTS)
def test_a_plot_is_one_element_that_loads_and_runs_nothing(kind: str) -> None:
    svg = PLOTS[kind]("a")
    assert svg.startswith("<svg") and "<script" not in svg and "<style" not in svg
    assert not re.search(r'\b(?:href|src)="(?!#)', svg), "it refers to nothing but its own parts"
    assert "currentColor" in svg and "var(--accent)" in svg and "font-family" not in svg
    assert HOSTILE[:20] in words(svg)


@pytest.mark.parametrize("kind", PLOTS)
def test_plots_of_a_page_share_no_ids_and_are_the_same_again(kind: str) -> None:
    one, other = PLOTS[kind]("a"), PLOTS[kind]("b")
    ids = [{*re.findall(r'id="([^"]+)"', svg)} for svg in (one, other)]
    assert not ids[0] & ids[1]
    assert PLOTS[kind]("a") == one


def test_a_curve_is_drawn_as_far_as_it_goes() -> None:
    svg = curves({"car": LINE}, x="recall", y="precision", name="c")
    assert "car" not in words(svg), "one line needs no legend"
    two = curves({"car": LINE, "bus": LINE[:1]}, x="recall", y="precision", name="c")
    assert "car" in words(two) and "bus" in words(two)


def test_plots_without_a_value_are_empty() -> None:
    assert bar_plot([], [], name="a").startswith("<svg")
    assert histogram([0] * 20, low=0, high=1, unit="score", name="a").startswith("<svg")
    assert curves({}, x="x", y="y", name="a").startswith("<svg")
