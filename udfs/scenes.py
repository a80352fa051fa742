"""Generated scenes with exact truth: moving things of five classes before changing backgrounds, from a seed.

A scene is a function of its seed, its index and its size alone, and a frame of the scene a function of the time; no
file and no encoder is needed, so that a training script can draw as many as it wants:

    for frame in render_scene(seed=0, index=7, times_s=[0.0, 0.5, 1.0]):
        frame.pixels, frame.objects

What the truth says:
- `mask` is where the object covers at least half of a pixel and nothing nearer does, at the middle of the exposure:
  before blur, noise and compression. `box` holds exactly the mask (a modal box); its edges are pixel edges.
- `full_box` holds the whole object as if nothing hid it, and may reach beyond the picture (an amodal box).
- `visibility` is the seen share of the whole object's pixels: less than 1 behind others and at the picture's edge.
- Objects of which no pixel is seen are not listed. One that comes back has the same `track_id`.
- `camera`: a point of the background that was at `p` in the frame before is now at `c + (p - c) * zoom + (dx, dy)`,
  `c` being the picture's centre. The first frame has (0, 0, 1).
- Things that are not of a class (rings, boats, boards, cones, trees, fences ...) are there to be mistaken for them, or
  to hide them, and are not in the truth.

Held-out scenes (`split="held_out"`) have other hues and other kinds of background than those for training, and no
scene of one split equals one of the other for any seed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from math import ceil, cos, floor, hypot, sin

import numpy as np
import numpy.typing as npt
from PIL import Image

from ._scene_actors import LABELS, MAX_SIZE_PX, MIN_SIZE_PX, Actor, Pose, make_actors
from ._scene_backgrounds import make_background
from ._scene_camera import MAX_PAN, MIN_ZOOM, Camera, Lens, Light, Pixels, View
from ._scene_canvas import SPAN
from ._scene_layers import OPAQUE, Box, Window, blend, shadow, smeared, tight_box
from ._scene_palettes import SPLITS, Palette, Split
from .rle import Rle, encode_mask

__all__ = [
    "LABELS",
    "SPLITS",
    "CameraMotion",
    "Pixels",
    "Scene",
    "SceneFrame",
    "SceneObject",
    "Split",
    "render_scene",
]


@dataclass(frozen=True, kw_only=True)
class SceneObject:
    """One labelled object in one frame; boxes are x_min, y_min, x_max, y_max in pixels."""

    track_id: int
    label: str
    box: Box
    full_box: Box
    visibility: float
    mask: Rle

    @property
    def label_id(self) -> int:
        """Position of the label in `LABELS`."""
        return LABELS.index(self.label)


@dataclass(frozen=True, kw_only=True)
class CameraMotion:
    """How the background moved since the frame before, in pixels and as a factor."""

    dx: float
    dy: float
    zoom: float


@dataclass(frozen=True, kw_only=True)
class SceneFrame:
    """A rendered frame (height x width x RGB) and its truth."""

    time_s: float
    pixels: Pixels
    objects: tuple[SceneObject, ...]
    camera: CameraMotion


class Scene:
    """One scene. `index` numbers the scenes of a seed; `plain` leaves out light, shadows, blur and noise.

    Raises `ValueError` for an unknown split or a picture smaller than 48 px on a side.
    """

    def __init__(
        self,
        seed: int,
        index: int = 0,
        *,
        split: Split = "train",
        width_px: int = 640,
        height_px: int = 360,
        plain: bool = False,
    ) -> None:
        if split not in SPLITS:
            raise ValueError(f"split is {split!r}; allowed: {', '.join(SPLITS)}")
        if min(width_px, height_px) < 48:
            raise ValueError(f"a scene of {width_px} x {height_px} px is too small; at least 48 px on each side")
        self.width_px, self.height_px, self.plain = width_px, height_px, plain
        self._key = (seed, index, SPLITS.index(split))
        rng = np.random.default_rng(self._key)
        self._split: Split = split
        self._palette = Palette(rng, split=split)
        self._horizon = rng.uniform(-0.42, 0.0) * height_px
        self._camera = Camera(rng, width_px=width_px, height_px=height_px)
        self._light = Light(rng, width_px=width_px, height_px=height_px)
        self._lens = Lens(rng)
        actors = make_actors(rng, self._palette, width_px=width_px, height_px=height_px, horizon=self._horizon)
        self._actors = tuple(actors)

    def frame(self, time_s: float, *, previous_s: float | None = None, without: Iterable[int] = ()) -> SceneFrame:
        """The scene at `time_s`; camera motion counts from `previous_s`. Tracks in `without` are not drawn."""
        view = self._camera.view(time_s)
        pixels = np.array(self._backdrop(view))
        owners = np.full((self.height_px, self.width_px), -1, np.int16)
        left_out = set(without)
        windows: dict[int, Window] = {}
        for k, actor in enumerate(self._actors):
            if k + 1 in left_out:
                continue
            if not self.plain:
                self._cast_shadow(pixels, actor, time_s, view)
            window = self._draw(actor, time_s, view)
            if window is None:
                continue
            windows[k] = window
            self._paste(pixels, owners, window, k, blur=(0.0, 0.0) if self.plain else self._smear(actor, time_s))
        if not self.plain:
            pixels = self._light.shine(pixels, time_s)
            pixels = self._lens.expose(pixels, np.random.default_rng([*self._key, round(abs(time_s) * 1e6)]))
        seen = (self._truth(k, self._actors[k], window, owners) for k, window in windows.items())
        before = view if previous_s is None else self._camera.view(previous_s)
        return SceneFrame(
            time_s=time_s,
            pixels=pixels,
            objects=tuple(one for one in seen if one),
            camera=CameraMotion(
                dx=(before.x - view.x) * view.zoom, dy=(before.y - view.y) * view.zoom, zoom=view.zoom / before.zoom
            ),
        )

    @cached_property
    def _world(self) -> Image.Image:
        spare = 1 / MIN_ZOOM + 2.2 * MAX_PAN
        width, height = ceil(self.width_px * spare), ceil(self.height_px * spare)
        horizon = round(height / 2 + self._horizon)
        rng = np.random.default_rng([*self._key, 1])
        return make_background(
            rng,
            self._palette,
            split=self._split,
            kind=self._key[0] + self._key[1],  # neighbours differ, so that a small sample has each kind
            width_px=width,
            height_px=height,
            horizon_px=horizon,
        )

    def _backdrop(self, view: View) -> Image.Image:
        half_x, half_y = self.width_px / 2 / view.zoom, self.height_px / 2 / view.zoom
        x, y = self._world.width / 2 + view.x, self._world.height / 2 + view.y
        box = (x - half_x, y - half_y, x + half_x, y + half_y)
        return self._world.resize((self.width_px, self.height_px), Image.Resampling.BILINEAR, box=box)

    def _place(self, x: float, y: float, view: View) -> tuple[float, float]:
        """Where a point of the world is in the picture."""
        return (x - view.x) * view.zoom + self.width_px / 2, (y - view.y) * view.zoom + self.height_px / 2

    def _draw(self, actor: Actor, time_s: float, view: View) -> Window | None:
        pose = actor.pose(time_s)
        side = _seen_size(pose, view) / SPAN
        x, y = self._place(pose.x, pose.y, view)
        c, s = cos(pose.angle), sin(pose.angle)
        half = side / 2 * (abs(c) + abs(s)) + 1
        left, top, right, bottom = floor(x - half), floor(y - half), ceil(x + half), ceil(y + half)
        if right <= 0 or bottom <= 0 or left >= self.width_px or top >= self.height_px:
            return None
        drawing = actor.drawing(pose.phase, side)
        ratio, middle = drawing.width / side, drawing.width / 2
        # From the picture's pixels back to the drawing's: shifted to its centre, turned back, scaled, mirrored.
        a, b, d, e = c * ratio, s * ratio, -s * ratio, c * ratio
        if pose.flip:
            a, b = -a, -b
        across, down = left - x, top - y
        matrix = (a, b, a * across + b * down + middle, d, e, d * across + e * down + middle)
        size = (right - left, bottom - top)
        image = drawing.transform(size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
        return Window(left=left, top=top, rgba=np.asarray(image))

    def _smear(self, actor: Actor, time_s: float) -> tuple[float, float]:
        """How far the actor moves in the picture while the shutter is open, in pixels."""
        half = self._lens.shutter_s / 2
        ends = []
        for moment in (time_s - half, time_s + half):
            pose, view = actor.pose(moment), self._camera.view(moment)
            ends.append(self._place(pose.x, pose.y, view))
        most = 0.08 * actor.pose(time_s).size
        dx, dy = ends[1][0] - ends[0][0], ends[1][1] - ends[0][1]
        shrink = min(1.0, most / max(hypot(dx, dy), 1e-9))
        return dx * shrink, dy * shrink

    def _paste(
        self, pixels: Pixels, owners: npt.NDArray[np.int16], window: Window, k: int, *, blur: tuple[float, float]
    ) -> None:
        rows, columns, inside = window.clip(self.width_px, self.height_px)
        sharp = window.rgba[inside]
        owners[rows, columns][sharp[..., 3] >= OPAQUE] = k
        blend(pixels[rows, columns], smeared(window.rgba, blur)[inside])

    def _cast_shadow(self, pixels: Pixels, actor: Actor, time_s: float, view: View) -> None:
        """A dark patch on the ground below the actor: part of the background, not of the object."""
        x, y = self._place(*actor.base(time_s), view)
        width = _seen_size(actor.pose(time_s), view) * 0.6
        size = max(4, round(width)), max(3, round(width * 0.18))
        left, top = round(x - size[0] / 2), round(y - size[1] / 2)
        if left >= self.width_px or top >= self.height_px or left + size[0] <= 0 or top + size[1] <= 0:
            return
        window = Window(left=left, top=top, rgba=np.asarray(shadow().resize(size, Image.Resampling.BILINEAR)))
        rows, columns, inside = window.clip(self.width_px, self.height_px)
        blend(pixels[rows, columns], window.rgba[inside])

    def _truth(self, k: int, actor: Actor, window: Window, owners: npt.NDArray[np.int16]) -> SceneObject | None:
        if actor.label is None:
            return None
        rows, columns, _ = window.clip(self.width_px, self.height_px)
        mask = owners[rows, columns] == k
        box = tight_box(mask, left=columns.start, top=rows.start)
        whole = window.rgba[..., 3] >= OPAQUE
        full_box = tight_box(whole, left=window.left, top=window.top)
        if box is None or full_box is None:
            return None
        x0, y0, x1, y1 = (int(edge) for edge in box)
        seen = mask[y0 - rows.start : y1 - rows.start, x0 - columns.start : x1 - columns.start]
        return SceneObject(
            track_id=k + 1,
            label=actor.label,
            box=box,
            full_box=full_box,
            visibility=int(seen.sum()) / int(whole.sum()),
            mask=encode_mask(seen, size=(self.height_px, self.width_px), offset=(y0, x0)),
        )


def render_scene(
    seed: int,
    index: int = 0,
    *,
    times_s: Iterable[float],
    split: Split = "train",
    width_px: int = 640,
    height_px: int = 360,
    plain: bool = False,
) -> Iterator[SceneFrame]:
    """The frames of a scene at the given times; see `Scene` for the rest and for what it raises."""
    scene = Scene(seed, index, split=split, width_px=width_px, height_px=height_px, plain=plain)
    previous_s: float | None = None
    for time_s in times_s:
        yield scene.frame(time_s, previous_s=previous_s)
        previous_s = time_s


def _seen_size(pose: Pose, view: View) -> float:
    """The longest side in the picture, in pixels, held within the sizes that are promised."""
    most = MAX_SIZE_PX / (abs(cos(pose.angle)) + abs(sin(pose.angle)))
    return min(max(pose.size * view.zoom, MIN_SIZE_PX), most)
