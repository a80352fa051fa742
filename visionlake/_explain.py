"""`visionlake explain`: where a label came from, for people or as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from visionlake.udfs.uris import display

from ._terminal import make_console, print_json, print_pairs, print_rows


def print_explanation(found: Mapping[str, Any], *, as_json: bool = False) -> None:
    """Print what `jobs._explain.explain` gathered."""
    if as_json:
        print_json(found)
        return
    console = make_console()
    _section(console, "File", _media(found))
    if frame := found["frame"]:
        _section(console, "Frame", _frame(frame))
        _origin(console, frame)
    else:
        near = ", ".join(map(str, found["nearest_pts"])) or "none"
        _section(console, "Frame", [("not there", f"frames near pts {found['pts']}: {near}")])
    for bad in found["frame_problems"]:
        _problem(console, bad)
    for model in found["models"]:
        _model(console, model)
    if frame and not found["models"]:
        console.print(Text("No model has looked at this frame yet."))


def _section(console: Console, title: str, lines: Sequence[tuple[str, str]]) -> None:
    console.print(Text(title, style="bold underline"))
    print_pairs(console, lines, indent=2)
    console.print()


def _media(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    media = found["media"]
    lines = [("SHA-256", media["media_id"])]
    if media.get("container"):
        lines.append(("what", f"{media['kind']}, {media['container']}, {media['size_bytes']} bytes"))
    for file in found["files"]:
        lines.append((file["state"], display(file["uri"])))
        lines.append(("first seen", f"{_time(file['first_seen'])}, last {_time(file['last_seen'])}"))
        manifest = {name: value for name, value in file["manifest"].items() if value is not None}
        lines += [("manifest", _pairs(manifest))] if manifest else []
    return [*lines, ("lake", found["lake"]), *([("as of", found["as_of"])] if found["as_of"] else [])]


def _frame(frame: Mapping[str, Any]) -> list[tuple[str, str]]:
    time = "" if frame["pts_s"] is None else f" ({frame['pts_s']:.6f} s)"
    place = "unknown" if frame["frame_index"] is None else str(frame["frame_index"])
    full = "" if frame["full_width_px"] is None else f", of {frame['full_width_px']} x {frame['full_height_px']} px"
    return [
        ("stream", str(frame["stream_index"])),
        ("pts", f"{frame['pts']}{time}, from the {frame['pts_source'] or 'container, as far as known'}"),
        ("frame index", place),
        ("size", f"{frame['width_px']} x {frame['height_px']} px{full}"),
        ("format", frame["image_format"] or "unknown, or no picture stored"),
        ("saw", _version("media", frame["input_version"])),
    ]


def _model(console: Console, model: Mapping[str, Any]) -> None:
    lines = [("model_id", model["model_id"])]
    if model.get("note"):
        lines.append(("note", model["note"]))
    for name in ("backend", "source", "registry_version", "licence"):
        if model.get(name):
            lines.append((name.replace("_", " "), model[name]))
    for name, digest in sorted((model.get("digests") or {}).items()):
        lines.append(("digest", f"{name} {_short(digest)}"))
    if model.get("first_used_at"):
        lines.append(("used", f"{_time(model['first_used_at'])} to {_time(model['last_used_at'])}"))
    _section(console, "Model", lines)
    for row in model["labels"]:
        _section(console, f"Label in {row['table']}", _label(row))
        _origin(console, row)
    for bad in model["quarantined"]:
        _problem(console, bad)


def _label(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    counts = ", ".join(f"{label} {count}" for label, count in row["count_by_label"].items())
    lines = [("found", f"{row['count']}: {counts}" if counts else "nothing")]
    if row["top_score"] is not None:
        lines.append(("best score", f"{row['top_score']:.4g}"))
    return [*lines, ("run", row.get("run_id") or "unknown"), ("saw", _version("frames", row.get("input_version")))]


def _problem(console: Console, bad: Mapping[str, Any]) -> None:
    lines = [
        ("stage", bad["stage"]),
        ("reason", bad["reason"]),
        ("message", bad["message"] or "none"),
        ("since", _time(bad["at"])),
        ("run", bad["run_id"] or "unknown"),
    ]
    _section(console, "In quarantine", lines)
    if bad["wave"]:
        _wave(console, bad["wave"])


def _origin(console: Console, row: Mapping[str, Any]) -> None:
    """The wave that wrote a row, or what there is to say instead."""
    if row["wave"]:
        _wave(console, row["wave"])
        return
    lines = [("not told", row["wave_note"]), *(("perhaps", wave) for wave in row["wave_candidates"])]
    _section(console, "Written by", lines)


def _wave(console: Console, wave: Mapping[str, Any]) -> None:
    read, *lookups = wave["inputs"] or [{"table": "?", "version": None}]
    lines = [
        ("stage", wave["stage"]),
        ("run", wave["run_id"]),
        ("wave", wave["wave_id"]),
        ("code", f"visionlake {wave['code_version']}"),
        ("started", _time(wave["started_at"])),
        ("finished", _time(wave["finished_at"])),
        ("settings", _pairs(wave["settings"]) or "defaults"),
        ("read", ", ".join(_version(one["table"], one["version"]) for one in (read, *lookups))),
        ("wrote", ", ".join(_version(one["table"], one["version"]) for one in wave["outputs"] or ()) or "nothing"),
        ("status", _status(wave)),
    ]
    _section(console, "Written by", lines)
    shown = ("name", "status", "expected", "observed")
    checks = [{name: check.get(name) for name in shown} for check in wave["checks"] or ()]
    print_rows(console, checks, empty="The gate had no checks.", ids=("name", "status"))
    console.print()


def _status(wave: Mapping[str, Any]) -> str:
    if wave["decided_by"] is None:
        return wave["status"]
    return f"{wave['status']} by {wave['decided_by']}: {wave['decided_why']}"


def _version(table: str, version: int | None) -> str:
    return f"{table}, version unknown" if version is None else f"{table} version {version}"


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in values.items())


def _short(text: str) -> str:
    return text if len(text) <= 64 else f"{text[:61]}..."


def _time(text: str | None) -> str:
    """To the second, as it may be given to --as-of."""
    return "unknown" if text is None else text[:19] + text[-6:]
