"""Images per second, and peak memory, of importing, evaluating and exporting labels, beside what one would use alone.

    python benchmarks/labels.py [--images 20000] [--objects 7] [--points 20] [--alone yes|no]

The lake is written by hand: small equal pictures, and labels of a model that are the truth moved a little. The file of
annotations is COCO's, with polygons of so many points. Alone, in a process of their own: `pycocotools.COCO(file)` for
the import, its `COCOeval` over the same labels for the evaluation (boxes), and a loop that writes pictures and JSON for
the export. Each stage runs once, in a warm session; what it costs besides its work is in `fixed_cost.py`.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from _memory import Peak, proportional
from PIL import Image

from visionlake.expectations import detections, frames, media, sources
from visionlake.jobs._config import load_pipeline
from visionlake.jobs._lake import Lake
from visionlake.jobs._pipeline import run
from visionlake.jobs._session import get_session
from visionlake.stage import Table

WIDTH, HEIGHT, CLASSES, MODEL = 640, 480, 10, "moved@1:00"
PIPELINE = """
lake = "lake"
[mlflow]
enabled = false
[import_annotations.truth]
format = "coco"
inputs = ["truth.json"]
[evaluate_labels.all]
truth = "truth"
models = ["moved@1:00"]
kinds = ["bbox"]
[export_dataset.coco]
format = "coco"
to = "out"
labels = ["truth"]
"""
ALONE = {
    "import_annotations": "from pycocotools.coco import COCO\nCOCO('truth.json')\n",
    "evaluate_labels": """
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
truth = COCO("truth.json")
import time
started = time.monotonic()
judged = COCOeval(truth, truth.loadRes("found.json"), "bbox")
judged.evaluate(), judged.accumulate(), judged.summarize()
print("seconds", time.monotonic() - started)
""",
    "export_dataset": """
import json, os
from deltalake import DeltaTable
os.makedirs("alone", exist_ok=True)
images, annotations = [], []
labels = {row["media_id"]: row["instances"] for row in
          DeltaTable("lake/annotations").to_pyarrow_table(columns=["media_id", "instances"]).to_pylist()}
for batch in DeltaTable("lake/frames").to_pyarrow_dataset().to_batches(columns=["media_id", "image"]):
    for row in batch.to_pylist():
        name = row["media_id"] + ".jpg"
        open("alone/" + name, "wb").write(row["image"])
        images.append({"id": len(images), "file_name": name})
        for each in labels[row["media_id"]]:
            annotations.append({"id": len(annotations), "image_id": images[-1]["id"], "bbox": [*each["box"].values()],
                                "segmentation": each["polygons"], "category_id": each["label_id"]})
json.dump({"images": images, "annotations": annotations}, open("alone.json", "w"))
""",
}


def things(number: int, *, objects: int) -> list[tuple[int, float, float, float, float]]:
    """Class and box (x, y, width, height) of the objects of an image."""
    chance = random.Random(number)
    return [
        (chance.randrange(CLASSES), chance.uniform(0, 500), chance.uniform(0, 380), chance.uniform(8, 130),
         chance.uniform(8, 90))
        for _ in range(objects)
    ]  # fmt: skip


def moved(number: int, *, objects: int) -> list[tuple[int, float, float, float, float, float]]:
    """What a model found: the objects a little beside where they are, with scores."""
    chance = random.Random(-number)
    return [
        (label, x + chance.uniform(0, 6), y + chance.uniform(0, 6), width, height, chance.random())
        for label, x, y, width, height in things(number, objects=objects)
    ]


def rows_of(
    batches: Iterable[pa.RecordBatch], *, table: str, objects: int, picture: bytes, schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    now = datetime(2026, 1, 2, tzinfo=UTC)
    for batch in batches:
        rows = []
        for number in batch["id"].to_pylist():
            key = {"media_id": f"{number:064x}", "stream_index": 0, "pts": 0}
            rows.append(key | _values(table, number, objects=objects, picture=picture, now=now))
        yield pa.RecordBatch.from_pylist([{n: row.get(n) for n in schema.names} for row in rows], schema=schema)


def _values(table: str, number: int, *, objects: int, picture: bytes, now: datetime) -> dict[str, Any]:
    if table == "media":
        still = {"width_px": WIDTH, "height_px": HEIGHT}
        return {"kind": "image", "picture": still, "video_streams": []}
    if table == "sources":
        uri = f"file:///pictures/{number:012d}.jpg"
        return {"uri": uri, "state": "present", "first_seen": now, "last_seen": now}
    if table == "frames":
        sizes = dict.fromkeys(("width_px", "full_width_px"), WIDTH) | dict.fromkeys(
            ("height_px", "full_height_px"), HEIGHT
        )
        return {**sizes, "image": picture, "image_format": "jpeg", "time_base_num": 1, "time_base_den": 1, "pts_s": 0.0}
    found = [
        {"label_id": label, "label": f"class{label}", "score": score,
         "box": {"x_min": x, "y_min": y, "x_max": x + width, "y_max": y + height}}
        for label, x, y, width, height, score in moved(number, objects=objects)
    ]  # fmt: skip
    return {"model_id": MODEL, "frame_width_px": WIDTH, "frame_height_px": HEIGHT, "instances": found}


def fill(lake: Lake, table: Table, *, images: int, objects: int) -> None:
    target = io.BytesIO()
    Image.new("RGB", (WIDTH, HEIGHT), (90, 120, 60)).save(target, "JPEG")
    work = partial(rows_of, table=table.name, objects=objects, picture=target.getvalue(), schema=table.arrow_schema())
    lake.ensure(table)
    found = lake.spark.range(images).mapInArrow(work, table.ddl)
    found.write.format("delta").mode("append").save(lake.path(table.name))


def write_files(folder: Path, *, images: int, objects: int, points: int) -> None:
    """truth.json with the truth, found.json with what the model found."""
    count = 0
    with (folder / "truth.json").open("w") as truth, (folder / "found.json").open("w") as found:
        names = [{"id": label, "name": f"class{label}"} for label in range(CLASSES)]
        truth.write(json.dumps({"categories": names})[:-1] + ', "images": [')
        for number in range(images):
            image = {"id": number, "file_name": f"{number:012d}.jpg", "width": WIDTH, "height": HEIGHT}
            truth.write("," * (number > 0) + json.dumps(image))
        truth.write('], "annotations": [')
        found.write("[")
        for number in range(images):
            for label, x, y, width, height in things(number, objects=objects):
                along = [step / points for step in range(points // 2)]
                ring = [n for t in along for n in (x + t * width, y)] + [
                    n for t in along for n in (x + width, y + t * height)
                ]
                item = {"id": count, "image_id": number, "category_id": label, "iscrowd": 0, "area": width * height,
                        "bbox": [x, y, width, height], "segmentation": [ring]}  # fmt: skip
                truth.write("," * (count > 0) + json.dumps(item))
                count += 1
            for place, (label, x, y, width, height, score) in enumerate(moved(number, objects=objects)):
                item = {"image_id": number, "category_id": label, "bbox": [x, y, width, height], "score": score}
                found.write("," * (number + place > 0) + json.dumps(item))
        truth.write("]}")
        found.write("]")


def alone(folder: Path, stage: str) -> tuple[float, int]:
    """Seconds and peak resident bytes of doing it with one process."""
    # Not `getrusage`, whose peak counts this process too, which the other was forked from.
    told = "\nprint(*('peak ' + line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))\n"
    started = time.monotonic()
    command = [sys.executable, "-c", ALONE[stage] + told]
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    found = dict(line.split() for line in done.stdout.splitlines() if line.startswith(("seconds ", "peak ")))
    return float(found.get("seconds", time.monotonic() - started)), int(found["peak"]) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--objects", type=int, default=7)
    parser.add_argument("--points", type=int, default=20, help="of each polygon")
    parser.add_argument("--alone", choices=("yes", "no"), default="yes")
    options = parser.parse_args()
    spark = get_session(app_name="benchmark")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_files(folder, images=options.images, objects=options.objects, points=options.points)
        lake = Lake(folder / "lake", spark=spark)
        for table in (media.TABLE, sources.TABLE, frames.TABLE, detections.TABLE):
            fill(lake, table, images=options.images, objects=options.objects)
        (folder / "p.toml").write_text(PIPELINE)
        size = (folder / "truth.json").stat().st_size
        print(
            f"{options.images} images with {options.objects} objects each, {size / 2**20:.0f} MiB of COCO", flush=True
        )
        for stage in ALONE:
            with Peak(proportional, own=True) as peak:
                started = time.monotonic()
                result = run(load_pipeline(folder / "p.toml"), spark=spark, only=[stage])
                seconds = time.monotonic() - started
            assert result.exit_code == 0, result
            told = f"{stage:20} {options.images / seconds:8.0f} images/s, peak {peak.bytes / 2**20:6.0f} MiB (PSS)"
            if options.alone == "yes":
                took, peak_bytes = alone(folder, stage)
                told += f"; alone {options.images / took:8.0f} images/s, peak {peak_bytes / 2**20:6.0f} MiB"
                told += f"; {took / seconds:.2f} of alone's speed"
            print(told, flush=True)
    spark.stop()


if __name__ == "__main__":
    main()
