"""A lake with frames made by hand, and models that are JSON files (see `toy_backend`)."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

from PIL import Image
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from visionlake.expectations import frames
from visionlake.jobs._config import load_pipeline
from visionlake.jobs._lake import Lake
from visionlake.jobs._pipeline import run
from visionlake.jobs._results import Reporter, RunResult
from visionlake.jobs._schemas import to_spark


def picture(value: int, *, width: int = 40, height: int = 20) -> bytes:
    target = io.BytesIO()
    Image.new("RGB", (width, height), (value, value, value)).save(target, "PNG")
    return target.getvalue()


class World:
    """A lake with frames made by hand, and models that are JSON files."""

    def __init__(self, folder: Path, spark: SparkSession) -> None:
        self.folder, self.spark = folder, spark
        self.lake = Lake(folder / "lake", spark=spark)
        self.lake.ensure(frames.TABLE)

    def model(self, name: str, **settings: Any) -> str:
        path = self.folder / f"{name}.json"
        path.write_text(json.dumps({"name": name, "log": str(self.folder / f"{name}.log"), **settings}))
        return path.name

    def put(self, *media: str, value: int = 100, count: int = 3, image: bytes | None = None) -> None:
        rows = [
            {
                "media_id": name, "stream_index": 0, "pts": pts, "time_base_num": 1, "time_base_den": 10,
                "width_px": 40, "height_px": 20, "image": image or picture(value + pts), "image_format": "png",
                "brightness": float(value),
            }
            for name in media
            for pts in range(count)
        ]  # fmt: skip
        found = to_spark(self.spark, rows, frames.TABLE.arrow_schema()).coalesce(1)
        found.write.format("delta").mode("append").save(self.lake.path("frames"))

    def correct(self, where: str, **values: Any) -> None:
        from delta.tables import DeltaTable

        table = DeltaTable.forPath(self.spark, self.lake.path("frames"))
        table.update(where, {name: F.lit(value) for name, value in values.items()})

    def run(self, *models: str, reporter: Reporter | None = None, **settings: Any) -> RunResult:
        """Label with models that detect; those named `segment.<name>` segment."""
        sections = []
        for model in models:
            kind, name = "segment" if "." in model else "detect", model.rpartition(".")[2]
            lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
            sections += [f"[{kind}_objects.{name}]", 'backend = "toy_backend"', f'weights = "{name}.json"', *lines]
        path = self.folder / "p.toml"
        path.write_text("\n".join(['lake = "lake"', "[mlflow]", "enabled = false", *sections]))
        return run(load_pipeline(path), spark=self.spark, reporter=reporter)

    def evaluated(self, model: str) -> list[str]:
        """What the model was asked since the last call."""
        log = self.folder / f"{model}.log"
        lines = [line.partition(" ")[2] for line in log.read_text().splitlines()] if log.exists() else []
        log.unlink(missing_ok=True)
        return lines

    def rows(self, where: str = "true") -> list[Any]:
        order = ("model_id", "media_id", "pts")
        return self.lake.table("detections").where(where).orderBy(*order).collect() if self.has_labels() else []

    def has_labels(self) -> bool:
        return self.lake.exists("detections")

    def labelled(self) -> dict[tuple[str, str], int]:
        """Model and media -> labelled frames."""
        return dict(Counter((row["model_id"].partition("@")[0], row["media_id"]) for row in self.rows()))
