"""Opening a still: what its header declares, checked against the limits before anything is decoded."""

from __future__ import annotations

import hashlib
import re
import warnings
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any, BinaryIO

from ._errors import MediaError
from ._kinds import Kind
from ._segments import Segment, jpeg_end, jpeg_segments, png_chunks, webp_chunks
from .exif import Capture, load_exif, metadata_of, orientation, still_capture
from .frame_types import Limits

if TYPE_CHECKING:
    from PIL.Image import Exif, Image

_PIL_FORMATS = {"jpeg": ("JPEG",), "heif": ("HEIF",), "avif": ("AVIF",)}
_TIFF_STORAGE = ((273, 279), (324, 325))  # strips, tiles: offsets and byte counts
_CUT_SHORT = r"truncat|not processed|end of (?:file|data)|premature|EOF|too short|requires a buffer|index out of range"
_RAW_TAGS = (50706, 33421)  # DNG version, colour filter array
_DECODED_BYTES_PER_PIXEL = 8  # 16 bits of red, green, blue, alpha


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A still's header. `image` is open and not decoded; the size is as stored, before any turn.

    `orientation` is the EXIF value as recorded; `turn` is the part of it that decoding does not already undo.
    `is_deep`: 16 bits a channel, which Pillow would cut down to the high bytes.
    """

    image: Image
    container: str
    width_px: int
    height_px: int
    bit_depth: int | None
    has_alpha: bool
    page_count: int | None
    is_animated: bool
    orientation: int | None
    turn: int
    is_deep: bool
    icc_profile: bytes | None
    capture: Capture

    def facts(self) -> dict[str, Any]:
        """The `picture` struct of table `media`."""
        return {
            "width_px": self.width_px,
            "height_px": self.height_px,
            "mode": self.image.mode,
            "bit_depth": self.bit_depth,
            "has_alpha": self.has_alpha,
            "page_count": self.page_count,
            "is_animated": self.is_animated,
            "exif_orientation": self.orientation,
            "icc_profile": _profile_name(self.icc_profile),
        }


def open_picture(file: BinaryIO, kind: Kind, *, limits: Limits) -> Picture:
    """Read a still's header and metadata.

    Raises MediaError: truncated, too_large, unreadable, unsupported_format.
    """
    size = file.seek(0, 2)
    most = limits.max_pixels * _DECODED_BYTES_PER_PIXEL + (64 << 20)
    if size > most:
        raise MediaError("too_large", f"the {kind.name} has {size} bytes; at most {most} are allowed")
    segments = _segments(file, kind)
    image = _open(file, kind, limits=limits)
    if kind.name in ("jpeg", "png", "webp"):
        payload, texts = metadata_of(kind.name, segments)
        exif = load_exif(payload)
    else:
        exif, texts = _exif(image), [_bytes(image.info.get("xmp"))]
    recorded = turn = orientation(exif)
    width, height = image.size
    bits = _bit_depth(image, kind, segments)
    is_deep = bits == 16 and kind.name in ("png", "tiff") and image.mode != "CMYK"
    if kind.name == "tiff":
        width, height = _check_tiff(image, size)
        recorded = _tiff_orientation(image)
        turn = recorded if is_deep else 1  # Pillow turns a TIFF while it decodes; FFmpeg decodes deep ones
    elif kind.name == "heif":
        recorded, turn = image.info.get("original_orientation") or recorded, 1  # so does libheif
    pages = _page_count(image)
    if pages is None:
        image = _open(file, kind, limits=limits)
    return Picture(
        image=image,
        container=kind.name,
        width_px=width,
        height_px=height,
        bit_depth=bits,
        has_alpha=image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info,
        page_count=pages,
        is_animated=(pages or 1) > 1 and kind.name in ("gif", "png", "webp", "avif"),
        orientation=recorded,
        turn=turn or 1,
        is_deep=is_deep,
        icc_profile=_bytes(image.info.get("icc_profile")) or None,
        capture=still_capture(exif, [text for text in texts if text]),
    )


def decoding_error(error: Exception, what: str) -> MediaError:
    """The error row of a failure in an image library."""
    # Pillow ends its messages with the file object, whose address differs every time.
    text = re.sub(r"\s*<.*>", "", str(error)) or type(error).__name__
    cut = re.search(_CUT_SHORT, text, re.IGNORECASE)
    return MediaError("truncated" if cut else "unreadable", f"{what}: {text}")


def _open(file: BinaryIO, kind: Kind, *, limits: Limits) -> Image:
    from PIL import Image

    if kind.name == "heif":
        try:
            from pillow_heif import register_heif_opener
        except ImportError:
            raise MediaError("unsupported_format", "HEIF pictures need the package pillow-heif") from None
        register_heif_opener()
    file.seek(0)
    Image.MAX_IMAGE_PIXELS = None  # the check below is ours: Pillow only warns
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(file, formats=_PIL_FORMATS.get(kind.name, (kind.name.upper(),)))
    except MemoryError:
        raise
    except Exception as error:  # plugins raise anything on damaged headers
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the file cannot be read, whatever it holds
        raise decoding_error(error, f"the {kind.name} header cannot be read") from error
    width, height = image.size
    if width < 1 or height < 1:
        raise MediaError("unreadable", f"the {kind.name} header says {width}x{height} pixels")
    if width * height > limits.max_pixels:
        raise MediaError(
            "too_large",
            f"{width}x{height} = {width * height} pixels; at most {limits.max_pixels} are allowed",
            f'{{"width_px": {width}, "height_px": {height}, "max_pixels": {limits.max_pixels}}}',
        )
    return image


def _segments(file: BinaryIO, kind: Kind) -> list[Segment]:
    """The parts of a file whose end its structure tells. Raises MediaError where that end is missing."""
    if kind.name == "jpeg":
        segments = list(jpeg_segments(file))
        if not _ends_with_marker(file) and jpeg_end(file, segments) is None:
            raise MediaError("truncated", f"the JPEG ends at byte {file.seek(0, 2)} without its end marker")
        return segments
    if kind.name == "png":
        return list(png_chunks(file))
    if kind.name == "webp":
        return list(webp_chunks(file))
    if kind.name in ("heif", "avif"):
        check_boxes(file, what=kind.name)
    if kind.name == "bmp":
        size = file.seek(0, 2)
        file.seek(2)
        declared = int.from_bytes(file.read(4), "little")
        if declared > size:
            raise MediaError("truncated", f"the BMP has {size} bytes of {declared}")
    return []


def check_boxes(file: BinaryIO, *, what: str) -> list[str]:
    """Names of the top-level boxes of an ISO base media file. Raises MediaError (truncated) where one is cut short."""
    size = file.seek(0, 2)
    names: list[str] = []
    position = 0
    while position + 8 <= size and len(names) < 100_000:
        file.seek(position)
        head = file.read(16)
        length, name = int.from_bytes(head[:4], "big"), head[4:8].decode("latin-1")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        elif length == 0:
            length = size - position
        names.append(name)
        if length < 8:
            break  # padding or damage: the demuxer says more
        position += length
    if position > size:
        raise MediaError("truncated", f"the {what} ends within its box {names[-1]!r}: {size} bytes of {position}")
    return names


def _ends_with_marker(file: BinaryIO) -> bool:
    file.seek(max(0, file.seek(0, 2) - 4096))
    return file.read(4096).rstrip(b"\0").endswith(b"\xff\xd9")


def _check_tiff(image: Any, size: int) -> tuple[int, int]:
    """Stored width and height. Raises MediaError where strips lie behind the end, or the page is only a preview."""
    tags = image.tag_v2
    if any(tag in tags for tag in _RAW_TAGS) or (tags.get(254, 0) & 1 and 330 in tags):
        raise MediaError("unsupported_format", "the TIFF is a camera's raw picture, whose first page is a preview")
    for offsets, counts in _TIFF_STORAGE:
        if offsets in tags and counts in tags:
            end = max((o + c for o, c in zip(tags[offsets], tags[counts], strict=False)), default=0)
            if end > size:
                raise MediaError("truncated", f"the TIFF has {size} bytes of at least {end}")
    return int(tags[256]), int(tags[257])


def _tiff_orientation(image: Any) -> int | None:
    value = image.tag_v2.get(274)
    return value if isinstance(value, int) and 1 <= value <= 8 else None


def _bit_depth(image: Any, kind: Kind, segments: list[Segment]) -> int | None:
    if kind.name == "jpeg":
        return next((s.payload[0] for s in segments if s.size_px), None)
    if kind.name == "png":
        return segments[0].payload[8] if len(segments[0].payload) >= 9 else None
    if kind.name == "tiff":
        return max(image.tag_v2.get(258, (1,)))
    if kind.name == "heif":
        return image.info.get("bit_depth")
    if kind.name == "avif":
        image.fp.seek(0)
        match = re.search(rb"pixi\0\0\0\0[\x01-\x04](.)", image.fp.read(1 << 16), re.DOTALL)
        return match[1][0] if match else None
    return 8


def _page_count(image: Any) -> int | None:
    """Pages or frames; None where a damaged one bars the way, and then the image stands somewhere among them."""
    try:
        return int(getattr(image, "n_frames", 1) or 1)
    except Exception:  # plugins raise anything on damaged data
        return None


def _exif(image: Image) -> Exif | None:
    try:
        exif = image.getexif()
        dict(exif)
    except Exception:  # see exif.load_exif
        return None
    return exif


def _bytes(value: object) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", "replace")
    return value if isinstance(value, bytes) else b""


def _profile_name(profile: bytes | None) -> str | None:
    """The profile's description (`Display P3`), or a digest where it has none that can be read."""
    if profile is None:
        return None
    from PIL import ImageCms

    try:
        name = ImageCms.getProfileDescription(ImageCms.getOpenProfile(BytesIO(profile))).strip()
    except Exception:  # a damaged profile
        name = ""
    return name or f"sha256:{hashlib.sha256(profile).hexdigest()}"
