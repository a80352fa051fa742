"""Plots as SVG, to be put into a page: they take colours and type from the page around them."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TEXT, _BARS = "#010101", "#020202"  # of the plot; the page's own take their place
_LINES = ("#d97706", "#16a34a", "#db2777", "#7c3aed", "#0891b2", "#a16207")  # seen on light and on dark
_WIDTH_IN, _HEIGHT_IN = 4.6, 2.3
_ROW_IN = 0.24


def bar_plot(words: Sequence[str], counts: Sequence[int], *, name: str) -> str:
    """Horizontal bars, the first on top, each with its count. `name` tells the plots of a page apart."""

    def draw(axes: Axes) -> None:
        places = range(len(words))
        bars = axes.barh(places, counts, color=_BARS, height=0.7)
        axes.bar_label(bars, [f"{count:,}" for count in counts], padding=3, color=_TEXT)
        axes.set_yticks(places, [_short(word) for word in words])
        axes.invert_yaxis()
        axes.set_xlim(0, max([*counts, 1]) * 1.18)
        axes.xaxis.set_visible(False)
        axes.spines[["top", "right", "bottom"]].set_visible(False)

    return _svg(draw, name, height_in=0.3 + _ROW_IN * max(1, len(words)))


def histogram(counts: Sequence[int], *, low: float, high: float, unit: str, name: str) -> str:
    """Bars over equal parts of the range from `low` to `high`. `name` tells the plots of a page apart."""
    from matplotlib.ticker import MaxNLocator

    def draw(axes: Axes) -> None:
        width = (high - low) / max(1, len(counts))
        places = [low + width * place for place in range(len(counts))]
        axes.bar(places, counts, width=width * 0.92, align="edge", color=_BARS)
        axes.set_xlim(low, high)
        axes.set_xlabel(unit)
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
        axes.spines[["top", "right"]].set_visible(False)

    return _svg(draw, name, height_in=_HEIGHT_IN)


def curves(
    lines: Mapping[str, Sequence[tuple[float, float]]], *, x: str, y: str, name: str, has_diagonal: bool = False
) -> str:
    """Lines through points (x, y) from 0 to 1, of which the first is in front. `name` tells the plots of a page apart.

    With `has_diagonal` a thin line shows where both are equal.
    """

    def draw(axes: Axes) -> None:
        if has_diagonal:
            axes.plot((0, 1), (0, 1), color=_TEXT, linewidth=0.6, linestyle=":")
        for place, (word, points) in reversed([*enumerate(lines.items())]):
            colour = _BARS if place == 0 else _LINES[(place - 1) % len(_LINES)]
            axes.plot(*zip(*points, strict=True), color=colour, linewidth=2.2 if place == 0 else 1.3,
                      marker="o" if has_diagonal else None, markersize=3, label=_short(word))  # fmt: skip
        axes.set_xlim(0, 1.01)
        axes.set_ylim(0, 1.02)
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        axes.spines[["top", "right"]].set_visible(False)
        if len(lines) > 1:
            axes.legend(loc="lower left", frameon=False, fontsize=8, reverse=True)

    return _svg(draw, name, height_in=1.3 * _HEIGHT_IN)


def _svg(draw: Callable[[Axes], None], name: str, *, height_in: float) -> str:
    import matplotlib
    from matplotlib.figure import Figure

    settings: dict[Any, Any] = {
        "svg.fonttype": "none",  # text stays text
        "svg.hashsalt": name,  # two plots of a page must not share ids
        "text.parse_math": False,  # a label may hold what looks like a formula
        "font.size": 9,
        **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), _TEXT),
    }
    buffer = io.StringIO()
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # glyphs that its font lacks: the page's fonts draw the text
        figure = Figure(figsize=(_WIDTH_IN, height_in), layout="constrained")
        draw(figure.add_subplot())
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _fit_for_page(buffer.getvalue())


def _fit_for_page(svg: str) -> str:
    """The element alone, without names (several plots share a page) and with the page's colours and fonts."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<(metadata|style)\b.*?</\1>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r" font-family: [^;\"]*;", "", svg)
    return svg.replace(_TEXT, "currentColor").replace(_BARS, "var(--accent)")


def _short(word: str) -> str:
    return word if len(word) <= 24 else f"{word[:23]}…"
