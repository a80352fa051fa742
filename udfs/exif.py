"""What metadata says of a capture: when, with which camera, where; and cutting out what tells where."""

from __future__ import annotations

import re
import warnings
import zlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import TYPE_CHECKING, Any

from ._segments import Segment, jpeg_end, jpeg_segments, png_chunks, webp_chunks

if TYPE_CHECKING:
    from PIL.Image import Exif

_MAKE, _MODEL, _ORIENTATION, _EXIF_IFD, _GPS_IFD = 0x010F, 0x0110, 0x0112, 0x8769, 0x8825
_TIMES = ((0x9003, 0x9291, 0x9011), (0x9004, 0x9292, 0x9012))  # original, digitized: time, fraction, zone
_MAX_INFLATED = 8 << 20
_EXIF_TIME = re.compile(r"(\d{4})[:-](\d\d)[:-](\d\d)[ T](\d\d):(\d\d):(\d\d)")
_ISO_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d(?:\.\d+)?)\s*(Z|[+-]\d\d:?\d\d)?")
_ISO_6709 = re.compile(r"([+-]\d+(?:\.\d+)?)([+-]\d+(?:\.\d+)?)([+-]\d+(?:\.\d+)?)?")
_XMP_ANGLE = r"\bGPS{0}\s*(?:=\s*[\"']|>)\s*(\d+(?:\.\d+)?)(?:,(\d+(?:\.\d+)?))?(?:,(\d+(?:\.\d+)?))?\s*([NSEW])"
_TELLS_PLACE = re.compile(rb"GPSL(?:atitude|ongitude)|geo:lat|ISO6709|GPSCoordinates", re.IGNORECASE)
# What a picture needs to look the same: all other segments of a JPEG are metadata.
_JPEG_KEPT_APPS = (b"JFIF\0", b"JFXX\0", b"ICC_PROFILE\0", b"Adobe")
_PNG_METADATA = ("eXIf", "tEXt", "zTXt", "iTXt")
_WEBP_METADATA = {"EXIF": 0x08, "XMP ": 0x04}  # chunk -> its flag in the header


@dataclass(frozen=True, kw_only=True)
class Capture:
    """Facts of a capture, named as in table `media`; `captured_at` is in UTC, `position` in degrees and metres."""

    captured_local: str | None = None
    captured_zone: str | None = None
    captured_at: datetime | None = None
    camera_make: str | None = None
    camera_model: str | None = None
    has_position: bool = False
    position: dict[str, float | None] | None = None


def still_capture(exif: Exif | None, texts: Iterable[bytes] = ()) -> Capture:
    """Facts from EXIF, and a position from other metadata (XMP, text chunks) where EXIF has none."""
    tags = dict(exif) if exif is not None else {}
    details = _directory(exif, _EXIF_IFD)
    local = zone = None
    for time, fraction, offset in _TIMES:
        local = _exif_time(_text(details.get(time)), _text(details.get(fraction)))
        if local is not None:
            zone = _zone(_text(details.get(offset)))
            break
    position = _exif_position(_directory(exif, _GPS_IFD))
    tells = position is not None
    for text in texts:
        tells = tells or _TELLS_PLACE.search(text) is not None
        position = position or _xmp_position(text)
    return Capture(
        captured_local=local,
        captured_zone=zone,
        captured_at=_instant(local, zone),
        camera_make=_text(tags.get(_MAKE)),
        camera_model=_text(tags.get(_MODEL)),
        has_position=tells,
        position=position,
    )


def video_capture(tags: Mapping[str, str]) -> Capture:
    """Facts from a video's tags (container first, then streams).

    QuickTime's creation date carries the camera's zone; `creation_time` is UTC by its specification.
    """
    lower = {key.lower(): value.strip() for key, value in tags.items()}

    def first(*names: str) -> str | None:
        return next((lower[name] for name in names if lower.get(name)), None)

    local, zone = _iso_time(first("com.apple.quicktime.creationdate", "date_recorded") or "")
    if local is None:
        local, zone = _iso_time(first("creation_time", "date", "datetimeoriginal") or "")
    # Clocks that were never set say 1904 or 1970.
    if local is not None and local[:4] in ("1904", "1970"):
        local = zone = None
    place = first("com.apple.quicktime.location.iso6709", "location", "location-eng", "com.android.location", "xyz")
    match = _ISO_6709.match(place or "")
    position = _position(*map(_number, match.groups())) if match else None
    return Capture(
        captured_local=local,
        captured_zone=zone,
        captured_at=_instant(local, zone),
        camera_make=first("com.apple.quicktime.make", "com.android.manufacturer", "make", "manufacturer"),
        camera_model=first("com.apple.quicktime.model", "com.android.model", "model"),
        has_position=position is not None,
        position=position,
    )


def load_exif(payload: bytes | None) -> Exif | None:
    """EXIF from its bytes, with or without the six bytes that lead it in a JPEG; None where they are damaged."""
    from PIL.Image import Exif

    if not payload:
        return None
    exif = Exif()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exif.load(payload)
            dict(exif)
    except Exception:  # damaged EXIF raises whatever its parser stumbles over; the picture itself is none the worse
        return None
    return exif


def orientation(exif: Exif | None) -> int | None:
    """EXIF orientation, 1-8; None where it is not said or not valid."""
    value = exif.get(_ORIENTATION) if exif is not None else None
    return value if isinstance(value, int) and 1 <= value <= 8 else None


def metadata_of(container: str, segments: Iterable[Segment]) -> tuple[bytes | None, list[bytes]]:
    """EXIF bytes, and all other metadata as (inflated) text, of the segments of a JPEG, PNG or WebP."""
    exif: bytes | None = None
    texts: list[bytes] = []
    for segment in segments:
        payload = segment.payload
        if container == "jpeg" and segment.tag == "FFE1" and payload.startswith(b"Exif\0"):
            exif = exif or payload[6:]
        elif container == "jpeg" and _is_jpeg_metadata(segment):
            texts.append(payload)
        elif (container, segment.tag) in (("png", "eXIf"), ("webp", "EXIF")):
            exif = exif or payload.removeprefix(b"Exif\0\0")
        elif container == "png" and segment.tag in _PNG_METADATA:
            text = _png_text(segment)
            profile = _raw_profile(text)
            exif = exif or profile
            texts.append(text)
        elif container == "webp" and segment.tag in _WEBP_METADATA:
            texts.append(payload)
    return exif, texts


def without_position(data: bytes, container: str) -> bytes:
    """The same JPEG, PNG or WebP without metadata that hold a position; compressed picture data stay as they are.

    Where any part tells a position, all metadata go: makers' notes and thumbnails may repeat it. What follows the
    picture's end (a motion photo's film) goes in any case. Raises MediaError for a file that is cut short.
    """
    file = BytesIO(data)
    if container == "jpeg":
        segments = list(jpeg_segments(file))
        end = jpeg_end(file, segments) or len(data)
        metadata = [s for s in segments if _is_jpeg_metadata(s)]
    elif container == "png":
        segments = list(png_chunks(file, max_payload=len(data)))
        end = segments[-1].end
        metadata = [s for s in segments if s.tag in _PNG_METADATA]
    else:
        segments = list(webp_chunks(file, max_payload=len(data)))
        end = segments[-1].end if segments else len(data)
        metadata = [s for s in segments if s.tag in _WEBP_METADATA]
    exif, texts = metadata_of(container, segments)
    if not still_capture(load_exif(exif), texts).has_position:
        return data[:end] if end < len(data) else data
    kept, position = bytearray(), 0
    for segment in metadata:
        kept += data[position : segment.start]
        position = segment.end
    kept += data[position:end]
    if container == "webp":
        kept[4:8] = (len(kept) - 8).to_bytes(4, "little")
        if kept[12:16] == b"VP8X":
            kept[20] &= ~sum(_WEBP_METADATA.values()) & 0xFF
    return bytes(kept)


def _is_jpeg_metadata(segment: Segment) -> bool:
    is_app = segment.tag in {f"FFE{digit:X}" for digit in range(16)}
    return segment.tag == "FFFE" or (is_app and not segment.payload.startswith(_JPEG_KEPT_APPS))


def _png_text(segment: Segment) -> bytes:
    """The text of a PNG chunk, inflated up to a bound (a few bytes can inflate to gigabytes)."""
    keyword, _, rest = segment.payload.partition(b"\0")
    compressed = rest[1:] if segment.tag == "zTXt" else b""
    if segment.tag == "iTXt" and rest[:1] == b"\1":
        compressed = rest[2:].split(b"\0", 2)[-1]
    if compressed:
        try:
            rest = zlib.decompressobj().decompress(compressed, _MAX_INFLATED)
        except zlib.error:
            rest = b""
    return keyword + b"\0" + rest


def _raw_profile(text: bytes) -> bytes | None:
    """EXIF as ImageMagick writes it into a text chunk: name, length and hexadecimal digits."""
    if not re.match(rb"Raw profile type (exif|APP1)\0", text, re.IGNORECASE):
        return None
    lines = text.partition(b"\0")[2].split()
    try:
        return bytes.fromhex(b"".join(lines[2:]).decode("ascii")).removeprefix(b"Exif\0\0")
    except ValueError:
        return None


def _directory(exif: Exif | None, tag: int) -> dict[int, Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return dict(exif.get_ifd(tag)) if exif is not None else {}
    except Exception:  # see load_exif
        return {}


def _text(value: object) -> str | None:
    """A tag's text: Pillow reads it as Latin-1 while many cameras write UTF-8."""
    if isinstance(value, tuple) and len(value) == 1:
        value = value[0]
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    if not isinstance(value, str):
        return None
    raw = value.partition("\0")[0].strip()
    with suppress(UnicodeError):
        raw = raw.encode("latin-1").decode("utf-8")
    return raw or None


def _exif_time(text: str | None, fraction: str | None) -> str | None:
    match = _EXIF_TIME.match(text or "")
    if match is None:
        return None
    year, month, day, hour, minute, second = match.groups()
    digits = fraction if fraction is not None and fraction.isascii() and fraction.isdigit() else ""
    local = f"{year}-{month}-{day}T{hour}:{minute}:{second}" + (f".{digits[:6]}" if digits else "")
    return local if _datetime(local) is not None else None


def _iso_time(text: str) -> tuple[str | None, str | None]:
    match = _ISO_TIME.match(text)
    if match is None:
        return None, None
    seconds, _, digits = match[2].partition(".")
    digits = digits.rstrip("0")[:6]
    local = f"{match[1]}T{seconds}" + (f".{digits}" if digits else "")
    return (local, _zone(match[3])) if _datetime(local) is not None else (None, None)


def _zone(text: str | None) -> str | None:
    """A zone as +hh:mm; None where there is none or it is impossible."""
    if text == "Z":
        return "+00:00"
    match = re.fullmatch(r"([+-])(\d\d):?(\d\d)", text or "")
    if match is None or int(match[2]) > 14 or int(match[3]) > 59:
        return None
    return f"{match[1]}{match[2]}:{match[3]}"


def _datetime(local: str) -> datetime | None:
    try:
        return datetime.fromisoformat(local)
    except ValueError:
        return None


def _instant(local: str | None, zone: str | None) -> datetime | None:
    moment = _datetime(local) if local is not None else None
    if moment is None or zone is None:
        return None
    offset = timedelta(hours=int(zone[1:3]), minutes=int(zone[4:6]))
    try:
        return (moment - offset if zone[0] == "+" else moment + offset).replace(tzinfo=UTC)
    except OverflowError:
        return None


def _exif_position(gps: Mapping[int, Any]) -> dict[str, float | None] | None:
    latitude = _angle(gps.get(2), negative=_text(gps.get(1)) == "S")
    longitude = _angle(gps.get(4), negative=_text(gps.get(3)) == "W")
    altitude = _number(gps.get(6))
    below = gps.get(5) in (1, b"\1")
    return _position(latitude, longitude, -altitude if altitude is not None and below else altitude)


def _xmp_position(text: bytes) -> dict[str, float | None] | None:
    decoded = text.decode("utf-8", "replace")
    angles = []
    for name in ("Latitude", "Longitude"):
        match = re.search(_XMP_ANGLE.format(name), decoded)
        if match is None:
            return None
        angles.append(_angle([float(part or 0) for part in match.groups()[:3]], negative=match[4] in "SW"))
    return _position(angles[0], angles[1], None)


def _angle(parts: Any, *, negative: bool) -> float | None:
    """Degrees from degrees, minutes and seconds."""
    if not isinstance(parts, (tuple, list)) or not parts:
        return None
    values = [_number(part) for part in parts[:3]]
    if any(value is None for value in values):
        return None
    degrees = sum(value / 60**power for power, value in enumerate(values) if value is not None)
    return -degrees if negative else degrees


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return number if number == number and abs(number) != float("inf") else None


def _position(
    latitude: float | None, longitude: float | None, altitude: float | None
) -> dict[str, float | None] | None:
    if latitude is None or longitude is None or abs(latitude) > 90 or abs(longitude) > 180:
        return None
    return {"latitude_deg": latitude, "longitude_deg": longitude, "altitude_m": altitude}
