"""What every backend keeps to; a new one adds its case to `options`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from toy_networks import LABELS, changed, detect, seen_by

from visionlake.udfs._errors import ModelError
from visionlake.udfs.backends import backend_names, find_backend
from visionlake.udfs.detector_types import DetectOptions, ModelInfo


@pytest.fixture(
    params=[
        "grid",
        "grid_onnx",
        "plain",
        "queries",
        "offsets",
        "ssd",
        "detr",
        "rt_detr",
        "grounding_dino",
        "registered",
        "builtin",
    ]
)
def options(request: pytest.FixtureRequest) -> DetectOptions:
    """A case for every backend, and for every kind of head."""
    return request.getfixturevalue(request.param)


def a_label(options: DetectOptions) -> str:
    """One that it finds."""
    if options.prompts:
        return options.prompts[0]
    return "car" if options.backend == "builtin" else "ant"


def model_id(options: DetectOptions) -> str:
    return find_backend(options.backend).describe(options).model_id(options)


def test_batch_and_single_agree(options: DetectOptions) -> None:
    images = seen_by(options, (64, 64), (50, 80), (200, 30), (64, 64), (7, 7))
    batch, single = detect(options, *images), detect(options, *images, together=False)
    assert sum(len(one.scores) for one in batch) > 5
    for one, other in zip(batch, single, strict=True):
        assert one.label_ids.tolist() == other.label_ids.tolist()
        np.testing.assert_allclose(one.boxes, other.boxes, rtol=1e-4)
        np.testing.assert_allclose(one.scores, other.scores, rtol=1e-4)


def test_the_size_of_batches_is_what_was_asked_for_or_fits_the_device(options: DetectOptions) -> None:
    backend = find_backend(options.backend)
    assert backend.load(changed(options, batch_size=7)).batch_size == 7
    assert backend.load(options).batch_size == 4


def test_boxes_are_inside_best_first_and_as_many_as_allowed(options: DetectOptions) -> None:
    (image,) = seen_by(options, (90, 40))
    (found,) = detect(options, image)
    assert len(found.scores) > 1 and (np.diff(found.scores) <= 0).all()
    assert (found.boxes >= 0).all() and (found.boxes <= [*image.size, *image.size]).all()
    assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()
    (few,) = detect(changed(options, max_instances=1), image)
    assert few.scores.tolist() == found.scores[:1].tolist()
    (high,) = detect(changed(options, score_threshold=float(found.scores[:2].mean())), image)
    assert high.scores.tolist() == found.scores[:1].tolist()


def test_the_id_says_what_can_change_the_output(options: DetectOptions) -> None:
    declared = find_backend(options.backend).describe(options).declared
    same = [
        changed(options, batch_size=1),
        changed(options, device="auto"),
        changed(options, score_threshold=declared["score_threshold"], precision=declared.get("precision")),
    ]
    assert {model_id(one) for one in same} == {model_id(options)}
    others = [
        changed(options, score_threshold=0.77),
        changed(options, max_instances=7),
        changed(options, nms_iou=0.33),
        changed(options, classes=(a_label(options),)),
    ]
    if "precision" in declared:
        others.append(changed(options, precision="bfloat16"))
    assert len({model_id(options), *map(model_id, others)}) == 1 + len(others)
    names = ("toy", "builtin", "ssdlite320_mobilenet_v3_large", "detr", "rt_detr", "grounding_dino")
    assert model_id(options).partition("@")[0] in names


def test_classes_to_keep(options: DetectOptions) -> None:
    images = seen_by(options, (64, 64), (64, 64))
    everything, kept = detect(options, *images), detect(changed(options, classes=(a_label(options),)), *images)
    info = find_backend(options.backend).describe(options)
    kept_id = info.first_label_id + info.labels.index(a_label(options))
    assert sum(len(one.scores) for one in everything) > sum(len(one.scores) for one in kept) > 0
    assert all((one.label_ids == kept_id).all() for one in kept)
    few = detect(changed(options, classes=(a_label(options),), max_instances=1), *images)
    assert [one.scores.tolist() for one in few] == [one.scores[:1].tolist() for one in kept]
    with pytest.raises(ModelError, match="dog"):
        model_id(changed(options, classes=("dog",)))


def test_an_unknown_backend_says_what_there_is() -> None:
    assert {"builtin", "exported"} <= {*backend_names()}
    with pytest.raises(ModelError, match=r"no backend 'nothing'; there are: .*exported"):
        find_backend("nothing")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "no name of a module"),
        (".x", "no name of a module"),
        ("os", "no function describe and no load"),
        ("one_string", "IMPORTS = 'torch'; allowed is a tuple"),
    ],
)
def test_what_is_no_backend_is_refused(
    name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "one_string.py").write_text("IMPORTS = 'torch'\ndescribe = load = print")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModelError, match=message):
        find_backend(name)


def test_a_module_that_cannot_be_imported_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_backend.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModelError, match=r"no backend 'broken_backend'; .*ZeroDivisionError"):
        find_backend("broken_backend")


def test_settings_that_a_backend_would_ignore_are_refused() -> None:
    info = ModelInfo(
        name="a", version="1", labels=LABELS, first_label_id=0, digests={}, declared={"score_threshold": 0.3}
    )
    with pytest.raises(ModelError, match="backend 'mine' has no setting nms_iou, classes"):
        info.model_id(DetectOptions(backend="mine", nms_iou=0.5, classes=("ant",), score_threshold=0.4))
