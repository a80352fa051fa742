"""`visionlake probe`: what is in one file, for a person."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from visionlake.errors import VisionlakeError
from visionlake.udfs._errors import MediaError
from visionlake.udfs.drift import probe_file

from ._terminal import clean, make_console, print_json

if TYPE_CHECKING:
    from visionlake.udfs.drift import Drift


def print_probe(path: str, *, as_json: bool = False) -> None:
    """Print the facts of a local file. Raises VisionlakeError for what is not readable media."""
    try:
        facts = probe_file(path)
    except MediaError as error:
        raise VisionlakeError(f"{path}: {error.message} ({error.reason})") from error
    except OSError as error:
        raise VisionlakeError(f"{path}: cannot be read: {error.strerror or error}") from error
    if as_json:
        print_json(facts | {"drift": [asdict(drift) for drift in facts["drift"]]})
        return
    console = make_console()
    console.print(Text(clean(path), style="bold"), soft_wrap=True)
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _lines(facts):
        table.add_row(name, Text(clean(value)))
    console.print(table)


def _lines(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    seconds = facts["duration_s"]
    lines = [("format", _joined(facts["container"], seconds and f"{seconds:,.3f} s", f"{facts['size_bytes']:,} bytes"))]
    lines += _capture(facts)
    if picture := facts["picture"]:
        lines += _picture(picture)
    drifts = {drift.stream_index: drift for drift in facts["drift"]}
    for stream in facts["video_streams"] or ():
        lines += [("", ""), *_video(stream, drifts.get(stream["stream_index"]))]
    for stream in facts["audio_streams"] or ():
        channels = stream["channel_count"]
        rate = stream["sample_rate_hz"]
        said = _joined(stream["codec"], rate and f"{rate:,} Hz", channels and f"{channels} channels")
        lines += [("", ""), (f"stream {stream['stream_index']}", f"audio: {said}")]
    for stream in facts["data_streams"] or ():
        lines += [("", ""), (f"stream {stream['stream_index']}", _joined(stream["kind"], stream["codec"]))]
    return lines


def _capture(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    lines = []
    if facts["captured_local"]:
        lines.append(("captured", f"{facts['captured_local']} {facts['captured_zone'] or '(zone unknown)'}"))
    if facts["camera_make"] or facts["camera_model"]:
        lines.append(("camera", " ".join(filter(None, (facts["camera_make"], facts["camera_model"])))))
    if position := facts["position"]:
        lines.append(("position", f"{position['latitude_deg']:.6f}, {position['longitude_deg']:.6f} (degrees)"))
    return lines


def _picture(picture: Mapping[str, Any]) -> list[tuple[str, str]]:
    pages, orientation = picture["page_count"], picture["exif_orientation"]
    return [
        ("picture", _joined(f"{picture['width_px']} x {picture['height_px']} px", picture["mode"],
                            picture["bit_depth"] and f"{picture['bit_depth']} bit", picture["has_alpha"] and "alpha")),
        ("orientation", "upright" if orientation in (None, 1) else f"EXIF {orientation}: turned on reading"),
        *([("pages", f"{pages:,}" + (", animated" if picture["is_animated"] else ""))] if (pages or 1) > 1 else []),
        *([("ICC profile", str(picture["icc_profile"]))] if picture["icc_profile"] else []),
    ]  # fmt: skip


def _video(stream: Mapping[str, Any], drift: Drift | None) -> list[tuple[str, str]]:
    aspect = (stream["sample_aspect_num"], stream["sample_aspect_den"])
    is_square = None in aspect or aspect[0] == aspect[1]
    depth, count, start = stream["bit_depth"], stream["frame_count"], stream["start_s"]
    is_variable = drift.is_variable_rate if drift and drift.is_variable_rate is not None else stream["is_variable_rate"]
    kind = {True: "variable", False: "constant", None: "constant or variable: unknown"}[is_variable]
    degrees = stream["rotation_deg"]
    return [
        (f"stream {stream['stream_index']}", "video: " + _joined(stream["codec"], stream["profile"])),
        ("  picture", _joined(f"{stream['width_px']} x {stream['height_px']} px",
                              None if is_square else f"pixels {aspect[0]}:{aspect[1]}",
                              stream["pixel_format"], depth and f"{depth} bit")),
        ("  colour", _joined(stream["color_space"], stream["color_range"], stream["color_primaries"],
                             stream["color_transfer"]) or "not said"),
        ("  rotation", _joined(degrees and f"{degrees} degrees", stream["is_mirrored"] and "mirrored") or "none"),
        ("  time base", f"{stream['time_base_num']}/{stream['time_base_den']} s"),
        ("  rate", _joined(*_rates(stream["average_rate"], stream["nominal_rate"]), kind)),
        ("  frames", "unknown" if count is None else f"{count:,}"),
        ("  duration", _joined(stream["duration_s"] is not None and f"{stream['duration_s']:,.3f} s",
                               start is not None and f"from {start:,.3f} s") or "unknown"),
        *([("  drift", _drift(drift))] if drift else []),
    ]  # fmt: skip


def _drift(drift: Drift) -> str:
    if drift.max_drift_ms is None:
        return "index / rate cannot be compared: the container has no times or no rate"
    read = f"{'all' if drift.is_complete else 'the first'} {drift.frame_count:,} frames"
    if drift.max_drift_ms < 0.05:
        return f"index / rate gives the true times ({read})"
    return (
        f"index / rate is up to {drift.max_drift_ms:,.1f} ms from the true time, "
        f"at frame {drift.at_frame:,}, {drift.at_s:,.3f} s ({read})"
    )


def _rates(average: str | None, nominal: str | None) -> list[str]:
    if average == nominal:
        return [_rate(average)] if average else []
    return [f"{_rate(rate)} {words}" for rate, words in ((average, "on average"), (nominal, "nominal")) if rate]


def _rate(text: str) -> str:
    rate = Fraction(text)
    return f"{rate} frames/s" if rate.denominator == 1 else f"{float(rate):.5g} ({rate}) frames/s"


def _joined(*parts: Any) -> str:
    return ", ".join(str(part) for part in parts if part)
