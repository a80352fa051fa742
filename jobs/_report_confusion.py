"""What was taken for what, as the report shows it: a matrix of the classes that are confused the most."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

_CLASSES = 12
_BACKGROUND, _OTHERS = "background", "other classes"


def confusion_matrix(pairs: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Rows of what was there, columns of what it was taken for; null in `truth` and `found` is the background.

    All others than the most confused classes are one, so that each row adds up. None where there is nothing to tell.
    """
    wrong, total = Counter[str](), Counter[str]()
    for pair in pairs:
        for name in {pair["truth"], pair["found"]} - {None}:
            total[name] += pair["count"]
            wrong[name] += pair["count"] * (pair["truth"] != pair["found"])
    if not total:
        return None
    names = sorted(total, key=lambda name: (-wrong[name], -total[name], name))[:_CLASSES]
    is_cut = len(total) > len(names)
    shown: dict[str | None, int] = {name: place for place, name in enumerate(names)}
    titles = [*names, *[_OTHERS] * is_cut, _BACKGROUND]
    shown[None] = len(titles) - 1
    counts = [[0] * len(titles) for _ in titles]
    for pair in pairs:
        counts[shown.get(pair["truth"], len(names))][shown.get(pair["found"], len(names))] += pair["count"]
    return {
        "labels": titles,
        "rows": [
            {"label": title, "is_class": place < len(names), "cells": _cells(row, place, is_class=place < len(names))}
            for place, (title, row) in enumerate(zip(titles, counts, strict=True))
        ],
        "left_out": len(total) - len(names),
    }


def _cells(row: Sequence[int], place: int, *, is_class: bool) -> list[dict[str, Any]]:
    """The cells of a row, each with its share of the row in hundredths."""
    most, is_background = max(sum(row), 1), place == len(row) - 1
    return [
        {
            "text": "" if is_background and column == place else f"{count:,}",
            "share": round(100 * count / most),
            "is_right": is_class and column == place,
        }
        for column, count in enumerate(row)
    ]
