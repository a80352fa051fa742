"""How tests start a local Spark session, and how they stop a run in its midst."""

from __future__ import annotations

from typing import TYPE_CHECKING

from visionlake.jobs._results import Reporter

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def start() -> SparkSession:
    """A local session. All tests share one JVM, even where they stop the session, so that the first start decides.

    It lives for minutes: there Java's optimising compiler pays, other than in a run of seconds.
    """
    from visionlake.jobs._session import get_session

    settings = {"spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=4"}
    return get_session(settings=settings, app_name="visionlake-tests")


class KilledAt(Reporter):
    """Ends a run as Ctrl-C does, after a step of a wave."""

    def __init__(self, step: str) -> None:
        self.at = step

    def step(self, stage: str, wave_id: str, step: str) -> None:
        if step == self.at:
            raise KeyboardInterrupt
