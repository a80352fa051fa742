"""Settings of sources of annotations: what is told before Spark starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from visionlake.errors import ConfigError
from visionlake.jobs._config import load_pipeline


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('format = "pascal"', "there are: "),
        ('source = "me"', "source"),
        ("inputs = []", "inputs"),
        ('orientation = "left"', "orientation"),
    ],
)
def test_bad_settings_are_told_before_spark_starts(tmp_path: Path, line: str, words: str) -> None:
    plain = {"format": 'format = "coco"', "inputs": 'inputs = ["labels"]'}
    path = tmp_path / "p.toml"
    lines = {**plain, line.partition(" ")[0]: line}.values()
    path.write_text("\n".join(['lake = "lake"', "[import_annotations.people]", *lines]))
    with pytest.raises(ConfigError, match=words):
        load_pipeline(path)
