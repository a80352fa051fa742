"""What a stage costs besides its work, in a warm session: with nothing new, and with a little new.

    python benchmarks/fixed_cost.py [--rounds 7]

A stage over a small table whose transform is a projection: everything measured is the runner's. Prints medians.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from visionlake.jobs._config import Pipeline, TrackingConfig
from visionlake.jobs._lake import Lake
from visionlake.jobs._pipeline import run
from visionlake.jobs._schemas import to_spark
from visionlake.jobs._session import get_session
from visionlake.stage import Column, Input, Rule, Stage, StageConfig, Table

KEY = Column(name="media_id", type="string", comment="key", nullable=False)
THINGS = Table(name="things", comment="parents", columns=(KEY,), key=("media_id",), cluster_by=("media_id",))
COPIES = Table(
    name="copies",
    comment="children",
    columns=(KEY, Column(name="length", type="int", comment="length of the key")),
    key=("media_id",),
    rules=(Rule(name="too_long", holds="length < 100", message="length < 100"),),
    cluster_by=("media_id",),
)


def transform(inputs: Mapping[str, Any], config: StageConfig) -> Any:
    return inputs["things"].selectExpr("media_id", "length(media_id) AS length")


STAGE = Stage(
    name="copy_things",
    summary="the cheapest stage there is",
    config=StageConfig,
    inputs=(Input(table=THINGS),),
    outputs=(COPIES,),
    transform=transform,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    spark = get_session(app_name="benchmark")
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake(Path(folder) / "lake", spark=spark)
        lake.ensure(THINGS)
        pipeline = Pipeline(
            path=Path(folder) / "p.toml", folder=Path(folder), lake=lake.uri, stages=((STAGE, StageConfig()),),
            tracking=TrackingConfig(),
        )  # fmt: skip
        times: dict[str, list[float]] = {"a little new": [], "nothing new": []}
        for i in range(rounds + 2):
            rows = to_spark(spark, [{"media_id": f"thing {i}"}], THINGS.arrow_schema())
            rows.write.format("delta").mode("append").save(lake.path("things"))
            for kind, seconds in times.items():
                result = run(pipeline, spark=spark)
                expected = "done" if kind == "a little new" else "nothing_new"
                assert result.stages[0].status == expected, result
                seconds.append(result.stages[0].seconds)
        for kind, seconds in times.items():
            warm = seconds[2:]
            print(f"{kind:14} median {statistics.median(warm):.2f} s, of {', '.join(f'{s:.2f}' for s in warm)}")
    spark.stop()


if __name__ == "__main__":
    main()
