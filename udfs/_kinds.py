"""What a file is, told by its first bytes, and the list of what may be opened at all.

A demuxer is always chosen here and never by FFmpeg's own probing, which would also take a playlist, a concat script or
a session description: text that makes FFmpeg open other files or the network.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Literal

from ._errors import MediaError

if TYPE_CHECKING:
    from av.codec.context import CodecContext
    from av.container import InputContainer
    from av.stream import Stream
    from av.video.stream import VideoStream

HEAD_BYTES = 4096
_FIRST_PICTURE_BYTES = 4 << 20

_VIDEO_CODECS = (
    "apv av1 cavs cinepak dirac dnxhd dvvideo ffv1 ffvhuff flv1 h261 h263 h263p h264 hevc huffyuv indeo3 indeo5 mjpeg "
    "mpeg1video mpeg2video mpeg4 msmpeg4v1 msmpeg4v2 msmpeg4v3 msvideo1 png prores qtrle rawvideo rpza rv30 rv40 svq1 "
    "svq3 theora utvideo v210 v308 v408 v410 vc1 vp3 vp6 vp6a vp6f vp7 vp8 vp9 vvc wmv1 wmv2 wmv3 wrapped_avframe "
    "yuv4"
)
VIDEO_CODECS = frozenset(_VIDEO_CODECS.split())
"""FFmpeg's names of the codecs that may be decoded."""

_AUDIO_CODECS = (
    "aac aac_latm ac3 adpcm_ima_wav adpcm_ms alac amrnb amrwb eac3 flac mp1 mp1float mp2 mp2float mp3 mp3float opus "
    "pcm_alaw pcm_mulaw pcm_s16be pcm_s16le pcm_s24be pcm_s24le pcm_u8 vorbis wmav1 wmav2"
)
_OTHER_DECODERS = "libdav1d libvpx libvpx-vp9 libaom-av1 libopus libvorbis libopencore_amrnb libopencore_amrwb"


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A format that may be decoded.

    `name` is the container or image format; `demuxer` is FFmpeg's name of it, null for an image. `has_times` is false
    where the container gives no presentation times, so that a frame's time follows from its index.
    """

    kind: Literal["video", "image"]
    name: str
    demuxer: str | None = None
    has_times: bool = True


def _image(name: str) -> Kind:
    return Kind(kind="image", name=name)


def _video(name: str, demuxer: str | None = None, *, has_times: bool = True) -> Kind:
    return Kind(kind="video", name=name, demuxer=demuxer or name, has_times=has_times)


_MJPEG = _video("mjpeg", has_times=False)

# First bytes, as a pattern, of formats that need no closer look.
_PATTERNS: tuple[tuple[bytes, Kind], ...] = (
    (rb"\xff\xd8\xff", _image("jpeg")),
    (rb"\x89PNG\r\n\x1a\n", _image("png")),
    (rb"GIF8[79]a", _image("gif")),
    (rb"RIFF....WEBP", _image("webp")),
    (rb"II(\*\x00|\+\x00\x08\x00)|MM(\x00\*|\x00\+\x00\x08)", _image("tiff")),
    (rb"BM....\x00\x00\x00\x00....[\x0c\x28\x34\x38\x40\x6c\x7c]\x00\x00\x00", _image("bmp")),
    (rb"RIFF....AVI[ \x19X]", _video("avi", has_times=False)),
    (rb"\x1a\x45\xdf\xa3.{,64}webm", _video("webm", "matroska")),
    (rb"\x1a\x45\xdf\xa3", _video("matroska")),
    (rb"OggS\x00", _video("ogg")),
    (rb"FLV\x01", _video("flv")),
    (rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c", _video("asf")),
    (rb"DKIF\x00\x00", _video("ivf")),
    (rb"\x06\x0e\x2b\x34\x02\x05\x01\x01\x0d\x01\x02\x01\x01\x02", _video("mxf")),
    (rb"nut/multimedia container\x00", _video("nut")),
    (rb"YUV4MPEG2 ", _video("y4m", "yuv4mpegpipe", has_times=False)),
    (rb"\x1f\x07\x00.{77}\x3f\x07\x00", _video("dv", has_times=False)),
    (rb"\x12\x00\x0a[\x01-\x7f]", _video("obu", has_times=False)),
    (rb"\x00\x00\x01\xba", _video("mpeg")),
    (rb"\x00{2,3}\x01\xb3", _video("mpegvideo", has_times=False)),
    (rb"....(moov|mdat|wide|free|skip|pnot)", _video("mov")),
)
# Brands of ISO base media files that are pictures; every other brand is a video.
_IMAGE_BRANDS = {b"avif": "avif", b"avis": "avif"} | dict.fromkeys(
    (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"), "heif"
)
_REFUSED: tuple[tuple[bytes, str, str], ...] = (
    (rb"PK[\x03\x05\x07]", "not_media", "a zip archive"),
    (rb"\x1f\x8b|BZh|\xfd7zXZ|7z\xbc\xaf|\x28\xb5\x2f\xfd|Rar!", "not_media", "a compressed archive"),
    (rb"%PDF", "not_media", "a PDF document"),
    (rb"\x7fELF|MZ", "not_media", "a program"),
    (rb"PAR1", "not_media", "a Parquet file"),
    (rb"SQLite format 3\x00", "not_media", "a SQLite database"),
    (rb"RIFF....WAVE|ID3|fLaC|FORM....AIF|\xff[\xe3\xf1\xf3\xf9-\xfb]", "not_media", "audio without a picture"),
    (rb"\x00\x00\x00\x0cjP  |\xff\x4f\xff\x51", "unsupported_format", "JPEG 2000"),
    (rb"\xff\x0a|\x00\x00\x00\x0cJXL ", "unsupported_format", "JPEG XL"),
    (rb"8BPS", "unsupported_format", "a Photoshop document"),
    (rb"v/1\x01", "unsupported_format", "OpenEXR"),
    (rb"\x00\x00\x01\x00[\x01-\xff]\x00", "unsupported_format", "an icon"),
    (rb"\.RMF", "unsupported_format", "RealMedia"),
)  # fmt: skip
_ALLOWED = (
    "images: JPEG, PNG, WebP, GIF, TIFF, BMP, HEIF, AVIF; videos: MP4/MOV, Matroska/WebM, AVI, MPEG-TS, MPEG-PS, Ogg, "
    "FLV, ASF/WMV, MXF, NUT, IVF, DV, Y4M, raw H.264, HEVC, MPEG-4, MPEG-1/2, AV1 and MJPEG"
)


def sniff(head: bytes) -> Kind:
    """The kind of the file that begins with `head` (give `HEAD_BYTES` where there are so many).

    A raw MJPEG stream begins like a JPEG and is told apart by `identify`. Raises MediaError: empty_file, not_media,
    unsupported_format.
    """
    if not head:
        raise MediaError("empty_file", "the file is empty")
    if head[4:8] == b"ftyp":
        return _iso_kind(head)
    for pattern, kind in _PATTERNS:
        if re.match(pattern, head, re.DOTALL):
            return kind
    found = _transport_stream(head) or _raw_stream(head)
    if found is not None:
        return found
    for pattern, reason, what in _REFUSED:
        if re.match(pattern, head, re.DOTALL):
            raise MediaError(reason, f"the file is {what}; known are {_ALLOWED}")
    what = "text" if _is_text(head) else f"of no known format (it begins with {head[:8].hex(' ')})"
    raise MediaError("not_media", f"the file is {what}; known are {_ALLOWED}")


def identify(file: BinaryIO) -> Kind:
    """The kind of an open file, which is left at its start. Raises MediaError as `sniff` does."""
    from ._segments import jpeg_end, jpeg_segments

    file.seek(0)
    kind = sniff(file.read(HEAD_BYTES))
    if kind.name == "jpeg":
        segments = list(jpeg_segments(file))
        # A multi-picture file (MPF) and a photo with a film behind it are pictures; frames that follow on are a video.
        if not any(s.is_mpf for s in segments):
            end = jpeg_end(file, segments, limit=_FIRST_PICTURE_BYTES)
            if end is not None and _same_size_jpeg(file, end, segments):
                kind = _MJPEG
    file.seek(0)
    return kind


def open_video(source: str | BinaryIO, kind: Kind, *, max_pixels: int, threads: int = 1) -> InputContainer:
    """Open a video with its own demuxer, without access to any other file or the network.

    `source` is a local path or an open seekable file; `max_pixels` bounds a frame and `threads` each decoder. Raises
    MediaError: unreadable.
    """
    import av
    from av.error import FFmpegError

    options = {
        "protocol_whitelist": "file",
        "format_whitelist": _format_names(kind),
        "codec_whitelist": ",".join(f"{_VIDEO_CODECS} {_AUDIO_CODECS} {_OTHER_DECODERS}".split()),
    }
    decoding = {"max_pixels": str(max_pixels), "threads": str(threads)}
    try:
        container = av.open(
            f"file:{source}" if isinstance(source, str) else source,
            mode="r",
            format=kind.demuxer,
            options=decoding,
            container_options=options,
            metadata_errors="replace",
        )
    except (FFmpegError, ValueError) as error:
        raise MediaError("unreadable", f"the {kind.name} container cannot be opened: {error_text(error)}") from error
    return container


def video_streams(container: InputContainer) -> list[VideoStream]:
    """The video streams that play: cover pictures and thumbnails are none."""
    from av.stream import Disposition

    still = Disposition.attached_pic | Disposition.timed_thumbnails
    return [stream for stream in container.streams.video if not stream.disposition & still]


def is_decodable(stream: Stream) -> bool:
    """Whether there is a decoder of the stream and its codec is on the list of those that may be decoded."""
    return codec_name(stream.codec_context) in VIDEO_CODECS


def codec_name(context: CodecContext | None) -> str | None:
    """The codec's own name (`av1`), whichever library decodes it (`libdav1d`)."""
    return None if context is None else context.codec.canonical_name


def error_text(error: Exception) -> str:
    """An error of FFmpeg in words, without paths."""
    return str(getattr(error, "strerror", None) or error) or type(error).__name__


def _format_names(kind: Kind) -> str:
    from av.format import ContainerFormat

    return ContainerFormat(kind.demuxer or kind.name, "r").name


def _iso_kind(head: bytes) -> Kind:
    length = int.from_bytes(head[:4], "big")
    brands = [head[8:12], *(head[i : i + 4] for i in range(16, min(length, len(head)) - 3, 4))]
    if brands[0] in (b"mif1", b"msf1", b"miaf"):
        return _image(next((_IMAGE_BRANDS[b] for b in brands if b in _IMAGE_BRANDS), "heif"))
    if brands[0] in _IMAGE_BRANDS:
        return _image(_IMAGE_BRANDS[brands[0]])
    if brands[0] == b"crx ":
        raise MediaError("unsupported_format", f"the file is a camera's raw picture; known are {_ALLOWED}")
    if brands[0][:3] in (b"M4A", b"M4B"):
        raise MediaError("not_media", f"the file is audio without a picture; known are {_ALLOWED}")
    name = "mov" if brands[0] == b"qt  " else "3gp" if brands[0][:2] == b"3g" else "mp4"
    return _video(name, "mov")


def _transport_stream(head: bytes) -> Kind | None:
    """Sync bytes at equal distances, beginning within the first packet (a recording may start in the midst of one)."""
    for size in (188, 192, 204):
        for start in range(size):
            places = range(start, len(head), size)
            if len(places) >= 4 and all(head[p] == 0x47 for p in places):
                return _video("mpegts")
    return None


def _raw_stream(head: bytes) -> Kind | None:
    """H.264, HEVC or MPEG-4 part 2 without container: start codes, and the parameters that come before any picture."""
    if not re.match(rb"\x00{2,3}\x01", head):
        return None
    units = [head[m.end() : m.end() + 2] for m in re.finditer(rb"\x00\x00\x01", head)]
    units = [unit for unit in units if len(unit) == 2]
    if not units:
        return None
    first = units[0]
    if first[0] in (0x40, 0x42, 0x46, 0x4E) and first[1] == 1 and any(u[0] in (0x40, 0x42) for u in units):
        return _video("hevc", has_times=False)
    if first[0] & 0x1F in (6, 7, 9) and not first[0] & 0x80 and any(u[0] & 0x9F == 7 for u in units):
        return _video("h264", has_times=False)
    if (first[0] <= 0x2F or first[0] in (0xB0, 0xB5)) and any(0x20 <= u[0] <= 0x2F for u in units):
        return _video("m4v", has_times=False)
    return None


def _same_size_jpeg(file: BinaryIO, start: int, first: list) -> bool:
    from ._segments import jpeg_segments

    file.seek(start)
    if file.read(3) != b"\xff\xd8\xff":
        return False
    following = list(jpeg_segments(file, start=start))
    sizes = [next((s.size_px for s in segments if s.size_px), None) for segments in (first, following)]
    return sizes[0] is not None and sizes[0] == sizes[1]


def _is_text(head: bytes) -> bool:
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return True
    if b"\0" in head:
        return False
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        # A character may be cut by the end of what was read; older texts have a few bytes of other encodings.
        return error.start >= len(head) - 3 > 0 or sum(byte < 0x80 for byte in head) > 0.9 * len(head)
    return True
