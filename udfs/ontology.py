"""The labels of a project, and what becomes of the labels that models have."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from ._errors import ModelError

COCO = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant",
    "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard",
    "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli",
    "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet",
    "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink",
    "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip
"""The 80 classes of COCO's objects (Lin et al., arXiv:1405.0312), in its order."""

_GAP = re.compile(r"N/A|unnamed \d+")
"""What models call numbers without a class: COCO's classes, as torchvision and others number them, have gaps."""


@dataclass(frozen=True, kw_only=True)
class Ontology:
    """Classes, whose ids are their places; other names of theirs; and what is left out.

    A model's label is a class, an alias of one, or dropped. So what `aliases` and `drop` name need not be known to
    every model, but each label of a model must be known here.
    """

    classes: tuple[str, ...]
    aliases: tuple[tuple[str, str], ...] = ()
    drop: tuple[str, ...] = ()

    def mapping(self, labels: Sequence[str]) -> Mapping[str, tuple[int, str] | None]:
        """Id and class for each of a model's labels, None for those that are dropped or stand for no class.

        Raises ModelError for labels that are neither.
        """
        places = {name: place for place, name in enumerate(self.classes)}
        aliases = dict(self.aliases)
        meant = {label: aliases.get(label, label) for label in labels}
        dropped = {
            *self.drop,
            *(label for label, name in meant.items() if name not in places and _GAP.fullmatch(label)),
        }
        unknown = [label for label, name in meant.items() if name not in places and label not in dropped]
        if unknown:
            near = {match for label in unknown for match in get_close_matches(label, self.classes, n=1)}
            advice = f"did you mean {', '.join(sorted(near))}? " if near else ""
            more = f" and {len(unknown) - 20} more" if len(unknown) > 20 else ""
            raise ModelError(
                f"ontology: it says nothing of {', '.join(unknown[:20])}{more}, labels of this model; {advice}"
                "Give them a class in aliases, add them to classes, or drop them"
            )
        return {
            label: None if label in dropped else (places[name], name) for label, name in meant.items()
        }  # fmt: skip
