"""From a decoded picture to a row: colour, size, orientation, measures, encoding."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import av
import numpy as np
from PIL import Image

from . import upright
from ._display_matrix import orientation_of
from .colour import RgbConverter
from .frame_types import Frame, FrameOptions
from .quality import measure
from .stills import encode, fitted_size

if TYPE_CHECKING:
    from av.video.stream import VideoStream

    from .timeline import Moment, Timeline


class Renderer:
    """Makes the frames of one stream."""

    def __init__(self, stream: VideoStream, options: FrameOptions) -> None:
        self._stream, self._options = stream, options
        self._converter = RgbConverter()
        self._turn: upright.Orientation | None = None

    def see(self, picture: av.VideoFrame) -> None:
        """Take note of a picture that may not be kept: the orientation can change where decoding can start."""
        if picture.key_frame and not self._stream.codec.intra_only:
            self._turn = None

    def frame(self, picture: av.VideoFrame, moment: Moment, timeline: Timeline) -> Frame:
        """The row of a picture. Raises MediaError (unsupported_colour)."""
        options, time_base = self._options, timeline.time_base
        turn = self._orientation(picture)
        full_width, full_height = turn.size(picture.width, picture.height)
        width, height = self._stored_size(picture)
        image = Image.fromarray(turn.apply(self._converter.convert(picture, width=width, height=height)))
        image_format = None if options.image_format == "none" else options.image_format
        return Frame(
            stream_index=self._stream.index,
            pts=moment.pts,
            time_base_num=time_base.numerator,
            time_base_den=time_base.denominator,
            pts_s=float(moment.pts * time_base),
            pts_source=timeline.source,
            pts_offset=moment.pts_offset,
            frame_index=moment.frame_index,
            is_keyframe=picture.key_frame,
            width_px=image.width,
            height_px=image.height,
            full_width_px=full_width,
            full_height_px=full_height,
            image=encode(image, None, options) if image_format else None,
            image_format=image_format,
            **measure(np.asarray(image.convert("L"))),
        )

    def _stored_size(self, picture: av.VideoFrame) -> tuple[int, int]:
        """Size to store, before turning upright; never larger than the picture is with square pixels."""
        width = picture.width
        if self._options.square_pixels:
            width = max(1, round(width * (self._stream.sample_aspect_ratio or 1)))
        return fitted_size(width, picture.height, self._options.max_side_px)

    def _orientation(self, picture: av.VideoFrame) -> upright.Orientation:
        if self._turn is None:
            # A frame whose side data were looked at is part of a reference cycle; the last one's pixels must go.
            gc.collect(1)
            self._turn = orientation_of(picture)
        return self._turn
