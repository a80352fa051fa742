"""Sampling, times, turning and measures, without any file."""

from __future__ import annotations

import struct
from fractions import Fraction

import numpy as np
import pytest
from media_video import DISPLAY_MATRICES
from PIL import Image

from visionlake.udfs import upright
from visionlake.udfs.frame_types import FrameError, FrameOptions
from visionlake.udfs.quality import laplacian_variance, measure, phash
from visionlake.udfs.sampling import Sampler
from visionlake.udfs.timeline import Moment, Timeline

MS = Fraction(1, 1000)


def kept(pts: list[int], time_base: Fraction, **options: object) -> list[int]:
    sampler = Sampler(FrameOptions(**options), time_base, pts[0])  # type: ignore[arg-type]  # any option
    return [time for time in pts if sampler.judge(time) == "keep"]


def kept_by_definition(pts: list[int], time_base: Fraction, fps: Fraction) -> list[int]:
    """For every k the first frame with (pts - origin) * time_base + time_base / 2 >= k / fps."""
    elapsed = [(time - pts[0]) * time_base + time_base / 2 for time in pts]
    points = range(int(elapsed[-1] * fps) + 1)
    first = {next(i for i, at in enumerate(elapsed) if at >= k / fps) for k in points}
    return [pts[i] for i in sorted(first)]


@pytest.mark.parametrize("fps", ["30", "5", "7", "29.97", "30000/1001", "1/3", "100"])
@pytest.mark.parametrize("origin", [0, -400, 12345])
def test_sampling_follows_its_definition(fps: str, origin: int) -> None:
    rng = np.random.default_rng(7)
    steady = [origin + round(i * 1000 / 30) for i in range(90)]
    uneven = (origin + np.cumsum(rng.integers(1, 120, 90))).tolist()
    gap = steady[:50] + [time + 4321 for time in steady[50:]]
    for pts in (steady, uneven, gap):
        assert kept(pts, MS, fps=Fraction(fps)) == kept_by_definition(pts, MS, Fraction(fps))


def test_coarse_ticks_keep_every_frame() -> None:
    pts = [round(i * 1000 / 30) for i in range(300)]
    assert kept(pts, MS, fps=Fraction(30)) == pts


def test_a_frame_that_is_first_for_several_points_is_kept_once() -> None:
    assert kept([0, 1000, 1100, 2000], MS, fps=Fraction(10)) == [0, 1000, 1100, 2000]
    assert kept([0, 1000, 1050, 1100], MS, fps=Fraction(10)) == [0, 1000, 1100]


def test_a_range_does_not_move_the_grid() -> None:
    pts = list(range(0, 3000, 40))
    everything = kept(pts, MS, fps=Fraction(3))
    within = kept(pts, MS, fps=Fraction(3), start_s=Fraction(1, 2), end_s=Fraction(2))
    assert within == [time for time in everything if 500 <= time < 2000]
    assert kept(pts, MS, start_s=Fraction(2), end_s=Fraction(2)) == []


def test_max_frames_counts_what_is_kept_and_then_stops() -> None:
    sampler = Sampler(FrameOptions(max_frames=2, start_s=Fraction(1)), MS, 0)
    assert [sampler.judge(time) for time in (0, 1000, 1500, 2000)] == ["skip", "keep", "keep", "stop"]


def test_keyframes_only_samples_among_keyframes() -> None:
    sampler = Sampler(FrameOptions(keyframes_only=True, fps=Fraction(1)), MS, 0)
    frames = [(0, True), (500, True), (1000, False), (1100, True), (2000, False), (3300, True)]
    assert [time for time, key in frames if sampler.judge(time, is_keyframe=key) == "keep"] == [0, 1100, 3300]


def line(**settings: object) -> Timeline:
    return Timeline(0, Fraction(1, 90000), 3600, **settings)  # type: ignore[arg-type]  # any setting


def places(timeline: Timeline, pts: list[int | None], duration: int = 0) -> list[int | str]:
    found = [timeline.place(time, duration=duration) for time in pts]
    return [moment.pts if isinstance(moment, Moment) else moment.reason for moment in found]


def test_increasing_times_stay() -> None:
    assert places(line(), [-7200, -3600, 0, 1, 400_000]) == [-7200, -3600, 0, 1, 400_000]


def test_a_jump_back_of_more_than_a_second_follows_on() -> None:
    timeline = line()
    assert places(timeline, [900_000, 903_600, 0, 3600, 7200]) == [900_000, 903_600, 907_200, 910_800, 914_400]
    assert timeline.last == Moment(pts=914_400, pts_offset=907_200, frame_index=4)


def test_every_jump_adds_to_the_offset() -> None:
    assert places(line(), [0, 100_000, 0, 100_000, 0], duration=1000) == [0, 100_000, 101_000, 201_000, 202_000]


def test_a_jump_back_of_just_a_second_is_an_error() -> None:
    assert places(line(), [200_000, 110_000, 203_600]) == [200_000, "pts_not_increasing", 203_600]
    assert places(line(), [200_000, 109_999]) == [200_000, 203_600]


def test_repeated_times_are_errors_and_are_counted() -> None:
    timeline = line()
    assert places(timeline, [0, 3600, 3600, 1800, 7200]) == [0, 3600, *["pts_not_increasing"] * 2, 7200]
    assert timeline.last == Moment(pts=7200, pts_offset=0, frame_index=4)


def test_missing_times_follow_on() -> None:
    assert places(line(), [0, None, 7200, None]) == [0, 3600, 7200, 10_800]
    assert places(line(), [None, 3600]) == ["pts_missing", 3600]
    first = line().place(None, dts=100)
    assert isinstance(first, Moment) and first.pts == 100


def test_a_wrap_that_was_none_is_a_jump_back() -> None:
    wrap = 1 << 33
    assert places(line(wrap=wrap), [18_000_000, 18_003_600, wrap, wrap + 3600]) == [
        18_000_000, 18_003_600, 18_007_200, 18_010_800,
    ]  # fmt: skip
    assert places(line(), [0, wrap]) == [0, wrap]


def test_without_times_the_index_is_the_time() -> None:
    timeline = Timeline(3, Fraction(1, 25), 1, source="index")
    assert places(timeline, [None, 17, 4]) == [0, 1, 2]


@pytest.mark.parametrize("numerator", [1, 1001])
def test_times_beyond_sixty_four_bits_are_errors(numerator: int) -> None:
    limit = (1 << 62) // numerator
    timeline = Timeline(0, Fraction(numerator, 30_000), 1)
    assert places(timeline, [-limit - 1, 0, 1, limit + 1, 2]) == ["pts_out_of_range", 0, 1, "pts_out_of_range", 2]
    assert timeline.last == Moment(pts=2, pts_offset=0, frame_index=4)


def test_a_join_that_adds_up_beyond_sixty_four_bits_is_an_error() -> None:
    far = (1 << 62) - 90_001
    timeline = line()
    assert places(timeline, [far, -far, far + 1]) == [far, "pts_out_of_range", far + 1]


def test_errors_name_their_stream() -> None:
    timeline = Timeline(3, MS, 40)
    timeline.place(5)
    error = timeline.place(5)
    assert isinstance(error, FrameError) and (error.stream_index, error.pts) == (3, 5)


@pytest.mark.parametrize("a_b_c_d", DISPLAY_MATRICES.values(), ids=list(DISPLAY_MATRICES))
def test_matrices_turn_as_the_standard_says(a_b_c_d: tuple[int, int, int, int]) -> None:
    a, b, c, d = a_b_c_d
    matrix = struct.pack("=9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    turn = upright.from_matrix(matrix)
    stored = np.arange(6).reshape(2, 3)
    shown = {(a * p + c * q, b * p + d * q): stored[q, p] for q in range(2) for p in range(3)}
    columns, rows = sorted({x for x, _ in shown}), sorted({y for _, y in shown})
    expected = [[shown[x, y] for x in columns] for y in rows]
    np.testing.assert_array_equal(turn.apply(stored), expected)
    assert turn.size(3, 2) == (len(columns), len(rows))
    mirrored = stored[:, ::-1] if turn.is_mirrored else stored
    np.testing.assert_array_equal(np.rot90(mirrored, -turn.rotation_deg // 90), expected)


def test_a_matrix_of_nothing_or_of_a_small_angle_is_upright() -> None:
    assert upright.from_matrix(bytes(36)) == upright.UPRIGHT
    assert upright.from_matrix(struct.pack("=5i", 65000, 3000, 0, -3000, 65000)) == upright.UPRIGHT


def test_measures_of_plain_pictures() -> None:
    flat = measure(np.full((48, 64), 100, dtype=np.uint8))
    assert flat == {"brightness": 100, "contrast": 0, "sharpness": 0, "phash": flat["phash"]}
    halves = np.zeros((48, 64), dtype=np.uint8)
    halves[:, 32:] = 255
    assert measure(halves)["brightness"] == measure(halves)["contrast"] == 127.5
    assert measure(np.zeros((2, 2), dtype=np.uint8))["sharpness"] is None


def test_sharpness_is_the_variance_of_the_laplacian() -> None:
    luma = np.random.default_rng(1).integers(0, 256, (301, 207)).astype(np.uint8)
    y = luma.astype(np.int64)
    laplacian = y[:-2, 1:-1] + y[2:, 1:-1] + y[1:-1, :-2] + y[1:-1, 2:] - 4 * y[1:-1, 1:-1]
    assert laplacian_variance(luma) == pytest.approx(laplacian.var(), rel=1e-6)


def test_phash_tells_pictures_apart_and_not_their_sizes() -> None:
    rng = np.random.default_rng(2)
    picture = Image.fromarray(rng.integers(0, 256, (9, 16)).astype(np.uint8)).resize(
        (640, 360), Image.Resampling.BICUBIC
    )
    other = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)

    def distance(left: Image.Image, right: Image.Image) -> int:
        hashes = [phash(np.asarray(image)) for image in (left, right)]
        assert all(len(text) == 16 for text in hashes)
        return (int(hashes[0], 16) ^ int(hashes[1], 16)).bit_count()

    assert distance(picture, picture.resize((320, 180))) <= 4
    assert distance(picture, other) > 12
