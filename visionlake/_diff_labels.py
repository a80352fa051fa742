"""`visionlake diff-labels`: how far two models agree, as tables for people."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from ._terminal import cell, clean, make_table

if TYPE_CHECKING:
    from visionlake.jobs._diff_labels import FrameDiff, LabelDiff
    from visionlake.udfs.agreement import Agreement

_COUNTS = ("A", "B", "matched", "moved", "missed", "extra", "agreement")


def print_diff(console: Console, diff: LabelDiff, *, source: str) -> None:
    """The classes, the worst frames, and how to look at one. `source` names the lake as commands take it."""
    for name, model, alone in (("A", diff.model_a, diff.frames_only_a), ("B", diff.model_b, diff.frames_only_b)):
        _print(console, f"{name} = {model}" + (f" (frames that only it looked at: {alone:,})" if alone else ""))
    rule = f"boxes go together from IoU {diff.iou:g} on, and below {diff.moved:g} they have moved"
    _print(console, f"Frames that both looked at: {diff.frames:,}; {rule}")
    if not diff.frames:
        return
    console.print()
    table = make_table("class", "frames", *_COUNTS, right=("frames", *_COUNTS))
    for each in diff.classes:
        table.add_row(Text(clean(each.label)), cell(each.frames), *_cells(each.agreed))
    if not diff.classes:
        console.print("Neither found anything in them.")
        return
    if len(diff.classes) > 1:
        table.add_row(Text("all", style="bold"), cell(diff.frames), *_cells(diff.total))
    console.print(table)
    console.print()
    if not diff.worst:
        console.print("They agree on every frame.")
        return
    _print_worst(console, diff.worst)
    first = diff.worst[0]
    _print(console, "\n  # look at the first of them", style="dim")
    for model in (diff.model_a, diff.model_b):
        stream = f" --stream {first.stream_index}" if first.stream_index else ""
        words = f"{shlex.quote(first.media_id)} --pts {first.pts}{stream} --model {shlex.quote(model)}"
        _print(console, f"  visionlake show {source} {words} --out {'a' if model == diff.model_a else 'b'}.png")


def _print_worst(console: Console, worst: tuple[FrameDiff, ...]) -> None:
    numbers = ("pts", "seconds", "missed", "extra", "moved", "matched")
    table = make_table("worst frames", *numbers, right=numbers)
    for frame in worst:
        name = frame.place.rstrip("/").rpartition("/")[2] if frame.place else f"media {frame.media_id[:12]}"
        agreed = frame.agreed
        counts = (agreed.missed, agreed.extra, agreed.moved, agreed.matched)
        table.add_row(Text(clean(name)), Text(str(frame.pts)), cell(frame.pts_s), *(cell(n) for n in counts))
    console.print(table)


def _cells(agreed: Agreement) -> list[Any]:
    names = ("boxes_a", "boxes_b", "matched", "moved", "missed", "extra", "agreement")
    return [cell(getattr(agreed, name)) for name in names]


def _print(console: Console, text: str, *, style: str = "") -> None:
    """Text that may be copied: the terminal folds it, we do not."""
    console.print(Text(clean(text, keep_lines=True), style=style), soft_wrap=True)
