"""Stills come out upright, in 8 bits, with the colours that went in."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import media_pictures as pictures
import numpy as np
import pytest
from media_pictures import MadePicture
from PIL import Image

from visionlake.udfs._errors import MediaError
from visionlake.udfs.frame_types import Frame, FrameOptions, Limits
from visionlake.udfs.stills import fitted_size, still_frame

PNG = FrameOptions(image_format="png")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, MadePicture]:
    return {p.path.name: p for p in pictures.all_pictures(tmp_path_factory.mktemp("pictures"))}


def frame_of(path: Path, options: FrameOptions = PNG, **limits: int) -> Frame:
    return still_frame(str(path), options=options, limits=Limits(**limits))


def check(picture: MadePicture) -> None:
    frame = frame_of(picture.path)
    assert frame.image is not None
    image = Image.open(BytesIO(frame.image))
    assert image.size == (frame.width_px, frame.height_px) == (frame.full_width_px, frame.full_height_px)
    assert image.size == picture.size, picture.path.name
    np.testing.assert_allclose(
        pictures.corner_colours(image), picture.corners, atol=picture.tolerance, err_msg=picture.path.name
    )
    assert image.mode in ("L", "RGB") and image.getexif().get(0x0112, 1) == 1
    assert (frame.image == picture.path.read_bytes()) == picture.is_kept, picture.path.name
    assert frame.image_format == (picture.container if picture.is_kept else "png")


def test_every_kind_of_picture_shows_its_four_corners(made: dict[str, MadePicture]) -> None:
    for picture in made.values():
        check(picture)


def test_heif_shows_its_four_corners(tmp_path: Path) -> None:
    pytest.importorskip("pillow_heif")
    check(pictures.heif(tmp_path / "a.heic"))


def test_a_still_is_one_frame_without_time(made: dict[str, MadePicture]) -> None:
    frame = frame_of(made["plain.jpg"].path)
    assert (frame.stream_index, frame.pts, frame.pts_s, frame.frame_index) == (0, 0, 0.0, 0)
    assert (frame.time_base_num, frame.time_base_den, frame.is_keyframe) == (1, 1, True)
    assert frame.phash and frame.brightness and frame.contrast and frame.sharpness


def test_sixteen_bits_are_divided_by_257(tmp_path: Path) -> None:
    ramp = np.arange(65536, dtype=np.uint32).reshape(256, 256)
    Image.fromarray(ramp.astype(np.uint16)).save(tmp_path / "ramp.png")
    frame = frame_of(tmp_path / "ramp.png")
    assert frame.image is not None
    assert np.array_equal(np.asarray(Image.open(BytesIO(frame.image))), (ramp + 128) // 257)


def test_transparent_palette_and_grey_go_over_black(tmp_path: Path) -> None:
    for mode, name in (("P", "palette.png"), ("L", "grey.png"), ("RGB", "colour.png")):
        image = Image.new(mode, (8, 8), (200, 100, 50) if mode == "RGB" else 7)
        if mode == "P":
            image.putpalette([200] * 768)
        image.save(tmp_path / name, transparency=(200, 100, 50) if mode == "RGB" else 7)
        frame = frame_of(tmp_path / name)
        assert frame.brightness == 0 and frame.image != (tmp_path / name).read_bytes(), name


def test_shrinking_and_formats(made: dict[str, MadePicture]) -> None:
    path = made["plain.jpg"].path
    small = frame_of(path, FrameOptions(max_side_px=48))
    assert (small.width_px, small.height_px, small.full_width_px, small.full_height_px) == (48, 32, 96, 64)
    assert small.image_format == "jpeg" and small.image != path.read_bytes()
    assert frame_of(path, FrameOptions(max_side_px=96)).image == path.read_bytes()
    none = frame_of(path, FrameOptions(image_format="none"))
    assert (none.image, none.image_format) == (None, None) and none.brightness


@pytest.mark.parametrize(
    ("size", "side", "expected"),
    [((100, 50), 10, (10, 5)), ((50, 100), 10, (5, 10)), ((1000, 1), 10, (10, 1)), ((9, 5), 9, (9, 5)),
     ((101, 51), 10, (10, 5)), ((5, 5), None, (5, 5))],
)  # fmt: skip
def test_fitted_size(size: tuple[int, int], side: int | None, expected: tuple[int, int]) -> None:
    assert fitted_size(*size, side) == expected


def test_a_kept_still_loses_its_position_and_nothing_else(tmp_path: Path) -> None:
    with_position = pictures.jpeg(tmp_path / "a.jpg", gps=True).path
    without = pictures.jpeg(tmp_path / "b.jpg").path
    frame = frame_of(with_position)
    assert frame.image is not None and b"Exif" not in frame.image
    assert frame.image[-500:] == without.read_bytes()[-500:]


def test_profile_goes_along_with_a_turned_picture(tmp_path: Path) -> None:
    profile = bytes(16) + b"RGB " + bytes(200)
    path = pictures.jpeg(tmp_path / "a.jpg", orientation=6, icc_profile=profile).path
    frame = frame_of(path)
    assert frame.image is not None and Image.open(BytesIO(frame.image)).info["icc_profile"] == profile


def test_pictures_cut_short_are_told(made: dict[str, MadePicture], tmp_path: Path) -> None:
    for name in ("plain.jpg", "progressive.jpg", "plain.png", "deep.png", "plain.webp", "plain.bmp", "plain.tiff",
                 "deep.tiff", "turned.avif"):  # fmt: skip
        data = made[name].path.read_bytes()
        for share in (0.99, 0.6):
            cut = tmp_path / name
            cut.write_bytes(data[: int(len(data) * share)])
            with pytest.raises(MediaError) as caught:
                frame_of(cut)
            assert caught.value.reason == "truncated", (name, share, caught.value)


def test_short_picture_data_in_a_whole_file(tmp_path: Path) -> None:
    path = pictures.absurd_png(tmp_path / "short.png", side=64)
    with pytest.raises(MediaError) as caught:
        frame_of(path)
    assert caught.value.reason == "truncated"


def test_pixels_are_bounded(made: dict[str, MadePicture], tmp_path: Path) -> None:
    for path in (made["plain.jpg"].path, made["animated.gif"].path, made["deep.png"].path):
        assert frame_of(path, max_pixels=96 * 64)
        with pytest.raises(MediaError, match="96x64 = 6144 pixels; at most 6143") as caught:
            frame_of(path, max_pixels=96 * 64 - 1)
        assert caught.value.reason == "too_large"
    with pytest.raises(MediaError, match="60000x60000"):
        frame_of(pictures.absurd_png(tmp_path / "absurd.png"))


def test_pixels_of_other_meaning_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((8, 8), dtype=np.float32)).save(tmp_path / "heights.tiff")
    with pytest.raises(MediaError, match="mode 'F'") as caught:
        frame_of(tmp_path / "heights.tiff")
    assert caught.value.reason == "unsupported_format"
