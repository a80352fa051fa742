"""Generated videos come out with the times, places and colours that they were made with."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import media_video as made_by
import numpy as np
import pytest
from av.stream import Disposition
from media_video import CORNER_TOLERANCE, MadeStream, MadeVideo
from PIL import Image

from visionlake.udfs._errors import MediaError
from visionlake.udfs.frame_types import Frame, FrameError, FrameOptions, Limits
from visionlake.udfs.video_frames import video_frames

PNG = FrameOptions(image_format="png")
REAL_VIDEOS = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "videos"


def extract(path: Path, options: FrameOptions = PNG, limits: Limits | None = None) -> tuple[list, MediaError | None]:
    """What comes out of a file, and the error at its end."""
    found: list[Frame | FrameError] = []
    try:
        for frame in video_frames(str(path), options=options, limits=limits or Limits()):
            found.append(frame)
    except MediaError as error:
        return found, error
    return found, None


def of_stream(found: list, index: int) -> list[Frame]:
    return [frame for frame in found if isinstance(frame, Frame) and frame.stream_index == index]


def pixels(frame: Frame) -> np.ndarray:
    assert frame.image is not None
    return np.asarray(Image.open(io.BytesIO(frame.image)).convert("RGB"))


def colour_at(picture: np.ndarray, x: float, y: float) -> np.ndarray:
    """Mean colour of a small patch at a relative place."""
    row, column = round(y * picture.shape[0]), round(x * picture.shape[1])
    return picture[row - 4 : row + 4, column - 4 : column + 4].reshape(-1, 3).mean(axis=0)


def check_frames(frames: list[Frame], stream: MadeStream) -> None:
    """Times, identity and colours of the first frames of a stream."""
    assert [frame.pts for frame in frames] == list(stream.pts[: len(frames)])
    assert [frame.frame_index for frame in frames] == list(range(len(frames)))
    for position, frame in enumerate(frames):
        assert Fraction(frame.time_base_num, frame.time_base_den) == stream.time_base
        assert frame.pts_s == pytest.approx(float(frame.pts * stream.time_base))
        assert frame.pts_source == stream.pts_source
        assert (frame.width_px, frame.height_px) == (frame.full_width_px, frame.full_height_px) == stream.size
        picture = pixels(frame)
        assert picture.shape[:2] == stream.size[::-1]
        corners = [colour_at(picture, x, y) for y in (0.12, 0.88) for x in (0.12, 0.88)]
        np.testing.assert_allclose(corners, stream.corners, atol=CORNER_TOLERANCE)
        if stream.markers:
            np.testing.assert_allclose(colour_at(picture, 0.5, 0.5), stream.markers[position], atol=4)


@pytest.mark.parametrize("make", made_by.WHOLE, ids=lambda make: make.__name__)
def test_times_and_corner_colours(tmp_path: Path, make: Callable[[Path], MadeVideo]) -> None:
    made = make(tmp_path)
    found, error = extract(made.path)
    assert error is None
    assert {frame.stream_index for frame in found} == {stream.index for stream in made.streams}
    for stream in made.streams:
        frames = of_stream(found, stream.index)
        assert len(frames) == len(stream.pts)
        check_frames(frames, stream)


@pytest.mark.parametrize("matrix", made_by.DISPLAY_MATRICES)
def test_hevc_is_turned_upright_by_its_matrix(tmp_path: Path, matrix: str) -> None:
    made = made_by.hevc_turned(tmp_path, matrix)
    found, error = extract(made.path)
    assert error is None and len(found) == 4
    check_frames(found, made.streams[0])


@pytest.mark.parametrize("make", made_by.TRUNCATED, ids=lambda make: make.__name__)
def test_a_truncated_file_gives_the_frames_before_the_cut(tmp_path: Path, make: Callable[[Path], MadeVideo]) -> None:
    made = make(tmp_path)
    found, error = extract(made.path)
    frames = of_stream(found, 0)
    assert len(found) == len(frames) and 0 < len(frames) < len(made.streams[0].pts)
    check_frames(frames, made.streams[0])
    assert error is not None and error.reason == "truncated"
    assert f"pts {frames[-1].pts}" in error.message
    place = json.loads(error.payload or "")
    assert place["streams"] == [{"stream_index": 0, "frames": len(frames), "last_pts": frames[-1].pts}]
    assert place["declared_bytes"] > place["size_bytes"] == made.path.stat().st_size


def test_a_cover_is_no_video(tmp_path: Path) -> None:
    track = made_by.Track(pts=[0, 512, 1024], options=made_by.FAST)
    path = tmp_path / "covered.mp4"
    with av.open(str(path), "w") as container:
        stream = made_by.add_stream(container, track)
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 64, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        container.start_encoding()
        container.mux(cover.encode(av.VideoFrame(64, 64, "yuvj420p")) + cover.encode(None))
        for index, pts in enumerate(track.pts):
            frame = made_by.video_frame(index, track)
            frame.pts, frame.time_base = pts, track.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with av.open(str(path)) as container:
        assert len(container.streams.video) == 2
    found, error = extract(path)
    assert error is None
    assert [(frame.stream_index, frame.pts) for frame in found] == [(0, 0), (0, 512), (0, 1024)]


def test_a_join_is_recorded_as_an_offset(tmp_path: Path) -> None:
    found, _ = extract(made_by.joined_transport(tmp_path).path, FrameOptions(image_format="none"))
    assert [frame.pts_offset for frame in found] == [0] * 40 + [40 * 3600] * 40


def test_damage_in_the_midst_ends_the_stream_before_it(tmp_path: Path) -> None:
    made = made_by.constant_rate(tmp_path)
    with av.open(str(made.path)) as container:
        packet = [p for p in container.demux(video=0) if p.size][12]
        place, size = packet.pos or 0, packet.size
    data = bytearray(made.path.read_bytes())
    data[place + 5 : place + size] = b"\xff" * (size - 5)
    made.path.write_bytes(data)
    found, error = extract(made.path)
    assert error is not None and error.reason == "damaged"
    assert "after frame 11" in error.message
    assert [frame.frame_index for frame in found] == list(range(12))


def test_an_overwritten_stretch_of_a_matroska_file_is_noticed(tmp_path: Path) -> None:
    made = made_by.matroska_ticks(tmp_path)
    data = bytearray(made.path.read_bytes())
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    made.path.write_bytes(data)
    found, error = extract(made.path)
    assert error is not None and error.reason == "damaged"
    assert [frame.pts for frame in found] == list(made.streams[0].pts[: len(found)])


@pytest.mark.parametrize("threads", [1, 2])
def test_keyframes_only_have_the_identity_that_all_frames_give(tmp_path: Path, threads: int) -> None:
    for make in (made_by.edit_list, made_by.joined_transport, made_by.avi, made_by.constant_rate, made_by.two_streams):
        path = make(tmp_path).path
        limits = Limits(threads=threads)
        everything, _ = extract(path, FrameOptions(image_format="none"), limits)
        keyframes, _ = extract(path, FrameOptions(image_format="none", keyframes_only=True), limits)
        assert keyframes and keyframes == [frame for frame in everything if frame.is_keyframe]


def test_size_and_format_of_the_stored_picture(tmp_path: Path) -> None:
    track = made_by.Track(pts=[0], options=made_by.FAST, sample_aspect=Fraction(3, 2))
    path = made_by.write(tmp_path / "wide.mp4", track)
    [frame], _ = extract(path, FrameOptions(square_pixels=True))
    assert (frame.width_px, frame.height_px, frame.full_width_px, frame.full_height_px) == (192, 96, 128, 96)
    [frame], _ = extract(path, FrameOptions(max_side_px=64, jpeg_quality=92))
    assert (frame.width_px, frame.height_px, frame.full_width_px, frame.full_height_px) == (64, 48, 128, 96)
    assert frame.image_format == "jpeg" and pixels(frame).shape == (48, 64, 3)
    [frame], _ = extract(path, FrameOptions(max_side_px=1000, image_format="none"))
    assert frame.width_px == 128 and frame.image is None and frame.image_format is None
    assert frame.sharpness is not None and frame.phash is not None


def test_sampling_of_streams_goes_by_their_own_origins(tmp_path: Path) -> None:
    options = FrameOptions(fps=Fraction(5), image_format="none", max_frames=2)
    found, error = extract(made_by.two_streams(tmp_path).path, options)
    assert error is None
    assert [frame.pts for frame in of_stream(found, 0)] == [0, 6 * 512]
    assert [frame.pts for frame in of_stream(found, 1)] == [3840, 3840 + 3 * 1024]


def test_all_frames_at_thirty_in_spite_of_coarse_ticks(tmp_path: Path) -> None:
    made = made_by.matroska_ticks(tmp_path)
    found, _ = extract(made.path, FrameOptions(fps=Fraction(30), image_format="none"))
    assert [frame.pts for frame in found] == list(made.streams[0].pts)


@pytest.mark.parametrize(
    "options",
    [
        {"start_s": Fraction(100)},
        {"keyframes_only": True, "start_s": Fraction(1, 10), "end_s": Fraction(1, 2)},
        {"fps": Fraction(1, 5), "start_s": Fraction(1, 10), "end_s": Fraction(1, 2)},
    ],
    ids=str,
)
def test_settings_that_select_no_frame_are_said(tmp_path: Path, options: dict[str, Any]) -> None:
    found, error = extract(made_by.constant_rate(tmp_path).path, FrameOptions(**options))
    assert found == [] and error is not None and error.reason == "nothing_selected"
    assert all(f"{name} = {value}" in error.message for name, value in options.items())


def test_pictures_of_more_than_the_limit_are_refused(tmp_path: Path) -> None:
    found, error = extract(made_by.constant_rate(tmp_path).path, FrameOptions(), Limits(max_pixels=100))
    assert found == [] and error is not None and error.reason == "too_large"


def test_motion_jpeg_with_exif_as_phones_write_it(tmp_path: Path) -> None:
    """FFmpeg hands EXIF over as side data of a kind that PyAV does not know."""
    exif = Image.Exif()
    exif[0x010F] = "a maker"
    path = tmp_path / "exif.mov"
    with av.open(str(path), "w") as container:
        stream = made_by.add_stream(container, made_by.Track(pts=[], codec="mjpeg", pixel_format="yuvj420p"))
        for index in range(3):
            data = io.BytesIO()
            Image.fromarray(made_by.draw(index).astype(np.uint8)).save(data, "jpeg", quality=95, exif=exif)
            packet = av.Packet(data.getvalue())
            packet.stream, packet.time_base = stream, Fraction(1, 15360)
            packet.pts = packet.dts = index * 512
            container.mux(packet)
    found, error = extract(path)
    assert error is None and [frame.pts for frame in found] == [0, 512, 1024]
    np.testing.assert_allclose(colour_at(pixels(found[1]), 0.12, 0.12), made_by.CORNERS[0], atol=CORNER_TOLERANCE)


def test_a_stream_of_a_codec_that_is_not_allowed_leaves_the_others(tmp_path: Path) -> None:
    good = made_by.Track(pts=[0, 512, 1024], options=made_by.FAST)
    other = made_by.Track(pts=[0, 512], codec="snow", options={"strict": "-2"})
    path = made_by.write(tmp_path / "two.mkv", good, other)
    found, error = extract(path)
    assert error is None and [frame.pts for frame in of_stream(found, 0)] == [0, 33, 67]
    [refused] = [each for each in found if isinstance(each, FrameError)]
    assert (refused.stream_index, refused.reason) == (1, "unsupported_codec") and "snow" in refused.message
    found, error = extract(made_by.write(tmp_path / "alone.mkv", other))
    assert found == [] and error is not None and error.reason == "unsupported_codec"


def test_pixels_are_bounded_also_in_midstream(tmp_path: Path) -> None:
    tracks = [made_by.Track(pts=range(5), options=made_by.FAST, size=size) for size in ((64, 48), (1280, 720))]
    parts = [made_by.write(tmp_path / f"{i}.h264", track).read_bytes() for i, track in enumerate(tracks)]
    bomb = tmp_path / "bomb.h264"
    bomb.write_bytes(b"".join(parts))
    found, error = extract(bomb, FrameOptions(image_format="none"), Limits(max_pixels=10_000))
    assert error is not None and error.reason in ("too_large", "damaged")
    assert {(frame.width_px, frame.height_px) for frame in found} <= {(64, 48)}


def test_what_is_no_video_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.mp4"
    path.write_text("this is not a video\n" * 100)
    assert extract(path)[1].reason == "not_media"  # type: ignore[union-attr]  # None fails too


def _real(name: str, rate: str | None, count: int) -> object:
    marks = () if name == "car" and rate == "5" else pytest.mark.long
    return pytest.param(f"{name}-detection.mp4", rate, count, marks=marks)


@pytest.mark.parametrize(
    ("name", "rate", "count"),
    [
        _real("car", "2", 61), _real("car", "5", 151), _real("car", None, 377),
        _real("one-by-one-person", "2", 279), _real("one-by-one-person", "5", 697),
        _real("one-by-one-person", None, 1394),
        _real("bottle", "2", 80), _real("bottle", "5", 200), _real("bottle", None, 1189),
    ],
)  # fmt: skip
def test_real_videos_agree_with_a_plain_loop(name: str, rate: str | None, count: int) -> None:
    path = REAL_VIDEOS / name
    if not path.is_file():
        pytest.skip(f"{name} is not here")
    fps = Fraction(rate) if rate else None
    found, error = extract(path, FrameOptions(fps=fps, image_format="none", max_side_px=32))
    assert error is None and len(found) == count
    with av.open(str(path)) as container:
        plain = [frame.pts for frame in container.decode(video=0)]
    assert [frame.pts for frame in found] == [plain[frame.frame_index] for frame in found]
    assert rate or [frame.pts for frame in found] == plain
