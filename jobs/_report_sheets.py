"""The pictures of the page: which frames each of its sections shows, within what they may be in all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from visionlake.expectations import frames
from visionlake.udfs.draw_boxes import COLOURS

from ._report_evaluations import evaluation_section
from ._report_galleries import galleries
from ._report_pictures import link_alike, pictures_by_label

KEY = frames.TABLE.key
_MAX_QUARANTINED = 12
Key = tuple[Any, ...]
Answers = Mapping[str, Any]


def choose_frames(found: Answers, *, most_worst: int, most: int) -> dict[str, Any]:
    """What was found, with no more frames than `most` to show: problems come first, then classes, then others.

    `diff` has its pictures already, which count.
    """
    left = max(0, most - len(_compared(found["diff"])))
    bad = _bad_frames(found["quarantine"])[: min(left, _MAX_QUARANTINED)]
    left -= len(bad)
    results = []
    for place, result in enumerate(found["evaluations"]):
        share = -(-left // (len(found["evaluations"]) - place))  # so that the last one has some, too
        worst = (result["worst"] or ())[: min(share, most_worst)]
        left -= len(worst)
        results.append({**result, "worst": worst})
    shown = []
    for gallery in found["galleries"]:
        keys = gallery.keys[:left]
        left -= len(keys)
        shown.append(replace(gallery, keys=keys))
    chosen = {"bad": bad, "evaluations": results, "galleries": shown, "sheet": found["sheet"][:left]}
    return {**found, **chosen}


def keys_of(found: Answers) -> list[dict[str, Any]]:
    """The frames that have to be had, each once."""
    keys = [
        *found["sheet"],
        *(key for gallery in found["galleries"] for key in gallery.keys),
        *({name: frame[name] for name in KEY} for each in found["evaluations"] for frame in each["worst"]),
        *(row["frame"] for row in found["bad"]),
    ]
    return list({_key(key): key for key in keys}.values())


def pictured(found: Answers, *, who: Sequence[str]) -> dict[str, Any]:
    """What the page shows by frames; `who` are the sources and models that it draws in galleries."""
    frames: Mapping[Key, Any] = {_key(each): each for each in found["frames"]}
    models = [each.name for each in found["shown"] or found["sources"]]
    sheet = [_labelled(frame, models) for key in found["sheet"] if (frame := frames.get(_key(key)))]
    sheet.sort(key=lambda frame: (frame["place"], *_key(frame)))
    made = galleries(found["galleries"], frames, who)
    results = [evaluation_section(each, frames, place=place) for place, each in enumerate(found["evaluations"])]
    values = {
        "pictures": pictures_by_label(sheet),
        "galleries": made,
        "gallery_colours": COLOURS[:2],  # of people, of models
        "links": {gallery["label"]: gallery["id"] for gallery in made},
        "evaluations": results,
        "quarantined": _quarantined(found["bad"], frames),
    }
    link_alike(
        {
            "quarantined": ("quarantine", values["quarantined"]),
            **{each["id"]: (f"worst of {each['evaluation']}, {each['kind']}", each["pictures"]) for each in results},
            **{gallery["id"]: (f"class {gallery['label']}", gallery["pictures"]) for gallery in made},
            "agreement": ("agreement", _compared(found["diff"])),
            "frame": ("frames", values["pictures"]),
        }
    )
    return values


def _compared(diff: Mapping[str, Any] | None) -> Sequence[dict[str, Any]]:
    return diff["pictures"] if diff and not diff["problem"] else ()


def _key(row: Mapping[str, Any]) -> Key:
    return tuple(row[name] for name in KEY)


def _labelled(frame: Mapping[str, Any], who: Sequence[str]) -> dict[str, Any]:
    return {**frame, "labels": [row for row in frame["labels"] if row["model_id"] in who]}


def _bad_frames(quarantine: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The frames of examples, each once with its reasons: anchors and words."""
    found: dict[Key, dict[str, Any]] = {}
    for place, row in enumerate(quarantine):
        for frame in [example["frame"] for example in row["examples"] if example["frame"] is not None]:
            entry = found.setdefault(_key(frame), {"frame": frame, "reasons": {}})
            entry["reasons"][f"reason-{place}"] = f"{row['stage']}: {row['reason']}"
    return list(found.values())


def _quarantined(bad: Sequence[Mapping[str, Any]], frames: Mapping[Key, Any]) -> list[dict[str, Any]]:
    shown = [row for row in bad if _key(row["frame"]) in frames]
    pictures = pictures_by_label([_labelled(frames[_key(row["frame"])], ()) for row in shown])
    for picture, row in zip(pictures, shown, strict=True):
        picture["reasons"] = list(row["reasons"].items())
        picture["alt"] = f"frame at {picture['when']}, in quarantine: {', '.join(row['reasons'].values())}"
    return pictures
