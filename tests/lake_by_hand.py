"""A lake whose rows are written by hand."""

from __future__ import annotations

import io
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from PIL import Image
from pyspark.sql import SparkSession

from visionlake.expectations import declaration
from visionlake.expectations._table import Table
from visionlake.jobs._lake import Lake
from visionlake.jobs._schemas import to_spark


def picture() -> bytes:
    target = io.BytesIO()
    Image.new("RGB", (64, 48), (90, 120, 60)).save(target, "JPEG")
    return target.getvalue()


class LakeByHand:
    """A lake whose tables hold what the test puts there."""

    def __init__(self, folder: Path, spark: SparkSession) -> None:
        self.folder, self.lake = folder, Lake(folder / "lake", spark=spark)

    def copy_to(self, folder: Path) -> LakeByHand:
        """A lake of the same rows, which takes a moment where writing them takes seconds."""
        shutil.copytree(self.folder / "lake", folder / "lake")
        return LakeByHand(folder, self.lake.spark)

    def put(self, name: str, *rows: dict[str, Any]) -> None:
        table = declaration(name)
        assert isinstance(table, Table)
        self.lake.ensure(table)
        found = to_spark(self.lake.spark, rows, table.arrow_schema())
        found.write.format("delta").mode("append").save(self.lake.path(name))

    def fill(self, *names: str) -> None:
        """A medium for each name, with a frame, a label and a bad row of that name."""
        ids = [f"{place:064x}" for place, _ in enumerate(names)]
        now = datetime(2026, 1, 2, tzinfo=UTC)
        self.put("sources", *(
            {"uri": name, "media_id": i, "state": "present", "first_seen": now, "last_seen": now}
            for i, name in zip(ids, names, strict=True)
        ))  # fmt: skip
        self.put("frames", *(
            {
                "media_id": i, "stream_index": 0, "pts": 512, "pts_s": 0.5, "time_base_num": 1, "time_base_den": 1024,
                "width_px": 64, "height_px": 48, "image": picture(), "brightness": 100.0, "contrast": 20.0,
                "sharpness": 400.0,
            }
            for i in ids
        ))  # fmt: skip
        box = {"x_min": 4.0, "y_min": 5.0, "x_max": 40.0, "y_max": 30.0}
        self.put("detections", *(
            {
                "media_id": i, "stream_index": 0, "pts": 512, "model_id": f"{names[0]}@1:00", "frame_width_px": 64,
                "frame_height_px": 48, "instances": [{"label_id": 0, "label": name, "score": 0.75, "box": box}],
            }
            for i, name in zip(ids, names, strict=True)
        ))  # fmt: skip
        self.put("quarantine", *(
            {
                "stage": "ingest_media", "producer": "ingest_media", "input_key": name, "reason": name,
                "message": name, "at": now,
            }
            for name in names
        ))  # fmt: skip
        check = {"name": "brightness", "severity": "warn", "status": "warned", "expected": names[0],
                 "observed": names[1 % len(names)], "keys": list(names), "message": names[-1]}  # fmt: skip
        self.put("waves", {
            "wave_id": "w1", "run_id": names[0], "stage": "extract_frames", "producer": names[-1],
            "status": "published", "sequence": 1, "started_at": now, "finished_at": now, "rows_in": 1,
            "rows_published": 4, "rows_quarantined": 4, "checks": [check],
            "config": '{"inputs": ["<script>1</script>"]}',
            "error": names[0], "decided_by": names[1 % len(names)], "decided_why": names[-1],
        })  # fmt: skip
