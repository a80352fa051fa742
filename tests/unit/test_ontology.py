"""The labels of a project: what becomes of those of a model, and what a section may say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from visionlake.errors import ConfigError
from visionlake.jobs._config import load_pipeline
from visionlake.udfs._errors import ModelError
from visionlake.udfs.detector_types import DetectOptions, ModelInfo
from visionlake.udfs.ontology import COCO, Ontology

HEAD = 'lake = "lake"\n[detect_objects.one]\nbackend = "builtin"\n'


def model_id(ontology: Ontology | None, *, labels: tuple[str, ...] = ("car", "lorry", "tree"), **options: Any) -> str:
    info = ModelInfo(
        name="m", version="1", labels=labels, first_label_id=0, digests={}, declared={"classes": None}
    )  # fmt: skip
    return info.model_id(DetectOptions(backend="b", ontology=ontology, **options))


def test_labels_become_classes_with_their_places_or_are_dropped() -> None:
    ontology = Ontology(classes=("person", "car"), aliases=(("lorry", "car"), ("man", "person")), drop=("tree", "sky"))
    assert ontology.mapping(["tree", "lorry", "car"]) == {"tree": None, "lorry": (1, "car"), "car": (1, "car")}
    with pytest.raises(ModelError, match="says nothing of cars, bus, labels of this model; did you mean car\\?"):
        ontology.mapping(["cars", "bus", "car"])


def test_numbers_without_a_class_need_no_word() -> None:
    ontology = Ontology(classes=("car",), aliases=(("unnamed 7", "car"),))
    assert ontology.mapping(["car", "N/A", "unnamed 12", "unnamed 7"]) == {
        "car": (0, "car"), "N/A": None, "unnamed 12": None, "unnamed 7": (0, "car"),
    }  # fmt: skip
    assert Ontology(classes=("N/A",)).mapping(["N/A"]) == {"N/A": (0, "N/A")}


def test_coco_has_80_classes_in_its_order() -> None:
    assert len({*COCO}) == 80 and (COCO[0], COCO[2], COCO[79]) == ("person", "car", "toothbrush")


def test_the_id_says_what_becomes_of_labels_and_nothing_of_what_changes_none() -> None:
    plain, same = model_id(None), Ontology(classes=("car", "lorry", "tree", "more"))
    assert model_id(same) == plain
    others = [
        Ontology(classes=("lorry", "car", "tree")),
        Ontology(classes=("car", "lorry"), drop=("tree",)),
        Ontology(classes=("car", "tree"), aliases=(("lorry", "car"),)),
    ]
    assert len({plain, *map(model_id, others)}) == 4
    only = Ontology(classes=("car",))
    assert model_id(only, classes=("car",)) == model_id(None, classes=("car",))  # the others are not asked for
    with pytest.raises(ModelError, match="says nothing of lorry, tree"):
        model_id(only)


def load(folder: Path, text: str) -> dict[str, Ontology | None]:
    path = folder / "pipeline.toml"
    path.write_text(HEAD + text)
    stages: Any = load_pipeline(path).stages
    return {stage.label: config.options().ontology for stage, config in stages}


def test_a_section_is_for_all_models_but_those_with_one_of_their_own(tmp_path: Path) -> None:
    text = """
        [detect_objects.two]
        backend = "builtin"
        ontology = { classes = ["car", "thing"], drop = ["ball"] }
        [segment_objects.three]
        [ontology]
        aliases = { sign = "stop sign" }
        drop = ["ball", "box"]
    """
    found = load(tmp_path, text)
    project = Ontology(classes=COCO, aliases=(("sign", "stop sign"),), drop=("ball", "box"))
    assert found["detect_objects.one"] == found["segment_objects.three"] == project
    assert found["detect_objects.two"] == Ontology(classes=("car", "thing"), drop=("ball",))
    assert load(tmp_path, "") == {"detect_objects.one": None}


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ('classes = ["a", "a"]', "classes: a is there twice"),
        ('aliases = { a = "b" }', "aliases: b is none of the classes"),
        ('classes = ["a"]\naliases = { b = "a" }\ndrop = ["b"]', "drop: b is in aliases as well"),
        ('clases = ["a"]', "ontology.clases = .*: unknown key; did you mean classes"),
        ('classes = "voc"', "ontology.classes = "),
    ],
)
def test_what_cannot_be_is_said_once(tmp_path: Path, section: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        load(tmp_path, f"[ontology]\n{section}")
    assert ": 1 problem\n" in str(raised.value)
