"""One local Spark session for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    from visionlake.jobs._session import get_session

    # Minutes in one JVM: here Java's optimising compiler pays, other than in a run of seconds.
    settings = {"spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=4"}
    session = get_session(settings=settings, app_name="visionlake-tests")
    yield session
    session.stop()
