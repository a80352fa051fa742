"""What may be opened is told by the first bytes; nothing else ever reaches a demuxer."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import media_pictures as pictures
import pytest

from visionlake.udfs._errors import MediaError
from visionlake.udfs._kinds import HEAD_BYTES, identify, open_video, sniff

HEADS = {
    "mp4": b"\0\0\0\x18ftypisom\0\0\2\0isomavc1",
    "mov": b"\0\0\0\x14ftypqt  \0\0\2\0qt  ",
    "3gp": b"\0\0\0\x14ftyp3gp4\0\0\2\0isom",
    "heif": b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic",
    "avif": b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf",
    "matroska": b"\x1a\x45\xdf\xa3\x01\0\0\0\0\0\0\x23\x42\x86\x81\x01\x42\x82\x88matroska",
    "webm": b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\x82\x84webm",
    "avi": b"RIFF\0\0\1\0AVI LIST",
    "mpegts": (b"\x47" + bytes(187)) * 8,
    "mpeg": b"\0\0\1\xba\x44\0\4",
    "mpegvideo": b"\0\0\1\xb3\x16\0\xf0",
    "h264": b"\0\0\0\1\x67\x64\0\x1f\0\0\0\1\x68\xee",
    "hevc": b"\0\0\0\1\x40\1\x0c\1\0\0\0\1\x42\1\1",
    "m4v": b"\0\0\1\xb0\x01\0\0\1\xb5\x89\0\0\1\0\0\0\1\x20\0\xc4",
    "ogg": b"OggS\0\2",
    "flv": b"FLV\1\5",
    "asf": bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"),
    "ivf": b"DKIF\0\0\x20\0VP80",
    "obu": b"\x12\0\x0a\x0b\0\0\0",
    "y4m": b"YUV4MPEG2 W96 H64 F30:1\n",
    "jpeg": b"\xff\xd8\xff\xe0\0\x10JFIF\0",
    "png": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
    "gif": b"GIF89a\x60\0",
    "webp": b"RIFF\x20\0\0\0WEBPVP8 ",
    "tiff": b"MM\0*\0\0\0\x08",
    "bmp": b"BM\x36\x48\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0",
}
TEXTS = {
    "hls": b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
    "concat": b"ffconcat version 1.0\nfile 'http://localhost/x.mp4'\n",
    "sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
    "ffmetadata": b";FFMETADATA1\ntitle=x\n",
    "subtitles": b"1\n00:00:00,000 --> 00:00:01,000\nhello\n",
    "utf-16": "hello there".encode("utf-16"),
    "xml": b"<?xml version='1.0'?><MPD/>",
}


@pytest.mark.parametrize("name", HEADS)
def test_formats_are_told_by_their_first_bytes(name: str) -> None:
    assert sniff(HEADS[name]).name == name


@pytest.mark.parametrize("name", TEXTS)
def test_text_is_no_media_whatever_it_is_called(name: str) -> None:
    with pytest.raises(MediaError, match="text") as caught:
        sniff(TEXTS[name])
    assert caught.value.reason == "not_media"


@pytest.mark.parametrize(
    ("head", "reason", "said"),
    [
        (b"", "empty_file", "empty"),
        (b"PK\3\4", "not_media", "zip"),
        (b"%PDF-1.7", "not_media", "PDF"),
        (b"ID3\4", "not_media", "audio"),
        (b"RIFF\0\0\0\0WAVEfmt ", "not_media", "audio"),
        (b"\0\0\0\x14ftypM4A \0\0\0\0", "not_media", "audio"),
        (bytes(range(200, 256)), "not_media", "c8 c9 ca"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1", "unsupported_format", "raw picture"),
        (b"8BPS\0\1", "unsupported_format", "Photoshop"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "unsupported_format", "JPEG 2000"),
    ],
)
def test_other_files_are_refused_by_name(head: bytes, reason: str, said: str) -> None:
    with pytest.raises(MediaError, match=said) as caught:
        sniff(head)
    assert caught.value.reason == reason


def test_transport_stream_may_begin_within_a_packet_or_carry_time_stamps() -> None:
    packets = (b"\x47" + bytes(187)) * 10
    assert sniff(packets[100:]).name == "mpegts"
    assert sniff((bytes(4) + packets[:188]) * 8).name == "mpegts"


def test_containers_without_presentation_times_say_so() -> None:
    without = {name for name, head in HEADS.items() if not sniff(head).has_times}
    assert without == {"avi", "mpegvideo", "h264", "hevc", "m4v", "obu", "y4m"}


def test_raw_mjpeg_is_a_video_and_what_follows_a_photo_is_not(tmp_path: Path) -> None:
    one = pictures.jpeg(tmp_path / "one.jpg").path.read_bytes()
    small = pictures.jpeg(tmp_path / "gps.jpg", gps=True, orientation=6).path.read_bytes()
    assert identify(BytesIO(one)).name == "jpeg"
    assert identify(BytesIO(one * 3)).name == "mjpeg"
    assert identify(BytesIO(one + small)).name == "jpeg"  # of another size: no stream
    assert identify(BytesIO(one + b"\0\0\0\x18ftypmp42" + bytes(99))).name == "jpeg"  # a motion photo
    assert identify(pictures.mpo(tmp_path / "two.jpg").path.open("rb")).name == "jpeg"


def test_a_file_is_only_ever_given_to_its_own_demuxer(tmp_path: Path) -> None:
    # A playlist behind a video's first bytes: FFmpeg's own probing might take it for a playlist.
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    for name in ("mp4", "mpegts", "ogg", "flv", "matroska"):
        path = tmp_path / f"{name}.m3u8"
        head = HEADS[name] * (4 if name == "mpegts" else 1)
        path.write_bytes(head + f"\n#EXTM3U\n#EXTINF:1,\n{secret}\n".encode() + bytes(HEAD_BYTES))
        kind = identify(path.open("rb"))
        try:
            with open_video(str(path), kind, max_pixels=10_000) as container:
                assert container.format.name == "mov,mp4,m4a,3gp,3g2,mj2" or name in container.format.name
                assert not container.streams.video
        except MediaError as error:
            assert error.reason == "unreadable"
