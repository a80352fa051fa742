"""Shapes as files have them become instances of the upright full-size frame, or it is said what is wrong with them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask

from .resize_rle import resize_rle
from .rle import Rle, decode_mask, encode_mask, fill_runs
from .upright import Orientation

OUTSIDE_PX = 1.0
"""So far may a shape reach beyond its picture: tools round, and nothing is clipped."""
MAX_PIXELS = 1 << 28
MAX_OUTLINE_PX = 1 << 21
_COCO: Any = mask  # its stubs know less than it takes


class ShapeError(ValueError):
    """Something is wrong with one shape: `reason` in one word, and a message for people."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


@dataclass(frozen=True, kw_only=True)
class Canvas:
    """The picture that coordinates are of, `width_px` x `height_px` as it is stored, and how it is turned upright.

    `scale` is what they are multiplied by to be pixels of it; `drawn_px` the (width, height) at which masks were drawn
    and areas counted, where that was another.
    """

    width_px: int
    height_px: int
    turn: Orientation
    scale: tuple[float, float] = (1.0, 1.0)
    drawn_px: tuple[int, int] | None = None

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height of the upright picture."""
        return self.turn.size(self.width_px, self.height_px)

    def pixels(self, x: float, y: float) -> tuple[float, float]:
        """A point in pixels of the picture as it is stored. Raises ShapeError."""
        if not (math.isfinite(x) and math.isfinite(y)):
            raise ShapeError("not_finite", f"the point ({x}, {y}) is none; allowed are finite numbers")
        return x * self.scale[0], y * self.scale[1]

    def inside(self, x: float, y: float, *, what: str) -> None:
        """Raises ShapeError for a point too far outside."""
        far = max(-x, -y, x - self.width_px, y - self.height_px)
        if far > OUTSIDE_PX:
            raise ShapeError(
                f"{what}_outside",
                f"the {what} reaches ({x:g}, {y:g}), {far:g} px beyond the picture of {self.width_px} x "
                f"{self.height_px}; allowed is up to {OUTSIDE_PX:g} px",
            )

    def upright(self, x: float, y: float) -> tuple[float, float]:
        """A point of the stored picture in the upright one."""
        return self.turn.point(x, y, width=self.width_px, height=self.height_px)


def instance(shape: Mapping[str, Any], canvas: Canvas) -> dict[str, Any]:
    """A shape (`annotation_types.Shape`, as JSON has it) as an instance of table `annotations`. Raises ShapeError."""
    polygons = [_polygon(points, canvas) for points in shape.get("polygons") or ()]
    runs = shape.get("mask")
    drawn = _mask(runs, canvas) if runs else _drawn(polygons, canvas)
    box = _box(shape["box"], canvas) if shape.get("box") else _box_around(polygons, drawn)
    area_px = None if drawn is None else int(_COCO.area(_bytes(drawn)))
    if area_px == 0:
        raise ShapeError("mask_empty", "the mask, or what its polygons enclose, has no pixel")
    return {
        "label_id": shape.get("label_id"),
        "label": shape["label"],
        "box": dict(zip(("x_min", "y_min", "x_max", "y_max"), box, strict=True)),
        "area_px": area_px,
        "mask": drawn,
        "annotation_id": shape.get("id"),
        "iscrowd": bool(shape.get("is_crowd")),
        "area": _area(shape.get("area_px"), canvas),
        "polygons": polygons or None,
        "keypoints": _keypoints(shape.get("keypoints"), canvas),
        "track_id": shape.get("track_id"),
        "attributes": [*shape.get("attributes", {}).items()],
    }


def _box(edges: Sequence[float], canvas: Canvas) -> tuple[float, float, float, float]:
    first, last = canvas.pixels(edges[0], edges[1]), canvas.pixels(edges[2], edges[3])
    width, height = last[0] - first[0], last[1] - first[1]
    if width <= 0 or height <= 0:
        raise ShapeError("box_empty", f"the box is {width:g} x {height:g} px; allowed are boxes with an area")
    canvas.inside(*first, what="box")
    canvas.inside(*last, what="box")
    return _edges([canvas.upright(*first), canvas.upright(*last)])


def _edges(points: Sequence[tuple[float, float]]) -> tuple[float, float, float, float]:
    xs, ys = zip(*points, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def _polygon(numbers: Sequence[float], canvas: Canvas) -> list[float]:
    if len(numbers) < 6 or len(numbers) % 2:
        raise ShapeError(
            "polygon_invalid", f"a polygon of {len(numbers)} numbers; allowed are x and y of at least three points"
        )
    points = [canvas.pixels(*numbers[place : place + 2]) for place in range(0, len(numbers), 2)]
    for point in points:
        canvas.inside(*point, what="polygon")
    return [number for point in points for number in canvas.upright(*point)]


def _drawn(polygons: Sequence[list[float]], canvas: Canvas) -> Rle | None:
    """The pixels that polygons enclose, as COCO's own code draws them."""
    if not polygons:
        return None
    width, height = canvas.upright_size
    _check_size(width, height)
    _check_length(polygons)
    return _text(_COCO.merge(_COCO.frPyObjects([*polygons], height, width)))


def _check_length(polygons: Sequence[Sequence[float]]) -> None:
    """Raises ShapeError for outlines so long that drawing them takes gigabytes: it steps along every edge."""
    length = 0.0
    for polygon in polygons:
        points = np.asarray(polygon).reshape(-1, 2)
        length += np.abs(points - np.roll(points, 1, axis=0)).max(axis=1).sum() + len(points)
    if length > MAX_OUTLINE_PX:
        raise ShapeError(
            "polygon_too_long", f"the polygons' edges are {length:.0f} px long; allowed are up to {MAX_OUTLINE_PX}"
        )


def _mask(runs: Sequence[Any], canvas: Canvas) -> Rle:
    height, width, counts = runs
    wanted = canvas.drawn_px or (canvas.width_px, canvas.height_px)
    if (width, height) != wanted:
        raise ShapeError(
            "mask_misfit", f"the mask is {width} x {height}, its picture {wanted[0]} x {wanted[1]}; they must be alike"
        )
    _check_size(width, height)
    try:
        pixels = (
            decode_mask({"size": [height, width], "counts": counts})
            if isinstance(counts, str)
            else fill_runs(counts, size=(height, width))
        )
    except (ValueError, OverflowError) as error:
        raise ShapeError("mask_invalid", f"the mask's runs are none: {error}") from None
    mask = encode_mask(canvas.turn.apply(pixels))
    width, height = canvas.upright_size
    return resize_rle(mask, size=(height, width)) if canvas.drawn_px else mask


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ShapeError("mask_too_large", f"a mask of {width} x {height}; allowed are {MAX_PIXELS} pixels")


def _box_around(polygons: Sequence[list[float]], drawn: Rle | None) -> tuple[float, float, float, float]:
    if polygons:
        box = _edges([(p[place], p[place + 1]) for p in polygons for place in range(0, len(p), 2)])
        if box[0] == box[2] or box[1] == box[3]:
            raise ShapeError(
                "polygon_invalid", "all points of the polygons lie on a line; allowed are such with an area"
            )
        return box
    if drawn is None:
        raise ShapeError("shape_missing", "an annotation wants a box, polygons or a mask")
    x, y, width, height = (float(number) for number in _COCO.toBbox(_bytes(drawn)))
    return x, y, x + width, y + height


def _area(value: float | None, canvas: Canvas) -> float | None:
    if value is not None and not math.isfinite(value):
        raise ShapeError("not_finite", f"area is {value}; allowed are finite numbers")
    if value is None or canvas.drawn_px is None:
        return value
    return value * canvas.scale[0] * canvas.scale[1]


def _keypoints(points: Sequence[Sequence[Any]] | None, canvas: Canvas) -> list[dict[str, Any]] | None:
    """Points in the upright picture; those that are not labelled are at (0, 0) in COCO, and stay as they are."""
    if points is None:
        return None
    return [{"name": n, **_place(x, y, v, canvas), "visibility": v} for n, x, y, v in points]


def _place(x: float, y: float, visibility: int, canvas: Canvas) -> dict[str, float]:
    at = canvas.pixels(x, y)
    return dict(zip("xy", canvas.upright(*at) if visibility else at, strict=True))


def _text(rle: Any) -> Rle:
    return {"size": [int(n) for n in rle["size"]], "counts": rle["counts"].decode("ascii")}


def _bytes(rle: Rle) -> Any:
    return {"size": rle["size"], "counts": rle["counts"].encode("ascii")}


def instances(
    shapes: Sequence[Mapping[str, Any]], canvas: Canvas
) -> Iterator[tuple[Mapping[str, Any], dict[str, Any] | ShapeError]]:
    """Each shape with its instance, or what is wrong with it."""
    for shape in shapes:
        try:
            yield shape, instance(shape, canvas)
        except ShapeError as error:
            yield shape, error
