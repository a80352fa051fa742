"""Annotations over real files: matched to media, turned with their pictures, replaced by source, or told apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import media_pictures
import media_video
import pytest
from media_video import Track
from PIL import Image
from pyspark.sql import Row, SparkSession

from visionlake.errors import UsageError
from visionlake.jobs import _quarantine
from visionlake.jobs._config import load_pipeline
from visionlake.jobs._lake import Lake
from visionlake.jobs._pipeline import run
from visionlake.jobs._results import RunResult

WIDTH, HEIGHT = 96, 64
CATEGORIES = [{"id": 7, "name": "cat"}, {"id": 9, "name": "dog", "keypoints": ["nose", "tail"]}]


def image(number: int, name: str, *, width: int = WIDTH, height: int = HEIGHT, **more: Any) -> dict[str, Any]:
    return {"id": number, "file_name": name, "width": width, "height": height, **more}


def annotation(number: int, image_id: int, *, box: Any = (10, 20, 30, 40), **more: Any) -> dict[str, Any]:
    return {"id": number, "image_id": image_id, "category_id": 7, "bbox": list(box), "iscrowd": 0, "area": 9.5, **more}


class World:
    """Media with a lake, and files of annotations beside them."""

    def __init__(self, folder: Path, spark: SparkSession) -> None:
        self.folder, self.spark = folder, spark
        self.media, self.labels = folder / "media", folder / "labels"
        self.media.mkdir(parents=True)
        self.labels.mkdir()
        self.lake = Lake(folder / "lake", spark=spark)

    def picture(self, name: str, *, value: int = 100, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
        path = self.media / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (value, 50, 50)).save(path, "PNG")
        return path

    def coco(self, name: str, images: list[Any], annotations: list[Any], *, categories: Any = None) -> Path:
        path = self.labels / name
        content = {"images": images, "annotations": annotations, "categories": categories or CATEGORIES}
        path.write_text(json.dumps(content))
        return path

    def run(self, *, source: str = "people", rebuild: bool = False, **settings: Any) -> RunResult:
        own = {"format": "coco", "inputs": ["labels"], "min_age_s": 0.0, **settings}
        lines = [f"{key} = {json.dumps(value)}" for key, value in own.items() if not isinstance(value, dict)]
        tables = [
            line
            for key, value in own.items()
            if isinstance(value, dict)
            for line in (
                f"[import_annotations.{source}.{key}]",
                *(f"{k} = {json.dumps(v)}" for k, v in value.items() if not isinstance(v, dict)),
                *(f"{k}.{a} = {json.dumps(b)}" for k, v in value.items() if isinstance(v, dict) for a, b in v.items()),
            )
        ]
        path = self.folder / "p.toml"
        path.write_text(
            "\n".join(
                [
                    'lake = "lake"', "[mlflow]", "enabled = false", "[ingest_media]", 'inputs = ["media"]',
                    "min_age_s = 0.0", f"[import_annotations.{source}]", *lines, *tables,
                ]
            )
        )  # fmt: skip
        return run(load_pipeline(path), spark=self.spark, rebuild=rebuild)

    def rows(self) -> list[Row]:
        return self.lake.table("annotations").orderBy("source", "image_name", "pts", "annotator").collect()

    def bad(self) -> dict[str, int]:
        """Reasons of what was not imported, and how often."""
        found = self.lake.table("quarantine").where("stage = 'import_annotations'")
        return {row["reason"]: row["count"] for row in found.groupBy("reason").count().collect()}


@pytest.fixture
def world(tmp_path: Path, spark: SparkSession) -> World:
    return World(tmp_path, spark)


def status(result: RunResult) -> str:
    return {each.stage: each.status for each in result.stages}["import_annotations.people"]


@pytest.mark.long
def test_annotations_follow_their_files_and_the_media_they_speak_of(world: World) -> None:
    for number in range(3):
        world.picture(f"{number}.png", value=number)
    boxes = [annotation(1, 1), annotation(2, 1, box=(0.5, 0.25, 10, 20), iscrowd=1), annotation(3, 3)]
    world.coco("a.json", [image(number + 1, f"{number}.png") for number in range(4)], boxes)
    assert status(world.run()) == "done"
    first, second, third = world.rows()
    assert [len(row["instances"]) for row in (first, second, third)] == [2, 0, 1]
    cat = first["instances"][0]
    assert (cat["label"], cat["label_id"], cat["annotation_id"], cat["area"]) == ("cat", 7, "1", 9.5)
    assert cat["box"].asDict() == {"x_min": 10.0, "y_min": 20.0, "x_max": 40.0, "y_max": 60.0}
    assert [each["iscrowd"] for each in first["instances"]] == [False, True]
    assert (first["source"], first["annotator"], first["pts"]) == ("people", None, 0)
    assert (first["full_width_px"], first["full_height_px"]) == (WIDTH, HEIGHT)
    assert world.bad() == {"unmatched": 1}

    version = world.lake.version("annotations")
    assert status(world.run()) == "nothing_new"
    world.picture("3.png", value=3)  # what the fourth picture of the file was waiting for
    assert status(world.run()) == "done"
    assert len(world.rows()) == 4 and world.bad() == {}
    assert world.lake.version("annotations") == version + 1

    world.coco("a.json", [image(number + 1, f"{number}.png") for number in range(2)], boxes[:1])
    world.run()
    assert [len(row["instances"]) for row in world.rows()] == [1, 0]
    assert [row["uri"].rpartition("/")[2] for row in world.lake.table("annotation_files").collect()] == ["a.json"]


@pytest.mark.long
def test_two_sources_stand_side_by_side(world: World) -> None:
    world.picture("a.png")
    world.coco("a.json", [image(1, "a.png")], [annotation(1, 1)])
    world.run()
    world.run(source="others")
    assert [row["source"] for row in world.rows()] == ["others", "people"]
    world.coco("a.json", [image(1, "a.png")], [])
    world.run()
    assert [(row["source"], len(row["instances"])) for row in world.rows()] == [("others", 1), ("people", 0)]


@pytest.mark.long
def test_a_picture_is_found_by_content_by_path_and_by_name(world: World) -> None:
    world.picture("x/1.png", value=1)
    world.picture("y/1.png", value=2)
    world.picture("only.png", value=3)
    names = ["y/1.png", "https://host/z/only.png?token=1", "1.png", "elsewhere/only2.png", r"other\x\1.png"]
    images = [image(number, name) for number, name in enumerate(names)]
    world.coco("a.json", images, [annotation(1, 0)])
    world.run(max_error_share=1.0)
    media = {row["uri"]: row["media_id"] for row in world.lake.table("sources").collect()}
    found = {row["image_name"]: row["media_id"] for row in world.rows()}
    by_name = {uri.partition("/media/")[2]: media_id for uri, media_id in media.items()}
    assert found == {
        names[0]: by_name["y/1.png"],
        names[1]: by_name["only.png"],
        names[4]: by_name["x/1.png"],
    }
    assert world.bad() == {"ambiguous": 1, "unmatched": 1}
    world.coco("a.json", [image(1, "renamed.png", sha256=by_name["x/1.png"])], [])
    world.run()
    assert [row["media_id"] for row in world.rows()] == [by_name["x/1.png"]]


@pytest.mark.long
def test_annotations_lie_as_their_pictures_do(world: World) -> None:
    boxes = {1: (10.0, 20.0, 40.0, 60.0), 3: (56.0, 4.0, 86.0, 44.0), 6: (36.0, 10.0, 76.0, 40.0)}
    images = []
    for orientation in boxes:
        media_pictures.jpeg(world.media / f"{orientation}.jpg", orientation=orientation)
        width, height = (HEIGHT, WIDTH) if orientation == 6 else (WIDTH, HEIGHT)
        images.append(image(orientation, f"{orientation}.jpg", width=width, height=height))
    media_pictures.jpeg(world.media / "upright.jpg", orientation=6, gps=True)  # annotated as it is shown
    world.picture("other.png")
    images += [image(7, "upright.jpg"), image(8, "other.png", width=50)]
    world.coco("a.json", images, [annotation(each["id"], each["id"]) for each in images])
    world.run(max_error_share=1.0)
    found = {row["image_name"]: row for row in world.rows()}
    assert {name: tuple(row["instances"][0]["box"]) for name, row in found.items()} == {
        **{f"{orientation}.jpg": box for orientation, box in boxes.items()},
        "upright.jpg": boxes[1],
    }
    assert {(row["full_width_px"], row["full_height_px"]) for row in found.values()} == {(WIDTH, HEIGHT)}
    assert world.bad() == {"size_mismatch": 1}


def test_every_bad_annotation_has_its_reason_and_the_rest_is_imported(world: World) -> None:
    world.picture("a.png", value=1)
    world.picture("b.png", value=2)
    bad = {
        "box_outside": annotation(10, 1, box=(0, 0, 100, 10)),
        "box_empty": annotation(11, 1, box=(0, 0, 0, 10)),
        "category_unknown": annotation(12, 1, category_id=99),
        "picture_unknown": annotation(13, 77),
        "duplicate_id": annotation(1, 1, box=(1, 1, 2, 2)),
        "polygon_invalid": annotation(14, 1, segmentation=[[1, 1, 2, 2]]),
        "mask_misfit": annotation(15, 1, segmentation={"size": [5, 5], "counts": [25]}),
    }
    twice = image(3, "b.png")
    world.coco("a.json", [image(1, "a.png"), image(2, "b.png"), twice], [annotation(1, 1), *bad.values()])
    (world.labels / "cut.json").write_text('{"images": [{"id": 1, "file_na')
    world.run(max_error_share=1.0)
    assert [len(row["instances"]) for row in world.rows()] == [1, 0]
    assert world.bad() == dict.fromkeys([*bad, "annotated_twice", "truncated"], 1)
    details = world.lake.table("quarantine").where("reason = 'box_outside'").collect()[0]
    assert "100" in details["message"] and json.loads(details["payload"])["uri"].endswith("a.json")
    world.coco("a.json", [image(1, "a.png"), image(2, "b.png")], [annotation(1, 1)])
    (world.labels / "cut.json").unlink()
    world.run()
    assert world.bad() == {}


@pytest.mark.long
def test_polygons_runs_and_keypoints_are_kept_and_masks_drawn(world: World) -> None:
    world.picture("a.png")
    polygon = [[1.5, 2.5, 30.0, 2.5, 30.0, 40.0]]
    runs = {"size": [HEIGHT, WIDTH], "counts": [64, 10, WIDTH * HEIGHT - 74]}
    points = {"category_id": 9, "keypoints": [5, 6, 2, 0, 0, 0], "num_keypoints": 1}
    shapes = [
        annotation(1, 1, segmentation=polygon),
        annotation(2, 1, segmentation=runs, iscrowd=1),
        annotation(3, 1, **points),
    ]
    world.coco("a.json", [image(1, "a.png", date_captured="2020-01-01")], shapes)
    world.run()
    (row,) = world.rows()
    drawn, crowd, named = row["instances"]
    assert drawn["polygons"] == polygon and list(drawn["mask"]["size"]) == [HEIGHT, WIDTH] and drawn["area_px"] > 400
    assert (crowd["polygons"], crowd["area_px"], crowd["iscrowd"]) == (None, 10, True)
    assert [tuple(point) for point in named["keypoints"]] == [("nose", 5.0, 6.0, 2), ("tail", 0.0, 0.0, 0)]
    assert row["attributes"]["date_captured"] == "2020-01-01"


@pytest.mark.long
def test_labels_of_the_project_take_the_place_of_those_in_files(world: World) -> None:
    world.picture("a.png")
    shapes = [annotation(1, 1), annotation(2, 1, category_id=9), annotation(3, 1, category_id=11)]
    more = [*CATEGORIES, {"id": 11, "name": "tree"}]
    world.coco("a.json", [image(1, "a.png")], shapes, categories=more)
    ontology = {"classes": ["animal"], "aliases": {"cat": "animal"}, "drop": ["dog"]}
    world.run(ontology=ontology)
    (row,) = world.rows()
    assert [(each["label"], each["label_id"]) for each in row["instances"]] == [("animal", 0)]
    assert world.bad() == {"label_unknown": 1}
    with pytest.raises(UsageError, match="--rebuild"):
        world.run()
    world.run(rebuild=True)
    assert [len(row["instances"]) for row in world.rows()] == [3]


def test_frame_numbers_of_a_video_become_its_times(world: World) -> None:
    steps = [0, 512, 1536, 2048, 5000]  # not at one rate
    media_video.write(world.media / "clip.mp4", Track(pts=steps))
    sequence = world.labels / "clip" / "gt"
    sequence.mkdir(parents=True)
    (sequence / "gt.txt").write_text("3,1,2,3,10,10,1,1,1\n5,1,2,3,10,10,1,1,1\n9,1,2,3,10,10,1,1,1\n")
    world.run(format="mot")
    rows = world.rows()
    assert [row["pts"] for row in rows] == [1536, 5000]
    (thing,) = rows[0]["instances"]
    assert (thing["label"], thing["track_id"], tuple(thing["box"])) == ("pedestrian", "1", (1.0, 2.0, 11.0, 12.0))
    assert world.bad() == {"frame_missing": 1}


@pytest.mark.long
def test_a_replay_imports_a_source_again(world: World) -> None:
    world.picture("a.png")
    world.coco("a.json", [image(1, "a.png"), image(2, "b.png")], [])
    world.run()
    assert world.bad() == {"unmatched": 1} and status(world.run()) == "nothing_new"
    assert _quarantine.replay(world.lake, reason="unmatched") == 1
    assert status(world.run()) == "done"


def test_an_input_that_is_not_there_is_told(world: World) -> None:
    world.picture("a.png")
    failed = world.run(inputs=["no_such_folder"]).stages[-1]
    assert failed.exit_code == 2 and "no_such_folder" in str(failed.error)
    assert "import_annotations.people" in str(failed.error)
    world.coco("a.json", [image(1, "a.png")], [])
    failed = world.run(format="voc").stages[-1]
    assert failed.exit_code == 2 and "format = 'voc' reads *.xml" in str(failed.error)
    assert "a.json" in str(failed.error)


@pytest.mark.long
def test_files_that_fit_no_media_are_stopped_and_do_not_count_as_published(world: World) -> None:
    world.picture("a.png")
    for number in range(25):
        world.coco(f"{number}.json", [image(1, f"other{number}.png")], [])
    result = world.run().stages[-1]
    assert (result.status, result.published) == ("stopped", 0)
    world.coco("25.json", [image(1, "a.png")], [])
    result = world.run(max_error_share=1.0).stages[-1]
    assert (result.status, result.published, result.quarantined) == ("done", 1, 25)


@pytest.mark.long
def test_a_file_that_was_mended_is_read_again_where_a_gate_had_stopped_it(world: World) -> None:
    for number in range(25):
        world.picture(f"{number}.png", value=number)
    images = [image(number, f"{number}.png") for number in range(25)]
    world.coco("a.json", images, [annotation(1, number) for number in range(25)])
    stopped = world.run(max_error_share=0.3)
    assert (status(stopped), world.bad()) == ("stopped", {})
    said = next(check.message for check in stopped.stages[-1].checks if check.name == "error_share")
    assert "duplicate_id (24)" in said and "another annotation with the id 1" in said
    assert status(world.run(max_error_share=0.3)) == "stopped"
    world.coco("a.json", images, [annotation(number, number) for number in range(25)])
    assert status(world.run(max_error_share=0.3)) == "done"
    assert len(world.rows()) == 25
