"""The frames of a video: decoded straight through, placed in time, sampled, turned upright, encoded."""

from __future__ import annotations

import gc
import json
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any, BinaryIO

import av
import av.logging
import numpy as np
from av.error import FFmpegError
from av.stream import Disposition
from PIL import Image

from . import upright
from ._errors import MediaError
from ._kinds import Kind, error_text, identify, open_video
from ._shortfall import Shortfall, shortfall
from .colour import RgbConverter
from .frame_types import Frame, FrameError, FrameOptions, Limits
from .quality import measure
from .sampling import Sampler
from .stills import encode
from .timeline import TIMESTAMP_WRAP, Moment, Timeline

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

_FALLBACK_RATE = Fraction(25)
_MATROSKA_SLACK_S = 2.0


def video_frames(
    source: str | BinaryIO,
    *,
    options: FrameOptions,
    limits: Limits,
    alive: Callable[[], None] = lambda: None,
) -> Iterator[Frame | FrameError]:
    """Frames of every video stream, in presentation order within each; pictures attached as covers are no video.

    `source` is a local path or an open seekable file. A frame with an unusable time comes as a `FrameError` and the
    rest goes on. `alive` is called often, also while no frame is kept.

    Raises MediaError after the frames before the damage: truncated, damaged, no_frames, nothing_selected, too_large,
    unsupported_colour, unsupported_format, not_media, empty_file, unreadable. Message and payload say where.
    """
    with _opened(source) as file:
        kind = identify(file)
        if kind.kind != "video":
            raise MediaError("unsupported_format", f"a {kind.name} file is no video")
        missing = shortfall(file, kind.demuxer)
        file.seek(0)
        index = _index_packets(source, file, kind, limits, alive) if options.keyframes_only else {}
        with _container(source, file, kind, limits, missing) as container:
            yield from _Decoding(container, kind, missing, options, limits, index, alive).frames()


@contextmanager
def _opened(source: str | BinaryIO) -> Iterator[BinaryIO]:
    if not isinstance(source, str):
        yield source
        return
    with open(source, "rb") as file:
        yield file


@contextmanager
def _container(
    source: str | BinaryIO, file: BinaryIO, kind: Kind, limits: Limits, missing: Shortfall | None
) -> Iterator[InputContainer]:
    """The opened container; by path where FFmpeg can take the path, because it then reads without Python."""
    # Errors are counted and kept for messages even at a level that prints none of them.
    if av.logging.get_level() is None:
        av.logging.set_level(av.logging.PANIC)
    file.seek(0)
    by_path = isinstance(source, str) and source.isprintable()
    try:
        container = open_video(source if by_path else file, kind, max_pixels=limits.max_pixels, threads=limits.threads)
    except MediaError as error:
        if missing is None:
            raise
        raise MediaError("truncated", f"{missing}; {error.message}", _payload(missing=missing)) from error
    with container:
        yield container


def _video_streams(container: InputContainer) -> list[VideoStream]:
    """The streams that hold video; an attached picture (cover, thumbnail) is none."""
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    for stream in streams:
        if stream.codec_context is None:
            raise MediaError("unsupported_format", f"stream {stream.index} has a codec that is not supported")
    if not streams:
        raise MediaError("no_video", "the container holds no video stream")
    return streams


@dataclass
class _Stream:
    """The work on one stream."""

    stream: VideoStream
    timeline: Timeline
    converter: RgbConverter = field(default_factory=RgbConverter)
    index: list[int] | None = None
    sampler: Sampler | None = None
    finished: bool = False
    bad_pts: set[int] = field(default_factory=set)
    damaged_pts: int | None = None
    turn: upright.Orientation | None = None

    @property
    def where(self) -> str:
        """Where the stream has got to, for messages."""
        last = self.timeline.last
        if last is None:
            return f"stream {self.stream.index}: before its first frame"
        seconds = float(last.pts * self.timeline.time_base)
        return f"stream {self.stream.index}: after frame {last.frame_index} at {seconds:.3f} s (pts {last.pts})"


class _Decoding:
    """One pass through a container."""

    def __init__(
        self,
        container: InputContainer,
        kind: Kind,
        missing: Shortfall | None,
        options: FrameOptions,
        limits: Limits,
        index: dict[int, list[int]],
        alive: Callable[[], None],
    ) -> None:
        self.container, self.kind, self.missing = container, kind, missing
        self.options, self.limits, self.alive = options, limits, alive
        self.works = {s.index: _Stream(s, _timeline(s, kind, container)) for s in _video_streams(container)}
        self.errors_at_start = _error_count()
        self.damage: MediaError | None = None
        self.end_s = 0.0
        for work in self.works.values():
            context = work.stream.codec_context
            if context.width * context.height > limits.max_pixels:
                size = f"{context.width}x{context.height}"
                raise MediaError("too_large", f"{size} pixels a frame; at most {limits.max_pixels} are allowed")
            context.thread_count = limits.threads
            context.thread_type = "AUTO" if limits.threads > 1 else "NONE"
            context.options = {"max_pixels": str(limits.max_pixels)}
            work.index = index.get(work.stream.index)
            if work.index is not None:
                context.skip_frame = "NONKEY"

    def frames(self) -> Iterator[Frame | FrameError]:
        """All kept frames; raises what was found to be wrong at the end."""
        for packet in self._packets():
            self.alive()
            work = self.works.get(packet.stream_index)
            if work is None or work.finished:
                continue
            errors = _error_count()
            try:
                pictures = packet.decode()
            except MemoryError:
                raise
            except FFmpegError as error:
                work.damaged_pts = packet.pts
                self._damaged(work, error_text(error))
                break
            if packet.is_corrupt and _error_count() > errors and packet.pts is not None:
                # The demuxer alone cries corruption at every seam of joined recordings; here the decoder agrees.
                work.bad_pts.add(packet.pts)
            yield from self._take_all(work, pictures)
            if self.damage is not None:
                break
            if all(w.finished for w in self.works.values()):
                return
        yield from self._end()

    def _packets(self) -> Iterator[Any]:
        """Packets of all streams up to the end or the damage, without the empty ones that would flush decoders."""
        # The last packet of a cut-off stream of unbounded packets is cut off too, and nothing marks it.
        hold_back = self.missing is not None and self.kind.demuxer == "mpegts"
        held: dict[int, Any] = {}
        errors = _error_count()
        # All streams are read: the end of the longest one tells whether a container is complete.
        packets = self.container.demux()
        while True:
            try:
                packet = next(packets, None)
            except FFmpegError as error:
                self._damaged(None, error_text(error))
                return
            if packet is None:
                return
            if packet.size == 0:
                continue
            if self.kind.demuxer == "matroska" and _error_count() > errors and self.missing is None:
                self._damaged(None, "the container's structure is broken")
                return
            if packet.is_corrupt and self.missing is not None:
                return
            if packet.pts is not None:
                self.end_s = max(self.end_s, float((packet.pts + (packet.duration or 0)) * packet.time_base))
            if hold_back:
                packet, held[packet.stream_index] = held.get(packet.stream_index), packet
            if packet is not None:
                yield packet
                errors = _error_count()

    def _take_all(self, work: _Stream, pictures: list[av.VideoFrame]) -> Iterator[Frame | FrameError]:
        for picture in pictures:
            if work.finished:
                return
            if work.damaged_pts is not None and picture.pts is not None and picture.pts >= work.damaged_pts:
                return
            if picture.is_corrupt or picture.pts in work.bad_pts:
                self._damaged(work, "the decoder reports damage in the next frame")
                work.finished = True
                return
            yield from self._take(work, picture)

    def _take(self, work: _Stream, picture: av.VideoFrame) -> Iterator[Frame | FrameError]:
        if picture.key_frame and not work.stream.codec.intra_only:
            work.turn = None  # a matrix can change in midstream, but only where decoding can start
        moment = self._moment(work, picture)
        if isinstance(moment, FrameError):
            yield moment
            return
        if work.sampler is None:
            origin = work.index[0] if work.index else moment.pts
            work.sampler = Sampler(self.options, work.timeline.time_base, origin)
        verdict = work.sampler.judge(moment.pts, is_keyframe=picture.key_frame)
        work.finished = verdict == "stop"
        if verdict == "keep":
            yield _frame(work, picture, moment, self.options)

    def _moment(self, work: _Stream, picture: av.VideoFrame) -> Moment | FrameError:
        if work.index is None or picture.pts is None:
            return work.timeline.place(picture.pts, dts=picture.dts, duration=picture.duration or 0)
        # Only keyframes are decoded here, in a stream whose packets all have sound times.
        rank = bisect_left(work.index, picture.pts)
        work.timeline.last = Moment(pts=picture.pts, pts_offset=0, frame_index=rank)
        work.timeline.frame_count = rank + 1
        return work.timeline.last

    def _end(self) -> Iterator[Frame | FrameError]:
        """What the decoders still hold, then the error if there is one."""
        for work in self.works.values():
            try:
                rest = [] if work.finished else work.stream.decode(None)
            except FFmpegError as error:
                rest = []
                self._damaged(work, error_text(error))
            yield from self._take_all(work, rest)
        if self.missing is not None:
            where = "; ".join(work.where for work in self.works.values())
            raise MediaError("truncated", f"{self.missing}; {where}", self._place())
        if self.damage is not None:
            raise self.damage
        self._check_end()
        for work in self.works.values():
            yield from self._check_stream(work)

    def _check_end(self) -> None:
        """A Matroska file whose end was overwritten reads like a shorter one."""
        declared_s = (self.container.duration or 0) / av.time_base
        if self.kind.demuxer == "matroska" and declared_s > self.end_s + max(_MATROSKA_SLACK_S, declared_s / 50):
            text = f"the container declares {declared_s:.3f} s and ends at {self.end_s:.3f} s"
            raise MediaError("damaged", text, self._place())

    def _check_stream(self, work: _Stream) -> Iterator[FrameError]:
        if work.timeline.frame_count == 0:
            reason, text = "no_frames", f"stream {work.stream.index} has no frame that can be decoded"
        elif work.sampler is not None and work.sampler.kept == 0 and not work.finished:
            reason, text = "nothing_selected", f"start_s = {self.options.start_s} lies behind the end; {work.where}"
        else:
            return
        if len(self.works) == 1:
            raise MediaError(reason, text, self._place())
        yield FrameError(stream_index=work.stream.index, pts=None, reason=reason, message=text)

    def _damaged(self, work: _Stream | None, text: str) -> None:
        """Note the first damage; what follows from it is not worth a word."""
        if self.damage is not None:
            return
        where = "; ".join(w.where for w in ([work] if work else self.works.values()))
        self.damage = MediaError("damaged", f"{where}: {text}", self._place())

    def _place(self) -> str:
        streams = [
            {"stream_index": w.stream.index, "frames": w.timeline.frame_count, "last_pts": last.pts if last else None}
            for w in self.works.values()
            for last in [w.timeline.last]
        ]
        return _payload(missing=self.missing, streams=streams, decoder_errors=_error_count() - self.errors_at_start)


def _timeline(stream: VideoStream, kind: Kind, container: InputContainer) -> Timeline:
    rate = stream.guessed_rate or stream.average_rate or stream.base_rate or _FALLBACK_RATE
    if not kind.has_times:
        return Timeline(stream.index, 1 / rate, 1, source="index")
    time_base = stream.time_base or Fraction(1, av.time_base)
    nominal = max(1, round(1 / rate / time_base))
    wrap = TIMESTAMP_WRAP if kind.demuxer in ("mpegts", "mpeg") else None
    return Timeline(stream.index, time_base, nominal, wrap=wrap)


def _index_packets(
    source: str | BinaryIO, file: BinaryIO, kind: Kind, limits: Limits, alive: Callable[[], None]
) -> dict[int, list[int]]:
    """Sorted times of the displayed packets, for streams where decoding keyframes alone gives the same times.

    A stream with missing, repeated, discarded or joined times, or one that does not begin with a keyframe, is left out:
    it must be decoded in full.
    """
    if not kind.has_times:
        return {}
    times: dict[int, list[int]] = {}
    unsound: set[int] = set()
    with _container(source, file, kind, limits, None) as container:
        streams = {s.index: s for s in _video_streams(container)}
        latest: dict[int, int] = {}
        try:
            for packet in container.demux(list(streams.values())):
                alive()
                if packet.size == 0:
                    continue
                number, pts = packet.stream_index, packet.pts
                if pts is None or packet.is_corrupt or packet.is_discard or _is_seam(packet, latest.get(number)):
                    unsound.add(number)
                    continue
                if number not in times and not packet.is_keyframe:
                    unsound.add(number)
                times.setdefault(number, []).append(pts)
                latest[number] = max(pts, latest.get(number, pts))
        except FFmpegError:
            return {}
    first = {number: found[0] for number, found in times.items()}
    ordered = {number: sorted(found) for number, found in times.items() if number not in unsound}
    return {n: pts for n, pts in ordered.items() if len(set(pts)) == len(pts) and pts[0] == first[n]}


def _is_seam(packet: Any, latest: int | None) -> bool:
    return latest is not None and abs(packet.pts - latest) * packet.time_base > 1


def _frame(work: _Stream, picture: av.VideoFrame, moment: Moment, options: FrameOptions) -> Frame:
    turn = _orientation(work, picture)
    full_width, full_height = turn.size(picture.width, picture.height)
    width, height = picture.width, picture.height
    if options.square_pixels:
        width = max(1, round(width * (work.stream.sample_aspect_ratio or 1)))
    width, height = _fit(width, height, options.max_side_px)
    pixels = turn.apply(work.converter.convert(picture, width=width, height=height))
    image = Image.fromarray(pixels)
    time_base = work.timeline.time_base
    stored = options.image_format != "none"
    return Frame(
        stream_index=work.stream.index,
        pts=moment.pts,
        time_base_num=time_base.numerator,
        time_base_den=time_base.denominator,
        pts_s=float(moment.pts * time_base),
        pts_source=work.timeline.source,
        pts_offset=moment.pts_offset,
        frame_index=moment.frame_index,
        is_keyframe=picture.key_frame,
        width_px=image.width,
        height_px=image.height,
        full_width_px=full_width,
        full_height_px=full_height,
        image=encode(image, None, options) if stored else None,
        image_format=options.image_format if stored else None,  # type: ignore[arg-type]  # "none" was told apart
        **measure(np.asarray(image.convert("L"))),
    )


def _fit(width: int, height: int, max_side_px: int | None) -> tuple[int, int]:
    """The size that the longer side's bound leaves; never larger than it was."""
    longest = max(width, height)
    if max_side_px is None or longest <= max_side_px:
        return width, height
    return max(1, round(width * max_side_px / longest)), max(1, round(height * max_side_px / longest))


def _orientation(work: _Stream, picture: av.VideoFrame) -> upright.Orientation:
    """How the picture lies, read anew where `turn` is None."""
    if work.turn is None:
        # A frame whose side data were looked at is part of a reference cycle; the last one's pixels must go.
        gc.collect(1)
        matrix = picture.side_data.get("DISPLAYMATRIX")
        work.turn = upright.from_matrix(bytes(matrix)) if matrix is not None else upright.UPRIGHT
    return work.turn


def _payload(*, missing: Shortfall | None, **facts: Any) -> str:
    if missing is not None:
        facts |= {"size_bytes": missing.size_bytes, "declared_bytes": missing.declared_bytes}
    return json.dumps(facts)


def _error_count() -> int:
    """How many errors FFmpeg has reported in this process."""
    return av.logging.get_last_error()[0]
