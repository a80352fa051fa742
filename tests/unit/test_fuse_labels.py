"""Rows of several models, fused: by hand; and settings that name other sections."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import toy_backend

from visionlake.errors import ConfigError
from visionlake.jobs import fuse_labels as stage
from visionlake.jobs._config import Pipeline, load_pipeline, resolved
from visionlake.jobs._pipeline import labellers, pin
from visionlake.jobs._record import producer_of
from visionlake.jobs._sections import seen_with_sources
from visionlake.udfs.fuse_labels import FuseOptions, fuse, fuse_labels
from visionlake.udfs.masks import find_mask
from visionlake.udfs.rle import decode_mask

assert toy_backend  # what the pipeline files name

A, B, C = (f"{name}@1:0123456789abcdef" for name in "abc")
TWO = FuseOptions(sources=(A, B))


def one(label: str, score: float, *box: float, label_id: int = 0, shape: np.ndarray | None = None) -> dict[str, Any]:
    mask = None if shape is None else find_mask(shape)
    edges = dict(zip(("x_min", "y_min", "x_max", "y_max"), mask.box if mask else box, strict=True))
    return {
        "label_id": label_id, "label": label, "score": score, "box": edges, "area_px": mask and mask.area_px,
        "mask": mask and mask.rle, "parents": None,
    }  # fmt: skip


def row(model_id: str, *instances: dict[str, Any], width_px: int = 40, input_version: int | None = 3) -> dict[str, Any]:
    return {
        "model_id": model_id, "frame_width_px": width_px, "frame_height_px": 20, "instances": list(instances),
        "input_version": input_version,
    }  # fmt: skip


def brief(found: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [
        (
            each["label"], pytest.approx(each["score"]), pytest.approx(tuple(each["box"].values())),
            [(parent["model_id"][0], parent["instance_index"]) for parent in each["parents"]],
        )
        for each in found["instances"]
    ]  # fmt: skip


# The order of the rows says nothing, that of the sources does: a calls a dog 1, b calls it 7.
SEEN = [
    row(B, one("dog", 0.6, 2, 0, 12, 10, label_id=7), one("bird", 0.4, 0, 0, 4, 4, label_id=5), input_version=2),
    row(A, one("cat", 0.9, 20, 0, 30, 10), one("dog", 0.2, 0, 0, 10, 10, label_id=1)),
]


def test_boxes_are_fused_by_the_names_of_their_labels_and_know_their_parents() -> None:
    found = fuse(SEEN, options=TWO)
    # IoU of the dogs: 80 / 120; edges weigh 3 to 1; what one of two saw has half of its score.
    assert brief(found) == [
        ("cat", 0.45, (20, 0, 30, 10), [("a", 0)]),
        ("dog", 0.4, (1.5, 0, 11.5, 10), [("b", 0), ("a", 1)]),
        ("bird", 0.2, (0, 0, 4, 4), [("b", 1)]),
    ]
    assert [each["label_id"] for each in found["instances"]] == [0, 1, 5]
    assert (found["frame_width_px"], found["frame_height_px"], found["input_version"]) == (40, 20, 2)
    weighted = fuse(SEEN, options=FuseOptions(sources=(A, B), weights=(4, 1)))
    assert [each["score"] for each in weighted["instances"]] == pytest.approx([0.72, 0.28, 0.08])
    assert tuple(weighted["instances"][1]["box"].values()) == pytest.approx((6 / 7, 0, 10 + 6 / 7, 10))
    assert brief(weighted)[1][-1] == [("a", 1), ("b", 0)]


def test_other_methods_and_what_is_left_out() -> None:
    same = {"sources": (A, B), "method": "nms"}
    assert brief(fuse(SEEN, options=FuseOptions(**same))) == [
        ("cat", 0.9, (20, 0, 30, 10), [("a", 0)]),
        ("dog", 0.6, (2, 0, 12, 10), [("b", 0), ("a", 1)]),
        ("bird", 0.4, (0, 0, 4, 4), [("b", 1)]),
    ]
    few = fuse(SEEN, options=FuseOptions(**same, score_threshold=0.5, max_instances=1))
    assert [each["label"] for each in few["instances"]] == ["cat"]
    assert len(fuse(SEEN, options=FuseOptions(**same, score_threshold=0.4))["instances"]) == 3
    assert len(fuse(SEEN, options=FuseOptions(**same, iou=0.7))["instances"]) == 4
    sunk = fuse(SEEN, options=FuseOptions(sources=(A, B), method="soft_nms"))
    assert [(each["label"], each["score"]) for each in sunk["instances"]] == [
        ("cat", 0.9), ("dog", 0.6), ("bird", 0.4), ("dog", pytest.approx(0.2 * np.exp(-((2 / 3) ** 2) / 0.5))),
    ]  # fmt: skip
    assert [each["parents"][0]["model_id"] for each in sunk["instances"]] == [A, B, B, A]
    linear = fuse(SEEN, options=FuseOptions(sources=(A, B), method="soft_nms", decay="linear", score_threshold=0.07))
    assert [each["score"] for each in linear["instances"]] == [0.9, 0.6, 0.4]  # 0.2 * (1 - 2 / 3) is too little
    mixed = [row(A, one("cat", 0.9, 0, 0, 10, 10)), row(B, one("dog", 0.8, 0, 0, 10, 10, label_id=4))]
    assert len(fuse(mixed, options=TWO)["instances"]) == 2
    (both,) = fuse(mixed, options=FuseOptions(sources=(A, B), labels="together"))["instances"]
    assert (both["label"], both["label_id"], len(both["parents"])) == ("cat", 0, 2)
    assert fuse([row(A), row(B)], options=TWO)["instances"] == []


def test_a_mask_is_that_of_the_best_match_and_its_box_holds_it() -> None:
    shapes = np.zeros((3, 20, 40), bool)
    shapes[0, 0:10, 0:8], shapes[1, 1:10, 1:10], shapes[2, 0:10, 20:30] = True, True, True
    seen = [
        row(A, one("cat", 0.9, 0, 0, 10, 10), one("dog", 0.8, 20, 0, 30, 10)),
        row(B, one("cat", 0.5, shape=shapes[0]), one("dog", 0.4, shape=shapes[2])),
        row(C, one("cat", 0.5, shape=shapes[1])),
    ]
    cat, dog = fuse(seen, options=FuseOptions(sources=(A, B, C), iou=0.5))["instances"]
    assert len(cat["parents"]) == 3  # the plain box of a has the best score, but no mask to give
    assert np.array_equal(decode_mask(cat["mask"]), shapes[1]) and cat["area_px"] == 81
    assert list(cat["box"].values()) == [1, 1, 10, 10]
    assert np.array_equal(decode_mask(dog["mask"]), shapes[2]) and dog["area_px"] == 100
    trusting = FuseOptions(sources=(A, B, C), weights=(1, 5, 1), iou=0.5)
    assert np.array_equal(decode_mask(fuse(seen, options=trusting)["instances"][0]["mask"]), shapes[0])
    plain = fuse([row(A, one("cat", 0.9, 0, 0, 10, 10)), row(B)], options=TWO)["instances"][0]
    assert plain["mask"] is None and plain["area_px"] is None


def test_what_cannot_be_fused_is_a_row_with_its_reason() -> None:
    other = fuse([row(A), row(B, width_px=80)], options=TWO)
    assert other["error"]["reason"] == "sizes_differ" and f"{A} 40 x 20, {B} 80 x 20" in other["error"]["message"]
    bad = fuse([row(A, one("cat", float("nan"), 0, 0, 1, 1)), row(B)], options=TWO)
    assert bad["error"]["reason"] == "bad_boxes" and "scores lie from 0 to 1" in bad["error"]["message"]
    nameless: Any = None
    assert fuse([row(A, one(nameless, 0.5, 0, 0, 1, 1)), row(B, one("x", 0.5, 0, 0, 1, 1))], options=TWO)["error"]


def test_a_batch_is_fused_frame_by_frame() -> None:
    frames = [{"media_id": "m", "stream_index": 0, "pts": pts} for pts in range(3)]
    labels = [SEEN, [row(A), row(B, width_px=80)], [row(A), row(B)]]
    batch = pa.RecordBatch.from_pylist([{**f, "labels": of} for f, of in zip(frames, labels, strict=True)])
    schema = stage.FUSED.arrow_schema(with_error=True)
    (found,) = fuse_labels([batch], schema=schema, options=TWO)
    assert found.schema == schema
    rows = found.to_pylist()
    assert [each["pts"] for each in rows] == [0, 1, 2] and {each["model_id"] for each in rows} == {TWO.model_id()}
    assert [each["instances"] and len(each["instances"]) for each in rows] == [3, None, []]
    assert [each["error"] and each["error"]["reason"] for each in rows] == [None, "sizes_differ", None]
    assert rows[0]["instances"][1]["parents"] == [
        {"model_id": B, "instance_index": 0}, {"model_id": A, "instance_index": 1},
    ]  # fmt: skip
    many = pa.Table.from_batches([batch] * 200).combine_chunks().to_batches()
    parts = [*fuse_labels([batch.slice(0, 0), *many], schema=schema, options=TWO)]
    assert [part.num_rows for part in parts] == [256, 256, 88] and parts[1].to_pylist()[2]["pts"] == 258 % 3


def test_a_model_id_covers_sources_and_what_differs_from_the_defaults() -> None:
    own = TWO.model_id()
    assert own.startswith("fusion@wbf-1:") and len(own.partition(":")[2]) == 16
    same = [{"iou": 0.55}, {"weights": (2.0, 2.0)}, {"score_threshold": 0.0}, {"labels": "apart"}]
    assert {FuseOptions(sources=(A, B), **changed).model_id() for changed in same} == {own}
    changes: list[dict[str, Any]] = [
        {"sources": (B, A)}, {"sources": (A, C)}, {"sources": (A, B, C)}, {"iou": 0.6}, {"weights": (2.0, 1.0)},
        {"weights": (1.0, 2.0)}, {"score_threshold": 0.1}, {"max_instances": 5}, {"labels": "together"},
        {"method": "nms"}, {"method": "soft_nms"}, {"method": "soft_nms", "decay": "linear"},
        {"method": "soft_nms", "sigma": 0.4}, {"method": "soft_nms", "decay": "linear", "iou": 0.4},
    ]  # fmt: skip
    ids = {FuseOptions(**{"sources": (A, B), **changed}).model_id() for changed in changes}
    assert len(ids | {own}) == len(changes) + 1


def pipeline(folder: Path, section: str, *more: str) -> Pipeline:
    for name in ("one", "two", "masks"):
        tasks = '["instance", "semantic"]' if name == "masks" else '["detection"]'
        (folder / f"{name}.json").write_text(f'{{"name": "{name}", "tasks": {tasks}}}')
    toys = [
        f'[{kind}_objects.{name}]\nbackend = "toy_backend"\nweights = "{name}.json"'
        for kind, name in (("detect", "one"), ("detect", "two"), ("segment", "masks"))
    ]
    path = folder / "p.toml"
    path.write_text("\n".join(['lake = "lake"', f"[fuse_labels.both]\n{section}", *toys, *more]))
    return load_pipeline(path)


def fusion_of(found: Pipeline) -> tuple[Any, Any]:
    return next(pair for pair in found.stages if pair[0].name == "fuse_labels")


def test_sources_are_sections_whose_models_are_looked_up_before_anything_runs(tmp_path: Path) -> None:
    loaded = pipeline(tmp_path, f'sources = ["one", "segment_objects.masks", "{C}"]')
    assert loaded.stage_names[-1] == "fuse_labels.both"  # though it comes first in the file
    meant = {"one": "detect_objects.one", "segment_objects.masks": "segment_objects.masks"}
    assert fusion_of(loaded)[0].sources == meant
    pinned = pin(loaded, only=["fuse_labels"])
    models = {each.label: producer_of(each, config) for each, config in pinned.stages}
    sources = [models["detect_objects.one"], models["segment_objects.masks"], C]
    assert resolved(fusion_of(pinned)[1])["sources"] == sources
    assert models["fuse_labels.both"] == FuseOptions(sources=tuple(sources)).model_id()
    assert pin(pinned, only=["fuse_labels"]) == pinned
    assert labellers(loaded) == labellers(pinned) == list(models.values())
    with pytest.raises(ConfigError, match=r"one, segment_objects\.masks is no model_id"):
        producer_of(*fusion_of(loaded))
    (tmp_path / "one.json").write_text('{"name": "one", "new": 1}')
    assert producer_of(*fusion_of(pin(loaded))) != models["fuse_labels.both"]
    (tmp_path / "one.json").unlink()
    assert labellers(loaded) == [models["detect_objects.two"], models["segment_objects.masks"]]
    with pytest.raises(ConfigError, match=r"\[fuse_labels\.both\] needs \[detect_objects\.one\]: .*one\.json"):
        pin(loaded, only=["fuse_labels"])


def test_a_fusion_has_seen_what_all_of_its_sources_have() -> None:
    configs = {"f": {"sources": ["a", "b"]}, "g": {"sources": ["a", "c"]}, "a": {"sources": ["b"]}, "h": {"sources": 1}}
    assert seen_with_sources({"a": 5, "b": 3}, configs) == {"a": 5, "b": 3, "f": 3}


def test_two_sources_that_are_the_same_model_are_refused(tmp_path: Path) -> None:
    again = '[detect_objects.again]\nbackend = "toy_backend"\nweights = "one.json"\nbatch_size = 2'
    loaded = pin(pipeline(tmp_path, 'sources = ["one", "again"]', again))
    with pytest.raises(ConfigError, match=r"two of them are one@1:\w+, model and settings alike"):
        producer_of(*fusion_of(loaded))


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("", r"fuse_labels\.both\.sources = .*missing"),
        ("sources = []", r"sources = \[\]: allowed is .*not empty"),
        ('sources = ["one", "tow"]', r"no section 'tow'; did you mean two\? \(allowed: one, two, masks\)"),
        ('sources = ["one", "both"]', r"'both' is made of other sources; name those"),
        ('sources = ["one", "fuse_labels.other"]\n[fuse_labels.other]\nsources = ["two"]', "is made of other sources"),
        ('sources = ["one", "fusion@wbf-1:0123456789abcdef"]', "is a fusion itself"),
        ('sources = ["one", "nano@coco"]', "nano@coco is no model_id; one looks like"),
        ('sources = ["one", "one"]', "one is there twice"),
        ('sources = ["one", "two"]\n[segment_objects.one]\nbackend = "toy_backend"\nweights = "masks.json"',
         r"'one' may mean segment_objects\.one or detect_objects\.one; give one of these"),
        ('sources = ["one", "s"]\n[segment_objects.s]\nbackend = "toy_backend"\ntask = "semantic"',
         r'segment_objects\.s\.task = "semantic": \[fuse_labels\.both\] needs what this leaves out'),
        ('sources = ["one", "two"]\nweights = [1]', "1 for 2 sources; give one for each"),
        ('sources = ["one", "two"]\nweights = [1, 0]', r"weights\[1\] = 0: "),
        ('sources = ["one", "two"]\nmethod = "mean"', r'allowed is "wbf", "nms" or "soft_nms"'),
        ('sources = ["one", "two"]\nsigma = 0.3', 'sigma: method = "wbf" has no such setting; leave it out'),
        ('sources = ["one", "two"]\nmethod = "soft_nms"\niou = 0.3', 'with decay = "gaussian" has no such setting'),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused_before_spark(tmp_path: Path, section: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        pipeline(tmp_path, section)
