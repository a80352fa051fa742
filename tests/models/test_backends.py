"""What every backend keeps to, and what `exported` makes of a network's output."""

from __future__ import annotations

import dataclasses
import gc
import io
import re
import time
import weakref
import zipfile
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from visionlake.udfs._errors import MediaError, ModelError
from visionlake.udfs.backends import backend_names, find_backend
from visionlake.udfs.cards import read_card
from visionlake.udfs.detect_objects import detect_objects
from visionlake.udfs.detector_types import DetectOptions, Instances, ModelInfo, Prepared
from visionlake.udfs.scenes import render_scene
from visionlake.udfs.stored_picture import open_stored

SIDE, STRIDES, LABELS = 64, (8, 16), ("ant", "bee", "cow")


class Grid(nn.Module):
    """A YOLOX head on nothing but pooled pixels: what it finds depends on the picture, and on all of it."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Conv2d(3, 5 + len(LABELS), stride, stride) for stride in STRIDES)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        found = []
        for head in self.heads:
            raw = head(pictures / 255 - 0.5).flatten(2).permute(0, 2, 1)
            found.append(torch.cat([raw[..., :4], (6 * raw[..., 4:]).sigmoid()], dim=-1))
        return torch.cat(found, dim=1)


class Plain(nn.Module):
    """Boxes, scores and labels, padded; label 0 is the background."""

    def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        bright = pictures.mean(dim=(1, 2, 3), keepdim=False)[:, None]
        boxes = torch.tensor([[8.0, 8, 40, 24], [9, 8, 40, 24], [0, 0, 64, 64], [0, 0, 0, 0]])
        scores = bright * torch.tensor([0.9, 0.8, 0.7, 0.0])
        labels = torch.tensor([1, 1, 3, 0])
        count = pictures.shape[0]
        return boxes.expand(count, 4, 4) + 0 * bright[..., None], scores, labels.expand(count, 4)


def card_text(given: str, **changes: str) -> str:
    values = {
        "input": f"width_px = {SIDE}\nheight_px = {SIDE}\nscale = 1.0\n",
        "resize": "",
        "head": f"{given}\nlabels = {[*LABELS]}\n",
    } | changes
    sections = "".join(f"[{name}]\n{text}\n" for name, text in values.items())
    return f'name = "toy"\nversion = "1"\n{sections}'


def save(module: nn.Module, folder: Path, card: str) -> DetectOptions:
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(module.eval(), (torch.rand(2, 3, SIDE, SIDE),), dynamic_shapes=({0: batch},))
    torch.export.save(program, folder / "toy.pt2")
    (folder / "toy.toml").write_text(card)
    return DetectOptions(backend="exported", weights=str(folder / "toy.pt2"), device="cpu")


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> DetectOptions:
    torch.manual_seed(3)
    head = 'kind = "yolox"\nstrides = [8, 16]\nnms_iou = 0.5\nscore_threshold = 0.2\nmany_labels = true'
    return save(Grid(), tmp_path_factory.mktemp("grid"), card_text(head))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> DetectOptions:
    head = 'kind = "boxes_scores_labels"\nbackground_id = 0\nscore_threshold = 0.1\nfirst_label_id = 10'
    scaled = f"width_px = {SIDE}\nheight_px = {SIDE}\n"
    return save(Plain(), tmp_path_factory.mktemp("plain"), card_text(head, input=scaled))


@pytest.fixture(scope="module")
def builtin() -> DetectOptions:
    return DetectOptions(backend="builtin", device="cpu")


@pytest.fixture(params=["grid", "plain", "builtin"])
def options(request: pytest.FixtureRequest) -> DetectOptions:
    """A case for every backend, and for every kind of head."""
    return request.getfixturevalue(request.param)


def seen_by(options: DetectOptions, *sizes: tuple[int, int]) -> list[Image.Image]:
    """Pictures of these sizes in which the model finds something."""
    if options.backend != "builtin":
        return pictures(*sizes)
    frames = render_scene(seed=3, index=1, times_s=[0.5 * place for place, _ in enumerate(sizes)])
    return [Image.fromarray(f.pixels).resize((8 * w, 8 * h)) for f, (w, h) in zip(frames, sizes, strict=True)]


def a_label(options: DetectOptions) -> str:
    """One that it finds."""
    return "car" if options.backend == "builtin" else "ant"


def pictures(*sizes: tuple[int, int]) -> list[Image.Image]:
    made = np.random.default_rng(5)
    return [Image.fromarray(made.integers(0, 256, (height, width, 3), np.uint8)) for width, height in sizes]


def detect(options: DetectOptions, *images: Image.Image, together: bool = True) -> list[Instances]:
    detector = find_backend(options.backend).load(options)
    prepared = [detector.prepare(image) for image in images]
    if not together:
        return [detector.detect([one])[0] for one in prepared]
    alike: dict[tuple[int, ...], list[int]] = {}
    for place, one in enumerate(prepared):
        alike.setdefault(one.pixels.shape, []).append(place)
    found: dict[int, Instances] = {}
    for places in alike.values():
        found |= zip(places, detector.detect([prepared[place] for place in places]), strict=True)
    return [found[place] for place in range(len(prepared))]


def changed(options: DetectOptions, **values: Any) -> DetectOptions:
    return dataclasses.replace(options, **values)


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
        changed(options, score_threshold=declared["score_threshold"], precision="float32"),
    ]
    assert {model_id(one) for one in same} == {model_id(options)}
    others = [
        changed(options, score_threshold=0.77),
        changed(options, max_instances=7),
        changed(options, nms_iou=0.33),
        changed(options, precision="bfloat16"),
        changed(options, classes=(a_label(options),)),
    ]
    assert len({model_id(options), *map(model_id, others)}) == 6
    assert model_id(options).startswith(("toy@1:", "builtin@1:"))


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


def test_an_unknown_backend_and_missing_files_say_what_there_is(tmp_path: Path) -> None:
    assert "exported" in backend_names()
    with pytest.raises(ModelError, match=r"no backend 'nothing'; there are: .*exported"):
        find_backend("nothing")
    with pytest.raises(ModelError, match="wants weights"):
        model_id(DetectOptions(backend="exported"))
    with pytest.raises(ModelError, match="no such file"):
        model_id(DetectOptions(backend="exported", weights=str(tmp_path / "a.pt2")))
    (tmp_path / "a.pt2").write_bytes(b"weights of another kind")
    with pytest.raises(ModelError, match=r"a\.pt2 are no torch\.export archive"):
        model_id(DetectOptions(backend="exported", weights=str(tmp_path / "a.pt2")))
    with zipfile.ZipFile(tmp_path / "a.pt2", "w"):
        pass
    with pytest.raises(ModelError, match=r"a\.toml cannot be read"):
        model_id(DetectOptions(backend="exported", weights=str(tmp_path / "a.pt2")))


@pytest.mark.parametrize(
    ("name", "message"),
    [("", "no name of a module"), (".x", "no name of a module"), ("os", "no function describe and no load")],
)
def test_what_is_no_backend_is_refused(name: str, message: str) -> None:
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


def test_a_fixed_batch_is_filled_up(tmp_path: Path) -> None:
    torch.manual_seed(3)
    head = 'kind = "yolox"\nstrides = [8, 16]\nnms_iou = 0.5\nscore_threshold = 0.2'
    sized = f"width_px = {SIDE}\nheight_px = {SIDE}\nscale = 1.0\n"
    network = Grid()
    options = save(network, tmp_path, card_text(head, input=sized))
    free = detect(options, *pictures(*[(40, 30)] * 7))
    torch.export.save(torch.export.export(network, (torch.rand(4, 3, SIDE, SIDE),)), tmp_path / "toy.pt2")
    (tmp_path / "toy.toml").write_text(card_text(head, input=f"{sized}batch = 4"))
    fixed = detect(options, *pictures(*[(40, 30)] * 7))
    for one, other in zip(free, fixed, strict=True):
        assert np.allclose(one.boxes, other.boxes, atol=1e-3) and len(one.boxes)


def test_a_grid_is_decoded_as_its_paper_says(grid: DetectOptions) -> None:
    """Against plain loops over cells and classes, and suppression by the definition."""
    (image,) = pictures((64, 64))
    assert grid.weights is not None
    raw = (
        torch.export.load(grid.weights)
        .module()(torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float())[0]
        .detach()
        .numpy()
    )
    cells = [(x, y, s) for s in STRIDES for y in range(SIDE // s) for x in range(SIDE // s)]
    found = []
    for (x, y, stride), row in zip(cells, raw.astype(float), strict=True):
        centre, size = np.array([row[0] + x, row[1] + y]) * stride, np.exp(row[2:4]) * stride
        for label, score in enumerate(row[4] * row[5:]):
            if score > 0.2:
                found.append((score, label, *(centre - size / 2), *(centre + size / 2)))
    kept: list[tuple[float, ...]] = []
    for candidate in sorted(found, reverse=True):
        if all(other[1] != candidate[1] or iou(other[2:], candidate[2:]) <= 0.5 for other in kept):
            kept.append(candidate)
    (result,) = detect(grid, image)
    assert len(kept) > 3
    assert result.label_ids.tolist() == [one[1] for one in kept]
    np.testing.assert_allclose(result.scores, [one[0] for one in kept], rtol=1e-4)
    np.testing.assert_allclose(result.boxes, np.clip([one[2:] for one in kept], 0, SIDE), rtol=1e-4, atol=1e-3)


def iou(a: Any, b: Any) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(0.0, width) * max(0.0, height)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def test_the_background_is_nothing_and_labels_count_from_behind_it(plain: DetectOptions) -> None:
    (found,) = detect(plain, Image.new("RGB", (128, 64), (255, 255, 255)))
    assert found.label_ids.tolist() == [10, 10, 12]
    np.testing.assert_allclose(found.scores, [0.9, 0.8, 0.7], rtol=1e-5)
    np.testing.assert_allclose(found.boxes, [[16, 8, 80, 24], [18, 8, 80, 24], [0, 0, 128, 64]])
    (once,) = detect(changed(plain, nms_iou=0.5), Image.new("RGB", (128, 64), (255, 255, 255)))
    assert once.label_ids.tolist() == [10, 12]


@pytest.mark.parametrize(
    ("resize", "expected"),
    [
        ('mode = "letterbox"\nplacement = "top_left"\nrounding = "floor"', [16, 16, 80, 48]),
        ('mode = "letterbox"\nplacement = "center"\nrounding = "floor"', [16, 0, 80, 16]),
        ('mode = "stretch"', [16, 8, 80, 24]),
    ],
)
def test_boxes_go_back_the_way_the_picture_came(tmp_path: Path, resize: str, expected: list[int]) -> None:
    head = 'kind = "boxes_scores_labels"\nbackground_id = 0\nscore_threshold = 0.1'
    options = save(Plain(), tmp_path, card_text(head, resize=resize, input=f"width_px = {SIDE}\nheight_px = {SIDE}\n"))
    (found,) = detect(options, Image.new("RGB", (128, 64), (255, 255, 255)))
    np.testing.assert_allclose(found.boxes[0], expected)


def test_what_a_network_sees_is_what_the_card_says(tmp_path: Path) -> None:
    """A network that puts out the colour of its input, as a box."""

    class Colour(nn.Module):
        def forward(self, pictures: torch.Tensor) -> list[torch.Tensor]:
            mean = pictures.mean(dim=(2, 3))
            box = torch.cat([0 * mean[:, :1], mean + 1], dim=1)[:, None]
            return [box, 0 * mean[:, :1] + 0.5, (0 * mean[:, :1]).long()]

    head = 'kind = "boxes_scores_labels"\nscore_threshold = 0.1'
    given = f'width_px = {SIDE}\nheight_px = {SIDE}\nchannels = "BGR"\nscale = 0.1\nmean = [1, 2, 3]\nstd = [1, 2, 4]\n'
    options = save(Colour(), tmp_path, card_text(head, input=given))
    (found,) = detect(options, Image.new("RGB", (SIDE, SIDE), (30, 90, 120)))
    np.testing.assert_allclose(found.boxes[0], [0, 12 - 1 + 1, (9 - 2) / 2 + 1, 0 + 1], rtol=1e-5)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_no_numbers_are_an_error_that_names_the_model(tmp_path: Path, value: float) -> None:
    class Bad(nn.Module):
        def forward(self, pictures: torch.Tensor) -> torch.Tensor:
            return pictures.new_full((1, 80, 8), value) + 0 * pictures.sum()

    options = save_fixed(Bad(), tmp_path, card_text('kind = "yolox"\nstrides = [8, 16]'))
    with pytest.raises(ModelError, match="toy@1 gave values that are no numbers"):
        detect(options, *pictures((9, 9)))


def test_another_form_of_output_is_an_error_that_says_what_was_promised(tmp_path: Path) -> None:
    class Other(nn.Module):
        def forward(self, pictures: torch.Tensor) -> torch.Tensor:
            return pictures.mean(dim=1)

    options = save_fixed(Other(), tmp_path, card_text('kind = "yolox"\nstrides = [8, 16]'))
    with pytest.raises(ModelError, match=r"gave \(1, 64, 64\); its card promises \(pictures, 80, 8\)"):
        detect(options, *pictures((9, 9)))


def save_fixed(module: nn.Module, folder: Path, card: str) -> DetectOptions:
    torch.export.save(torch.export.export(module.eval(), (torch.rand(1, 3, SIDE, SIDE),)), folder / "toy.pt2")
    (folder / "toy.toml").write_text(card)
    return DetectOptions(backend="exported", weights=str(folder / "toy.pt2"), device="cpu")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head": 'kind = "yolox"\nlabels = ["a"]'}, "wants strides"),
        ({"head": 'kind = "ssd"\nlabels = ["a"]'}, "head.kind = 'ssd': should be 'yolox' or"),
        ({"head": 'kind = "yolox"\nstrides = [8]\nlabels = ["a", "a"]'}, "twice"),
        ({"input": "width_px = 0\nheight_px = 5"}, "input.width_px = 0: should be greater than 0"),
        ({"resize": "padding = 3"}, "resize.padding"),
        ({"head": 'kind = "yolox"\nstrides = [8]\nlabels_file = "none.txt"'}, "none.txt cannot be read"),
        ({"head": 'kind = "yolox"\nstrides = [8]\nlabels_file = "/etc/hostname"'}, "outside the card's folder"),
        ({"head": 'kind = "yolox"\nstrides = [8]\nlabels_file = "a.txt"\nlabels = ["a"]'}, "both labels and"),
        ({"head": 'kind = "yolox"\nstrides = [8]'}, "labels, or labels_file"),
        ({"head": 'kind = "yolox"\nstrides = [0]\nlabels = ["a"]'}, r"head\.strides\.0 = 0: should be greater than 0"),
        ({"head": 'kind = "yolox"\nstrides = [8]\nlabels = ["a"]\nnms_io = 1'}, "unknown key; did you mean nms_iou"),
        ({"input": 'width_px = "9"\nheight_px = 5'}, "input.width_px = '9': should be a valid integer"),
        ({"input": "width_px = 9\nheight_px = 5\nstd = [1, 0, 1]"}, r"input\.std\.1 = 0"),
        ({"input": "width_px = 9"}, "input.height_px is missing"),
    ],
)
def test_a_wrong_card_says_what_is_allowed(tmp_path: Path, change: dict[str, str], message: str) -> None:
    path = tmp_path / "toy.toml"
    path.write_text(card_text('kind = "yolox"\nstrides = [8]', **change))
    with pytest.raises(ModelError, match=message):
        read_card(path)


def test_words_for_people_do_not_change_the_digest(tmp_path: Path) -> None:
    text = card_text('kind = "yolox"\nstrides = [8]')
    (tmp_path / "a.toml").write_text(text)
    (tmp_path / "b.toml").write_text(f'# remark\ndescription = "words"\nlicense = "MIT"\n{text}')
    (tmp_path / "labels.txt").write_text("\n".join(LABELS))
    listed = text.replace(f"labels = {[*LABELS]}", 'labels_file = "labels.txt"')
    (tmp_path / "c.toml").write_text(listed)
    digests = {read_card(tmp_path / f"{name}.toml").digest() for name in "abc"}
    assert len(digests) == 1 and "labels_file" in listed


def test_the_readmes_card_is_that_of_the_tests(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    (text,) = [
        t for t in re.findall(r"```toml\n(.*?)```", (root / "README.md").read_text(), re.DOTALL) if "[head]" in t
    ]
    card = read_card(root / "tests" / "data" / "yolox_nano.toml")
    (tmp_path / "coco.txt").write_text("\n".join(card.labels))
    (tmp_path / "yolox_nano.toml").write_text(text)
    assert read_card(tmp_path / "yolox_nano.toml").digest() == card.digest()


def test_pictures_of_another_size_never_share_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[tuple[int, ...]]] = []

    class Recording:
        labels, first_label_id = LABELS, 0

        def prepare(self, picture: Image.Image) -> Prepared:
            width, height = picture.size
            return Prepared(
                pixels=np.asarray(picture),
                width_px=width,
                height_px=height,
                scale_x=1.0,
                scale_y=1.0,
                left=0.0,
                top=0.0,
            )

        def detect(self, batch: Sequence[Prepared]) -> list[Instances]:
            asked.append([one.pixels.shape for one in batch])
            nothing = Instances(boxes=np.zeros((0, 4)), scores=np.zeros(0), label_ids=np.zeros(0, np.int64))
            return [nothing] * len(batch)

    known = SimpleNamespace(model_id=lambda options: "m")
    backend = SimpleNamespace(load=lambda options: Recording(), describe=lambda options: known)
    monkeypatch.setattr("visionlake.udfs.detect_objects.find_backend", lambda name: backend)
    sizes = [(8, 8), (9, 8), (8, 8), (8, 8), (9, 8), (8, 8), *((20 + n, 8) for n in range(12))]
    rows = pd.DataFrame({"key": range(len(sizes)), "image": [png(image) for image in pictures(*sizes)]})
    options = DetectOptions(backend="recording", batch_size=3)
    (labelled,) = detect_objects(
        [rows.iloc[:4], rows.iloc[4:]], columns=["key", "instances", "error"], options=options, model_id="m",
        max_pixels=10_000, batch_limit_s=60,
    )  # fmt: skip
    assert sorted(labelled["key"]) == [*range(len(sizes))] and labelled["error"].tolist() == [None] * len(sizes)
    assert all(len(set(batch)) == 1 for batch in asked) and asked[0] == [(8, 8, 3)] * 3


def test_a_model_that_is_replaced_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    class Empty:
        labels, first_label_id = ("a",), 0

        def prepare(self, picture: Image.Image) -> Prepared:
            return Prepared(pixels=np.asarray(picture), width_px=8, height_px=8, scale_x=1, scale_y=1, left=0, top=0)

        def detect(self, batch: Sequence[Prepared]) -> list[Instances]:
            nothing = Instances(boxes=np.zeros((0, 4)), scores=np.zeros(0), label_ids=np.zeros(0, np.int64))
            return [nothing] * len(batch)

    loaded: list[weakref.ref[Empty]] = []

    def load(options: DetectOptions) -> Empty:
        made = Empty()
        loaded.append(weakref.ref(made))
        return made

    current = ""
    known = SimpleNamespace(model_id=lambda options: current)
    backend = SimpleNamespace(load=load, describe=lambda options: known)
    monkeypatch.setattr("visionlake.udfs.detect_objects.find_backend", lambda name: backend)
    rows = pd.DataFrame({"image": [png(image) for image in pictures((8, 8))]})
    for current in ("a", "b", "b", "c"):
        found = detect_objects(
            [rows], columns=["instances", "error"], options=DetectOptions(backend="x"), model_id=current,
            max_pixels=100, batch_limit_s=60,
        )  # fmt: skip
        assert [len(frame) for frame in found] == [1]
    assert len(loaded) == 3
    for _ in range(100):  # their threads end by themselves
        gc.collect()
        if [one() is None for one in loaded] == [True, True, False]:
            break
        time.sleep(0.05)
    assert [one() is None for one in loaded] == [True, True, False]
    current = "d"
    with pytest.raises(ModelError, match="model c: its files are those of d here"):
        from visionlake.udfs import detect_objects as module

        module._forget()
        list(detect_objects(
            [rows], columns=["error"], options=DetectOptions(backend="x"), model_id="c", max_pixels=100,
            batch_limit_s=60,
        ))  # fmt: skip


def stored(image: Image.Image, **options: Any) -> Image.Image:
    target = io.BytesIO()
    image.save(target, "PNG", **options)
    return open_stored(target.getvalue(), max_pixels=1000)


def test_pictures_from_outside_are_upright_and_before_black() -> None:
    half = Image.new("RGBA", (4, 2), (200, 100, 50, 0))
    half.putpixel((0, 0), (200, 100, 50, 255))
    turned = half.getexif()
    turned[0x0112] = 6  # the top is at the right
    seen = stored(half, exif=turned)
    assert (seen.mode, seen.size) == ("RGB", (2, 4))
    assert seen.getpixel((1, 0)) == (200, 100, 50) and seen.getpixel((0, 3)) == (0, 0, 0)
    with pytest.raises(MediaError, match=r"image_unsupported: .* more than 8 bits"):
        stored(Image.new("I;16", (4, 2), 40_000))
    with pytest.raises(MediaError, match="image_too_large"):
        stored(Image.new("L", (101, 10)))
    with pytest.raises(MediaError) as caught:
        open_stored(b"nothing of the kind", max_pixels=9)
    assert caught.value.reason == "image_unreadable" and "0x" not in caught.value.message


def png(image: Image.Image) -> bytes:
    target = io.BytesIO()
    image.save(target, "PNG")
    return target.getvalue()
