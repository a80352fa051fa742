"""How far frame numbers divided by the average rate stray from the true times, by reading every packet."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from ._kinds import Kind, identify, is_decodable, open_video, video_streams
from ._rate import is_variable_rate
from .frame_types import Limits
from .probe import probe_media
from .timeline import TIMESTAMP_WRAP

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream


@dataclass(frozen=True, kw_only=True)
class Drift:
    """The error of `index / average_rate` as a frame's time, at its largest over all frames read.

    `max_drift_ms` is null where the container has no times or no rate. `is_complete` is false where reading stopped
    early, at the limit of time or at damage.
    """

    stream_index: int
    frame_count: int
    is_variable_rate: bool | None
    max_drift_ms: float | None
    at_frame: int | None
    at_s: float | None
    is_complete: bool


def probe_file(path: str, *, limits: Limits | None = None, scan_s: float = 1.2) -> dict[str, Any]:
    """All facts of one local file for a person: `probe_media` with the position, plus `size_bytes` and `drift`.

    `drift` has one `Drift` per video stream, from packets read for at most `scan_s` seconds. Works in this process.
    Raises MediaError and OSError.
    """
    limits = limits or Limits()
    size = os.path.getsize(path)
    facts = probe_media(path, size_bytes=size, limits=limits, keep_position=True)
    drifts = measure_drift(path, limits=limits, scan_s=scan_s) if facts["kind"] == "video" else []
    return {"size_bytes": size, **facts, "drift": drifts}


def measure_drift(path: str, *, limits: Limits, scan_s: float) -> list[Drift]:
    """The drift of every video stream of a local file. Raises MediaError and OSError."""
    with open(path, "rb") as file:
        kind = identify(file)
        with open_video(path if path.isprintable() else file, kind, max_pixels=limits.max_pixels) as container:
            streams = [stream for stream in video_streams(container) if is_decodable(stream)]
            times, is_complete = _times(container, streams, scan_s)
            return [_drift(stream, kind, times[stream.index], is_complete=is_complete) for stream in streams]


def _times(
    container: InputContainer, streams: list[VideoStream], scan_s: float
) -> tuple[dict[int, list[list[int | None]]], bool]:
    """Times of every stream's packets, one list per recording: joined recordings begin anew."""
    from av.error import FFmpegError
    from av.stream import Discard

    wanted = {stream.index for stream in streams}
    for stream in container.streams:
        if stream.index not in wanted:
            stream.discard = Discard.all
    times: dict[int, list[list[int | None]]] = {index: [[]] for index in wanted}
    latest: dict[int, int] = {}
    limit = time.monotonic() + scan_s
    try:
        for number, packet in enumerate(container.demux(streams)):
            if packet.size == 0 or packet.is_discard or packet.stream_index not in times:
                continue
            index, pts, base = packet.stream_index, packet.pts, packet.stream.time_base
            if pts is not None and index in latest and _begins_anew(pts, latest[index], base):
                times[index].append([])
                latest.pop(index)
            if pts is not None:
                latest[index] = max(pts, latest.get(index, pts))
            times[index][-1].append(pts)
            if number % 256 == 0 and time.monotonic() > limit:
                return times, False
    except FFmpegError:
        return times, False
    return times, True


def _begins_anew(pts: int, latest: int, time_base: Fraction | None) -> bool:
    ahead_s = (pts - latest) * (time_base or 1)
    return ahead_s < -1 or pts - latest > TIMESTAMP_WRAP // 2


def _drift(stream: VideoStream, kind: Kind, parts: list[list[int | None]], *, is_complete: bool) -> Drift:
    count = sum(map(len, parts))
    known = [sorted(time for time in part if time is not None) for part in parts]
    rate, base = stream.average_rate, stream.time_base
    worst: tuple[float, int, float] | None = None
    if kind.has_times and rate and base and sum(map(len, known)) == count > 0:
        # Whole numbers in units of 1 / scale seconds: exact, and ten times as fast as fractions.
        per_frame, per_tick = rate.denominator * base.denominator, base.numerator * rate.numerator
        scale = rate.numerator * base.denominator
        elapsed = _elapsed(known)
        errors = [abs(index * per_frame - ticks * per_tick) for index, ticks in enumerate(elapsed)]
        at = max(range(count), key=errors.__getitem__)
        worst = errors[at] * 1000 / scale, at, float(elapsed[at] * base)
    verdicts = [verdict for part in known if (verdict := is_variable_rate(part)) is not None]
    return Drift(
        stream_index=stream.index,
        frame_count=count,
        is_variable_rate=(any(verdicts) if verdicts else None) if kind.has_times else False,
        max_drift_ms=worst[0] if worst else None,
        at_frame=worst[1] if worst else None,
        at_s=worst[2] if worst else None,
        is_complete=is_complete,
    )


def _elapsed(parts: list[list[int]]) -> list[int]:
    """Ticks since the first frame; a recording that begins anew follows on by the step before."""
    elapsed: list[int] = []
    for part in parts:
        if not part:
            continue
        step = elapsed[-1] - elapsed[-2] if len(elapsed) > 1 else 0
        start = elapsed[-1] + step if elapsed else 0
        elapsed += [start + time - part[0] for time in part]
    return elapsed
