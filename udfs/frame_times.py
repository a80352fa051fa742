"""Which time a frame has that is known by its number: the presentation index of a video's first stream, resolved."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

from . import _video_file
from ._decoder import kept_decoder
from ._errors import MediaError
from ._media_places import find_place, media_error
from .frame_types import Frame, FrameOptions, Limits


def displayed_times(source: str | BinaryIO, *, limits: Limits, alive: Callable[[], None]) -> tuple[int, list[int]]:
    """Index of the first stream that can be decoded, and the pts of its frames in the order in which they are shown.

    From the packets alone where these tell, otherwise by decoding. Raises MediaError.
    """
    with _video_file.video_file(source, limits=limits) as video:
        with video.open() as container:
            stream_index = _video_file.split_streams(container)[0][0].index
        times = _video_file.displayed_times(video, alive=alive)
    if stream_index in times:
        return stream_index, times[stream_index]
    from .video_frames import video_frames

    decoded = video_frames(source, options=FrameOptions(image_format="none"), limits=limits, alive=alive)
    frames = [f for f in decoded if isinstance(f, Frame) and f.stream_index == stream_index]
    return stream_index, [frame.pts for frame in frames]


class FrameTimes:
    """The times of the frames of one video after the other; those of the last one are kept."""

    def __init__(self, *, limits: Limits) -> None:
        self._limits = limits
        self._last: tuple[str, tuple[int, list[int]] | MediaError] | None = None
        self._known = frozenset[int]()

    def of(self, media: Mapping[str, Any], frame_index: int) -> tuple[int, int]:
        """Stream and pts of a frame of `media` (`media_id`, and its places as `find_place` takes them).

        Raises MediaError: what decoding raises, source_missing, source_changed, read_failed, frame_missing.
        """
        stream_index, times = self._times(media)
        if not 0 <= frame_index < len(times):
            raise MediaError("frame_missing", f"frame {frame_index}, counted from 0, of a video of {len(times)} frames")
        return stream_index, times[frame_index]

    def has(self, media: Mapping[str, Any], stream_index: int, pts: int) -> bool:
        """Whether there is such a frame; in a stream that is not the first it is taken for granted.

        Raises MediaError.
        """
        first, _ = self._times(media)
        return stream_index != first or pts in self._known

    def _times(self, media: Mapping[str, Any]) -> tuple[int, list[int]]:
        if self._last is None or self._last[0] != media["media_id"]:
            found = self._look_up(media)
            self._last = (media["media_id"], found)
            self._known = frozenset[int]() if isinstance(found, MediaError) else frozenset(found[1])
        found = self._last[1]
        if isinstance(found, MediaError):
            raise found
        return found

    def _look_up(self, media: Mapping[str, Any]) -> tuple[int, list[int]] | MediaError:
        try:
            return kept_decoder(self._limits).times(find_place(media)[0])
        except (MediaError, OSError) as error:
            return media_error(error)
