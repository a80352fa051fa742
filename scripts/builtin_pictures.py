"""Pictures to train backend `builtin` on: crops of generated frames, and objects of such frames before other things.

Held-out scenes have backgrounds that no scene for training has. A network that has only seen a few kinds of background
takes an unknown one for objects; so it is shown as many as a few lines can draw (domain randomisation: Tobin et al.,
arXiv:1703.06907), with objects cut out of frames and pasted there (Dwibedi et al., arXiv:1708.01642).
"""

from __future__ import annotations

import io
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw, ImageFilter

from visionlake.udfs.rle import decode_mask
from visionlake.udfs.scenes import SceneFrame, Split, render_scene

SCENE_S = 8.0
CROP_PX = (384, 256)  # width, height
SCALES = (0.55, 1.05)  # the backend scales frames of 640 px to 480
MIN_VISIBILITY, MIN_KEPT, MIN_SIDE_PX = 0.2, 0.35, 5.0
_PASTED, SWAPPED = 0.4, 0.35  # shares of pictures: all pasted together; a frame's objects before another background
_BILINEAR = Image.Resampling.BILINEAR

Target = dict[str, torch.Tensor]
Boxes = npt.NDArray[np.float32]
Masks = npt.NDArray[np.uint8]
Made = tuple[Image.Image, Boxes, npt.NDArray[np.int64], Masks]
"""A picture, and of the objects in it boxes (N x 4), positions of labels, and masks (N x height x width): how much of
each pixel is seen of the object, from 0 to 255."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """A frame as JPEG and what is in it: boxes N x 4, positions of labels, seen shares.

    `owners` is a PNG that says of each pixel whose it is: the object's place and 1, or 0 for none.
    """

    jpeg: bytes
    owners: bytes
    boxes: Boxes
    labels: npt.NDArray[np.int64]
    visible: npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class CutOut:
    """An object as PNG, transparent around it."""

    label: int
    png: bytes


def draw(split: Split, seed: int, index: int, count: int) -> tuple[list[Example], list[CutOut]]:
    """`count` frames of one scene, compressed as strongly as videos may be, and the objects nothing hides in them."""
    rng = random.Random(f"{split}/{seed}/{index}")
    times = sorted(rng.uniform(0, SCENE_S) for _ in range(count))
    examples, cut_outs = [], []
    for frame in render_scene(seed=seed, index=index, times_s=times, split=split):
        jpeg, png = io.BytesIO(), io.BytesIO()
        Image.fromarray(frame.pixels).save(jpeg, "JPEG", quality=rng.randint(60, 95))
        masks = [decode_mask(thing.mask) for thing in frame.objects]
        owners = np.zeros(frame.pixels.shape[:2], np.uint8)
        for place, mask in enumerate(masks):
            owners[mask] = place + 1
        Image.fromarray(owners).save(png, "PNG")
        cut_outs += _cut_outs(frame, masks)
        examples.append(
            Example(
                jpeg=jpeg.getvalue(),
                owners=png.getvalue(),
                boxes=np.array([thing.box for thing in frame.objects], np.float32).reshape(-1, 4),
                labels=np.array([thing.label_id for thing in frame.objects], np.int64),
                visible=np.array([thing.visibility for thing in frame.objects], np.float32),
            )
        )
    return examples, cut_outs


def _cut_outs(frame: SceneFrame, masks: Sequence[npt.NDArray[np.bool_]]) -> list[CutOut]:
    found = []
    for thing, mask in zip(frame.objects, masks, strict=True):
        left, top, right, bottom = map(int, thing.box)
        if thing.visibility < 0.97 or min(right - left, bottom - top) < 14 or max(right - left, bottom - top) < 32:
            continue
        part = slice(max(0, top - 2), bottom + 2), slice(max(0, left - 2), right + 2)
        png = io.BytesIO()
        pixels = np.dstack([frame.pixels[part], mask[part].astype(np.uint8) * 255])
        Image.fromarray(pixels, "RGBA").save(png, "PNG", compress_level=3)
        found.append(CutOut(label=thing.label_id, png=png.getvalue()))
    return found


def augmented(
    example: Example,
    cut_outs: Sequence[Sequence[CutOut]],
    rng: random.Random,
    *,
    swapped: float = SWAPPED,
    scales: tuple[float, float] = SCALES,
) -> tuple[npt.NDArray[np.uint8], Target]:
    """A picture of 384 x 256 px for training, and its boxes, labels and masks. `cut_outs` are by label.

    Frames are scaled by a factor within `scales`. `swapped` is the share of crops in which other things are behind the
    objects. A seam of what was there before stays around them, which is of no matter to boxes, and misleads masks.
    """
    if rng.random() < _PASTED:
        picture, boxes, labels, masks = _pasted(example, cut_outs, rng)
    else:
        picture, boxes, labels, masks = _cropped(example, rng, swapped=swapped, scales=scales)
    if rng.random() < 0.15:
        picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.2)))
    target = {
        "boxes": torch.from_numpy(boxes), "labels": torch.from_numpy(labels), "masks": torch.from_numpy(masks)
    }  # fmt: skip
    return np.array(_recoloured(picture, rng)), target


def _cropped(example: Example, rng: random.Random, *, swapped: float, scales: tuple[float, float]) -> Made:
    """A piece of a frame at a random place and scale, maybe mirrored, maybe with another background."""
    frame = Image.open(io.BytesIO(example.jpeg)).convert("RGB")
    scale = math.exp(rng.uniform(*map(math.log, scales)))
    sides = [round(size / scale) for size in CROP_PX]
    x, y = (round(rng.uniform(min(0, n - side), max(0, n - side))) for n, side in zip(frame.size, sides, strict=True))
    area = (x, y, x + sides[0], y + sides[1])
    picture = frame.crop(area).resize(CROP_PX, _BILINEAR)
    owners = np.asarray(Image.open(io.BytesIO(example.owners)).crop(area))
    if rng.random() < swapped:
        mask = _share(owners > 0).filter(ImageFilter.MaxFilter(3)).filter(ImageFilter.BoxBlur(rng.uniform(0.5, 1)))
        background = _texture(rng, picture.size)
        if rng.random() < 0.5:
            background = Image.blend(background, picture, rng.uniform(0.1, 0.8))
        picture = Image.composite(picture, background, mask)
    factors = np.array([size / side for size, side in zip(CROP_PX, sides, strict=True)] * 2, np.float32)
    boxes = (example.boxes - np.array([x, y, x, y], np.float32)) * factors
    if rng.random() < 0.5:
        picture, owners = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT), owners[:, ::-1]
        boxes = np.stack([CROP_PX[0] - boxes[:, 2], boxes[:, 1], CROP_PX[0] - boxes[:, 0], boxes[:, 3]], axis=1)
    inside = boxes.clip(0, np.array(CROP_PX * 2, np.float32))
    sizes, whole = (inside[:, 2:] - inside[:, :2]).clip(0), boxes[:, 2:] - boxes[:, :2]
    kept = (sizes.prod(axis=1) >= MIN_KEPT * whole.prod(axis=1)) & (example.visible >= MIN_VISIBILITY)
    kept &= sizes.min(axis=1, initial=min(CROP_PX)) >= MIN_SIDE_PX
    masks = [np.asarray(_share(owners == place + 1)) for place in np.flatnonzero(kept)]
    return picture, inside[kept], example.labels[kept], _stacked(masks)


def _share(mask: npt.NDArray[np.bool_]) -> Image.Image:
    """How much of each pixel of a training picture a mask covers."""
    return Image.fromarray(mask.astype(np.uint8) * 255).resize(CROP_PX, _BILINEAR)


def _stacked(masks: Sequence[Masks]) -> Masks:
    return np.array(masks, np.uint8).reshape(-1, *CROP_PX[::-1])


def _pasted(example: Example, cut_outs: Sequence[Sequence[CutOut]], rng: random.Random) -> Made:
    """Objects before a texture or before a frame whose own objects are covered; boxes hold what is seen of each."""
    picture = _texture(rng, CROP_PX) if rng.random() < 0.7 else _emptied(example, rng)
    owners, labels, whole = np.full(CROP_PX[::-1], -1, np.int16), [], []
    sizes = sorted(math.exp(rng.uniform(math.log(15), math.log(140))) for _ in range(rng.randint(3, 9)))
    for size in sizes:  # what is small is far away
        label = rng.randrange(len(cut_outs))
        with Image.open(io.BytesIO(rng.choice(cut_outs[label]).png)) as cut_out:
            scale = min(size / max(cut_out.size), 1.4)
            width, height = (max(6, round(side * scale)) for side in cut_out.size)
            thing = cut_out.resize((width, height), _BILINEAR if scale > 0.5 else Image.Resampling.BOX)
        if rng.random() < 0.5:
            thing = thing.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels, alpha = thing.convert("RGB"), thing.getchannel("A")
        x, y = (rng.randint(-n // 3, most - 2 * n // 3) for n, most in zip((width, height), CROP_PX, strict=True))
        picture.paste(_recoloured(pixels, rng) if rng.random() < 0.5 else pixels, (x, y), alpha)
        covers = np.asarray(alpha) > 127
        left, top, right, bottom = max(0, x), max(0, y), min(CROP_PX[0], x + width), min(CROP_PX[1], y + height)
        owners[top:bottom, left:right][covers[top - y : bottom - y, left - x : right - x]] = len(labels)
        labels.append(label)
        whole.append(max(1, covers.sum()))
    return picture, *_seen(owners, labels, whole)


def _seen(
    owners: npt.NDArray[np.int16], labels: Sequence[int], whole: Sequence[int]
) -> tuple[Boxes, npt.NDArray[np.int64], Masks]:
    boxes, kept, masks = [], [], []
    for place, label in enumerate(labels):
        mask = owners == place
        y, x = np.nonzero(mask)
        if len(x) < MIN_VISIBILITY * whole[place] or not len(x):
            continue
        box = (x.min(), y.min(), x.max() + 1, y.max() + 1)
        if min(box[2] - box[0], box[3] - box[1]) >= MIN_SIDE_PX:
            boxes.append(box)
            kept.append(label)
            masks.append(mask.astype(np.uint8) * 255)
    return np.array(boxes, np.float32).reshape(-1, 4), np.array(kept, np.int64), _stacked(masks)


def _emptied(example: Example, rng: random.Random) -> Image.Image:
    """A piece of a frame in which textures cover its objects."""
    frame = Image.open(io.BytesIO(example.jpeg)).convert("RGB")
    mask = Image.open(io.BytesIO(example.owners)).point([0, *[255] * 255]).filter(ImageFilter.MaxFilter(7))
    frame = Image.composite(_texture(rng, frame.size), frame, mask.filter(ImageFilter.BoxBlur(3)))
    height = rng.randint(frame.height * 5 // 9, frame.height)
    width = min(frame.width, height * CROP_PX[0] // CROP_PX[1])
    x, y = rng.randint(0, frame.width - width), rng.randint(0, frame.height - height)
    return frame.crop((x, y, x + width, y + height)).resize(CROP_PX, _BILINEAR)


def _recoloured(picture: Image.Image, rng: random.Random) -> Image.Image:
    """Other hues, for held-out scenes have others; other saturation, contrast and brightness: one matrix for all."""
    turn = rng.uniform(0, 2 * math.pi) if rng.random() < 0.8 else 0.0
    across = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    hue = math.cos(turn) * np.eye(3) + (1 - math.cos(turn)) / 3 + math.sin(turn) * across  # about the grey axis
    saturation, contrast, brightness = rng.uniform(0.6, 1.4), rng.uniform(0.6, 1.4), rng.uniform(0.7, 1.3)
    grey = np.tile([0.299, 0.587, 0.114], (3, 1))
    matrix = (saturation * np.eye(3) + (1 - saturation) * grey) @ hue * contrast * brightness
    shift = (1 - contrast) * 0.45 * brightness * 255
    return picture.convert("RGB", tuple(np.column_stack([matrix, [shift] * 3]).ravel().tolist()))


def _texture(rng: random.Random, size: tuple[int, int]) -> Image.Image:
    """Something that is no object: clouds, veins, patches, shards, planks, grain."""
    found = _toned(rng, _noise(rng, size))
    if rng.random() < 0.5:
        found = Image.blend(found, _toned(rng, _noise(rng, size)), rng.uniform(0.15, 0.6))
    if rng.random() < 0.3:
        _draw_shards(rng, found)
    if rng.random() < 0.2:
        _draw_planks(rng, found)
    if rng.random() < 0.4:
        grain = Image.frombytes("L", size, rng.randbytes(size[0] * size[1]))
        found = Image.blend(found, Image.merge("RGB", [grain] * 3), rng.uniform(0.02, 0.2))
    return found.filter(ImageFilter.BoxBlur(rng.uniform(0.3, 1.5))) if rng.random() < 0.4 else found


def _noise(rng: random.Random, size: tuple[int, int]) -> Image.Image:
    """Smooth grey noise of one to three scales, at times stretched along an axis."""
    cells = math.exp(rng.uniform(math.log(3), math.log(40)))
    stretch = math.exp(rng.choice((0, 0, rng.uniform(-1.25, 1.25))))
    found: Image.Image | None = None
    for octave in range(rng.randint(1, 3)):
        counts = (cells * 2**octave * stretch, cells * 2**octave / stretch)
        width, height = (min(side, max(2, round(count))) for side, count in zip(size, counts, strict=True))
        layer = Image.frombytes("L", (width, height), rng.randbytes(width * height))
        layer = layer.resize(size, Image.Resampling.BICUBIC)
        found = layer if found is None else Image.blend(found, layer, rng.uniform(0.2, 0.5))
    assert found is not None
    return found


def _toned(rng: random.Random, grey: Image.Image) -> Image.Image:
    """Grey in colours: a gradient, veins where it passes certain values, or patches."""
    kind = rng.choice(("gradient", "veins", "patches"))
    first, second, line = (_colour(rng) for _ in range(3))
    every, width, shift = rng.choice((256, 128, 64, 32)), rng.uniform(0.03, 0.25), rng.uniform(0, 256)
    patches = [_colour(rng) for _ in range(rng.randint(2, 6))]
    edges = [rng.uniform(70, 185) for _ in patches[1:]]
    levels = []
    for value in range(256):
        level = tuple(a + (b - a) * value // 255 for a, b in zip(first, second, strict=True))
        if kind == "veins" and abs((value + shift) % every - every / 2) < width * every:
            level = line
        elif kind == "patches":
            level = patches[sum(value > edge for edge in edges)]
        levels.append(level)
    return Image.merge("RGB", [grey.point([level[channel] for level in levels]) for channel in range(3)])


def _colour(rng: random.Random) -> tuple[int, int, int]:
    middle = rng.uniform(30, 230)
    red, green, blue = (int(min(255, max(0, rng.gauss(middle, 45)))) for _ in range(3))
    return red, green, blue


def _draw_shards(rng: random.Random, picture: Image.Image) -> None:
    pen, (width, height) = ImageDraw.Draw(picture), picture.size
    for _ in range(rng.randint(3, 60)):
        x, y, spread = rng.uniform(0, width), rng.uniform(0, height), math.exp(rng.uniform(1.2, 4.5))
        points = [(rng.gauss(x, spread), rng.gauss(y, spread)) for _ in range(rng.choice((2, 3, 3, 4)))]
        if len(points) == 2:
            pen.line(points, fill=_colour(rng), width=rng.randint(1, 8))
        else:
            pen.polygon(points, fill=_colour(rng))


def _draw_planks(rng: random.Random, picture: Image.Image) -> None:
    pen, (width, height) = ImageDraw.Draw(picture), picture.size
    step, line, colour, y = rng.uniform(10, 80), rng.randint(1, 3), _colour(rng), 0.0
    while y < height:
        pen.line((0, y, width, y), fill=colour, width=line)
        for _ in range(rng.randint(0, 5)):
            x = rng.uniform(0, width)
            pen.line((x, y, x, y + step), fill=colour, width=line)
        y += step * rng.uniform(0.8, 1.2)
