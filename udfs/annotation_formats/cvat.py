"""CVAT's XML 1.1: "CVAT for images" lists pictures with their shapes, "CVAT for video" tracks with theirs by frame.

The format is what https://docs.cvat.ai/docs/other/xml_format describes, and what CVAT itself writes. Coordinates are
in pixels from the left and upper edge. The file is read as a stream, so its size does not matter.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from .. import uris
from ..annotation_types import AnnotationError, Box, Picture, Problem, Runs, Said, Shape
from ..rle import encode_mask
from ._xml import Elements, Invalid, number, problem, safe_name, shown, size, start_tag, text_of, whole

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

FILES: tuple[str, ...] = ("*.xml",)
MAX_ELEMENT_BYTES = 16 << 20
"""So much text may one shape have, or <meta>."""
MAX_TAG_CHARACTERS = 1 << 20
"""So much text may all tags of a picture have."""
MAX_FRAMES = 10_000_000
MAX_MASK_PIXELS = 100_000_000
"""So many pixels may a picture with a mask have."""

_STEP = re.compile(r"step=([0-9]{1,9})")
_PICTURE_ENTRIES = ("subset", "task_id")
_SHAPE_ENTRIES = ("occluded", "z_order", "source", "group_id", "keyframe")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Canvas:
    """What shapes must know of the picture they are on."""

    key: str
    width_px: int | None
    height_px: int | None


def read(uri: str) -> Iterator[Said]:
    """What a file says: pictures and their shapes, boxes as edges in pixels, nothing clipped.

    Of a video there is a picture for each frame that its task covers, by the frame's number in the video; where the
    task does not tell which these are, for each frame with a shape. CVAT does not write which frames were deleted.
    Raises AnnotationError, OSError.
    """
    with uris.open_input(uri) as stream:
        elements = Elements(stream, limit_bytes=MAX_ELEMENT_BYTES, what="an element")
        root = elements.root()
        if root.tag != "annotations":
            raise AnnotationError("not_cvat", f"its outermost element is {shown(root.tag)}; CVAT has <annotations>")
        yield from _file(uri, elements, root)


def _file(uri: str, elements: Elements, root: Element) -> Iterator[Said]:
    meta: Element | None = None
    video: _Video | None = None
    has_images = False
    for element in elements.children(root):
        if element.tag == "meta":
            meta = elements.finish(element)
        elif element.tag == "image":
            has_images = True
            yield from _image(uri, elements, element)
        elif element.tag == "track":
            if video is None:
                video = _Video(uri, meta)
                yield from video.pictures()
            yield from _track(video, elements, element)
    if not has_images and video is None:
        # A video on which nobody has marked anything.
        yield from _Video(uri, meta).pictures()


def _image(uri: str, elements: Elements, image: Element) -> Iterator[Said]:
    what, key = f"image {shown(image.get('id'))}", None
    try:
        key = _image_key(uri, image)
        name = safe_name(image.get("name"), "name")
    except Invalid as error:
        count = sum(1 for _ in elements.children(image))
        yield problem(error, start_tag(image), picture=key, what=f"{what}, and the {count} shapes and tags on it")
        return
    width_px = height_px = None
    try:
        width_px, height_px = (size(image.get(side), side) for side in ("width", "height"))
    except Invalid as error:
        yield problem(error, start_tag(image), picture=key, what=what)
    canvas = _Canvas(key=key, width_px=width_px, height_px=height_px)
    tags: dict[str, str] = {}
    yield from _shapes(elements, image, canvas, tags)
    entries = {entry: text for entry in _PICTURE_ENTRIES if (text := image.get(entry)) is not None}
    yield Picture(key=key, name=name, width_px=width_px, height_px=height_px, attributes={**entries, **tags})


def _image_key(uri: str, image: Element) -> str:
    own, task = image.get("id"), image.get("task_id")
    if not own:
        raise Invalid("id_invalid", "id is missing; allowed is text that is not empty")
    # In the export of a project, each subset counts its images from 0.
    return f"{uri}#{task}/{own}" if task else f"{uri}#{own}"


def _shapes(elements: Elements, image: Element, canvas: _Canvas, tags: dict[str, str]) -> Iterator[Shape | Problem]:
    """The shapes of an image; its tags go to `tags`."""
    held = 0
    for element in elements.children(image):
        elements.finish(element)
        try:
            if element.tag != "tag":
                yield _shape(element, element.attrib, canvas)
                continue
            found = _tag(element)
        except Invalid as error:
            what = f"image {shown(image.get('id'))}, {element.tag}"
            yield problem(error, element, picture=canvas.key, what=what)
            continue
        tags.update(found)
        # Other than shapes, tags are held until their image ends.
        held += sum(len(entry) + len(text) for entry, text in found.items())
        if held > MAX_TAG_CHARACTERS:
            raise AnnotationError(
                "too_large", f"the tags of an image have more than the {MAX_TAG_CHARACTERS} characters that are allowed"
            )


def _tag(element: Element) -> dict[str, str]:
    """What a tag comes to among the attributes of its picture. Raises Invalid."""
    name = f"tag:{_label(element.attrib)}"
    return {name: "true", **{f"{name}.{entry}": text for entry, text in _own_attributes(element).items()}}


def _track(video: _Video, elements: Elements, track: Element) -> Iterator[Said]:
    if "task_id" in track.attrib:
        raise _project()
    for element in elements.children(track):
        elements.finish(element)
        if element.get("outside") == "1":
            continue
        what, key = f"track {shown(track.get('id'))}, frame {shown(element.get('frame'))}", None
        try:
            frame = video.frame(element.get("frame"))
            yield from video.unseen(frame)
            canvas = video.canvas(frame)
            key = canvas.key
            yield _shape(element, {**track.attrib, **element.attrib}, canvas, track_id=track.get("id"))
        except Invalid as error:
            yield problem(error, element, picture=key, what=what)


class _Video:
    """The frames that a task covers; where it does not tell which, those that have a shape. Raises AnnotationError."""

    def __init__(self, uri: str, meta: Element | None) -> None:
        task = _task(meta)
        self._uri = uri
        try:
            self._name = safe_name(_entry("source", meta, task) or text_of(task, "name"), "source or name")
            self._size = tuple(size(_entry(f"original_size/{side}", meta, task), side) for side in ("width", "height"))
            frames = _frames(task)
        except Invalid as error:
            # Jobs, other than tasks, are exported without the name of their video.
            hint = "; export the whole task, not one of its jobs" if error.reason == "name_missing" else ""
            raise AnnotationError(error.reason, f"its <meta>: {error}{hint}") from None
        self._frames = range(MAX_FRAMES) if frames is None else frames
        self._seen = bytearray(MAX_FRAMES) if frames is None else None

    def pictures(self) -> Iterator[Picture]:
        """All frames that the task tells."""
        if self._seen is None:
            yield from map(self._picture, self._frames)

    def unseen(self, frame: int) -> Iterator[Picture]:
        """The picture of a frame that no other shape is on, where the task does not tell its frames."""
        if self._seen is not None and not self._seen[frame]:
            self._seen[frame] = 1
            yield self._picture(frame)

    def frame(self, text: str | None) -> int:
        """The number of a frame. Raises Invalid where the task does not cover it."""
        frame, frames = whole(text, "frame"), self._frames
        if frame not in frames:
            raise Invalid(
                "frame_out_of_range",
                f"frame is {frame}; allowed are those of the task, {frames[0]} to {frames[-1]} by {frames.step}",
            )
        return frame

    def canvas(self, frame: int) -> _Canvas:
        width_px, height_px = self._size
        return _Canvas(key=f"{self._uri}#{frame}", width_px=width_px, height_px=height_px)

    def _picture(self, frame: int) -> Picture:
        canvas = self.canvas(frame)
        return Picture(
            key=canvas.key,
            name=self._name,
            width_px=canvas.width_px,
            height_px=canvas.height_px,
            frame_index=frame,
        )


def _task(meta: Element | None) -> Element:
    if meta is not None and meta.find("project") is not None:
        raise _project()
    found = [] if meta is None else [each for each in meta if each.tag in ("task", "job")]
    if not found:
        raise AnnotationError(
            "not_cvat",
            "it has no images, and no <meta> with a <task> or <job> before its tracks, to say of what video",
        )
    return found[0]


def _project() -> AnnotationError:
    return AnnotationError(
        "unsupported", "it is of a project, whose tracks are on frames of several videos; export each task by itself"
    )


def _entry(path: str, meta: Element | None, task: Element) -> str:
    """An entry of the task; of jobs, and in older versions, some stand beside it."""
    return text_of(task, path) or ("" if meta is None else text_of(meta, path))


def _frames(task: Element) -> range | None:
    """The numbers of the frames that a task covers, None where it does not tell. Raises Invalid, AnnotationError."""
    start, stop, told = (text_of(task, entry) for entry in ("start_frame", "stop_frame", "frame_filter"))
    if not start or not stop:
        return None
    step = _STEP.fullmatch(told or "step=1")
    if not step or not int(step[1]):
        raise Invalid("number_invalid", f"frame_filter is {shown(told)}; allowed is such as step=5")
    first = whole(start, "start_frame")
    frames = range(first, whole(stop, "stop_frame", at_least=first) + 1, int(step[1]))
    if len(frames) > MAX_FRAMES:
        raise AnnotationError("too_large", f"its task covers {len(frames)} frames; allowed are up to {MAX_FRAMES}")
    return frames


def _shape(element: Element, entries: Mapping[str, str], canvas: _Canvas, *, track_id: str | None = None) -> Shape:
    """The shape of an element with these entries, its own or its track's. Raises Invalid."""
    if element.tag not in _GEOMETRIES:
        raise Invalid("unsupported_shape", f"it is a {shown(element.tag)}; supported are {', '.join(_GEOMETRIES)}")
    known = {entry: entries[entry] for entry in _SHAPE_ENTRIES if entry in entries}
    attributes = {**_own_attributes(element), **known}
    shape = Shape(picture=canvas.key, label=_label(entries), track_id=track_id, attributes=attributes)
    return _GEOMETRIES[element.tag](shape, entries, canvas)


def _label(entries: Mapping[str, str]) -> str:
    label = entries.get("label", "")
    if not label.strip():
        raise Invalid("label_missing", f"label is {shown(label)}; allowed is text that is not empty")
    return label


def _own_attributes(element: Element) -> dict[str, str]:
    """What annotators have said of it."""
    return {name: each.text or "" for each in element.findall("attribute") if (name := each.get("name"))}


def _box(shape: Shape, entries: Mapping[str, str], canvas: _Canvas) -> Shape:
    edges = Box(*(number(entries.get(entry), entry) for entry in ("xtl", "ytl", "xbr", "ybr")))
    # Turns by whole circles are none, and infinite ones become NaN, which a later step refuses.
    degrees = number(entries.get("rotation", "0"), "rotation") % 360
    if not degrees:
        return replace(shape, box=edges)
    corners = _turned(edges, degrees)
    xs, ys = zip(*corners, strict=True)
    return replace(
        shape,
        box=Box(min(xs), min(ys), max(xs), max(ys)),
        polygons=[[value for corner in corners for value in corner]],
        attributes={**shape.attributes, "rotation_deg": entries["rotation"]},
    )


def _turned(box: Box, degrees: float) -> list[tuple[float, float]]:
    """Corners of a box turned clockwise, as y goes down, about its centre, from what was the top left one."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x, y = (box.x_min + box.x_max) / 2, (box.y_min + box.y_max) / 2
    right, down = (box.x_max - box.x_min) / 2, (box.y_max - box.y_min) / 2
    sides = ((-right, -down), (right, -down), (right, down), (-right, down))
    return [(x + dx * cos - dy * sin, y + dx * sin + dy * cos) for dx, dy in sides]


def _polygon(shape: Shape, entries: Mapping[str, str], canvas: _Canvas) -> Shape:
    points = [point.split(",") for point in entries.get("points", "").split(";")]
    if bad := [point for point in points if len(point) != 2]:
        raise Invalid("number_invalid", f"points has {shown(','.join(bad[0]))}; allowed is x,y;x,y and so on")
    return replace(shape, polygons=[[number(word, "points") for point in points for word in point]])


def _mask(shape: Shape, entries: Mapping[str, str], canvas: _Canvas) -> Shape:
    """The mask as COCO has it: of the whole picture, by columns; CVAT has it of a window, by rows."""
    if canvas.width_px is None or canvas.height_px is None:
        raise Invalid("size_missing", "the picture's width or height is missing, without which there is no mask")
    if canvas.width_px * canvas.height_px > MAX_MASK_PIXELS:
        raise Invalid(
            "too_large",
            f"a mask on a picture of {canvas.width_px} x {canvas.height_px}; allowed are {MAX_MASK_PIXELS} pixels",
        )
    left, top = (whole(entries.get(entry), entry) for entry in ("left", "top"))
    width, height = (whole(entries.get(entry), entry, at_least=1) for entry in ("width", "height"))
    if left + width > canvas.width_px or top + height > canvas.height_px:
        raise Invalid(
            "mask_invalid",
            f"its window of {width} x {height} at ({left}, {top}) does not lie in the picture of {canvas.width_px} x "
            f"{canvas.height_px}",
        )
    runs = _runs(entries.get("rle", ""))
    if sum(runs) != width * height:
        raise Invalid("mask_invalid", f"its runs have {sum(runs)} pixels; its window of {width} x {height} has others")
    is_on = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)
    code = encode_mask(is_on, size=(canvas.height_px, canvas.width_px), offset=(top, left))
    return replace(shape, mask=Runs(canvas.height_px, canvas.width_px, code["counts"]))


def _runs(text: str) -> list[int]:
    """Lengths of runs, of pixels that are off and on in turn. Raises Invalid."""
    try:
        # Python alone would also read 1_0, -1, and digits of other scripts.
        if not text.strip("0123456789, \t\r\n"):
            return [int(word) for word in text.split(",")]
    except ValueError:
        pass
    raise Invalid("mask_invalid", f"rle is {shown(text)}; allowed are whole numbers with commas between them")


_GEOMETRIES = {"box": _box, "polygon": _polygon, "mask": _mask}
