"""Backend `transformers`: the boxes of a plain call, and models that are not taken."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from toy_networks import changed, detect, pictures
from transformers import AutoImageProcessor, AutoModelForObjectDetection

from visionlake.udfs._errors import ModelError
from visionlake.udfs.backends import find_backend
from visionlake.udfs.detector_types import DetectOptions


def refused(options: DetectOptions) -> str:
    with pytest.raises(ModelError) as caught:
        detect(options, *pictures((64, 64)))
    return str(caught.value)


def copied(options: DetectOptions, folder: Path) -> tuple[DetectOptions, Path]:
    shutil.copytree(str(options.weights), folder)
    return changed(options, weights=str(folder)), folder


@pytest.mark.parametrize("kind", ["detr", "rt_detr"])
def test_it_finds_what_a_plain_call_finds(kind: str, request: pytest.FixtureRequest) -> None:
    options: DetectOptions = request.getfixturevalue(kind)
    (image,) = pictures((200, 120))
    processor: Any = AutoImageProcessor.from_pretrained(str(options.weights))
    network: Any = AutoModelForObjectDetection.from_pretrained(str(options.weights)).eval()
    with torch.inference_mode():
        output = network(**processor(images=image, return_tensors="pt"))
    (expected,) = processor.post_process_object_detection(output, threshold=0.3, target_sizes=[(120, 200)])
    inside = expected["boxes"].clamp(min=0).minimum(torch.tensor([200.0, 120.0, 200.0, 120.0]))
    order = expected["scores"].argsort(descending=True, stable=True)
    (found,) = detect(options, image)
    assert len(found.scores) > 3
    np.testing.assert_allclose(found.scores, expected["scores"][order], rtol=1e-4)
    np.testing.assert_allclose(found.boxes, inside[order], rtol=1e-4, atol=1e-3)
    assert found.label_ids.tolist() == expected["labels"][order].tolist()


def test_suppression_is_there_for_those_who_want_it(detr: DetectOptions) -> None:
    (image,) = pictures((64, 64))
    (every,), (fewer,) = detect(detr, image), detect(changed(detr, nms_iou=0.5), image)
    assert 0 < len(fewer.scores) < len(every.scores) and fewer.scores[0] == every.scores[0]


def test_folders_that_do_not_fit_are_refused_with_their_reason(detr: DetectOptions, tmp_path: Path) -> None:
    assert "wants weights, a model's folder, or model" in refused(changed(detr, weights=None))
    assert "wants weights, a model's folder, or model" in refused(changed(detr, model="a/b"))
    assert "there is no such folder" in refused(changed(detr, weights=str(tmp_path / "none")))
    assert "has no setting labels" in refused(changed(detr, labels=("a",)))
    options, folder = copied(detr, tmp_path / "odd")
    config = json.loads((folder / "config.json").read_text())

    def with_config(**values: Any) -> str:
        (folder / "config.json").write_text(json.dumps(config | values))
        return refused(options)

    assert "comes with code of its own" in with_config(auto_map={"AutoModel": "evil.Model"})
    assert "no id2label" in with_config(id2label=None)
    assert "transformers cannot load it" in with_config(model_type="no_such_kind")
    (folder / "config.json").write_text("{")
    assert "config.json cannot be read" in refused(options)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "has no safetensors" in refused(options)


def test_no_numbers_are_an_error(detr: DetectOptions, tmp_path: Path) -> None:
    options, folder = copied(detr, tmp_path / "bad")
    state = load_file(folder / "model.safetensors")
    state["class_labels_classifier.weight"].fill_(float("nan"))
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    assert "no numbers" in refused(options)


def test_a_model_of_the_hub_that_is_not_here_says_what_to_fetch(
    detr: DetectOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    def fetch(repo_id: str, *, revision: str | None, local_files_only: bool = False, **_: Any) -> str:
        assert (repo_id, revision) == ("somebody/detr", "abc")
        if local_files_only:
            raise FileNotFoundError("not in the cache")
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    options = changed(detr, weights=None, model="somebody/detr@abc")
    said = refused(options)
    assert "'somebody/detr@abc' cannot be fetched (no network)" in said and "name their folder as weights" in said
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda **_: detr.weights)
    assert find_backend("transformers").describe(options).model_id(options).startswith("detr@abc:")
    assert detect(options, Image.new("RGB", (64, 64)))
