"""One still image as a frame: upright, 8 bits, grey or RGB."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any, BinaryIO

from ._errors import MediaError
from ._kinds import error_text, identify
from .exif import without_position
from .frame_types import Frame, FrameOptions, Limits
from .picture import Picture, decoding_error, open_picture
from .quality import Quality, measure

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

_KEPT_FORMATS = ("jpeg", "png", "webp")
_TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
_ROWS = 64  # at a time, so that wide numbers take little memory
_HALF = 65535 * 257 // 2
_PROFILE_SPACES = {"RGB": b"RGB ", "L": b"GRAY"}


def still_frame(source: str | BinaryIO, *, options: FrameOptions, limits: Limits) -> Frame:
    """The first picture of a still as stream 0, pts 0, one second per tick.

    The bytes stay as they are where the file is an upright single 8-bit grey or RGB JPEG, PNG or WebP that fits
    `options.max_side_px` (but for metadata that hold a position, and whatever follows the picture); all others are
    decoded and stored as `options.image_format`. Sampling options do not apply. Raises MediaError: truncated,
    too_large, unreadable, unsupported_format, not_media.
    """
    from PIL.Image import Resampling

    if isinstance(source, str):
        with open(source, "rb") as file:
            return still_frame(file, options=options, limits=limits)
    kind = identify(source)
    if kind.kind != "image":
        raise MediaError("unsupported_format", f"a {kind.name} file is no still image")
    picture = open_picture(source, kind, limits=limits)
    container, profile, is_kept = picture.container, picture.icc_profile, keeps_bytes(picture)
    image = turn_upright(decode_picture(source, picture), picture.turn)
    del picture  # and with it what its decoder holds
    full_size = image.size
    size = fitted_size(image.width, image.height, options.max_side_px)
    if size != full_size:
        image = image.resize(size, Resampling.LANCZOS)
    data: bytes | None = None
    image_format: Any = None
    if options.image_format != "none":
        if is_kept and image.size == full_size and options.image_format != "rgb":
            source.seek(0)
            data, image_format = without_position(source.read(), container), container
        else:
            data, image_format = encode(image, profile, options), options.image_format
    return Frame(
        stream_index=0,
        pts=0,
        time_base_num=1,
        time_base_den=1,
        pts_s=0.0,
        pts_source="index",
        pts_offset=0,
        frame_index=0,
        is_keyframe=True,
        width_px=image.width,
        height_px=image.height,
        full_width_px=full_size[0],
        full_height_px=full_size[1],
        image=data,
        image_format=image_format,
        **_measures(image),
    )


def keeps_bytes(picture: Picture) -> bool:
    """Whether a reader that knows nothing of turns, alpha or depth sees the picture right in the file as it is."""
    return (
        picture.container in _KEPT_FORMATS
        and picture.image.mode in ("L", "RGB")
        and picture.bit_depth == 8
        and not picture.has_alpha
        and picture.page_count == 1
        and picture.orientation in (None, 1)
    )


def decode_picture(file: BinaryIO, picture: Picture) -> Image:
    """The pixels as 8-bit grey (mode L) or RGB, not turned: 16 bits divided by 257, alpha over black, CMYK converted.

    Raises MediaError: truncated, unreadable, unsupported_format.
    """
    image = picture.image
    try:
        image.load()
        return _decode_deep(file, picture) if picture.is_deep else _plain(image)
    except (MemoryError, MediaError):
        raise
    except Exception as error:  # decoders raise anything on damaged data
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise decoding_error(error, f"the {picture.container} picture cannot be decoded") from error


def turn_upright(image: Image, orientation: int) -> Image:
    """Undo an EXIF orientation, mirrors included."""
    from PIL.Image import Transpose

    return image.transpose(Transpose[_TURNS[orientation]]) if orientation in _TURNS else image


def fitted_size(width: int, height: int, max_side_px: int | None) -> tuple[int, int]:
    """The size whose longer side has at most `max_side_px`, rounded to whole pixels; never larger than it was."""
    longest = max(width, height)
    if max_side_px is None or longest <= max_side_px:
        return width, height
    fitted = [max(1, (2 * side * max_side_px + longest) // (2 * longest)) for side in (width, height)]
    return fitted[0], fitted[1]


def encode(image: Image, icc_profile: bytes | None, options: FrameOptions) -> bytes:
    """The picture as JPEG, PNG or bare RGB, with its profile where that is of the picture's own colour space."""
    if options.image_format == "rgb":
        return image.convert("RGB").tobytes()
    buffer = BytesIO()
    extra: dict[str, Any] = {}
    if icc_profile is not None and icc_profile[16:20] == _PROFILE_SPACES[image.mode]:
        extra["icc_profile"] = icc_profile
    if options.image_format == "png":
        image.save(buffer, "PNG", **extra)
    else:
        image.save(buffer, "JPEG", quality=options.jpeg_quality, **extra)
    return buffer.getvalue()


def _plain(image: Image) -> Image:
    mode = image.mode
    if "transparency" in image.info or mode in ("RGBA", "LA", "PA", "La", "RGBa"):
        grey = mode in ("L", "1", "LA", "La")
        return _over_black(image.convert("RGBA"), grey=grey)
    if mode in ("L", "RGB"):
        return image
    if mode == "1":
        return image.convert("L")
    if mode in ("P", "CMYK", "YCbCr"):
        return image.convert("RGB")
    raise MediaError("unsupported_format", f"pixels of mode {mode!r}; known are 8 and 16 bit grey, RGB, CMYK, palette")


def _over_black(image: Image, *, grey: bool) -> Image:
    from PIL import Image as pil

    black = pil.new("RGB", image.size)
    black.paste(image.convert("RGB"), mask=image.getchannel("A"))
    return black.convert("L") if grey else black


def _decode_deep(file: BinaryIO, picture: Picture) -> Image:
    """16-bit PNG and TIFF by FFmpeg: Pillow cuts colours down to their high bytes (but notices damage better)."""
    import av
    import numpy as np
    from av.error import FFmpegError
    from PIL import Image as pil

    file.seek(0)
    context: Any = av.CodecContext.create(picture.container, "r")
    context.thread_count = 1
    try:
        frames = context.decode(av.Packet(file.read())) + context.decode(None)
    except (FFmpegError, ValueError) as error:
        raise decoding_error(error, f"the 16-bit {picture.container} picture: {error_text(error)}") from error
    if not frames:
        raise MediaError("truncated", f"the 16-bit {picture.container} holds no complete picture")
    values = _channels(frames[0], picture.container)
    colours = values.shape[2] - (1 if values.shape[2] in (2, 4) else 0)
    pixels = np.empty((*values.shape[:2], colours), dtype=np.uint8)
    for start in range(0, len(values), _ROWS):
        rows = values[start : start + _ROWS].astype(np.uint64)
        alpha = rows[:, :, colours:] if colours < values.shape[2] else 65535
        pixels[start : start + _ROWS] = (rows[:, :, :colours] * alpha + _HALF) // (65535 * 257)
    return pil.fromarray(pixels[:, :, 0] if colours == 1 else pixels)


def _channels(frame: Any, container: str) -> np.ndarray:
    """Height x width x channels, 16 bits."""
    import numpy as np

    counts = {"gray16": 1, "ya16": 2, "rgb48": 3, "rgba64": 4}
    name, order = frame.format.name[:-2], frame.format.name[-2:]
    if name not in counts:
        raise MediaError("unsupported_format", f"{container} pixels of format {frame.format.name}")
    plane = frame.planes[0]
    rows = np.frombuffer(plane, dtype=">u2" if order == "be" else "<u2").reshape(frame.height, plane.line_size // 2)
    return rows[:, : frame.width * counts[name]].reshape(frame.height, frame.width, counts[name])


def _measures(image: Image) -> Quality:
    import numpy as np

    return measure(np.asarray(image.convert("L")))
