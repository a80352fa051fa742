"""What is printed and recorded of addresses: nothing that lets anybody in."""

from __future__ import annotations

from pathlib import Path

import pytest

from visionlake.jobs._config import load_pipeline, resolved
from visionlake.udfs._mlflow import _tracking_uri, address_without_secrets, explain, without_secrets


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("http://me:hunter2@h:5000/a?token=s3cret", "http://h:5000/a"),
        ("postgresql+psycopg2://me:hun/ter2@h/db", "postgresql+psycopg2://h/db"),
        ("postgresql://me:hun ter2@h/db", "postgresql://h/db"),
        ("mysql://me:hun@ter2@h/db?ssl=x", "mysql://h/db"),
        ("sqlite:////data/mlflow.db", "sqlite:////data/mlflow.db"),
        ("databricks-uc", "databricks-uc"),
    ],
)
def test_an_address_is_shown_without_who_may_enter(address: str, shown: str) -> None:
    assert address_without_secrets(address) == shown
    said = explain(OSError(f"cannot connect to {address} now"), secret=address)
    assert said == f"OSError: cannot connect to {shown} now"


def test_what_libraries_say_is_shown_without_queries() -> None:
    said = "Max retries exceeded with url: /key?X-Amz-Signature=s3cret (caused by https://me:hunter2@h/x?sig=s3cret)"
    assert "s3cret" not in without_secrets(said) and "hunter2" not in without_secrets(said)
    assert without_secrets("is it there? no=yes").startswith("is it there?")


def test_the_host_of_a_registry_stays_what_it_is() -> None:
    assert _tracking_uri("databricks-uc") == "databricks" and _tracking_uri("databricks-uc://me") == "databricks://me"
    for address in ("http://databricks-uc.corp:5000", "sqlite:////data/databricks-uc/mlflow.db", "databricks-ucx"):
        assert _tracking_uri(address) == address


def test_a_pipelines_tracking_server_is_printed_without_its_password(tmp_path: Path) -> None:
    path = tmp_path / "pipeline.toml"
    path.write_text('lake = "l"\n[mlflow]\ntracking_uri = "http://me:hunter2@h:5000"\n')
    pipeline = load_pipeline(path)
    assert pipeline.tracking.tracking_uri == "http://me:hunter2@h:5000"
    assert resolved(pipeline.tracking)["tracking_uri"] == "http://h:5000" and "hunter2" not in repr(pipeline)
