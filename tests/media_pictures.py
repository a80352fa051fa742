"""Makes small stills with known corner colours, turned, packed and tagged in every way that cameras do.

Turns are done here by numpy indexing from the definitions of the EXIF orientations, not by the code under test.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from media_video import CORNERS, Corners
from PIL import Image, ImageCms

WIDTH, HEIGHT = 96, 64
EXACT, COMPRESSED = 0, 8
RED_AS_GREY: Corners = tuple((red, red, red) for red, _, _ in CORNERS)

# Where row 0 and column 0 of the stored picture lie in the upright one, by EXIF orientation (TIFF 6.0, page 36).
TURNED: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.swapaxes(0, 1),
    6: lambda p: p.swapaxes(0, 1)[::-1],
    7: lambda p: p.swapaxes(0, 1)[::-1, ::-1],
    8: lambda p: p.swapaxes(0, 1)[:, ::-1],
}


@dataclass(frozen=True, kw_only=True)
class MadePicture:
    """A file and what must come out of it, upright: `corners` within `tolerance`; `facts` of the `picture` struct."""

    path: Path
    container: str
    corners: Corners = CORNERS
    tolerance: int = COMPRESSED
    size: tuple[int, int] = (WIDTH, HEIGHT)
    is_kept: bool = False
    facts: dict[str, Any] = field(default_factory=dict)


def draw(corners: Corners = CORNERS, *, size: tuple[int, int] = (WIDTH, HEIGHT)) -> np.ndarray:
    """The upright picture: four quadrants, 8-bit RGB."""
    width, height = size
    picture = np.empty((height, width, 3), dtype=np.uint8)
    picture[: height // 2, : width // 2], picture[: height // 2, width // 2 :] = corners[0], corners[1]
    picture[height // 2 :, : width // 2], picture[height // 2 :, width // 2 :] = corners[2], corners[3]
    return picture


def corner_colours(image: Image.Image) -> Corners:
    """Colours at the middle of the four quadrants."""
    rgb = image.convert("RGB")
    xs, ys = (rgb.width // 4, rgb.width * 3 // 4), (rgb.height // 4, rgb.height * 3 // 4)
    return tuple(tuple(rgb.getpixel((x, y))) for y in ys for x in xs)  # type: ignore[arg-type]  # RGB: three numbers


def exif(*, orientation: int | None = None, gps: bool = False, camera: bool = False) -> Image.Exif:
    tags = Image.Exif()
    if orientation is not None:
        tags[0x0112] = orientation
    if camera:
        tags[0x010F], tags[0x0110] = "Acme ", "Eye 3"
        tags.get_ifd(0x8769).update({0x9003: "2024:05:06 07:08:09", 0x9291: "25", 0x9011: "+02:00"})
    if gps:
        place = {1: "S", 2: (33.0, 51.0, 30.0), 3: "W", 4: (151.0, 12.0, 36.0), 5: b"\0", 6: 12.5}
        tags.get_ifd(0x8825).update(place)
    return tags


def jpeg(path: Path, *, orientation: int | None = None, corners: Corners = CORNERS, **options: Any) -> MadePicture:
    """A JPEG; `orientation` stores it turned with the tag that says so; other options are of `exif` or Pillow."""
    tags = exif(orientation=orientation, gps=options.pop("gps", False), camera=options.pop("camera", False))
    stored = TURNED[orientation or 1](draw(corners))
    Image.fromarray(np.ascontiguousarray(stored)).save(path, "JPEG", quality=95, exif=tags, **options)
    facts = {"mode": "RGB", "bit_depth": 8, "width_px": stored.shape[1], "exif_orientation": orientation}
    return MadePicture(path=path, container="jpeg", corners=corners, is_kept=orientation in (None, 1), facts=facts)


def cmyk_jpeg(path: Path) -> MadePicture:
    Image.fromarray(draw()).convert("CMYK").save(path, "JPEG", quality=95)
    return MadePicture(path=path, container="jpeg", facts={"mode": "CMYK"})


def grey_jpeg(path: Path) -> MadePicture:
    grey: Corners = tuple((value, value, value) for value in (20, 90, 160, 240))
    Image.fromarray(draw(grey)).convert("L").save(path, "JPEG", quality=95)
    return MadePicture(path=path, container="jpeg", corners=grey, is_kept=True, facts={"mode": "L"})


def profile_jpeg(path: Path) -> MadePicture:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    made = jpeg(path, icc_profile=profile)
    return MadePicture(path=path, container="jpeg", is_kept=True, facts=made.facts | {"icc_profile": "sRGB built-in"})


def pillow(path: Path, container: str, *, mode: str = "RGB", is_kept: bool = False, **options: Any) -> MadePicture:
    """Whatever Pillow writes without loss from the drawn picture."""
    image = Image.fromarray(draw())
    image = image.quantize(16) if mode == "P" else image.convert(mode)
    image.save(path, container.upper(), **options)
    tolerance = options.pop("tolerance", EXACT)
    return MadePicture(path=path, container=container, tolerance=tolerance, is_kept=is_kept, facts={"mode": mode})


def alpha_png(path: Path) -> MadePicture:
    """The left half is half transparent, over black half as bright."""
    alpha = np.full((HEIGHT, WIDTH, 1), 255, dtype=np.uint8)
    alpha[:, : WIDTH // 2] = 128
    Image.fromarray(np.concatenate([draw(), alpha], axis=2)).save(path, "PNG")
    half = 128 / 255
    dimmed = tuple((round(r * half), round(g * half), round(b * half)) for r, g, b in CORNERS)
    dimmed = (dimmed[0], CORNERS[1], dimmed[2], CORNERS[3])
    return MadePicture(path=path, container="png", corners=dimmed, tolerance=1, facts={"has_alpha": True})


def deep_png(path: Path, *, alpha: bool = False, grey: bool = False) -> MadePicture:
    """16 bits a channel, whose low bytes would round a division by 256 wrongly."""
    values = draw().astype(np.uint32) * 257
    if grey:
        values = values[..., :1]
    if alpha:
        values = np.concatenate([values, np.full((HEIGHT, WIDTH, 1), 65535)], axis=2)
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[values.shape[2]]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 16, colour_type, 0, 0, 0)
    path.write_bytes(png(chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")))
    corners = RED_AS_GREY if grey else CORNERS
    return MadePicture(path=path, container="png", corners=corners, tolerance=EXACT, facts={"bit_depth": 16})


def deep_tiff(path: Path, *, channels: int = 3, orientation: int = 1) -> MadePicture:
    """16 bits a channel, uncompressed, one strip, big-endian."""
    stored = TURNED[orientation](draw()[..., :channels]).astype(np.uint32) * 257
    height, width = stored.shape[:2]
    pixels = np.ascontiguousarray(stored).astype(">u2").tobytes()
    short, long = 3, 4
    entries = [
        (256, long, 1, width), (257, long, 1, height), (258, short, channels, 0), (259, short, 1, 1),
        (262, short, 1, 1 if channels == 1 else 2), (273, long, 1, 0), (274, short, 1, orientation),
        (277, short, 1, channels), (278, long, 1, height), (279, long, 1, len(pixels)),
    ]  # fmt: skip
    after = 8 + 2 + 12 * len(entries) + 4
    places = {258: after, 273: after + 2 * channels}
    ifd = struct.pack(">H", len(entries))
    for tag, kind, count, value in entries:
        value = places[tag] if tag == 273 or (tag == 258 and channels > 2) else 16 if tag == 258 else value
        ifd += struct.pack(">HHI", tag, kind, count)
        ifd += struct.pack(">HH", value, 0) if kind == short and count == 1 else struct.pack(">I", value)
    bits = struct.pack(f">{channels}H", *[16] * channels)
    path.write_bytes(b"MM\0*" + struct.pack(">I", 8) + ifd + bytes(4) + bits + pixels)
    corners = RED_AS_GREY if channels == 1 else CORNERS
    facts = {"bit_depth": 16, "width_px": width, "exif_orientation": orientation}
    return MadePicture(path=path, container="tiff", corners=corners, tolerance=EXACT, facts=facts)


def paged(path: Path, container: str, **options: Any) -> MadePicture:
    """Three pages or frames, of which the first is the drawn picture."""
    pages = [Image.fromarray(draw()), *(Image.new("RGB", (WIDTH, HEIGHT), (n * 40, 9, 9)) for n in (1, 2))]
    pages[0].save(path, container.upper(), save_all=True, append_images=pages[1:], **options)
    facts = {"page_count": 3, "is_animated": container != "tiff"}
    return MadePicture(path=path, container=container, tolerance=EXACT, facts=facts)


def mpo(path: Path) -> MadePicture:
    pages = [Image.fromarray(draw()), Image.new("RGB", (WIDTH, HEIGHT))]
    pages[0].save(path, "MPO", save_all=True, append_images=pages[1:], quality=95)
    return MadePicture(path=path, container="jpeg", facts={"page_count": 2, "is_animated": False})


def heif(path: Path) -> MadePicture:
    """Needs pillow-heif; turned by the container's own transformation."""
    from pillow_heif import register_heif_opener

    register_heif_opener()
    tags = exif(orientation=6).tobytes()
    Image.fromarray(np.ascontiguousarray(TURNED[6](draw()))).save(path, "HEIF", quality=95, exif=tags)
    return MadePicture(path=path, container="heif", facts={"exif_orientation": 6})


def avif(path: Path) -> MadePicture:
    Image.fromarray(np.ascontiguousarray(TURNED[8](draw()))).save(path, "AVIF", quality=95, exif=exif(orientation=8))
    return MadePicture(path=path, container="avif", facts={"exif_orientation": 8, "bit_depth": 8})


def png(*chunks: bytes) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def absurd_png(path: Path, side: int = 60_000) -> Path:
    """A few bytes whose header claims billions of pixels."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    path.write_bytes(png(chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(b"\0" * 100)), chunk(b"IEND", b"")))
    return path


def all_pictures(folder: Path) -> list[MadePicture]:
    """One of each, all of which show the same four corners (or say which)."""
    lossless = {"quality": 100, "lossless": True}
    return [
        jpeg(folder / "plain.jpg"),
        *(jpeg(folder / f"turned_{n}.jpg", orientation=n) for n in range(1, 9)),
        jpeg(folder / "progressive.jpg", progressive=True),
        cmyk_jpeg(folder / "cmyk.jpg"),
        grey_jpeg(folder / "grey.jpg"),
        profile_jpeg(folder / "profile.jpg"),
        mpo(folder / "mpo.jpg"),
        pillow(folder / "plain.png", "png", is_kept=True),
        pillow(folder / "palette.png", "png", mode="P"),
        pillow(folder / "turned.png", "png", exif=exif(orientation=1), is_kept=True),
        alpha_png(folder / "alpha.png"),
        deep_png(folder / "deep.png"),
        deep_png(folder / "deep_alpha.png", alpha=True),
        deep_png(folder / "deep_grey.png", grey=True),
        paged(folder / "animated.png", "png"),
        pillow(folder / "plain.webp", "webp", is_kept=True, **lossless),
        paged(folder / "animated.webp", "webp", **lossless),
        paged(folder / "animated.gif", "gif"),
        pillow(folder / "plain.bmp", "bmp"),
        pillow(folder / "plain.tiff", "tiff"),
        pillow(folder / "packed.tiff", "tiff", compression="tiff_lzw"),
        paged(folder / "pages.tiff", "tiff"),
        deep_tiff(folder / "deep.tiff"),
        deep_tiff(folder / "deep_turned.tiff", orientation=6),
        deep_tiff(folder / "deep_grey.tiff", channels=1),
        avif(folder / "turned.avif"),
    ]
