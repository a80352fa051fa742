"""A local Spark session beside the processes under test, for the runs that nobody disturbs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@pytest.fixture(scope="module")
def spark() -> Iterator[SparkSession]:
    from visionlake.jobs._session import get_session

    session = get_session(app_name="visionlake-cluster-tests")
    yield session
    session.stop()
