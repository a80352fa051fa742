"""Pascal VOC: pictures, an XML file for each, and lists of the splits (Everingham et al., 2010).

Pixels count from 1 and a box includes its last ones: edges from 0.0 to 10.0 are 1 to 10. Edges within a pixel keep
their fraction, as whole numbers would move them. A crowd is `difficult`: VOC's evaluation leaves these out as COCO's
leaves out crowds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from xml.etree import ElementTree

from ..export_types import ExportObject, ExportPlan, Sample, Shard, Target

TASKS = ("detection",)
UNIT = "frames"
_ENTRIES = frozenset({"filename", "size", "object", "visionlake", "name", "bndbox"})
_CONTROL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write_shard(shard: Shard, samples: Iterator[Sample], plan: ExportPlan, target: Target) -> None:
    """Pictures with their XML files."""
    for sample in samples:
        assert sample.image is not None
        target.write(f"JPEGImages/{sample.picture_name}", sample.image)
        target.write(f"Annotations/{sample.stem}.xml", _xml(sample))


def write_split(split: str, samples: Iterator[Sample], plan: ExportPlan, target: Target) -> None:
    """The list of a split's pictures."""
    with target.open(f"ImageSets/Main/{split}.txt") as file:
        for sample in samples:
            file.write(f"{sample.stem}\n".encode())


def set_files(plan: ExportPlan) -> Mapping[str, bytes]:
    """None: every file tells all of its picture."""
    return {}


def _xml(sample: Sample) -> bytes:
    root = ElementTree.Element("annotation")
    _add(root, "filename", sample.picture_name)
    size = ElementTree.SubElement(root, "size")
    depth = sample.attributes.get("size.depth", "3")
    for name, value in (("width", sample.width_px), ("height", sample.height_px), ("depth", depth)):
        _add(size, name, str(value))
    _add_attributes(root, sample.attributes)
    own = ElementTree.SubElement(root, "visionlake")
    for name in ("media_id", "stream_index", "pts", "pts_s", "image_name", "labelled_by"):
        if (value := getattr(sample, name)) is not None:
            _add(own, name, str(value))
    for each in sample.objects:
        _add_object(root, each)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n"


def _add_object(root: ElementTree.Element, each: ExportObject) -> None:
    found = ElementTree.SubElement(root, "object")
    _add(found, "name", each.label)
    _add_attributes(found, {**each.attributes, **({"difficult": "1"} if each.iscrowd else {})})
    box = ElementTree.SubElement(found, "bndbox")
    x_min, y_min, x_max, y_max = each.box
    for name, value in (("xmin", x_min + 1), ("ymin", y_min + 1), ("xmax", x_max), ("ymax", y_max)):
        _add(box, name, str(int(value)) if value == int(value) else repr(value))
    told = {"score": each.score, "track_id": each.track_id}
    for name, value in told.items():
        if value is not None and name not in each.attributes:
            _add(found, name, str(value))


def _add_attributes(parent: ElementTree.Element, attributes: Mapping[str, str]) -> None:
    """Entries as they came: `difficult`, `source.database`."""
    for name, value in sorted(attributes.items()):
        outer, _, inner = name.partition(".")
        if outer in _ENTRIES:
            continue
        found = parent.find(_tag(outer)) if inner else None
        if inner and found is None:
            found = ElementTree.SubElement(parent, _tag(outer))
        _add(parent if found is None else found, _tag(inner or outer), value)


def _tag(name: str) -> str:
    """A name as XML allows it."""
    found = re.sub(r"[^A-Za-z0-9_.-]", "_", name)
    return found if re.match("[A-Za-z_]", found) else f"_{found}"


def _add(parent: ElementTree.Element, name: str, text: str) -> None:
    ElementTree.SubElement(parent, name).text = _CONTROL.sub("\ufffd", text)
