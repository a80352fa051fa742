"""The frames of a video: decoded straight through, placed in time, sampled, rendered."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any, BinaryIO

import av
from av.error import FFmpegError

from ._errors import MediaError
from ._kinds import Kind, error_text
from ._render import Renderer
from ._video_file import VideoFile, displayed_times, error_count, split_streams, video_file
from .frame_types import Frame, FrameError, FrameOptions, Limits
from .sampling import Sampler
from .timeline import TIMESTAMP_WRAP, Moment, Timeline

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

_FALLBACK_RATE = Fraction(25)
_MATROSKA_SLACK_S = 2.0
_SEEK_AHEAD_S = 10  # most streams can be entered more often


def video_frames(
    source: str | BinaryIO, *, options: FrameOptions, limits: Limits, alive: Callable[[], None] = lambda: None
) -> Iterator[Frame | FrameError]:
    """Frames of every video stream, in presentation order within each; pictures attached as covers are no video.

    `source` is a local path or an open seekable file. A frame with an unusable time, or a stream of several that gives
    no frame, comes as a `FrameError` and the rest goes on. `alive` is called often, also while no frame is kept.

    Damage is what container or decoder notice; decoders of HEVC, VP8 and VP9 take altered bytes without a word.

    Raises MediaError after the frames before the damage: truncated, damaged, no_frames, nothing_selected, no_video,
    too_large, unsupported_colour, unsupported_codec, unsupported_format, not_media, empty_file, unreadable. Message
    and payload say where.
    """
    with video_file(source, limits=limits) as video:
        times = displayed_times(video, alive=alive) if options.keyframes_only else {}
        with video.open() as container:
            yield from _Decoding(video, container, times, options, alive).frames()


@dataclass
class _Stream:
    """The work on one stream.

    `times` are those of all its packets where only keyframes are decoded; `wanted` those of the only frames to keep.
    """

    stream: VideoStream
    timeline: Timeline
    renderer: Renderer
    options: FrameOptions
    times: list[int] | None
    wanted: frozenset[int] | None = None
    sampler: Sampler | None = None
    finished: bool = False
    last_dts: int | None = None
    cut_pts: int | None = None
    suspect_pts: set[int] = field(default_factory=set)

    @property
    def where(self) -> str:
        """Where the stream has got to, for messages."""
        last = self.timeline.last
        if last is None:
            return f"stream {self.stream.index}: before its first frame"
        seconds = float(last.pts * self.timeline.time_base)
        return f"stream {self.stream.index}: after frame {last.frame_index} at {seconds:.3f} s (pts {last.pts})"

    @property
    def place(self) -> dict[str, int | None]:
        """Where the stream has got to, for programs."""
        last = self.timeline.last
        frames = self.timeline.frame_count
        return {"stream_index": self.stream.index, "frames": frames, "last_pts": last.pts if last else None}

    def take(self, picture: av.VideoFrame) -> Frame | FrameError | None:
        """What comes of the next picture in presentation order; None where it is not kept."""
        self.renderer.see(picture)
        moment = self._moment(picture)
        if isinstance(moment, FrameError):
            return moment
        if self.sampler is None:
            origin = self.times[0] if self.times else moment.pts
            self.sampler = Sampler(self.options, self.timeline.time_base, origin, self.wanted)
        verdict = self.sampler.judge(moment.pts, is_keyframe=picture.key_frame)
        self.finished = verdict == "stop" or self.sampler.is_done
        return self.renderer.frame(picture, moment, self.timeline) if verdict == "keep" else None

    def cut_after_the_last_packet(self) -> None:
        """Drop pictures before which some may be missing: lost packets have times after the last decoding time."""
        if self.last_dts is not None and self.timeline.source == "container":
            self.cut_pts = min(self.last_dts + 1, self.last_dts + 1 if self.cut_pts is None else self.cut_pts)

    def _moment(self, picture: av.VideoFrame) -> Moment | FrameError:
        if self.times is None or picture.pts is None:
            return self.timeline.place(picture.pts, dts=picture.dts, duration=picture.duration or 0)
        self.timeline.frame_count = bisect_left(self.times, picture.pts)
        return self.timeline.place(picture.pts)


class _Decoding:
    """One pass through a container."""

    def __init__(
        self,
        video: VideoFile,
        container: InputContainer,
        times: dict[int, list[int]],
        options: FrameOptions,
        alive: Callable[[], None],
    ) -> None:
        self.kind, self.missing, self.container = video.kind, video.missing, container
        self.options, self.alive = options, alive
        self.damage: MediaError | None = None
        self.end_s = 0.0
        self.errors_before = error_count()
        self.works: dict[int, _Stream] = {}
        streams, refused = split_streams(container)
        self.refused = refused if options.wanted is None else []
        for stream in streams:
            wanted = _wanted(options, stream.index)
            if wanted is not None and not wanted:
                continue
            only_keyframes = times.get(stream.index)
            _set_up_decoder(stream, video.limits, only_keyframes=only_keyframes is not None)
            self.works[stream.index] = _Stream(
                stream=stream,
                timeline=_timeline(stream, video.kind),
                renderer=Renderer(stream, options),
                options=options,
                times=only_keyframes,
                wanted=wanted,
            )
        if options.decode_from == "keyframe":
            self._seek()

    def frames(self) -> Iterator[Frame | FrameError]:
        """All kept frames; raises what was found to be wrong at the end."""
        yield from self.refused
        for packet in self._packets():
            self.alive()
            work = self.works.get(packet.stream_index)
            if work is None or work.finished:
                continue
            errors = error_count()
            try:
                pictures = packet.decode()
            except MemoryError:
                raise
            except FFmpegError as error:
                work.cut_pts = packet.pts
                self._damaged(work, error_text(error))
                break
            work.last_dts = packet.dts
            if packet.is_corrupt and error_count() > errors and packet.pts is not None:
                # The demuxer alone cries corruption at every seam of joined recordings; here the decoder agrees.
                work.suspect_pts.add(packet.pts)
            yield from self._take(work, pictures)
            if self.damage is not None:
                break
            if all(w.finished for w in self.works.values()):
                yield from self._check_that_something_came()
                return
        yield from self._end()

    def _seek(self) -> None:
        """Go to where decoding can start before all frames that are wanted. Raises MediaError (unseekable)."""
        for work in self.works.values():
            first = min(work.wanted or ())
            if self.kind.demuxer in ("mpegts", "mpeg"):  # have no index, and seek to any packet
                first -= round(_SEEK_AHEAD_S / work.timeline.time_base)
            try:
                self.container.seek(first, stream=work.stream, backward=True)
            except (FFmpegError, ValueError, OverflowError) as error:
                raise MediaError("unseekable", f"{work.where}: {error}") from error

    def _packets(self) -> Iterator[Any]:
        """Packets of all streams up to the end or the damage, without the empty ones that would flush decoders."""
        # The last packet of a cut-off stream of unbounded packets is cut off too, and nothing marks it.
        holds_back = self.missing is not None and self.kind.demuxer == "mpegts"
        held: dict[int, Any] = {}
        # All streams are read: the end of the longest one tells whether a container is complete.
        packets = self.container.demux()
        while True:
            errors = error_count()
            try:
                packet = next(packets, None)
            except MemoryError:
                raise
            except FFmpegError as error:
                self._damaged(None, error_text(error))
                return
            if packet is None or (packet.is_corrupt and self.missing is not None):
                return
            if self.kind.demuxer == "matroska" and self.missing is None and error_count() > errors:
                self._damaged(None, "the container's structure is broken")
                return
            if packet.size == 0:
                continue
            if packet.pts is not None:
                self.end_s = max(self.end_s, float((packet.pts + (packet.duration or 0)) * packet.time_base))
            if holds_back:
                previous = held.get(packet.stream_index)
                held[packet.stream_index] = packet
                packet = previous
            if packet is not None:
                yield packet

    def _take(self, work: _Stream, pictures: list[av.VideoFrame]) -> Iterator[Frame | FrameError]:
        for picture in pictures:
            if work.finished or _is_at_or_after(picture, work.cut_pts):
                return
            if picture.is_corrupt or picture.pts in work.suspect_pts:
                self._damaged(work, "the decoder reports damage in the next frame")
                work.finished = True
                return
            found = work.take(picture)
            if found is not None:
                yield found

    def _end(self) -> Iterator[Frame | FrameError]:
        """What the decoders still hold, then the error if there is one."""
        for work in self.works.values():
            if self.missing is not None or self.damage is not None:
                work.cut_after_the_last_packet()
            try:
                rest = [] if work.finished else work.stream.decode(None)
            except MemoryError:
                raise
            except FFmpegError as error:
                rest = []
                self._damaged(work, error_text(error))
            yield from self._take(work, rest)
        if self.missing is not None:
            where = "; ".join(work.where for work in self.works.values())
            raise MediaError("truncated", f"{self.missing}; {where}", self._place())
        if self.damage is not None:
            raise self.damage
        # A Matroska file whose end was overwritten reads like a shorter one.
        declared_s = (self.container.duration or 0) / av.time_base
        if self.kind.demuxer == "matroska" and declared_s > self.end_s + max(_MATROSKA_SLACK_S, declared_s / 50):
            text = f"the container declares {declared_s:.3f} s and ends at {self.end_s:.3f} s"
            raise MediaError("damaged", text, self._place())
        yield from self._check_that_something_came()

    def _check_that_something_came(self) -> Iterator[FrameError]:
        for work in self.works.values():
            if work.timeline.frame_count == 0:
                reason, text = "no_frames", f"stream {work.stream.index} has no frame that can be decoded"
            elif work.sampler is not None and work.sampler.kept == 0:
                reason, text = "nothing_selected", f"no frame fits {_selection(self.options)}; {work.where}"
            else:
                continue
            if len(self.works) == 1:
                raise MediaError(reason, text, self._place())
            yield FrameError(stream_index=work.stream.index, pts=None, reason=reason, message=text)

    def _damaged(self, work: _Stream | None, text: str) -> None:
        """Note the first damage; what follows from it is not worth a word."""
        if self.damage is None:
            where = "; ".join(w.where for w in ([work] if work else self.works.values()))
            self.damage = MediaError("damaged", f"{where}: {text}", self._place())

    def _place(self) -> str:
        facts: dict[str, Any] = {
            "streams": [work.place for work in self.works.values()],
            "decoder_errors": error_count() - self.errors_before,
        }
        if self.missing is not None:
            facts |= {"size_bytes": self.missing.size_bytes, "declared_bytes": self.missing.declared_bytes}
        return json.dumps(facts)


def _wanted(options: FrameOptions, stream_index: int) -> frozenset[int] | None:
    """Times of the frames of a stream that are wanted; None where any are."""
    if options.wanted is None:
        return None
    return frozenset(pts for stream, pts in options.wanted if stream == stream_index)


def _set_up_decoder(stream: VideoStream, limits: Limits, *, only_keyframes: bool) -> None:
    context = stream.codec_context
    if context.width * context.height > limits.max_pixels:
        size = f"{context.width}x{context.height}"
        raise MediaError("too_large", f"{size} pixels a frame; at most {limits.max_pixels} are allowed")
    context.thread_count = limits.threads
    context.thread_type = "AUTO" if limits.threads > 1 else "NONE"
    context.options = {"max_pixels": str(limits.max_pixels)}
    if only_keyframes:
        context.skip_frame = "NONKEY"


def _timeline(stream: VideoStream, kind: Kind) -> Timeline:
    rate = stream.guessed_rate or stream.average_rate or stream.base_rate or _FALLBACK_RATE
    if not kind.has_times:
        return Timeline(stream.index, 1 / rate, 1, source="index")
    time_base = stream.time_base or Fraction(1, av.time_base)
    nominal = max(1, round(1 / rate / time_base))
    return Timeline(
        stream.index, time_base, nominal, wrap=TIMESTAMP_WRAP if kind.demuxer in ("mpegts", "mpeg") else None
    )


def _selection(options: FrameOptions) -> str:
    """The settings that say which frames are kept, as far as they are set."""
    names = ("fps", "keyframes_only", "start_s", "end_s", "max_frames")
    return ", ".join(f"{name} = {value}" for name in names if (value := getattr(options, name)) not in (None, False))


def _is_at_or_after(picture: av.VideoFrame, pts: int | None) -> bool:
    return pts is not None and picture.pts is not None and picture.pts >= pts
