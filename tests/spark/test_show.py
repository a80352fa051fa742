"""A frame as a picture: which one it is, and what is drawn on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lake_by_hand import LakeByHand
from PIL import Image
from pyspark.sql import SparkSession

from visionlake._show import write_picture
from visionlake.errors import UsageError


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, spark: SparkSession) -> LakeByHand:
    made = LakeByHand(tmp_path_factory.mktemp("filled"), spark)
    made.fill("file:///media/one.mp4", "file:///media/two.mp4", "file:///else/two.mp4")
    return made


@pytest.fixture
def lake(tmp_path: Path, filled: LakeByHand) -> LakeByHand:
    return filled.copy_to(tmp_path)


def show(lake: LakeByHand, media: str, tmp_path: Path, pts: int | None = None, model: str | None = None) -> Any:
    out = tmp_path / "shown.png"
    target, drawn = write_picture(lake.lake, media, stream=0, pts=pts, model=model, models=(), out=out)
    with Image.open(target) as picture:
        pixels = picture.convert("RGB")
        assert pixels.size == (64, 48)
        assert (pixels.getpixel((4, 20)) == pixels.getpixel((39, 20))) == bool(drawn), "the edges of the box"
        assert pixels.getpixel((20, 45)) != pixels.getpixel((4, 20)) or not drawn
    return drawn


@pytest.mark.parametrize("name", ["one.mp4", "/media/one.mp4", "file:///media/one.mp4", "0" * 64])
def test_a_media_by_any_of_its_names(lake: LakeByHand, tmp_path: Path, name: str) -> None:
    assert show(lake, name, tmp_path) == [("file:///media/one.mp4", 1)]
    assert show(lake, name, tmp_path, pts=512) == [("file:///media/one.mp4", 1)]


def test_what_is_not_there_is_said_with_what_is(lake: LakeByHand, tmp_path: Path) -> None:
    for name, pts, model, words in (
        ("three.mp4", None, None, "no media three.mp4"),
        ("two.mp4", None, None, r"several media: /else/two.mp4, /media/two.mp4"),
        ("one.mp4", 7, None, "no frame at pts 7; the nearest are: 512"),
        ("one.mp4", None, "other", "no labels of model other for this media; there are: file:///media/one.mp4@1:00"),
    ):
        with pytest.raises(UsageError, match=words):
            show(lake, name, tmp_path, pts, model)
    lake.lake.update("frames", where="true", values={"image": "null"})
    with pytest.raises(UsageError, match="cannot be shown"):
        show(lake, "one.mp4", tmp_path)


def test_models_of_the_pipeline_come_first_and_frames_that_are_gone_last(lake: LakeByHand, tmp_path: Path) -> None:
    box = {"x_min": 1.0, "y_min": 1.0, "x_max": 9.0, "y_max": 9.0}
    found = [{"label_id": 1, "label": "new", "score": 0.5, "box": box}]
    frame = {"media_id": "0" * 64, "stream_index": 0, "frame_width_px": 64, "frame_height_px": 48}
    lake.put("detections", {**frame, "pts": 512, "model_id": "new@1:00", "instances": found})
    lake.put("detections", {**frame, "pts": 9000, "model_id": "new@1:00", "instances": found * 5})  # of no frame

    def drawn(**options: Any) -> list[tuple[str, int]] | None:
        chosen = {"pts": None, "model": None, "models": (), "out": tmp_path / "x.jpg", **options}
        return write_picture(lake.lake, "one.mp4", stream=0, **chosen)[1]

    assert drawn(models=["new@1:00"]) == [("new", 1)] and drawn(model="new") == [("new", 1)]
    assert sum(count for _, count in drawn(models=["other@1:00"]) or ()) == 2, "none of the pipeline's: all"
    with Image.open(tmp_path / "x.jpg") as picture:
        assert picture.format == "JPEG"
    with pytest.raises(UsageError, match=r"x\.gif: allowed are the endings \.png, \.jpg, \.jpeg"):
        drawn(out=tmp_path / "x.gif")
    lake.lake.spark.sql(f"DELETE FROM delta.`{lake.lake.path('detections')}`")
    assert drawn() is None


def test_of_a_replaced_file_what_is_there_now(lake: LakeByHand, tmp_path: Path) -> None:
    lake.lake.update(
        "sources", where=f"media_id = '{1:064x}'", values={"state": "'replaced'", "uri": "'file:///media/one.mp4'"}
    )
    assert show(lake, "/media/one.mp4", tmp_path) == [("file:///media/one.mp4", 1)]
