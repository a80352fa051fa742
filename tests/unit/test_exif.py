"""What metadata tells, and that a position can be cut out without touching the picture."""

from __future__ import annotations

import zlib
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import media_pictures as pictures
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from visionlake.udfs._segments import jpeg_segments, png_chunks, webp_chunks
from visionlake.udfs.exif import load_exif, metadata_of, orientation, still_capture, video_capture, without_position

XMP = (
    b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta><rdf:Description exif:GPSLatitude='33,51.5S' "
    b"exif:GPSLongitude='151,12.6E'/></x:xmpmeta>"
)


def test_time_zone_camera_and_position_of_a_photo() -> None:
    capture = still_capture(load_exif(pictures.exif(camera=True, gps=True).tobytes()))
    assert capture.captured_local == "2024-05-06T07:08:09.25"
    assert capture.captured_zone == "+02:00"
    assert capture.captured_at == datetime(2024, 5, 6, 5, 8, 9, 250_000, tzinfo=UTC)
    assert (capture.camera_make, capture.camera_model) == ("Acme", "Eye 3")
    assert capture.has_position
    assert capture.position == pytest.approx({"latitude_deg": -33.858333, "longitude_deg": -151.21, "altitude_m": 12.5})


@pytest.mark.parametrize(
    ("time", "zone", "expected"),
    [
        ("2024:05:06 07:08:09", None, ("2024-05-06T07:08:09", None, None)),
        ("2024:05:06 07:08:09", "   :  ", ("2024-05-06T07:08:09", None, None)),
        ("2024:05:06 07:08:09", "+25:00", ("2024-05-06T07:08:09", None, None)),
        ("0000:00:00 00:00:00", "+01:00", (None, None, None)),
        ("    :  :     :  :  ", None, (None, None, None)),
        ("2024:02:30 07:08:09", None, (None, None, None)),
        ("0001:01:01 00:00:00", "+01:00", ("0001-01-01T00:00:00", "+01:00", None)),
    ],
)
def test_unknown_times_and_zones_are_null(time: str, zone: str | None, expected: tuple) -> None:
    tags = Image.Exif()
    tags.get_ifd(0x8769).update({0x9003: time} | ({0x9011: zone} if zone else {}))
    capture = still_capture(load_exif(tags.tobytes()))
    assert (capture.captured_local, capture.captured_zone, capture.captured_at) == expected


def test_damaged_exif_is_no_exif() -> None:
    whole = pictures.exif(camera=True, gps=True, orientation=6).tobytes()
    assert orientation(load_exif(whole)) == 6
    for cut in (b"", b"\xff" * 40, whole[:10], whole[: len(whole) // 2], b"II*\0\xff\xff\xff\xff"):
        still_capture(load_exif(cut))
    tags = Image.Exif()
    tags[0x0112] = 9
    assert orientation(load_exif(tags.tobytes())) is None


def test_names_in_utf_8_survive() -> None:
    tags = Image.Exif()
    tags[0x010F] = "K__m___ra"
    data = tags.tobytes().replace(b"K__m___ra", "Käm€ra".encode())
    assert still_capture(load_exif(data)).camera_make == "Käm€ra"


def test_position_in_xmp_alone() -> None:
    capture = still_capture(None, [XMP])
    assert capture.position == pytest.approx({"latitude_deg": -33.858333, "longitude_deg": 151.21, "altitude_m": None})


def test_tags_of_videos() -> None:
    capture = video_capture(
        {
            "creation_time": "2024-05-06T05:08:09.000000Z",
            "com.apple.quicktime.creationdate": "2024-05-06T07:08:09+0200",
            "com.apple.quicktime.make": "Acme",
            "com.apple.quicktime.model": "Eye 3",
            "com.apple.quicktime.location.ISO6709": "+37.3318-122.0312+015.000/",
        }
    )
    assert (capture.captured_local, capture.captured_zone) == ("2024-05-06T07:08:09", "+02:00")
    assert capture.captured_at == datetime(2024, 5, 6, 5, 8, 9, tzinfo=UTC)
    assert (capture.camera_make, capture.camera_model) == ("Acme", "Eye 3")
    assert capture.position == {"latitude_deg": 37.3318, "longitude_deg": -122.0312, "altitude_m": 15.0}
    assert video_capture({"creation_time": "1904-01-01T00:00:00.000000Z"}).captured_local is None
    assert video_capture({"date": "2024"}).captured_local is None
    assert video_capture({}).has_position is False


def jpeg_scan(data: bytes) -> bytes:
    """Everything from the first table of the decoder on, but for metadata."""
    segments = list(jpeg_segments(BytesIO(data)))
    tables = b"".join(data[s.start : s.end] for s in segments if not s.tag.startswith(("FFE", "FFFE")))
    return tables + data[segments[-1].end :]


def test_position_is_cut_out_of_a_jpeg(tmp_path: Path) -> None:
    made = pictures.jpeg(tmp_path / "a.jpg", gps=True, camera=True, comment=b"taken here", xmp=XMP[29:])
    data = made.path.read_bytes()
    cut = without_position(data + b"\0\0\0\x18ftypmp42 a film", "jpeg")
    assert b"GPS" not in cut and b"Exif" not in cut and b"taken here" not in cut and cut.endswith(b"\xff\xd9")
    assert jpeg_scan(cut) == jpeg_scan(data)
    assert np.array_equal(np.asarray(Image.open(BytesIO(cut))), np.asarray(Image.open(BytesIO(data))))


def test_profile_stays_when_a_position_goes(tmp_path: Path) -> None:
    profile = b"\0" * 16 + b"RGB " + bytes(200)
    made = pictures.jpeg(tmp_path / "a.jpg", gps=True, icc_profile=profile)
    assert Image.open(BytesIO(without_position(made.path.read_bytes(), "jpeg"))).info["icc_profile"] == profile


def test_bytes_without_a_position_stay_as_they_are(tmp_path: Path) -> None:
    for name, container in (("a.jpg", "jpeg"), ("a.png", "png"), ("a.webp", "webp")):
        Image.fromarray(pictures.draw()).save(tmp_path / name, exif=pictures.exif(camera=True))
        data = (tmp_path / name).read_bytes()
        assert without_position(data, container) == data
        assert b"Acme" in data


def test_position_is_cut_out_of_a_png(tmp_path: Path) -> None:
    tags = pictures.exif(gps=True).tobytes()
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", XMP[29:].decode(), zip=True)
    Image.fromarray(pictures.draw()).save(tmp_path / "a.png", exif=tags, pnginfo=text)
    data = (tmp_path / "a.png").read_bytes()
    cut = without_position(data + b"more", "png")
    kept = [chunk.tag for chunk in png_chunks(BytesIO(cut))]
    assert kept == [c.tag for c in png_chunks(BytesIO(data)) if c.tag not in ("eXIf", "iTXt")]
    assert np.array_equal(np.asarray(Image.open(BytesIO(cut))), pictures.draw())


def test_position_in_a_raw_profile_of_a_png_is_found() -> None:
    raw = b"Exif\0\0" + pictures.exif(gps=True).tobytes()[6:]
    text = b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n%8d\n" % len(raw) + raw.hex().encode())
    header = pictures.png(pictures.chunk(b"zTXt", text), pictures.chunk(b"IEND", b""))
    exif, texts = metadata_of("png", png_chunks(BytesIO(header)))
    assert still_capture(load_exif(exif), texts).has_position


def test_text_that_inflates_to_gigabytes_is_bounded() -> None:
    bomb = zlib.compress(bytes(20 << 20), 9)
    data = pictures.png(pictures.chunk(b"zTXt", b"k\0\0" + bomb), pictures.chunk(b"IEND", b""))
    assert len(metadata_of("png", png_chunks(BytesIO(data)))[1][0]) <= (8 << 20) + 2


def test_position_is_cut_out_of_a_webp(tmp_path: Path) -> None:
    Image.fromarray(pictures.draw()).save(
        tmp_path / "a.webp", exif=pictures.exif(gps=True), xmp=XMP[29:], lossless=True
    )
    data = (tmp_path / "a.webp").read_bytes()
    cut = without_position(data + b"more", "webp")
    assert not {c.tag for c in webp_chunks(BytesIO(cut))} & {"EXIF", "XMP "}
    image = Image.open(BytesIO(cut))
    assert "exif" not in image.info and "xmp" not in image.info
    assert np.array_equal(np.asarray(image), pictures.draw())
