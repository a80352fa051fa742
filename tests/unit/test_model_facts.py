"""What is told of models beside their labels: it changes no id, holds no secret, and may be unknown."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from visionlake.expectations import waves
from visionlake.jobs._labelling import LabelConfig, about, model_id
from visionlake.jobs._record import Progress, Wave
from visionlake.udfs.backends import transformers
from visionlake.udfs.detector_types import DetectOptions, ModelInfo

INFO = ModelInfo(
    name="m", version="1", labels=("cat",), first_label_id=0, digests={"weights": "00"},
    declared={"score_threshold": 0.3}, sources=("model", "registry_uri"),
)  # fmt: skip


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Any:
    made: Any = ModuleType("backend_of_mine")
    made.describe, made.load = lambda options: INFO, lambda options: None
    monkeypatch.setitem(sys.modules, made.__name__, made)
    return made


def test_facts_for_people_change_no_id() -> None:
    options = DetectOptions(backend="x")
    told = replace(INFO, source="file:///x", licence="MIT", registry_version="7", card={"input": {"width_px": 9}})
    assert told.model_id(options) == INFO.model_id(options)


def test_what_is_kept_of_a_model_fits_its_column_and_holds_no_password(backend: Any) -> None:
    config = LabelConfig(backend="backend_of_mine", model="https://ann:secret@host/m?token=x", registry_uri="http://r")
    backend.describe = lambda options: replace(INFO, card={"input": {"width_px": 9}})
    found = about(config)
    assert [part.split(":")[0] for part in waves.MODEL[7:-1].split(", ")] == [*found]
    assert (found["source"], found["labels"], found["digests"]) == ("https://host/m", ["cat"], {"weights": "00"})
    assert json.loads(found["card"])["card"] == {"input": {"width_px": 9}}
    config = LabelConfig(backend="backend_of_mine", weights="/models/a b.pt2")
    backend.describe = lambda options: replace(INFO, sources=("weights",))
    assert about(config)["source"] == "file:///models/a%20b.pt2"


def test_a_licence_that_cannot_be_asked_is_not_known(backend: Any) -> None:
    config = LabelConfig(backend="backend_of_mine")
    before = model_id(config)
    assert about(config)["licence"] is None
    backend.licence = lambda options: 1 / 0
    assert about(config)["licence"] is None
    backend.licence = lambda options: "MIT"
    assert about(config)["licence"] == "MIT"
    backend.describe = lambda options: replace(INFO, licence="Apache-2.0")
    assert about(config)["licence"] == "Apache-2.0" and model_id(config) == before


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        ("---\nlibrary_name: x\nlicense: apache-2.0\n---\n# words", "apache-2.0"),
        ('---\nlicense: "cc-by-4.0"\n---\n', "cc-by-4.0"),
        ("---\nlicense:\n- mit\n---\n", "mit"),
        ("---\nlicense: mit\n", None),
        ("---\nlicense:\nlibrary_name: x\n---\n", None),
        ("# words\nlicense: mit\n---\n", None),
        ("---\nlicense: []\n---\n", None),
        (None, None),
    ],
)
def test_a_folder_of_hugging_face_says_its_licence(tmp_path: Path, text: str | None, licence: str | None) -> None:
    if text is not None:
        (tmp_path / "README.md").write_text(text)
    assert transformers._licence(tmp_path) == licence


def test_a_wave_that_was_staged_before_there_were_facts_is_read() -> None:
    wave = Wave(
        wave_id="w", run_id="r", stage="s", producer="p", sequence=1, started_at="2026-01-01", mode="changes",
        progress=Progress(table="frames"), config={}, settings_digest="", parent_key=["media_id"], model={"name": "m"},
    )  # fmt: skip
    assert Wave.from_json(wave.as_json()).model == {"name": "m"}
    old = {name: value for name, value in json.loads(wave.as_json()).items() if name != "model"}
    assert Wave.from_json(json.dumps(old)).model is None
