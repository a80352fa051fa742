"""Pascal VOC's XML: a file for each picture, with the boxes of its objects.

The format is that of Everingham et al., The Pascal Visual Object Classes (VOC) Challenge (2010), and of the development
kit at http://host.robots.ox.ac.uk/pascal/VOC/, with what Roboflow adds (`polygon`). Pixels count from 1 in the files,
and a box includes its last ones; what comes out are edges, from 0.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from .. import uris
from ..annotation_types import AnnotationError, Box, Picture, Problem, Said, Shape
from ._xml import Elements, Invalid, number, problem, safe_name, shown, size, text_of

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

FILES: tuple[str, ...] = ("*.xml",)
MAX_BYTES = 16 << 20

_EDGES = ("xmin", "ymin", "xmax", "ymax")
_PICTURE_ENTRIES = frozenset({"filename", "size.width", "size.height"})
_SHAPE_ENTRIES = frozenset({"name", *(f"bndbox.{edge}" for edge in _EDGES)})


def read(uri: str) -> Iterator[Said]:
    """What a file says: its picture, and a shape for each object, named by its place in the file from 0.

    A box from `xmin` to `xmax` reaches from `xmin - 1` to `xmax`, so that one with both alike is a pixel wide. Points
    of a polygon are moved by 1 up and left. Raises AnnotationError, OSError.
    """
    with uris.open_input(uri) as stream:
        root = _root(Elements(stream, limit_bytes=MAX_BYTES, what="it"))
    objects = root.findall("object")
    try:
        name = safe_name(text_of(root, "filename"), "filename")
    except Invalid as error:
        # Nobody could say what picture they are on.
        yield problem(error, root, picture=uri, what=f"the picture, and the {len(objects)} objects on it")
        return
    yield from _picture(uri, name, root)
    for place, element in enumerate(objects):
        yield from _object(uri, place, element)


def _root(elements: Elements) -> Element:
    root = elements.root()
    if root.tag != "annotation":
        raise AnnotationError("not_voc", f"its outermost element is {shown(root.tag)}; Pascal VOC has <annotation>")
    return elements.finish(root)


def _picture(uri: str, name: str, root: Element) -> Iterator[Picture | Problem]:
    width_px = height_px = None
    try:
        width_px, height_px = (size(root.findtext(f"size/{side}"), side) for side in ("width", "height"))
    except Invalid as error:
        yield problem(error, root, picture=uri, what="the size of the picture")
    attributes = _attributes(root, elsewhere=("object",), known=_PICTURE_ENTRIES)
    yield Picture(key=uri, name=name, width_px=width_px, height_px=height_px, attributes=attributes)


def _object(uri: str, place: int, element: Element) -> Iterator[Shape | Problem]:
    try:
        yield _shape(uri, place, element)
    except Invalid as error:
        yield problem(error, element, picture=uri, what=f"object {place}")
    for part in element.findall("part"):
        name = shown(text_of(part, "name"))
        error = Invalid("unsupported_part", f"it has a part, whose name is {name}; supported are whole objects")
        yield problem(error, part, picture=uri, what=f"object {place}")


def _shape(uri: str, place: int, element: Element) -> Shape:
    label = text_of(element, "name")
    if not label:
        raise Invalid("label_missing", "name is missing or empty; allowed is the name of a class")
    box = _box(element.findall("bndbox"))
    polygons = [polygon for each in element.findall("polygon") if (polygon := _polygon(each))]
    if not box and not polygons:
        raise Invalid("box_missing", "it has no bndbox and no polygon; one of them is needed")
    return Shape(
        picture=uri,
        label=label,
        id=str(place),
        box=box,
        polygons=polygons or None,
        attributes=_attributes(element, elsewhere=("part", "polygon"), known=_SHAPE_ENTRIES),
    )


def _box(elements: list[Element]) -> Box | None:
    if not elements:
        return None
    if len(elements) > 1:
        raise Invalid("box_ambiguous", f"it has {len(elements)} bndbox; allowed is one: make an object of each")
    x_min, y_min, x_max, y_max = (number(elements[0].findtext(edge), edge) for edge in _EDGES)
    return Box(x_min - 1, y_min - 1, x_max, y_max)


def _polygon(element: Element) -> list[float]:
    """The polygon of the elements x1, y1, x2, y2, ..., in any order; an empty one for none."""
    entries = [f"{axis}{point}" for point in range(1, (len(element) + 1) // 2 + 1) for axis in "xy"]
    texts = {child.tag: child.text for child in element}
    if unknown := sorted(texts.keys() - entries):
        raise Invalid("polygon_invalid", f"polygon has {shown(unknown[0])}; allowed are x1, y1, x2, y2 and so on")
    return [number(texts.get(entry), entry) - 1 for entry in entries]


def _attributes(element: Element, *, elsewhere: Collection[str], known: Collection[str]) -> dict[str, str]:
    """What else stands in an element, by path (`source.database`); what stands there repeatedly is a list in JSON.

    Children of a tag in `elsewhere` have been read on their own, and of a `known` path the first.
    """
    found: dict[str, list[str]] = {}
    for path, text in _texts(element):
        if path.partition(".")[0] not in elsewhere:
            found.setdefault(path, []).append(text)
    rest = {path: texts[1:] if path in known else texts for path, texts in found.items()}
    return {
        path: texts[0] if len(texts) == 1 else json.dumps(texts, ensure_ascii=False)
        for path, texts in rest.items()
        if texts
    }


def _texts(element: Element, path: str = "") -> Iterator[tuple[str, str]]:
    """Every text and attribute inside of an element, with its path."""
    yield from ((path + name, value) for name, value in element.attrib.items())
    for child in element:
        if text := (child.text or "").strip():
            yield path + child.tag, text
        yield from _texts(child, f"{path}{child.tag}.")
