"""From a decoded video frame to 8-bit RGB, by the stream's own matrix and range."""

from __future__ import annotations

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from ._errors import MediaError

_UNSPECIFIED = 2
# ITU-T H.273 matrix coefficients that the converter knows; others would silently come out as BT.601.
_KNOWN_MATRICES = frozenset({0, 1, 2, 3, 4, 5, 6, 7, 9, 10})


class RgbConverter:
    """Converts the frames of one stream; keeps the converter's tables between frames.

    Without a matrix the usual rule holds: BT.709 for pictures of more than 576 lines or at least 1280 columns, else
    BT.601. Without a range, YCbCr is limited; grey and the full-range "J" formats are full. BT.2020 with constant
    luminance is converted like its non-constant form. Transfer curves are not applied. Alpha is laid over black.
    """

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()

    def convert(self, frame: av.VideoFrame, *, width: int, height: int) -> np.ndarray:
        """`height` x `width` x 3 bytes, contiguous. Raises MediaError (unsupported_colour)."""
        if frame.colorspace not in _KNOWN_MATRICES:
            raise MediaError(
                "unsupported_colour",
                f"colour matrix {frame.colorspace} (ITU-T H.273) is not supported; known: {sorted(_KNOWN_MATRICES)}",
            )
        has_alpha = frame.format.has_palette or any(component.is_alpha for component in frame.format.components)
        shrinks = width < frame.width or height < frame.height
        picture = self._reformatter.reformat(
            frame,
            width=width,
            height=height,
            format="rgba" if has_alpha else "rgb24",
            src_colorspace=_matrix(frame),
            interpolation=Interpolation.AREA if shrinks else Interpolation.BILINEAR,
            dst_color_range=ColorRange.JPEG,
            threads=1,
        ).to_ndarray()
        return over_black(picture) if has_alpha else picture


def over_black(picture: np.ndarray) -> np.ndarray:
    """RGB of an RGBA picture (straight alpha) laid over black."""
    alpha = picture[..., 3:].astype(np.uint16)
    return ((picture[..., :3] * alpha + 127) // 255).astype(np.uint8)


def _matrix(frame: av.VideoFrame) -> Colorspace | None:
    """The matrix to assume where the frame names none; None where it does."""
    if frame.colorspace != _UNSPECIFIED or frame.format.is_rgb:
        return None
    return Colorspace.ITU709 if frame.width >= 1280 or frame.height > 576 else Colorspace.ITU601
