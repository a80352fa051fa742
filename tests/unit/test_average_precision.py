"""Average precision from matches, compared with pycocotools on the same boxes and masks."""

from __future__ import annotations

import contextlib
import io
from collections import defaultdict
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from visionlake.udfs.average_precision import AVERAGES, average_all, average_class, describe_frames
from visionlake.udfs.match_labels import ERRORS, MATCHES, match_frames
from visionlake.udfs.rle import encode_mask

LABELS = ("ant", "bee", "cow", "dog")
EDGES = ("x_min", "y_min", "x_max", "y_max")
WIDTH, HEIGHT = 200, 160


def ellipse(box: list[float]) -> Any:
    rows, columns = np.ogrid[:HEIGHT, :WIDTH]
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    a, b = max((box[2] - box[0]) / 2, 1), max((box[3] - box[1]) / 2, 1)
    return dict(encode_mask(((columns + 0.5 - x) / a) ** 2 + ((rows + 0.5 - y) / b) ** 2 <= 1))


def thing(label: str, box: Any, *, score: float | None = None, **more: Any) -> dict[str, Any]:
    box = [float(edge) for edge in box]
    mask = ellipse(box)
    each: dict[str, Any] = {"label": label, "score": score, "box": dict(zip(EDGES, box, strict=True)), "mask": mask,
            "area_px": int(coco_mask.area(mask))}  # fmt: skip
    return each if score is not None else {"area": None, "iscrowd": False, **each, **more}


def frame(name: str, truth: list[Any], found: list[Any], *, scale: float = 1.0) -> dict[str, Any]:
    return {
        "media_id": name, "stream_index": 0, "pts": 0, "model_id": "m@1:0", "truth": truth, "found": found,
        "full_width_px": WIDTH, "full_height_px": HEIGHT, "frame_width_px": int(WIDTH * scale),
        "frame_height_px": int(HEIGHT * scale),
    }  # fmt: skip


def random_frames(seed: int, *, count: int = 40) -> list[dict[str, Any]]:
    """Frames with true objects of all sizes, some of them crowds, and found ones near them or anywhere."""
    rng = np.random.default_rng(seed)
    frames = []
    for number in range(count):
        truth, found = [], []
        for _ in range(rng.integers(0, 9) if number % 7 else 0):
            x, y = rng.uniform(0, WIDTH - 20), rng.uniform(0, HEIGHT - 20)
            w, h = rng.choice([8, 20, 60, 110], 2) * rng.uniform(0.7, 1.3, 2)
            box = np.array([x, y, min(x + w, WIDTH), min(y + h, HEIGHT)])
            label = str(rng.choice(LABELS[:3]))
            crowd = bool(rng.random() < 0.12)
            truth.append(thing(label, box, iscrowd=crowd, area=float(rng.uniform(0.5, 1) * w * h)))
            for _ in range(rng.integers(0, 4)):
                near = box + rng.normal(0, 3, 4)
                other = str(rng.choice(LABELS)) if rng.random() < 0.2 else label
                if near[2] > near[0] + 2 and near[3] > near[1] + 2:
                    found.append(thing(other, near, score=round(float(rng.random()), 2)))
        for _ in range(rng.integers(0, 3) if number % 5 else 0):
            x, y = rng.uniform(0, WIDTH - 30), rng.uniform(0, HEIGHT - 30)
            found.append(thing(str(rng.choice(LABELS)), [x, y, x + 25, y + 25], score=round(float(rng.random()), 2)))
        frames.append(frame(f"{number:03d}", truth, found))
    return frames


def matches(frames: list[dict[str, Any]], kind: Any, *, score_threshold: float = 0.3) -> list[dict[str, Any]]:
    """What the UDF says of frames, a few to a batch, as it would in a task."""
    schema_rows = [pa.RecordBatch.from_pylist(frames[k : k + 7]) for k in range(0, len(frames), 7)]
    got = match_frames(schema_rows, kinds=[kind], score_threshold=score_threshold)
    return [row for batch in got for row in batch.to_pylist()]


def evaluate(frames: list[dict[str, Any]], kind: Any = "bbox", **options: Any) -> list[dict[str, Any]]:
    groups = defaultdict(list)
    for row in matches(frames, kind, **options):
        groups[row["label"]].append(row)
    tables = {label: pa.Table.from_pylist(rows, schema=MATCHES) for label, rows in groups.items()}
    parts = [describe_frames(table) if label is None else average_class(table) for label, table in tables.items()]
    return average_all(parts)


def by_pycocotools(frames: list[dict[str, Any]], kind: Any, labels: tuple[str, ...] = LABELS) -> list[float | None]:
    """The twelve numbers of COCO's summary."""
    ids = {label: place + 1 for place, label in enumerate(LABELS)}
    annotations, results = [], []
    for image, each in enumerate(frames):
        for one in each["truth"]:
            box = [one["box"][edge] for edge in EDGES]
            xywh = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
            area = one["area"] if one["area"] is not None else one["area_px"]
            annotations.append({"id": len(annotations) + 1, "image_id": image, "category_id": ids[one["label"]],
                                "bbox": xywh, "area": area, "iscrowd": int(one["iscrowd"]),
                                "segmentation": one["mask"]})  # fmt: skip
        for one in each["found"]:
            box = [one["box"][edge] for edge in EDGES]
            result = {"image_id": image, "category_id": ids[one["label"]], "score": one["score"]}
            shape = {"segmentation": one["mask"]} if kind == "segm" else {
                "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]]}  # fmt: skip
            results.append(result | shape)
    truth: Any = COCO()
    truth.dataset = {
        "images": [{"id": k, "width": WIDTH, "height": HEIGHT} for k, _ in enumerate(frames)],
        "annotations": annotations, "categories": [{"id": ids[label], "name": label} for label in labels],
    }  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [None if value == -1 else float(value) for value in evaluation.stats]


@pytest.mark.parametrize("kind", ["bbox", "segm"])
@pytest.mark.parametrize("seed", range(4))
def test_the_numbers_are_those_of_pycocotools(kind: str, seed: int) -> None:
    frames = random_frames(seed)
    overall, *classes = evaluate(frames, kind)
    assert [overall[name] for name in AVERAGES] == pytest.approx(by_pycocotools(frames, kind), abs=1e-6)
    for each in classes:
        own = by_pycocotools(frames, kind, labels=(each["label"],))
        assert [each[name] for name in AVERAGES] == pytest.approx(own, abs=1e-6), each["label"]


def test_more_than_a_hundred_objects_of_a_class() -> None:
    rng = np.random.default_rng(5)
    there = [thing("ant", [x, y, x + 9, y + 9]) for x in range(0, 190, 12) for y in range(0, 150, 12)]
    boxes = [np.array([*each["box"].values()]) + rng.normal(0, 1, 4) for each in there]
    found = [thing("ant", box, score=float(rng.random())) for box in boxes]
    frames = [frame("a", there, found), frame("b", there[:50], found[::-1])]
    overall, ant = evaluate(frames)
    assert len(found) > 150
    assert ant["found"] == 200
    assert [overall[name] for name in AVERAGES] == pytest.approx(by_pycocotools(frames, "bbox"), abs=1e-6)


def test_hundreds_of_masks_in_a_frame() -> None:
    truth = [thing("ant", [4, 5, 20, 30]) for _ in range(256)]
    found = [thing("ant", [4, 5, 20, 30], score=0.5) for _ in range(256)]
    overall, _ = evaluate([frame("a", truth, found)], "segm")
    assert (overall["truths"], overall["found"]) == (256, 100)


def test_order_and_batches_do_not_matter() -> None:
    frames = random_frames(9)
    assert evaluate(frames) == evaluate(frames[::-1])


def test_what_was_found_in_small_frames_counts_at_full_size() -> None:
    frames = random_frames(2)
    small = []
    for each in frames:
        found = [{**one, "box": {edge: value / 2 for edge, value in one["box"].items()}} for one in each["found"]]
        small.append({**each, "found": found, "frame_width_px": WIDTH // 2, "frame_height_px": HEIGHT // 2})
    ours, theirs = evaluate(small)[0], evaluate(frames)[0]
    assert [ours[name] for name in AVERAGES] == pytest.approx([theirs[name] for name in AVERAGES], abs=1e-9)


def test_frames_with_objects_without_masks_have_no_masks_to_compare() -> None:
    frames = random_frames(3)
    frames[1]["truth"][0]["mask"] = None
    assert {row["media_id"] for row in matches(frames, "segm")} == {each["media_id"] for each in frames} - {"001"}


def test_kinds_of_errors() -> None:
    truth = [thing("ant", [10, 10, 50, 50]), thing("bee", [100, 10, 140, 50]), thing("cow", [100, 100, 130, 130])]
    found = [
        thing("ant", [10, 10, 50, 50], score=0.9),
        thing("ant", [11, 11, 50, 50], score=0.8),  # again
        thing("ant", [100, 10, 140, 50], score=0.7),  # in truth a bee
        thing("dog", [60, 100, 90, 130], score=0.6),  # nothing is there
        thing("ant", [30, 10, 75, 50], score=0.5),  # not quite where one is
        thing("dog", [120, 10, 160, 50], score=0.4),  # neither the place nor the class
    ]
    overall, *classes = evaluate([frame("a", truth, found)])
    counts = {each["error"]: each["count"] for each in overall["errors"]}
    assert counts == {"classification": 1, "localisation": 1, "both": 1, "duplicate": 1, "background": 1, "missed": 1}
    assert tuple(counts) == ERRORS
    lost = {each["label"]: {e["error"]: e["ap50_lost"] for e in each["errors"]} for each in classes}
    assert lost["ant"]["duplicate"] == pytest.approx(0)  # behind all that is right, it costs nothing
    assert lost["bee"]["classification"] == pytest.approx(1)
    assert lost["cow"]["missed"] == pytest.approx(1)
    assert lost["dog"]["background"] is None  # there is no dog, so no AP to lose


def test_confusions_at_a_score() -> None:
    truth = [thing("ant", [10, 10, 50, 50]), thing("bee", [100, 10, 140, 50]), thing("cow", [60, 60, 90, 90])]
    truth.append(thing("dog", [0, 100, 200, 160], iscrowd=True))
    found = [
        thing("ant", [10, 10, 50, 50], score=0.9),
        thing("cow", [100, 10, 140, 50], score=0.7),
        thing("cow", [60, 60, 90, 90], score=0.2),  # below the score
        thing("dog", [20, 110, 60, 150], score=0.8),  # in a crowd
        thing("dog", [150, 60, 180, 90], score=0.8),
    ]
    overall = evaluate([frame("a", truth, found), frame("b", [], [])], score_threshold=0.3)[0]
    pairs = {(each["truth"], each["found"]): each["count"] for each in overall["confusion"]}
    assert pairs == {("ant", "ant"): 1, ("bee", "cow"): 1, ("cow", None): 1, (None, "dog"): 1}
    assert [each["media_id"] for each in overall["worst"]] == ["a"]
    assert {name: overall["worst"][0][name] for name in ("missed", "extra", "swapped")} == {
        "missed": 1, "extra": 1, "swapped": 1,
    }  # fmt: skip
    assert overall["frames"] == 2


def test_best_score_and_calibration() -> None:
    frames = []
    for number in range(20):
        truth = [thing("ant", [10, 10, 50, 50])]
        wrong = [thing("ant", [100, 100, 140, 140], score=0.25)] if number < 15 else []
        frames.append(frame(f"{number:02d}", truth, [thing("ant", [10, 10, 50, 50], score=0.75), *wrong]))
    overall, ant = evaluate(frames)
    assert (ant["best_score"], ant["best_f1"], ant["best_precision"], ant["best_recall"]) == (0.75, 1, 1, 1)
    bins = {each["score"]: (each["precision"], each["count"]) for each in ant["calibration"]}
    assert bins == {0.25: (0.0, 15), 0.75: (1.0, 20)}
    assert ant["calibration_error"] == pytest.approx((15 * 0.25 + 20 * 0.25) / 35)
    assert overall["calibration_error"] == ant["calibration_error"]


def test_nothing_to_find_has_no_average() -> None:
    overall, ant = evaluate([frame("a", [], [thing("ant", [1, 1, 9, 9], score=0.5)])])
    assert (overall["ap"], ant["ap"], ant["curve"], ant["best_score"]) == (None, None, None, None)
    assert (overall["found"], overall["truths"]) == (1, 0)
    assert evaluate([frame("a", [], [])])[0]["ap"] is None
