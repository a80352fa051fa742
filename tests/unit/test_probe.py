"""What the header and the index of a file say."""

from __future__ import annotations

import json
import os
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import media_pictures as pictures
import media_video as videos
import numpy as np
import pytest

from visionlake.expectations.media import TABLE
from visionlake.udfs._errors import MediaError
from visionlake.udfs._rate import is_variable_rate
from visionlake.udfs.drift import probe_file
from visionlake.udfs.frame_types import Limits
from visionlake.udfs.probe import probe_media

DATA = Path(__file__).parents[3] / "shared" / "data"
THIRTY = Fraction(1, 30)


def probe(path: Path, **options: Any) -> dict[str, Any]:
    return probe_media(str(path), size_bytes=os.path.getsize(path), limits=Limits(), **options)


def stream_of(path: Path, index: int = 0) -> dict[str, Any]:
    return probe(path)["video_streams"][index]


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 frames at 30 per second with B-frames."""
    track = videos.Track(pts=range(0, 30 * 512, 512), matrix=videos.BT709)
    return videos.write(tmp_path_factory.mktemp("probe") / "film.mp4", track)


def reason_of(path: Path, **limits: int) -> str:
    with pytest.raises(MediaError) as caught:
        probe_media(str(path), size_bytes=None, limits=Limits(**limits))
    return caught.value.reason


def test_keys_are_the_columns_of_the_table(film: Path, tmp_path: Path) -> None:
    columns = set(TABLE.column_names) - {"media_id", "size_bytes", "run_id"}
    for path in (film, pictures.jpeg(tmp_path / "a.jpg", camera=True).path):
        facts = probe(path)
        assert set(facts) == columns
        json.dumps(facts)
    fields = TABLE.arrow_schema().field("video_streams").type.value_type
    assert {field.name for field in fields} == set(stream_of(film))


def test_facts_of_a_video(film: Path) -> None:
    facts = probe(film)
    assert (facts["kind"], facts["container"], facts["duration_s"]) == ("video", "mp4", pytest.approx(1.0))
    expected = {
        "codec": "h264", "pixel_format": "yuv420p", "bit_depth": 8, "color_space": "bt709", "color_range": "limited",
        "width_px": 128, "height_px": 96, "rotation_deg": 0, "is_mirrored": False, "time_base_num": 1,
        "time_base_den": 15360, "average_rate": "30", "is_variable_rate": False, "frame_count": 30, "start_s": 0.0,
    }  # fmt: skip
    found = facts["video_streams"][0]
    assert {name: found[name] for name in expected} == expected
    assert facts["audio_streams"] == facts["data_streams"] == []


def test_an_open_file_says_the_same_as_a_path(film: Path) -> None:
    data = film.read_bytes()
    assert probe_media(BytesIO(data), size_bytes=len(data), limits=Limits()) == probe(film)


def test_depth_range_matrix_and_aspect(tmp_path: Path) -> None:
    track = videos.Track(
        pts=range(0, 5 * 512, 512), pixel_format="yuv420p10le", full_range=True, matrix=videos.BT2020,
        sample_aspect=Fraction(4, 3),
    )  # fmt: skip
    found = stream_of(videos.write(tmp_path / "deep.mkv", track))
    assert (found["bit_depth"], found["color_range"], found["color_space"]) == (10, "full", "bt2020nc")
    assert (found["sample_aspect_num"], found["sample_aspect_den"]) == (4, 3)
    assert (found["time_base_den"], found["frame_count"], found["is_variable_rate"]) == (1000, None, False)


@pytest.mark.parametrize(
    ("name", "pts", "is_variable"),
    [
        ("steady.mp4", range(0, 60 * 512, 512), False),
        ("steady.mkv", range(0, 60 * 512, 512), False),
        ("gap.mp4", [n * 512 for n in range(60) if n != 30], True),
        ("gap.mkv", [n * 512 for n in range(60) if n != 30], True),
        ("slower.mkv", [n * 512 if n < 30 else 30 * 512 + (n - 30) * 530 for n in range(60)], True),
        ("steady.avi", range(0, 60 * 512, 512), False),
        ("late.mp4", [n * 512 if n < 300 else 300 * 512 + (n - 300) * 1024 for n in range(320)], True),
        ("late.mkv", [n * 512 if n < 300 else 300 * 512 + (n - 300) * 1024 for n in range(900)], True),
    ],
)
def test_constant_and_variable_rate(tmp_path: Path, name: str, pts: Any, is_variable: bool) -> None:
    small = {"preset": "ultrafast", "g": "10"}
    if name.endswith("avi"):
        track = videos.Track(pts=range(60), time_base=THIRTY, codec="mpeg4", size=(64, 64))
    else:
        track = videos.Track(pts=pts, size=(64, 64), options=small)
    path = videos.write(tmp_path / name, track)
    assert stream_of(path)["is_variable_rate"] is is_variable


def test_rate_from_times() -> None:
    ntsc_ms = [round(n * 1001 / 30) for n in range(1000)]
    assert is_variable_rate(ntsc_ms) is False
    assert is_variable_rate([t + (t > 500) * 33 for t in ntsc_ms]) is True
    assert is_variable_rate([0, 1, 2, 4, 5, 6]) is True  # ticks as long as frames: one was left out
    assert is_variable_rate([n * 33 if n < 500 else 500 * 33 + (n - 500) * 34 for n in range(1000)]) is True
    assert is_variable_rate([0, 40]) is None


@pytest.mark.parametrize(
    ("clockwise", "flip", "expected"),
    [(90, False, (90, False)), (180, False, (180, False)), (270, False, (270, False)), (0, True, (0, True))],
)
def test_display_matrix(tmp_path: Path, clockwise: int, flip: bool, expected: tuple[int, bool]) -> None:
    path = tmp_path / "turned.mp4"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("mpeg4", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        # Counter-clockwise, as FFmpeg counts.
        stream.set_display_rotation(-clockwise, hflip=flip)
        for index in range(3):
            frame = av.VideoFrame(64, 48, "yuv420p")
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    found = stream_of(path)
    assert (found["rotation_deg"], found["is_mirrored"], found["width_px"]) == (*expected, 64)


def test_other_streams_are_listed_and_covers_are_no_video(tmp_path: Path) -> None:
    path = tmp_path / "many.mkv"
    cover = pictures.jpeg(tmp_path / "cover.jpg").path.read_bytes()
    with av.open(str(path), "w") as container:
        video: Any = container.add_stream("mpeg4", rate=30)
        video.width, video.height = 64, 48
        sound: Any = container.add_stream("aac", rate=48000, layout="stereo")
        container.add_attachment("cover.jpg", "image/jpeg", cover)
        for index in range(3):
            frame = av.VideoFrame(64, 48, "yuv420p")
            frame.pts = index
            container.mux(video.encode(frame))
            noise = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), "fltp", "stereo")
            noise.sample_rate, noise.pts = 48000, index * 1024
            container.mux(sound.encode(noise))
        container.mux(video.encode(None))
        container.mux(sound.encode(None))
    facts = probe(path)
    assert [s["codec"] for s in facts["video_streams"]] == ["mpeg4"]
    audio = facts["audio_streams"][0]
    assert (audio["stream_index"], audio["codec"]) == (1, "aac")
    assert (audio["sample_rate_hz"], audio["channel_count"]) == (48000, 2)
    assert [(s["kind"], s["codec"]) for s in facts["data_streams"]] == [("attached_picture", "mjpeg")]


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        sound: Any = container.add_stream("aac", rate=48000, layout="mono")
        noise = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        noise.sample_rate, noise.pts = 48000, 0
        container.mux(sound.encode(noise))
        container.mux(sound.encode(None))
    assert reason_of(path) == "no_video"


def test_tags_of_a_video(tmp_path: Path, film: Path) -> None:
    path = tmp_path / "tagged.mov"
    with av.open(str(film)) as source, av.open(str(path), "w", options={"movflags": "use_metadata_tags"}) as container:
        container.metadata.update(
            {
                "com.apple.quicktime.creationdate": "2024-05-06T07:08:09+0200",
                "com.apple.quicktime.model": "Eye 3",
                "com.apple.quicktime.location.ISO6709": "+37.3318-122.0312/",
            }
        )
        stream = container.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                container.mux(packet)
    facts = probe(path)
    assert (facts["container"], facts["captured_at"]) == ("mov", "2024-05-06T05:08:09+00:00")
    assert (facts["camera_model"], facts["has_position"], facts["position"]) == ("Eye 3", True, None)
    assert probe(path, keep_position=True)["position"]["latitude_deg"] == 37.3318


def test_facts_of_every_picture(tmp_path: Path) -> None:
    for made in pictures.all_pictures(tmp_path):
        facts = probe(made.path)
        assert (facts["kind"], facts["container"], facts["duration_s"]) == ("image", made.container, None)
        assert {name: facts["picture"][name] for name in made.facts} == made.facts, made.path.name
        assert facts["video_streams"] == facts["audio_streams"] == facts["data_streams"] == []


def test_position_is_kept_only_if_asked_for(tmp_path: Path) -> None:
    path = pictures.jpeg(tmp_path / "a.jpg", gps=True, camera=True).path
    assert (probe(path)["has_position"], probe(path)["position"]) == (True, None)
    assert probe(path, keep_position=True)["position"]["altitude_m"] == 12.5
    assert probe(path)["captured_at"] == "2024-05-06T05:08:09.250000+00:00"


def test_files_that_are_no_sound_media(tmp_path: Path, film: Path) -> None:
    whole = film.read_bytes()
    picture = pictures.jpeg(tmp_path / "whole.jpg", gps=True).path.read_bytes()
    assert whole.index(b"moov") > whole.index(b"mdat")
    for name, data, reason in (
        ("empty.mp4", b"", "empty_file"),
        ("text.mp4", b"not a video\n", "not_media"),
        ("zip.jpg", b"PK\3\4" + bytes(100), "not_media"),
        ("cut.mp4", whole[: len(whole) // 2], "truncated"),
        ("unfinished.mp4", whole[: whole.index(b"moov") - 4], "truncated"),
        ("garbage.mp4", whole[:32] + bytes(range(256)) * 40, "unreadable"),
        ("cut.jpg", picture[: len(picture) // 2], "truncated"),
        ("header.jpg", picture[:30], "truncated"),
        ("marker.jpg", picture[:-2], "truncated"),
        ("garbage.jpg", picture[:3] + bytes(200), "unreadable"),
    ):
        path = tmp_path / name
        path.write_bytes(data)
        assert reason_of(path) == reason, name
    assert reason_of(pictures.absurd_png(tmp_path / "absurd.png")) == "too_large"
    assert reason_of(film, max_pixels=1000) == "too_large"
    with pytest.raises(MediaError, match="had 7 before"):
        probe_media(str(film), size_bytes=7, limits=Limits())


def test_a_film_cut_short_behind_its_index_has_facts(tmp_path: Path) -> None:
    track = videos.Track(pts=range(0, 30 * 512, 512))
    path = videos.write(tmp_path / "fast.mp4", track, options={"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert stream_of(path)["frame_count"] == 30


def test_drift_of_a_variable_rate(tmp_path: Path) -> None:
    # Ten frames at 30 per second, a second of nothing, ten more: the average is far from either.
    pts = [n * 512 if n < 10 else n * 512 + 15360 for n in range(20)]
    path = videos.write(tmp_path / "pause.mp4", videos.Track(pts=pts))
    facts = probe_file(str(path))
    drift = facts["drift"][0]
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        rate, base = stream.average_rate, stream.time_base
    assert rate and base
    expected = max(abs(n / rate - p * base) for n, p in enumerate(pts)) * 1000
    assert drift.max_drift_ms == pytest.approx(float(expected)) and drift.max_drift_ms > 300
    assert (drift.frame_count, drift.is_variable_rate, drift.is_complete) == (20, True, True)


def test_drift_of_steady_and_timeless_files(film: Path, tmp_path: Path) -> None:
    assert probe_file(str(film))["drift"][0].max_drift_ms == 0
    track = videos.Track(pts=range(10), time_base=THIRTY, codec="mpeg4", size=(64, 64))
    assert probe_file(str(videos.write(tmp_path / "a.avi", track)))["drift"][0].max_drift_ms is None
    assert probe_file(str(pictures.jpeg(tmp_path / "a.jpg").path))["drift"] == []


@pytest.mark.skipif(not DATA.exists(), reason="the shared real files are not here")
def test_real_files() -> None:
    pictures_found = sorted(p for p in DATA.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    facts = {path: probe(path) for path in pictures_found}
    assert len(facts) == 455
    cameras = {f["camera_model"] for path, f in facts.items() if "sceaux" in str(path)}
    assert cameras == {"KODAK Z612 ZOOM DIGITAL CAMERA"}
    counts = {p.name: stream_of(p)["frame_count"] for p in (DATA / "videos").glob("*.mp4")}
    assert sorted(counts.values()) == [377, 1189, 1394]


def test_frames_with_side_data_that_the_binding_does_not_know(tmp_path: Path) -> None:
    jpeg = pictures.jpeg(tmp_path / "turned.jpg", orientation=6).path.read_bytes()
    path = tmp_path / "turned.mov"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("mjpeg", rate=30)
        stream.width, stream.height, stream.pix_fmt = pictures.HEIGHT, pictures.WIDTH, "yuvj420p"
        for index in range(3):
            packet = av.Packet(jpeg)
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, index, index, THIRTY
            container.mux(packet)
    found = stream_of(path)
    assert (found["codec"], found["rotation_deg"], found["is_mirrored"]) == ("mjpeg", 90, False)
