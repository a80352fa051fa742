"""Textured worlds for the camera to move over. Training and held-out scenes share no kind of background."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from ._scene_palettes import Colour, Palette, Split, shade

Field = npt.NDArray[np.floating]
_Painter = Callable[[np.random.Generator, Palette, int, int, int], Image.Image]


def make_background(
    rng: np.random.Generator,
    palette: Palette,
    *,
    split: Split,
    kind: int,
    width_px: int,
    height_px: int,
    horizon_px: int,
) -> Image.Image:
    """A picture of the whole world; the ground begins at `horizon_px`. The kinds of a split take turns."""
    kinds = KINDS[split]
    return kinds[kind % len(kinds)](rng, palette, width_px, height_px, horizon_px)


def noise(rng: np.random.Generator, width: int, height: int, *, cell: float, octaves: int, stretch: float = 1) -> Field:
    """Smooth noise from 0 to 1; `cell` is the coarsest grain in pixels, `stretch` draws it out sideways."""
    total = np.zeros((height, width), np.float32)
    weight, weights = 1.0, 0.0
    for _ in range(octaves):
        columns, rows = max(2, int(width / (cell * stretch)) + 2), max(2, int(height / cell) + 2)
        grid = Image.fromarray(rng.random((rows, columns), np.float32))
        total += weight * np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC))
        weights += weight
        weight, cell = weight * 0.55, max(cell / 2.3, 1.5)
    return np.clip((total / weights - 0.5) * 1.6 + 0.5, 0, 1)


def _mapped(field: Field, colours: list[Colour]) -> Image.Image:
    """A field from 0 to 1 as colours, evenly spaced along it."""
    stops = np.linspace(0, 255, len(colours))
    table = [np.interp(np.arange(256), stops, [c[k] for c in colours]) for k in range(3)]
    index = (field * 255).astype(np.uint8)
    return Image.fromarray(np.rint(np.stack(table, axis=1)).astype(np.uint8)[index])


def _ramp(palette: Palette, rng: np.random.Generator, low: float, high: float, count: int = 3) -> list[Colour]:
    return [palette.ground(rng, light=light) for light in np.linspace(low, high, count)]


def _textured(image: Image.Image, rng: np.random.Generator, *, strength: float) -> Image.Image:
    """The image with grain, so that no part of it is flat."""
    grain = noise(rng, image.width, image.height, cell=6, octaves=2) - 0.5
    pixels = np.asarray(image, np.float32) * (1 + 2 * strength * grain[..., None])
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _sky(rng: np.random.Generator, palette: Palette, width: int, height: int) -> Image.Image:
    clouds = noise(rng, width, height, cell=110, octaves=4, stretch=2)
    slope = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    return _mapped(np.clip(0.45 * clouds + 0.55 * slope, 0, 1), _ramp(palette, rng, 0.6, 0.98))


def _ground(rng: np.random.Generator, palette: Palette, width: int, height: int) -> Image.Image:
    field = noise(rng, width, height, cell=60, octaves=5, stretch=rng.uniform(1, 4))
    return _mapped(field, _ramp(palette, rng, rng.uniform(0.15, 0.35), rng.uniform(0.5, 0.8)))


def _meadow(rng: np.random.Generator, palette: Palette, width: int, height: int, horizon: int) -> Image.Image:
    world = _ground(rng, palette, width, height)
    world.paste(_sky(rng, palette, width, horizon))
    draw = ImageDraw.Draw(world)
    for _ in range(width * (height - horizon) // 500):  # tufts
        x, y = int(rng.integers(width)), int(rng.integers(horizon, height))
        size = 2 + 7 * (y - horizon) / height
        colour = palette.ground(rng, light=rng.uniform(0.2, 0.7))
        draw.line([x, y, x + rng.uniform(-2, 2), y - size], fill=colour, width=1)
    return world


def _bricks(rng: np.random.Generator, palette: Palette, width: int, height: int, horizon: int) -> Image.Image:
    world = Image.new("RGB", (width, height), palette.ground(rng, light=rng.uniform(0.5, 0.8)))
    draw = ImageDraw.Draw(world)
    row, column = int(rng.integers(10, 26)), int(rng.integers(26, 64))
    base = palette.ground(rng, light=rng.uniform(0.3, 0.7))
    for k, y in enumerate(range(0, height, row)):
        for x in range(-(k % 2) * column // 2, width, column):
            draw.rectangle([x, y, x + column - 3, y + row - 3], fill=shade(base, rng.uniform(0.75, 1.25)))
    world.paste(_ground(rng, palette, width, height - horizon), (0, horizon))
    return _textured(world, rng, strength=0.2)


def _tiles(rng: np.random.Generator, palette: Palette, width: int, height: int, horizon: int) -> Image.Image:
    side = int(rng.integers(24, 80))
    colours = _ramp(palette, rng, rng.uniform(0.25, 0.5), rng.uniform(0.5, 0.9), 2)
    world = Image.new("RGB", (width, height), shade(colours[0], 0.6))
    draw = ImageDraw.Draw(world)
    for row, y in enumerate(range(0, height, side)):
        for column, x in enumerate(range(0, width, side)):
            colour = shade(colours[(row + column) % 2], rng.uniform(0.85, 1.1))
            draw.rectangle([x, y, x + side - 2, y + side - 2], fill=colour)
    return _textured(world, rng, strength=0.15)


def _pebbles(rng: np.random.Generator, palette: Palette, width: int, height: int, horizon: int) -> Image.Image:
    world = Image.new("RGB", (width, height), palette.ground(rng, light=0.25))
    draw = ImageDraw.Draw(world)
    colours = _ramp(palette, rng, 0.3, 0.85, 6)
    size = rng.uniform(7, 22)
    for _ in range(int(width * height / size**2 * 0.9)):
        x, y, r, squash = rng.uniform(0, width), rng.uniform(0, height), size * rng.uniform(0.4, 1), rng.uniform(0.5, 1)
        draw.ellipse([x - r, y - r * squash, x + r, y + r * squash], fill=colours[rng.integers(6)])
    return _textured(world, rng, strength=0.2)


def _street(rng: np.random.Generator, palette: Palette, width: int, height: int, horizon: int) -> Image.Image:
    world = _ground(rng, palette, width, height)
    draw = ImageDraw.Draw(world)
    x = 0
    while x < width:  # houses
        house = int(rng.integers(60, 180))
        wall, roof = palette.ground(rng, light=rng.uniform(0.35, 0.85)), int(horizon * rng.uniform(0, 0.6))
        draw.rectangle([x, 0, x + house, roof], fill=palette.ground(rng, light=0.85))
        draw.rectangle([x, roof, x + house, horizon], fill=wall)
        step = int(rng.integers(18, 34))
        for wx in range(x + 8, x + house - step // 2, step):
            for wy in range(roof + 8, horizon - step, step + 4):
                light = rng.choice([0.15, 0.3, 0.8])
                draw.rectangle([wx, wy, wx + step // 2, wy + step * 2 // 3], fill=palette.ground(rng, light=light))
        x += house
    lane = (horizon + height) // 2
    dash = palette.ground(rng, light=0.95)
    for left in range(0, width, 70):
        draw.rectangle([left, lane, left + 34, lane + 4], fill=dash)
    return _textured(world, rng, strength=0.2)


def _planks(rng: np.random.Generator, palette: Palette, width: int, height: int, horizon: int) -> Image.Image:
    board = int(rng.integers(18, 56))
    grain = noise(rng, width, height, cell=14, octaves=4, stretch=14)
    light = np.repeat(rng.uniform(-0.2, 0.2, height // board + 1), board)[:height, None].astype(np.float32)
    world = _mapped(np.clip(grain + light, 0, 1), _ramp(palette, rng, 0.25, 0.8))
    draw = ImageDraw.Draw(world)
    for y in range(0, height, board):
        draw.line([0, y, width, y], fill=palette.ground(rng, light=0.12), width=2)
        x = int(rng.integers(width))
        draw.line([x, y, x, y + board], fill=palette.ground(rng, light=0.12), width=2)
    return world


def _marble(rng: np.random.Generator, palette: Palette, width: int, height: int, horizon: int) -> Image.Image:
    warp = noise(rng, width, height, cell=130, octaves=5)
    x = np.linspace(0, width / 60, width, dtype=np.float32)[None, :]
    y = np.linspace(0, height / 60, height, dtype=np.float32)[:, None]
    veins = np.abs(np.sin(rng.uniform(0.3, 1) * x + rng.uniform(0.3, 1) * y + 9 * warp))
    return _mapped(np.sqrt(veins), _ramp(palette, rng, 0.2, 0.9, 4))


def _hills(rng: np.random.Generator, palette: Palette, width: int, height: int, horizon: int) -> Image.Image:
    world = _sky(rng, palette, width, height)
    draw = ImageDraw.Draw(world)
    layers = 6
    for k in range(layers):
        level = horizon * 0.5 + (height - horizon * 0.5) * k / layers
        ridge = noise(rng, width, 8, cell=150 / (1 + 0.3 * k), octaves=3)[0]
        heights = level - (ridge - 0.3) * height * 0.22
        outline = [(x, float(heights[x])) for x in range(0, width, 2)]
        draw.polygon([(0, height), *outline, (width, height)], fill=palette.ground(rng, light=0.75 - 0.1 * k))
    return _textured(world, rng, strength=0.25)


def _mosaic(rng: np.random.Generator, palette: Palette, width: int, height: int, horizon: int) -> Image.Image:
    world = Image.new("RGB", (width, height), palette.ground(rng, light=0.4))
    draw = ImageDraw.Draw(world)
    size = rng.uniform(18, 60)
    for _ in range(int(width * height / size**2 * 2)):
        x, y = rng.uniform(-size, width), rng.uniform(-size, height)
        shifts = rng.uniform(-size, size, (int(rng.integers(3, 5)), 2))
        draw.polygon(
            [(x + float(dx), y + float(dy)) for dx, dy in shifts], fill=palette.ground(rng, light=rng.uniform(0.2, 0.9))
        )
    return _textured(world, rng, strength=0.2)


def _dunes(rng: np.random.Generator, palette: Palette, width: int, height: int, horizon: int) -> Image.Image:
    warp = noise(rng, width, height, cell=120, octaves=3, stretch=2)
    y = np.linspace(0, height / rng.uniform(7, 20), height, dtype=np.float32)[:, None]
    waves = 0.5 + 0.5 * np.sin(y + 14 * warp)
    world = _mapped(0.65 * waves + 0.35 * warp, _ramp(palette, rng, 0.35, 0.85))
    world.paste(_sky(rng, palette, width, horizon))
    return world


KINDS: dict[Split, tuple[_Painter, ...]] = {
    "train": (_meadow, _bricks, _tiles, _pebbles, _street),
    "held_out": (_planks, _marble, _hills, _mosaic, _dunes),
}
