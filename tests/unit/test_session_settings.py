"""What a local session is started with."""

from __future__ import annotations

from pathlib import Path

import pytest

from visionlake.jobs import _session
from visionlake.jobs._session import DELTA_EXTENSION, DELTA_PACKAGE, local_settings


@pytest.fixture
def jars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment whose set-up fetched Delta's jars, and no Spark configuration of the user's."""
    folder = tmp_path / "jars"
    folder.mkdir()
    (folder / "io.delta_delta-spark_4.1_2.13-4.4.0.jar").touch()
    monkeypatch.setattr(_session, "JARS", folder)
    for name in ("SPARK_HOME", "SPARK_CONF_DIR", "PYSPARK_SUBMIT_ARGS"):
        monkeypatch.delenv(name, raising=False)
    return folder


def test_jars_of_the_set_up_are_on_the_class_path(jars: Path) -> None:
    settings = local_settings({"spark.driver.extraClassPath": "/opt/other.jar"})
    assert settings["spark.driver.extraClassPath"] == f"/opt/other.jar:{jars}/*"
    assert settings["spark.executor.extraClassPath"] == f"{jars}/*"
    assert "spark.jars.packages" not in settings


def test_spark_fetches_delta_where_the_set_up_did_not(jars: Path) -> None:
    next(jars.iterdir()).unlink()
    assert local_settings({})["spark.jars.packages"] == DELTA_PACKAGE
    assert local_settings({"spark.jars.packages": "a:b:1"})["spark.jars.packages"] == f"a:b:1,{DELTA_PACKAGE}"


@pytest.mark.usefixtures("jars")
@pytest.mark.parametrize("name", ["spark.jars", "spark.jars.packages", "spark.driver.extraClassPath"])
def test_users_own_delta_is_left_alone(name: str) -> None:
    settings = local_settings({name: "somewhere/delta-spark.jar"})
    assert settings[name] == "somewhere/delta-spark.jar"
    assert "spark.executor.extraClassPath" not in settings


@pytest.mark.usefixtures("jars")
def test_delta_of_the_users_spark_defaults_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "spark-defaults.conf").write_text("spark.jars.packages  io.delta:delta-spark_4.1_2.13:4.4.0\n")
    monkeypatch.setenv("SPARK_CONF_DIR", str(tmp_path))
    assert "spark.driver.extraClassPath" not in local_settings({})


@pytest.mark.usefixtures("jars")
def test_users_settings_win_and_delta_stays_loaded() -> None:
    settings = local_settings({"spark.driver.memory": "9g", "spark.sql.extensions": "org.example.Other"})
    assert settings["spark.driver.memory"] == "9g"
    assert settings["spark.sql.extensions"] == f"org.example.Other,{DELTA_EXTENSION}"


@pytest.mark.parametrize("made", [True, False])
def test_archive_of_classes_is_used_where_it_was_made(
    made: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "with space.jsa"
    monkeypatch.setattr(_session, "CLASS_ARCHIVE", archive)
    if made:
        archive.touch()
    options = local_settings({})["spark.driver.defaultJavaOptions"]
    assert (f'"-XX:SharedArchiveFile={archive}"' in options) is made


@pytest.mark.usefixtures("jars")
def test_host_is_bound_for_a_local_master_only() -> None:
    assert local_settings({})["spark.driver.host"] == "127.0.0.1"
    assert "spark.driver.host" not in local_settings({"spark.master": "spark://head:7077"})
