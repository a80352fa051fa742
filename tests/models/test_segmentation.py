"""What every backend that segments keeps to; a new one adds its case to `options`."""

from __future__ import annotations

import numpy as np
import pytest
from toy_networks import changed, detect, seen_by

from visionlake.udfs._errors import ModelError
from visionlake.udfs.backends import find_backend
from visionlake.udfs.detector_types import DetectOptions, Instances
from visionlake.udfs.masks import Mask, find_mask
from visionlake.udfs.rle import decode_mask

SIZES = ((64, 64), (50, 60), (64, 64))


@pytest.fixture(params=["lraspp", "segformer", "mask2former", "mask2former_semantic", "builtin_masks"])
def options(request: pytest.FixtureRequest) -> DetectOptions:
    """A case for every backend, and for every task."""
    return request.getfixturevalue(request.param)


def masks_of(found: Instances) -> tuple[Mask, ...]:
    masks = found.masks if found.regions is None else found.regions.masks
    assert masks is not None
    return masks


def ids_of(found: Instances) -> list[int]:
    return (found.label_ids if found.regions is None else found.regions.label_ids).tolist()


def test_batch_and_single_agree(options: DetectOptions) -> None:
    images = seen_by(options, *SIZES)
    batch, single = detect(options, *images), detect(options, *images, together=False)
    assert sum(len(masks_of(one)) for one in batch) > 5
    for one, other in zip(batch, single, strict=True):
        assert ids_of(one) == ids_of(other)
        np.testing.assert_allclose(one.scores, other.scores, rtol=1e-4)
        for mask, same in zip(masks_of(one), masks_of(other), strict=True):
            differing = np.count_nonzero(decode_mask(mask.rle) != decode_mask(same.rle))
            assert differing <= 1e-3 * mask.area_px + 1  # where two scores are equal but for the last bits


def test_masks_are_of_the_pictures_size_and_their_boxes_and_areas_are_theirs(options: DetectOptions) -> None:
    images = seen_by(options, *SIZES)
    for found, image in zip(detect(options, *images), images, strict=True):
        for mask in masks_of(found):
            decoded = decode_mask(mask.rle)
            assert decoded.shape == (image.height, image.width)
            assert find_mask(decoded) == mask  # bit for bit
        if found.masks is not None:
            assert found.boxes.tolist() == [[*mask.box] for mask in found.masks]
            assert len(found.masks) == len(found.scores) == len(found.label_ids)
            assert (np.diff(found.scores) <= 0).all()


def test_each_pixel_belongs_to_one_class(options: DetectOptions) -> None:
    for found in detect(options, *seen_by(options, *SIZES)):
        if found.regions is not None:
            assert len({*ids_of(found)}) == len(ids_of(found))
            assert np.sum([decode_mask(mask.rle) for mask in found.regions.masks], axis=0).max() == 1
            assert len(found.scores) == 0 and found.masks is None


def test_classes_to_keep(options: DetectOptions) -> None:
    images, info = seen_by(options, *SIZES), find_backend(options.backend).describe(options)
    everything = detect(options, *images)
    label = "car" if options.backend == "builtin" else "bee"
    wanted = info.first_label_id + info.labels.index(label)
    kept = detect(changed(options, classes=(label,)), *images)
    assert any({*ids_of(one)} - {wanted} for one in everything)
    for one, all_of_it in zip(kept, everything, strict=True):
        assert ids_of(one) == [found for found in ids_of(all_of_it) if found == wanted]
    assert any(ids_of(one) for one in kept)


def test_the_task_is_part_of_the_id_and_must_be_one_that_the_model_can_do(options: DetectOptions) -> None:
    backend = find_backend(options.backend)

    def model_id(task: str) -> str:
        chosen = changed(options, task=task, score_threshold=None)
        return backend.describe(chosen).model_id(chosen)

    tasks = backend.describe(options).tasks
    assert len({model_id(task) for task in tasks}) == len(tasks)
    assert model_id("segmentation") == model_id(next(task for task in tasks if task != "detection"))
    if "detection" not in tasks:
        with pytest.raises(ModelError, match=r"task 'detection': model \S+ does .*segment_objects"):
            model_id("detection")


def test_a_model_of_boxes_does_not_segment(ssd: DetectOptions) -> None:
    with pytest.raises(ModelError, match=r"task 'segmentation': model \S+ does detection; .*detect_objects"):
        find_backend(ssd.backend).describe(ssd).model_id(changed(ssd, task="segmentation"))
