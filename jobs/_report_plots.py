"""Plots as the report's templates take them: a title, the plot, and what it shows in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from visionlake._text import clean
from visionlake.udfs import plots

_MAX_TOLD = 12  # values that are read out


def bars(title: str, counts: Sequence[tuple[str, int]], *, name: str) -> dict[str, Any]:
    """Bars, the first on top. `name` tells the plots of a page apart, here and below."""
    words = [clean(word) for word, _ in counts]
    told = [f"{word} {count:,}" for word, (_, count) in zip(words, counts, strict=True) if count]
    return _plot(title, plots.bar_plot(words, [count for _, count in counts], name=name), told)


def spread(title: str, counts: Sequence[int], *, low: float, high: float, unit: str, name: str) -> dict[str, Any]:
    """Bars over equal parts of a range."""
    width = (high - low) / max(1, len(counts))
    told = [f"{count:,} from {low + place * width:g} on" for place, count in enumerate(counts) if count]
    svg = plots.histogram(counts, low=low, high=high, unit=unit, name=name)
    return _plot(title, svg, [unit, *told])


def lines(
    title: str,
    points: Mapping[str, Sequence[tuple[float, float]]],
    *,
    x: str,
    y: str,
    name: str,
    has_diagonal: bool = False,
) -> dict[str, Any]:
    """Lines through points from 0 to 1."""
    cleaned = {clean(word): line for word, line in points.items()}
    told = [f"{word} ends at {x} {line[-1][0]:.2f}, {y} {line[-1][1]:.2f}" for word, line in cleaned.items() if line]
    return _plot(title, plots.curves(cleaned, x=x, y=y, name=name, has_diagonal=has_diagonal), told)


def _plot(title: str, svg: str, told: Sequence[str]) -> dict[str, Any]:
    from markupsafe import Markup

    more = ", ..." if len(told) > _MAX_TOLD else ""
    return {"title": title, "svg": Markup(svg), "alt": f"{title}: {', '.join(told[:_MAX_TOLD]) or 'nothing'}{more}"}
