"""Opening a video file for one pass, and what its packets tell before anything is decoded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

import av.logging
from av.error import FFmpegError

from ._errors import MediaError
from ._kinds import Kind, codec_name, identify, is_decodable, open_video, video_streams
from ._shortfall import Shortfall, shortfall
from .frame_types import FrameError, Limits

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream


@dataclass(frozen=True, kw_only=True)
class VideoFile:
    """A video that can be opened again and again. `missing` is what its end lacks, as far as the container tells."""

    source: str | BinaryIO
    file: BinaryIO
    kind: Kind
    missing: Shortfall | None
    limits: Limits

    @contextmanager
    def open(self) -> Iterator[InputContainer]:
        """The container, at its start. Raises MediaError: truncated, unreadable."""
        # Errors are counted and kept for messages even at a level that prints none of them.
        if av.logging.get_level() is None:
            av.logging.set_level(av.logging.PANIC)
        self.file.seek(0)
        # By path where FFmpeg can take it, because it then reads without Python.
        source = self.source if isinstance(self.source, str) and self.source.isprintable() else self.file
        try:
            opened = open_video(source, self.kind, max_pixels=self.limits.max_pixels, threads=self.limits.threads)
        except MediaError as error:
            if isinstance(error.__cause__, MemoryError):
                raise error.__cause__ from error
            if self.missing is None:
                raise
            raise MediaError("truncated", f"{self.missing}; {error.message}", self.missing.as_json()) from error
        with opened as container:
            yield container


@contextmanager
def video_file(source: str | BinaryIO, *, limits: Limits) -> Iterator[VideoFile]:
    """A local path or an open seekable file as a video. Raises MediaError where it is none."""
    if isinstance(source, str):
        with open(source, "rb") as file:
            yield _identified(source, file, limits)
    else:
        yield _identified(source, source, limits)


def split_streams(container: InputContainer) -> tuple[list[VideoStream], list[FrameError]]:
    """The video streams to decode, and what is wrong with the others. Raises MediaError where there is none to decode.

    FFmpeg heeds the list of allowed codecs only while it opens a container, not in decoding.
    """
    streams = video_streams(container)
    if not streams:
        raise MediaError("no_video", "the container holds no video stream")
    refused = [_refusal(stream) for stream in streams if not is_decodable(stream)]
    if len(refused) == len(streams):
        raise MediaError("unsupported_codec", "; ".join(error.message for error in refused))
    return [stream for stream in streams if is_decodable(stream)], refused


def _refusal(stream: VideoStream) -> FrameError:
    codec = codec_name(stream.codec_context) or "unknown"
    text = f"stream {stream.index} has the codec {codec}, which cannot or may not be decoded"
    return FrameError(stream_index=stream.index, pts=None, reason="unsupported_codec", message=text)


def error_count() -> int:
    """How many errors FFmpeg has reported in this process."""
    return av.logging.get_last_error()[0]


def displayed_times(video: VideoFile, *, alive: Callable[[], None]) -> dict[int, list[int]]:
    """Sorted times of the packets of each stream in which to decode keyframes alone gives the same times as all frames.

    A stream with missing, repeated, discarded or joined times, or one that does not begin with a keyframe, is left out:
    it must be decoded in full.
    """
    times: dict[int, list[int]] = {}
    unsound: set[int] = set()
    if not video.kind.has_times:
        return {}
    with video.open() as container:
        try:
            for packet in container.demux(split_streams(container)[0]):
                alive()
                found = times.setdefault(packet.stream_index, [])
                if packet.size == 0:
                    continue
                sound = not (packet.is_corrupt or packet.is_discard) and (found or packet.is_keyframe)
                if packet.pts is None or not sound:
                    unsound.add(packet.stream_index)
                    continue
                if found and abs(packet.pts - found[-1]) * packet.time_base > 1:
                    unsound.add(packet.stream_index)
                found.append(packet.pts)
        except FFmpegError:
            return {}
    return {
        number: sorted(found)
        for number, found in times.items()
        if found and number not in unsound and len(set(found)) == len(found) and min(found) == found[0]
    }


def _identified(source: str | BinaryIO, file: BinaryIO, limits: Limits) -> VideoFile:
    kind = identify(file)
    if kind.kind != "video":
        raise MediaError("unsupported_format", f"a {kind.name} file is no video")
    return VideoFile(source=source, file=file, kind=kind, missing=shortfall(file, kind.demuxer), limits=limits)
