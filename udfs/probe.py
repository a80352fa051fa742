"""Facts of one piece of media from its header and index: what table `media` holds about the content."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from fractions import Fraction
from io import BytesIO
from typing import TYPE_CHECKING, Any, BinaryIO

from ._display_matrix import orientation_of
from ._errors import MediaError
from ._kinds import Kind, codec_name, identify, is_decodable, open_video, video_streams
from ._rate import is_variable_rate, same_rate
from ._shortfall import shortfall
from .exif import Capture, video_capture
from .frame_types import Limits
from .picture import check_boxes, open_picture

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.stream import Stream
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

_SCAN_PACKETS = 256  # per stream and window
_SCAN_BYTES = 16 << 20  # per window
_WHOLE_BYTES = 4 << 20
_REORDERED = 16  # frames that a decoder may hold back: the end of a window lacks their neighbours
_COUNTED = ("mov", "avi", "mxf")  # containers that count frames in their header or index
_ESTIMATED = ("h264", "hevc", "m4v", "mpegvideo", "mjpeg", "obu")  # whose duration is guessed from the bit rate
# Names as FFmpeg prints them; "unspecified" and reserved values are unknown.
_SPACES = {0: "gbr", 1: "bt709", 4: "fcc", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 8: "ycgco", 9: "bt2020nc"}
_SPACES |= {10: "bt2020c", 11: "smpte2085", 12: "chroma-derived-nc", 13: "chroma-derived-c", 14: "ictcp"}
_RANGES = {1: "limited", 2: "full"}
_PRIMARIES = {1: "bt709", 4: "bt470m", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 8: "film", 9: "bt2020"}
_PRIMARIES |= {10: "smpte428", 11: "smpte431", 12: "smpte432", 22: "ebu3213"}
_TRANSFERS = {1: "bt709", 4: "gamma22", 5: "gamma28", 6: "smpte170m", 7: "smpte240m", 8: "linear", 9: "log100"}
_TRANSFERS |= {10: "log316", 11: "iec61966-2-4", 12: "bt1361e", 13: "iec61966-2-1", 14: "bt2020-10", 15: "bt2020-12"}
_TRANSFERS |= {16: "smpte2084", 17: "smpte428", 18: "arib-std-b67"}


def probe_media(
    source: str | BinaryIO, *, size_bytes: int | None, limits: Limits, keep_position: bool = False
) -> dict[str, Any]:
    """The columns of table `media` that come from the content, as values that JSON can carry.

    `source` is a local path or an open seekable file. `captured_at` is ISO 8601 in UTC. Reads headers, index and a
    bounded number of packets. Raises MediaError: empty_file, not_media, unsupported_format, unsupported_codec,
    no_video, truncated, too_large, unreadable, changed_while_read.
    """
    if isinstance(source, str):
        with open(source, "rb") as file:
            return _probe(file, source, size_bytes=size_bytes, limits=limits, keep_position=keep_position)
    return _probe(source, None, size_bytes=size_bytes, limits=limits, keep_position=keep_position)


def _probe(
    file: BinaryIO, path: str | None, *, size_bytes: int | None, limits: Limits, keep_position: bool
) -> dict[str, Any]:
    found = file.seek(0, 2)
    if size_bytes is not None and found != size_bytes:
        raise MediaError("changed_while_read", f"the file has {found} bytes, and had {size_bytes} before")
    if path is None and found <= _WHOLE_BYTES:
        # One read instead of one for every step: behind a file object there may be a network.
        file.seek(0)
        file = BytesIO(file.read())
    kind = identify(file)
    facts: dict[str, Any] = {
        "kind": kind.kind,
        "container": kind.name,
        "duration_s": None,
        "video_streams": [],
        "audio_streams": [],
        "data_streams": [],
        "picture": None,
    }
    if kind.kind == "image":
        picture = open_picture(file, kind, limits=limits)
        facts["picture"] = picture.facts()
        capture = picture.capture
    else:
        capture = _probe_video(file, path, kind, facts, limits=limits)
    return facts | _capture_columns(capture, keep_position=keep_position)


def _capture_columns(capture: Capture, *, keep_position: bool) -> dict[str, Any]:
    columns = asdict(capture)
    columns["captured_at"] = capture.captured_at.isoformat() if capture.captured_at else None
    columns["position"] = capture.position if keep_position else None
    return columns


def _probe_video(file: BinaryIO, path: str | None, kind: Kind, facts: dict[str, Any], *, limits: Limits) -> Capture:
    file.seek(0)
    try:
        container = open_video(path or file, kind, max_pixels=limits.max_pixels, threads=limits.threads)
    except MediaError as error:
        missing = shortfall(file, kind.demuxer)
        if missing is not None:
            raise MediaError("truncated", f"{missing}; {error.message}") from error
        if kind.demuxer == "mov" and _lacks_index(file):
            raise MediaError("truncated", f"the {kind.name} has no index (moov box): it was not finished") from error
        raise
    with container:
        _describe(container, kind, facts, limits=limits)
        tags = dict(container.metadata)
        for stream in container.streams:
            tags = dict(stream.metadata) | tags
    return video_capture(tags)


def _lacks_index(file: BinaryIO) -> bool:
    """Whether the boxes of an ISO base media file follow on to its end and none is the index."""
    try:
        return "moov" not in check_boxes(file, what="file")
    except MediaError:
        return False


def _describe(container: InputContainer, kind: Kind, facts: dict[str, Any], *, limits: Limits) -> None:
    videos = video_streams(container)
    if not videos:
        raise MediaError("no_video", f"the {kind.name} holds no video stream ({_listed(container)})")
    if not any(is_decodable(stream) for stream in videos):
        raise MediaError("unsupported_codec", f"no video stream can be decoded ({_listed(container)})")
    for stream in videos:
        _check_size(stream, limits)
    frames, windows = _scan(container, [stream for stream in videos if is_decodable(stream)], limits)
    facts["video_streams"] = [
        _video_facts(s, container, kind, frames.get(s.index), windows.get(s.index, [])) for s in videos
    ]
    facts["duration_s"] = max((s["duration_s"] for s in facts["video_streams"] if s["duration_s"]), default=None)
    for stream in container.streams:
        if stream.type == "audio":
            facts["audio_streams"].append(_audio_facts(stream))
        elif stream.type != "video":
            facts["data_streams"].append(_data_facts(stream, stream.type))
        elif stream not in videos:
            facts["data_streams"].append(_data_facts(stream, "attached_picture"))


def _check_size(stream: VideoStream, limits: Limits) -> None:
    context = stream.codec_context
    if context is None or not context.width:
        return
    pixels = context.width * context.height
    if pixels > limits.max_pixels:
        raise MediaError(
            "too_large",
            f"stream {stream.index} has {context.width}x{context.height} = {pixels} pixels; at most "
            f"{limits.max_pixels} are allowed",
            f'{{"width_px": {context.width}, "height_px": {context.height}, "max_pixels": {limits.max_pixels}}}',
        )


def _scan(
    container: InputContainer, streams: list[VideoStream], limits: Limits
) -> tuple[dict[int, VideoFrame], dict[int, list[list[int]]]]:
    """First decoded frame of each stream, and presentation times in windows at the start and the middle of the file."""
    from av.error import FFmpegError

    frames: dict[int, VideoFrame] = {}
    windows: dict[int, list[list[int]]] = {stream.index: [] for stream in streams}
    for stream in streams:
        stream.codec_context.thread_count = limits.threads
        stream.codec_context.options = {"max_pixels": str(limits.max_pixels)}
    try:
        _add_window(windows, container, streams, frames)
        if container.duration and all(len(w[0]) >= _SCAN_PACKETS - _REORDERED for w in windows.values()):
            container.seek((container.start_time or 0) + container.duration // 2)
            _add_window(windows, container, streams, None)
    except (FFmpegError, ValueError):
        pass  # damage: what was read so far is told; extracting frames says where it lies
    return frames, windows


def _add_window(
    windows: dict[int, list[list[int]]],
    container: InputContainer,
    streams: list[VideoStream],
    frames: dict[int, VideoFrame] | None,
) -> None:
    times: dict[int, list[int]] = {stream.index: [] for stream in streams}
    try:
        for packet in _bounded(container, streams):
            seen = times.get(packet.stream_index)
            if seen is None:
                continue  # a stream that the header does not announce
            if packet.pts is not None and not packet.is_discard and len(seen) < _SCAN_PACKETS:
                seen.append(packet.pts)
            if frames is not None and packet.stream_index not in frames:
                for frame in _decoded(packet):
                    frames.setdefault(packet.stream_index, frame)
    finally:
        for index, seen in times.items():
            # After a seek, frames shown before the first keyframe lack theirs.
            shown = sorted({time for time in seen if time >= seen[0]})
            windows[index].append(shown[:-_REORDERED] if len(seen) >= _SCAN_PACKETS else shown)


def _bounded(container: InputContainer, streams: list[VideoStream]) -> Iterator[Any]:
    size = 0
    for count, packet in enumerate(container.demux(streams), start=1):
        yield packet
        size += packet.size
        if count >= _SCAN_PACKETS * len(streams) or size >= _SCAN_BYTES:
            return


def _decoded(packet: Any) -> list[VideoFrame]:
    from av.error import FFmpegError

    try:
        return packet.decode()
    except (FFmpegError, ValueError):
        return []


def _video_facts(
    stream: VideoStream, container: InputContainer, kind: Kind, frame: VideoFrame | None, windows: list[list[int]]
) -> dict[str, Any]:
    context = stream.codec_context
    shown = frame if frame is not None else context
    turn = orientation_of(frame) if frame is not None else None
    layout = shown.format if shown is not None else None
    aspect = stream.sample_aspect_ratio if context is not None else None
    base = stream.time_base
    start = stream.start_time
    return {
        "stream_index": stream.index,
        "codec": codec_name(context),
        "profile": stream.profile if context is not None else None,
        "pixel_format": layout.name if layout is not None else None,
        "bit_depth": max((c.bits for c in layout.components), default=None) if layout is not None else None,
        "color_space": _SPACES.get(shown.colorspace) if shown is not None else None,
        "color_range": _RANGES.get(shown.color_range) if shown is not None else None,
        "color_primaries": _PRIMARIES.get(shown.color_primaries) if shown is not None else None,
        "color_transfer": _TRANSFERS.get(shown.color_trc) if shown is not None else None,
        "width_px": (shown.width or None) if shown is not None else None,
        "height_px": (shown.height or None) if shown is not None else None,
        "sample_aspect_num": aspect.numerator if aspect else None,
        "sample_aspect_den": aspect.denominator if aspect else None,
        "rotation_deg": turn.rotation_deg if turn is not None else None,
        "is_mirrored": turn.is_mirrored if turn is not None else None,
        "time_base_num": base.numerator if base else None,
        "time_base_den": base.denominator if base else None,
        "average_rate": _rate(stream.average_rate),
        "nominal_rate": _rate(stream.base_rate),
        "is_variable_rate": _variable(stream, kind, windows),
        "frame_count": _frame_count(stream, kind),
        "duration_s": _duration_s(stream, container, kind),
        "start_s": float(start * base) if start is not None and base and kind.has_times else None,
    }


def _variable(stream: VideoStream, kind: Kind, windows: list[list[int]]) -> bool | None:
    """By the container's index where it holds every frame, and by the presentation times that were read."""
    if not kind.has_times:
        return False
    verdicts = [is_variable_rate(times) for times in windows]
    verdicts.append(not same_rate(windows) if len(windows) > 1 else None)
    if kind.demuxer == "mov" and 0 < stream.frames == len(stream.index_entries):
        verdicts.append(is_variable_rate([e.timestamp for e in stream.index_entries if not e.is_discard]))
    known = [verdict for verdict in verdicts if verdict is not None]
    return any(known) if known else None


def _frame_count(stream: VideoStream, kind: Kind) -> int | None:
    if kind.demuxer not in _COUNTED or stream.frames <= 0:
        return None
    if kind.demuxer == "mov" and len(stream.index_entries) == stream.frames:
        return sum(not entry.is_discard for entry in stream.index_entries)
    return stream.frames


def _duration_s(stream: Stream, container: InputContainer, kind: Kind) -> float | None:
    if kind.name in _ESTIMATED:
        return None
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return container.duration / 1_000_000 if container.duration else None


def _rate(rate: Fraction | None) -> str | None:
    return str(rate) if rate else None


def _audio_facts(stream: Any) -> dict[str, Any]:
    context = stream.codec_context
    duration = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else None
    return {
        "stream_index": stream.index,
        "codec": codec_name(context),
        "sample_rate_hz": (context.sample_rate or None) if context is not None else None,
        "channel_count": (context.layout.nb_channels or None) if context is not None and context.layout else None,
        "duration_s": duration,
    }


def _data_facts(stream: Stream, kind: str) -> dict[str, Any]:
    return {"stream_index": stream.index, "kind": kind, "codec": codec_name(stream.codec_context)}


def _listed(container: InputContainer) -> str:
    found = [f"{stream.type} {codec_name(stream.codec_context) or 'unknown'}" for stream in container.streams]
    return ", ".join(found) or "no streams"
